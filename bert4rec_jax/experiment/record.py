"""Record: describes a run, its data and results, and logs every use of the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bert4rec_jax.config import to_json
from bert4rec_jax.data.split import Cases
from bert4rec_jax.evaluation import ledger
from bert4rec_jax.evaluation.rank_file import VALIDATION, VALIDATION_RANKS, RankFile, cases_sha256
from bert4rec_jax.experiment import environment
from bert4rec_jax.experiment.corrections import Corrections
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.experiment.testing import Tested
from bert4rec_jax.training.digests import digest, fingerprint
from bert4rec_jax.training.fit import TrainResult


def describe_data(setting: Setting) -> dict[str, Any]:
    """The data, its split and the evaluation cases, as JSON values."""
    source, store, split = setting.source, setting.store, setting.split

    def cases(found: Cases, name: str = "") -> dict[str, Any]:
        among, repeats = split.within.get(name), setting.config.data.repeats
        return {
            "cases": len(found),
            "left_out": dict(found.dropped),
            "cases_sha256": cases_sha256(found, store, within=among, repeats=repeats),
        }

    return {
        "fingerprint": store.fingerprint,
        "catalog_fingerprint": store.catalog.fingerprint,
        "content_sha256": fingerprint(setting.training_data.known_of_items),
        "users_sha256": fingerprint(setting.users),
        "source": store.manifest["source"],
        "users": source.num_users,
        "items": len(source.catalog),
        "interactions": source.num_interactions,
        "split": split.name,
        "validation": cases(split.validation),
        **{name: cases(found, name) for name, found in setting.tested().items()},
    }


def describe_run(
    setting: Setting,
    recipe: str,
    fitted: TrainResult,
    corrections: Corrections,
    tested: Tested,
    evaluation: float,
) -> dict[str, Any]:
    """What `metrics.json` says of a run, as JSON values; `evaluation` in seconds."""
    return {
        "recipe": recipe,
        "config": to_json(setting.config),
        "data": describe_data(setting),
        "device": environment.describe(setting.mesh),
        "seconds": {"training": round(fitted.seconds, 1), "evaluation": round(evaluation, 1)},
        "steps": {
            "done": fitted.last_step,
            "best": fitted.step,
            "resumed_from": fitted.resumed_from,
        },
        "parameters_sha256": {
            "tested": digest(fitted.params),
            "after_last_step": fitted.last_digest,
        },
        "corrections_sha256": corrections.digest,
        **tested.to_json(),
    }


def record(
    setting: Setting, tested: Tested, command: str, parameters: str, corrections: Corrections
) -> None:
    """Write the rank of every case, and log a use of the test split in the run's ledger."""
    workdir, sets = Path(setting.config.workdir), setting.tested()
    of_model: dict[str, Any] = {
        "repeats": setting.config.data.repeats,
        "parameters": parameters,
        "corrections": corrections.digest,
    }
    RankFile.of(
        {VALIDATION: tested.validation_ranks},
        {VALIDATION: setting.split.validation},
        setting.store,
        **of_model,
    ).join(workdir / VALIDATION_RANKS)
    if tested.comparison.assessments:
        ranks = RankFile.of(
            {
                name: {model: answer.ranks for model, answer in answers.items()}
                for name, answers in tested.comparison.rankings.items()
            },
            sets,
            setting.store,
            within=setting.split.within,
            drawn={name: found[0].drawn for name, found in tested.comparison.assessments.items()},
            **of_model,
        )
        about = {
            "command": command,
            "split": setting.split.name,
            "data": setting.store.fingerprint,
            "parameters_sha256": parameters,
            "device": environment.describe(setting.mesh),
        }
        ledger.record(workdir, tested.comparison, sets, ranks, about=about)
