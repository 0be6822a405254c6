"""An experiment: prepare, train, select, test beside baselines, show and record.

This is what `train.py` runs. It composes the other parts and computes nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape

from bert4rec_jax import environment
from bert4rec_jax.calibration import calibrate
from bert4rec_jax.config import Config, differences, to_json
from bert4rec_jax.corrections import Corrections
from bert4rec_jax.data.split import Cases, train_counts
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation import ledger, sampled
from bert4rec_jax.evaluation.baselines import Baseline
from bert4rec_jax.evaluation.comparison import Ask, Comparison, compare
from bert4rec_jax.evaluation.evaluator import Ranking
from bert4rec_jax.evaluation.metrics import summary
from bert4rec_jax.evaluation.metrics_file import METRICS, joined, read_metrics
from bert4rec_jax.evaluation.rank_file import RankFile, cases_sha256, check_names
from bert4rec_jax.evaluation.tables import recommendations_table, results_table
from bert4rec_jax.evaluation.tuning import (
    GRIDS,
    SPECIAL,
    Grid,
    TunedBaseline,
    check_grids,
    tune,
    tune_all,
)
from bert4rec_jax.outputs import write_arrays, write_json
from bert4rec_jax.processes import is_first, start_processes
from bert4rec_jax.setting import (
    FINAL,
    REFIT,
    Setting,
    as_served,
    open_finished,
    open_setting,
)
from bert4rec_jax.sharding import cores_as_devices
from bert4rec_jax.training.fit import (
    TrainResult,
    digest,
    fit,
)
from bert4rec_jax.training.growth import earlier_tokens, grown_state
from bert4rec_jax.training.step import TrainState

_FEW_CASES = 100  # below, a user is told
NAMES = {"bert4rec": "BERT4Rec", "two-tower": "two towers"}  # in tables and metrics.json, by kind


def run(
    config: Config,
    *,
    recipe: str = "run",
    console: Console | None = None,
    baselines: Mapping[str, Grid] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run a config to its end, or continue where an earlier run of it in the same workdir stopped.

    A finished run is evaluated again; what earlier commands found out about the same parameters,
    corrections and cases stays beside what this one finds.

    Args:
      config: all settings.
      recipe: what the run is called in its output and in `metrics.json`.
      console: shows progress and tables; None for the terminal, `Console(quiet=True)` for nothing.
      baselines: name -> grid of one that is tuned and tested beside the usual ones, also where
        the config leaves these out.

    Returns:
      What is written to `WORKDIR/metrics.json`.

    Raises:
      UserError: anything the user can fix.
      Interrupted: asked to stop; the state is saved, and the same call continues.
    """
    _check_own(baselines)
    start_processes()
    cores_as_devices(
        config.training.batch_size,
        config.evaluation.batch_size,
        data=config.mesh.data,
        model=config.mesh.model,
    )
    console = console or Console(quiet=not is_first())
    setting = open_setting(config, console)
    path = Path(config.workdir) / METRICS
    earlier = read_metrics(path)  # by all processes, before one writes
    check_grids(baselines, setting.store, setting.split.train_stop)
    _introduce(setting, recipe, console)
    started = time.monotonic()
    fitted = _train(setting, console)
    trained = time.monotonic()
    corrections = calibrate(setting, fitted.params, console)
    tested = _test(
        setting,
        fitted.params,
        setting.trained(setting.split.refit_stop),
        corrections,
        fitted.validations,
        console,
        test=config.evaluation.test,
        baselines=baselines,
    )
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
        "corrections_sha256": corrections.digest,
        **tested.to_json(),
    }
    results = joined(results, earlier)
    if is_first():
        parameters = results["parameters_sha256"]["tested"]
        _record(setting, tested, "train", parameters, corrections)
        write_json(path, results)
        _show(setting, tested, console)
        console.print(f"Written: {path}", highlight=False)
    if config.final_fit:
        _train_on_all(setting, fitted.step, console)
    return results


