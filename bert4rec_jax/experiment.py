"""An experiment: prepare, train, select, test beside baselines, show and record.

This is what `train.py` runs. It composes the other parts and computes nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh
from rich.console import Console

from bert4rec_jax import environment
from bert4rec_jax.config import Config, DataConfig, from_json, to_json
from bert4rec_jax.data.prepare import is_prepared_from, prepare
from bert4rec_jax.data.split import Cases, Split, global_time, leave_one_out, train_counts
from bert4rec_jax.data.store import SequenceStore, is_store
from bert4rec_jax.data.thumbs import UP, default_thresholds, to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation import ledger, sampled
from bert4rec_jax.evaluation.comparison import Ask, Comparison, compare
from bert4rec_jax.evaluation.evaluator import Evaluator, Ranking
from bert4rec_jax.evaluation.metrics import known, summary
from bert4rec_jax.evaluation.tables import recommendations_table, results_table
from bert4rec_jax.evaluation.tuning import Tuned, tune_all
from bert4rec_jax.features.content import Content, content_rows
from bert4rec_jax.features.encoder import fit as fit_encoder
from bert4rec_jax.features.movie import movies_of
from bert4rec_jax.features.options import Options
from bert4rec_jax.models.bert4rec import BERT4Rec
from bert4rec_jax.outputs import write_arrays, write_json
from bert4rec_jax.processes import barrier, is_first, start_processes
from bert4rec_jax.sharding import check_divides, make_mesh
from bert4rec_jax.training.checkpoints import check_same_config, read_config
from bert4rec_jax.training.fit import (
    Features,
    Fitted,
    build_model,
    catalog_constants,
    digest,
    fit,
    load_best,
)

MODEL = "BERT4Rec"
_REFIT = "refit"


def run(config: Config, *, recipe: str, console: Console | None = None) -> dict[str, Any]:
    """Run a config to its end, or continue where an earlier run of it in the same workdir stopped.

    Returns:
      What is written to `WORKDIR/metrics.json`.

    Raises:
      UserError: anything the user can mend.
      Interrupted: asked to stop; the state is saved, and the same call continues.
    """
    setting, console = _open(config, console)
    _introduce(setting, recipe, console)
    started = time.monotonic()
    fitted = _train(setting, console)
    trained = time.monotonic()
    tested = _test(setting, fitted.params, fitted.validations, console, test=config.evaluation.test)
    results = {
        "recipe": recipe,
        "config": to_json(config),
        "data": _describe(setting),
        "device": environment.describe(setting.mesh),
        "seconds": {
            "training": round(trained - started, 1),
            "evaluation": round(time.monotonic() - trained, 1),
        },
        "steps": {
            "done": fitted.last_step,
            "best": fitted.step,
            "resumed_from": fitted.resumed_from,
        },
        "parameters_sha256": {
            "tested": digest(fitted.params),
            "after_last_step": fitted.last_digest,
        },
        **tested.to_json(),
    }
    if is_first():
        path = Path(config.workdir) / "metrics.json"
        write_json(path, results)
        _show(setting, tested, console)
        _record(setting, tested, "train", results["parameters_sha256"]["tested"])
        console.print(f"Written: {path}", highlight=False)
    return results


def evaluate(workdir: Path, *, console: Console | None = None) -> dict[str, Any]:
    """Test the best checkpoint of a run, finished or not, and show the same tables.

    Raises:
      UserError: the folder holds no checkpoint that can be read.
    """
    values = read_config(workdir / "checkpoints")
    if values is None:
        raise UserError(f"{workdir} holds no checkpoint; train with --workdir {workdir} first")
    config = replace(from_json(values), workdir=str(workdir))
    setting, console = _open(config, console)
    refitted = setting.split.refits and (workdir / _REFIT / "checkpoints").is_dir()
    folder = workdir / _REFIT if refitted else workdir
    open_best = partial(
        load_best, config, mesh=setting.mesh, store=setting.store, content=setting.content
    )
    best = open_best(folder=folder)
    selected = best
    if refitted:
        selected = open_best(folder=workdir)
    tested = _test(setting, best.state.params, selected.record.validations, console, test=True)
    parameters = digest(best.state.params)
    if is_first():
        _show(setting, tested, console)
        _record(setting, tested, "evaluate", parameters)
    return {
        "steps": {"tested": best.step},
        "parameters_sha256": {"tested": parameters},
        **tested.to_json(),
    }


def open_data(config: DataConfig, workdir: Path, console: Console) -> SequenceStore:
    """The prepared data: that of `config.path`, or made from it once and kept in the workdir.

    Raises:
      UserError: see `prepare` and `SequenceStore.open`.
    """
    given = Path(config.path)
    if is_store(given):
        return SequenceStore.open(given)
    path = workdir / "data"
    users, items = config.min_user_interactions, config.min_item_interactions
    if is_first() and not is_prepared_from(
        path, config.path, min_user_interactions=users, min_item_interactions=items
    ):
        prepare(
            config.path,
            path,
            min_user_interactions=users,
            min_item_interactions=items,
            notify=lambda sentence: console.print(sentence, highlight=False),
        )
    barrier("data is prepared")
    return SequenceStore.open(path)


def open_content(path: str, store: SequenceStore, counts: npt.NDArray[np.int64]) -> Features | None:
    """`[V, F]`: the items' content; None for an empty path.

    Args:
      path: a folder made by `bert4rec features`, or `catalog` for what came with the titles.
      store: the data.
      counts: `[V]` training interactions per token; only items that have any shape the columns.

    Raises:
      UserError: see `Content.open` and `encoder.fit`.
    """
    if not path:
        return None
    catalog = store.catalog
    if path != "catalog":
        return Content.open(Path(path), catalog).matrix
    movies = movies_of(catalog)
    fitted = counts[catalog.is_item()] > 0
    encoder = fit_encoder(movies, fitted, options=Options(blocks=("genres", "numbers")))
    return content_rows(catalog, encoder.encode(movies))


@dataclass(frozen=True, eq=False)
class _Setting:
    """What a run is about: its settings, devices, data and questions."""

    config: Config
    mesh: Mesh
    store: SequenceStore
    split: Split
    thumbs: tuple[float, float]
    content: Features | None
    evaluator: Evaluator

    def ask(
        self,
        params: Any,
        cases: Cases,
        among: Any = None,
        /,
        *,
        trained: npt.NDArray[np.bool_],
    ) -> Ranking:
        """A model's answers, given its parameters and which items it was trained on."""
        config, catalog = self.config, self.store.catalog
        scored = trained if self.content is None else trained | (self.content != 0).any(1)
        return self.evaluator.rank_model(
            self.model(),
            {
                "params": params,
                "catalog": catalog_constants(self.mesh, self.content, trained),
            },
            cases,
            known=scored & catalog.is_item(),
            max_length=config.data.max_length,
            causal=config.masking.objective == "next",
            among=among,
        )

    def model(self) -> BERT4Rec:
        """The module."""
        return build_model(
            self.config.model,
            num_rows=self.store.catalog.num_rows,
            max_length=self.config.data.max_length,
            content_dim=0 if self.content is None else self.content.shape[1],
        )

    def tested(self) -> dict[str, Cases]:
        """The named sets of test cases.

        Under the global-time split, cases whose user or target has no training event are a set of
        their own: published figures leave them out.
        """
        if not self.split.refits:
            return dict(self.split.test)
        sets: dict[str, Cases] = {}
        for name, cases in self.split.test.items():
            familiar = known(cases, self.store, self.split.refit_stop)
            sets[name] = cases[familiar]
            if not familiar.all():
                sets[f"{name}_new_users_or_items"] = cases[~familiar]
        return sets


@dataclass(frozen=True)
class _Tested:
    """All models beside each other on test, and how each was chosen."""

    comparison: Comparison
    validation: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """`validation` and each test set: model -> metrics."""
        return {"validation": self.validation, **self.comparison.to_json()}


def _open(config: Config, console: Console | None) -> tuple[_Setting, Console]:
    """Everything before the work: processes, devices, data. Refuses what cannot go on."""
    start_processes()
    console = console or Console(quiet=not is_first())
    workdir = Path(config.workdir)
    mesh = make_mesh(data=config.mesh.data, model=config.mesh.model)
    saved = read_config(workdir / "checkpoints")
    if saved is not None:  # before anything in the folder is touched
        check_same_config(saved, to_json(config), workdir)
    store = open_data(config.data, workdir, console)
    for batch_size in (config.training.batch_size, config.evaluation.batch_size):
        check_divides(mesh, batch_size=batch_size, num_rows=store.catalog.num_rows)
    thumbs = config.data.thumbs or default_thresholds(store.manifest["source"].get("max_rating"))
    if config.data.split == "global-time":
        split = global_time(store, quantile=config.data.time_quantile)
    elif config.data.targets == "liked":
        split = leave_one_out(store, to_thumbs(store.ratings, thumbs) >= UP)
    else:
        split = leave_one_out(store)
    content = open_content(config.data.content, store, train_counts(store, split.train_stop))
    evaluation = config.evaluation
    evaluator = Evaluator(mesh, store, evaluation.batch_size, evaluation.item_chunk, thumbs)
    return _Setting(config, mesh, store, split, thumbs, content, evaluator), console


def _train(setting: _Setting, console: Console) -> Fitted:
    """Train until the best validation; where the split asks for it, once more on all up to T."""
    config, store, split = setting.config, setting.store, setting.split
    trained = train_counts(store, split.train_stop) > 0

    def validate(params: Any) -> dict[str, float]:
        return summary(setting.ask(params, split.validation, trained=trained).ranks)

    workdir = Path(config.workdir)
    common: dict[str, Any] = {
        "mesh": setting.mesh,
        "store": store,
        "thumbs": setting.thumbs,
        "content": setting.content,
        "console": console,
    }
    selected = fit(
        config,
        stop=split.train_stop,
        folder=workdir,
        title="training",
        validate=validate,
        **common,
    )
    if not split.refits:
        return selected
    refitted = fit(
        config,
        stop=split.refit_stop,
        folder=workdir / _REFIT,
        title="refit up to T",
        validate=None,
        steps=selected.step,
        **common,
    )
    return replace(refitted, validations=selected.validations)