def evaluate(
    workdir: str | PathLike[str],
    *,
    exported: Mapping[str, Callable[..., Ranking]] | None = None,
    console: Console | None = None,
    baselines: Mapping[str, Grid] = MappingProxyType({}),
) -> dict[str, Any]:
    """Test the best checkpoint of a run, finished or not, and show the same tables.

    Args:
      workdir: of the run.
      exported: name -> another form of the model to test beside it, asked with the store before the
        arguments of `comparison.Ask`.
      console: where tables go.
      baselines: as for `run`.

    Raises:
      UserError: the folder holds no checkpoint that can be read, or may not be written to; or a
        baseline's name is taken.
    """
    _check_own(baselines)
    start_processes()
    console = console or Console(quiet=not is_first())
    if is_first():
        ledger.require_writable(Path(workdir))
    finished = open_finished(Path(workdir), console)
    setting, best = finished.setting, finished.best
    check_grids(baselines, setting.store, setting.split.train_stop)
    tested = _test(
        setting,
        best.state.params,
        finished.trained,
        finished.corrections,
        finished.validations,
        console,
        test=True,
        exported=exported or {},
        baselines=baselines,
    )
    parameters = digest(best.state.params)
    if is_first():
        _record(setting, tested, "evaluate", parameters, finished.corrections)
        _show(setting, tested, console)
    return {
        "steps": {"tested": best.step},
        "parameters_sha256": {"tested": parameters},
        "corrections_sha256": finished.corrections.digest,
        **tested.to_json(),
    }


@dataclass(frozen=True)
class _Tested:
    """All models beside each other on test, and how each was chosen."""

    comparison: Comparison
    validation: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """`validation` and each test set: model -> metrics."""
        return {"validation": self.validation, **self.comparison.to_json()}


def _train(setting: Setting, console: Console) -> TrainResult:
    """Train until the best validation; where the split asks for it, once more on all up to T."""
    config, split = setting.config, setting.split
    trained = setting.trained(split.train_stop)

    def validate(params: Any) -> dict[str, float]:
        return summary(setting.ask(params, trained, split.validation).ranks)

    workdir, data = Path(config.workdir), setting.training_data
    initial = partial(_grown, setting, console) if config.init_from else None
    selected = fit(
        config,
        data,
        mesh=setting.mesh,
        stop=split.train_stop,
        folder=workdir,
        console=console,
        title="training",
        validate=validate,
        initial=initial,
    )
    if not split.refits:
        return selected
    refitted = fit(
        config,
        data,
        mesh=setting.mesh,
        stop=split.refit_stop,
        folder=workdir / REFIT,
        console=console,
        title="refit up to T",
        validate=None,
        steps=selected.step,
        initial=initial,
    )
    return replace(refitted, validations=selected.validations)


def _train_on_all(setting: Setting, steps: int, console: Console) -> None:
    """Train the model that is served, which is never tested: nothing is held out from it."""
    config = setting.config
    fit(
        config,
        setting.training_data,
        mesh=setting.mesh,
        stop=np.asarray(setting.store.offsets[1:]),
        folder=Path(config.workdir) / FINAL,
        console=console,
        title="final fit on all events",
        validate=None,
        steps=steps,
        initial=partial(_grown, setting, console) if config.init_from else None,
    )