def _test(
    setting: _Setting,
    params: Any,
    validations: list[dict[str, float]],
    console: Console,
    *,
    test: bool,
) -> _Tested:
    """Tune the baselines; ask them and the model every test case, unless test is to stay unread."""
    config, store, evaluator = setting.config, setting.store, setting.evaluator
    if test:
        console.print("Ranking the whole catalog for every test user, beside the baselines ...")
    counts = train_counts(store, setting.split.refit_stop)
    validation: dict[str, Mapping[str, Any]] = {}
    if validations:
        best = max(validations, key=lambda v: (v[config.training.metric], v["step"]))
        validation[MODEL] = {name: round(v, 6) for name, v in best.items() if name != "step"}
    tuned: Mapping[str, Tuned] = {}
    if config.evaluation.baselines:
        tuned = tune_all(
            store, setting.split, lambda scorer, cases: evaluator.rank_scorer(scorer, cases).ranks
        )
    for name, choice in tuned.items():
        validation[name] = {
            "ndcg@10": round(choice.chosen.ndcg, 6),
            "settings": dict(choice.chosen.settings),
            "trials": len(choice.trials),
        }

    if not test:
        return _Tested(Comparison({}, {}, {}), validation)

    models: dict[str, Ask] = {MODEL: partial(setting.ask, params, trained=counts > 0)}
    for name, choice in tuned.items():
        models[name] = partial(evaluator.rank_scorer, choice.baseline)
    sets = setting.tested()
    for name in [name for name, cases in sets.items() if not len(cases)]:
        console.print(f"  {name}: no case is left to ask", highlight=False)
        del sets[name]
    lists: Mapping[str, Any] = {}
    if config.evaluation.sampled and sets:
        lists = sampled.draws(next(iter(sets.values())), store, counts)
        if is_first():
            write_arrays(Path(config.workdir) / "sampled_candidates.npz", lists)
    comparison = compare(
        models,
        sets,
        store,
        counts=counts,
        resamples=config.evaluation.bootstrap,
        seed=config.training.seed,
        sampled_lists=lists,
    )
    return _Tested(comparison, validation)


def _record(setting: _Setting, tested: _Tested, command: str, parameters: str) -> None:
    """Leave a trace of having read the test split."""
    if tested.comparison.assessments:
        about = {
            "command": command,
            "split": setting.split.name,
            "data": setting.store.fingerprint,
            "parameters_sha256": parameters,
            "device": environment.describe(setting.mesh),
        }
        sets = setting.tested()
        ledger.record(Path(setting.config.workdir), tested.comparison, sets, about=about)


def _introduce(setting: _Setting, recipe: str, console: Console) -> None:
    store, split = setting.store, setting.split
    device = jax.devices()[0]
    console.print(
        f"[bold]{recipe}[/]: {store.num_interactions:,} interactions of {store.num_users:,} users "
        f"with {len(store.catalog):,} items, {split.name.replace('_', ' ')}, on "
        f"{jax.device_count()} x {device.device_kind} "
        f"({' x '.join(f'{n} {axis}' for axis, n in setting.mesh.shape.items())})",
        highlight=False,
    )
    for name, cases in {"validation": split.validation, **split.test}.items():
        for reason, count in cases.dropped.items():
            console.print(f"  {name}: {count:,} users left out: {reason}", highlight=False)


def _describe(setting: _Setting) -> dict[str, Any]:
    store, split = setting.store, setting.split

    def cases(found: Cases) -> dict[str, Any]:
        return {"cases": len(found), "left_out": dict(found.dropped)}

    return {
        "fingerprint": store.fingerprint,
        "catalog_fingerprint": store.catalog.fingerprint,
        "source": store.manifest["source"],
        "users": store.num_users,
        "items": len(store.catalog),
        "interactions": store.num_interactions,
        "split": split.name,
        "validation": cases(split.validation),
        **{name: cases(found) for name, found in setting.tested().items()},
    }


def _show(setting: _Setting, tested: _Tested, console: Console) -> None:
    if not tested.comparison.assessments:
        scores = sorted(
            ((v["ndcg@10"], name) for name, v in tested.validation.items()), reverse=True
        )
        console.print(
            "validation NDCG@10: " + ", ".join(f"{name} {value:.4f}" for value, name in scores),
            highlight=False,
        )
    sets = setting.tested()
    items = f"{len(setting.store.catalog):,}"
    for name, models in tested.comparison.assessments.items():
        title = (
            f"{name.replace('_', ' ')}: {len(sets[name]):,} users, ranked among all {items} items "
            f"({setting.split.name.replace('_', ' ')})"
        )
        console.print()
        console.print(results_table(title, models))
    for name, answers in list(tested.comparison.rankings.items())[:1]:
        console.print(recommendations_table(sets[name], answers[MODEL], setting.store))