def _grown(setting: Setting, console: Console, fresh: TrainState) -> TrainState:
    """The first state of a run that begins from an earlier one.

    Raises:
      UserError: the earlier run cannot be read, or its model is another one.
    """
    config = setting.config
    try:
        earlier = as_served(open_finished(Path(config.init_from), console), console)
    except UserError as error:
        raise UserError(
            f"cannot begin from {config.init_from}: {error}. An earlier run is opened with the "
            "data and the content that it was trained on, so keep these in folders of their own"
        ) from None
    then = earlier.setting.config
    as_then = replace(config, model=then.model)
    as_then = replace(as_then, data=replace(config.data, max_length=then.data.max_length))
    changed = differences(to_json(as_then), to_json(config))
    if changed:
        listed = "\n  ".join(changed)
        raise UserError(
            f"{config.init_from} trained another model:\n  {listed}\nleave these settings out to "
            "take those of the earlier run"
        )
    if earlier.setting.encoding != setting.encoding:
        raise UserError(
            f"{config.init_from} was trained on content with other columns; use the same "
            "data.content, and make a folder for it with `bert4rec features --like CONTENT`"
        )
    if earlier.setting.user_encoding != setting.user_encoding:
        with_or_without = "without" if earlier.setting.user_encoding is None else "with"
        raise UserError(
            f"{config.init_from} was trained {with_or_without} user features; go on "
            f"{with_or_without} --data.users to begin from it"
        )
    catalog = setting.store.catalog
    tokens = earlier_tokens(catalog, earlier.setting.store.catalog, earlier.trained)
    kept = int((tokens[catalog.is_item()] >= 0).sum())
    console.print(
        f"  beginning from step {earlier.best.step:,} of {config.init_from}, which knows {kept:,} "
        f"of {len(catalog):,} items",
        highlight=False,
    )
    return grown_state(setting.mesh, fresh, earlier.best.state, tokens)


def _test(
    setting: Setting,
    params: Any,
    trained: npt.NDArray[np.bool_],
    corrections: Corrections,
    validations: list[dict[str, float]],
    console: Console,
    *,
    test: bool,
    baselines: Mapping[str, Grid],
    exported: Mapping[str, Callable[..., Ranking]] = MappingProxyType({}),
) -> _Tested:
    """Tune the baselines; ask them and the model every test case, unless test is to stay unread."""
    config, store, evaluator = setting.config, setting.store, setting.evaluator
    if test:
        console.print("Ranking the whole catalog for every test user, baselines included ...")
    counts = train_counts(store, setting.split.refit_stop)
    model = NAMES[config.model.kind]
    validation: dict[str, Mapping[str, Any]] = {}
    if validations:
        best = max(validations, key=lambda v: (v[config.training.metric], v["step"]))
        alone = {name: round(v, 6) for name, v in best.items() if name != "step"}
        validation[model] = alone
        if corrections.moves and corrections.validation is not None:
            validation[model] = {name: round(v, 6) for name, v in corrections.validation.items()}
            validation[f"{model} alone"] = alone
    tuned = _tuned(setting, baselines)
    for name, choice in tuned.items():
        validation[name] = {
            "ndcg@10": round(choice.chosen.ndcg, 6),
            "settings": dict(choice.chosen.settings),
            "trials": len(choice.trials),
        }

    if not test:
        return _Tested(Comparison({}, {}, {}), validation)

    models: dict[str, Ask] = {model: partial(setting.ask, params, trained, corrections=corrections)}
    if corrections.moves:
        models[f"{model} alone"] = partial(
            setting.ask, params, trained, corrections=Corrections(corrections.offset_alone)
        )
    models |= {
        name: partial(ask, store, users=setting.known_users) for name, ask in exported.items()
    }
    for name, choice in tuned.items():
        models[name] = partial(evaluator.rank_scorer, choice.baseline)
    check_names(models)
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
        sampled_lists=lists,
        within=setting.split.within,
    )
    return _Tested(comparison, validation)


def _tuned(setting: Setting, own: Mapping[str, Grid]) -> dict[str, TunedBaseline]:
    """The usual baselines, unless the config leaves them out, and those that were given."""
    config, store, split = setting.config, setting.store, setting.split

    def rank(baseline: Baseline, cases: Cases) -> npt.NDArray[np.int64]:
        return setting.evaluator.rank_scorer(baseline, cases).ranks

    found: dict[str, TunedBaseline] = {}
    if config.evaluation.baselines:
        found = tune_all(
            store,
            split,
            rank,
            content=setting.content,
            request_time=config.model.times,
            repeats=config.data.repeats,
        )
    for name, grid in own.items():
        found[name] = tune(grid(store, split.train_stop), store=store, split=split, rank=rank)
    return found


def _check_own(baselines: Mapping[str, Grid]) -> None:
    """Refuse names that a results table has already, before any work is done."""
    if not isinstance(baselines, Mapping):
        raise UserError(f"baselines is a {type(baselines).__name__}; expected a dict, name -> grid")
    check_names(baselines)
    models = [name for kind in NAMES.values() for name in (kind, f"{kind} alone")]
    for name in baselines:
        if name in (*models, *GRIDS, *SPECIAL):
            raise UserError(f"baseline {name!r} is there already; give yours another name")


def _record(
    setting: Setting, tested: _Tested, command: str, parameters: str, corrections: Corrections
) -> None:
    """Leave a trace of having read the test split."""
    if tested.comparison.assessments:
        sets = setting.tested()
        ranks = RankFile.of(
            {
                name: {model: answer.ranks for model, answer in answers.items()}
                for name, answers in tested.comparison.rankings.items()
            },
            sets,
            setting.store,
            within=setting.split.within,
            repeats=setting.config.data.repeats,
            parameters=parameters,
            corrections=corrections.digest,
        )
        about = {
            "command": command,
            "split": setting.split.name,
            "data": setting.store.fingerprint,
            "parameters_sha256": parameters,
            "device": environment.describe(setting.mesh),
        }
        ledger.record(Path(setting.config.workdir), tested.comparison, sets, ranks, about=about)


def _introduce(setting: Setting, recipe: str, console: Console) -> None:
    config, source, split = setting.config, setting.source, setting.split
    device = jax.devices()[0]
    console.print(
        f"[bold]{recipe}[/] on {escape(config.data.path)}: {source.num_interactions:,} "
        f"interactions of {source.num_users:,} users with {len(source.catalog):,} items, "
        f"{split.name.replace('_', ' ')}, on {jax.device_count()} x {device.device_kind} "
        f"({' x '.join(f'{n} {axis}' for axis, n in setting.mesh.shape.items())})",
        highlight=False,
    )
    for name, cases in {"validation": split.validation, **split.test}.items():
        for reason, count in cases.dropped.items():
            console.print(f"  {name}: {count:,} users left out: {reason}", highlight=False)
        if len(cases) < _FEW_CASES:
            console.print(
                f"[yellow]  {name} has only {len(cases):,} cases: figures, early stopping and "
                "calibration that rest on so few are mostly chance",
                highlight=False,
            )


def _describe(setting: Setting) -> dict[str, Any]:
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
        "source": store.manifest["source"],
        "users": source.num_users,
        "items": len(source.catalog),
        "interactions": source.num_interactions,
        "split": split.name,
        "validation": cases(split.validation),
        **{name: cases(found, name) for name, found in setting.tested().items()},
    }


def _show(setting: Setting, tested: _Tested, console: Console) -> None:
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
    asked = "users" if setting.split.cold_validation is None else "questions"
    for name, models in tested.comparison.assessments.items():
        within = setting.split.within.get(name)
        among = f"all {items}" if within is None else f"{len(within):,} cold"
        title = (
            f"{name.replace('_', ' ')}: {len(sets[name]):,} {asked}, ranked among {among} items "
            f"({setting.split.name.replace('_', ' ')})"
        )
        console.print()
        console.print(results_table(title, models))
        if setting.split.cold_validation is not None and within is None:
            shares = ", ".join(f"{m.name} {m.metrics['cold_exposure@10']:.1%}" for m in models)
            console.print(f"Share of untrained items in the lists: {shares}", highlight=False)
    for name, answers in list(tested.comparison.rankings.items())[:1]:
        chosen = answers[NAMES[setting.config.model.kind]]
        console.print(recommendations_table(sets[name], chosen, setting.store, setting.catalog))
