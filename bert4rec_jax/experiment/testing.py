"""Testing: evaluates the model and tuned baselines on the same cases, of validation and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from bert4rec_jax.checks import require_a
from bert4rec_jax.config import OWN_NAMES
from bert4rec_jax.data.catalog import PAD
from bert4rec_jax.data.split import Cases, train_counts
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation import sampled
from bert4rec_jax.evaluation.baselines import Baseline
from bert4rec_jax.evaluation.comparison import Comparison, Ranker, compare
from bert4rec_jax.evaluation.evaluator import Ranking
from bert4rec_jax.evaluation.metrics import summary
from bert4rec_jax.evaluation.rank_file import check_names
from bert4rec_jax.evaluation.search import choosing
from bert4rec_jax.evaluation.tuning import GRIDS, SPECIAL, Grid, TunedBaseline, tune, tune_all
from bert4rec_jax.experiment.corrections import Corrections
from bert4rec_jax.experiment.setting import FittedModel, Setting
from bert4rec_jax.outputs import write_arrays
from bert4rec_jax.processes import is_first


@dataclass(frozen=True)
class Tested:
    """Results of all models.

    Attributes:
      comparison: of the test; empty where it was not read.
      validation: model -> the validation metrics by which it was chosen.
      validation_ranks: model -> `[M]`, the rank of every validation target; 1 is best.
    """

    comparison: Comparison
    validation: Mapping[str, Mapping[str, Any]]
    validation_ranks: Mapping[str, npt.NDArray[np.integer]]

    def to_json(self) -> dict[str, Any]:
        """`validation` and each test set: model -> metrics."""
        return {"validation": self.validation, **self.comparison.to_json()}


def evaluate_all(
    setting: Setting,
    model: FittedModel,
    selected: FittedModel,
    console: Console,
    *,
    test: bool,
    baselines: Mapping[str, Grid],
    exported: Mapping[str, Ranker] = MappingProxyType({}),
) -> Tested:
    """Tune the baselines, then evaluate them and the model on all test cases if `test` is set.

    Without `test`, no test case is read. `selected` is the model as validation selected it, for the
    validation cases; where the split refits, `model` was trained on these.
    """
    config, store = setting.config, setting.store
    if test:
        console.print(
            "Ranking the whole catalog for every test user, baselines included ...", highlight=False
        )
    tell = _teller(setting, console)
    tuned = _tuned(setting, baselines, tell)
    validated: dict[str, npt.NDArray[np.integer]] = {}
    for name, rank in _rankers(setting, selected).items():
        tell(f"ranking validation with {name}")
        validated[name] = rank(setting.split.validation).ranks
    validation = {
        name: {metric: round(value, 6) for metric, value in summary(ranks).items()}
        for name, ranks in validated.items()
    } | {name: _chosen(setting, name, choice) for name, choice in tuned.items()}
    validated |= {n: choice.ranks for n, choice in tuned.items() if "cases" not in validation[n]}
    if not test:
        return Tested(Comparison({}, {}, {}), validation, validated)

    rankers = {**_rankers(setting, model), **exported}
    for name, choice in tuned.items():
        rankers[name] = partial(setting.evaluator.rank_scorer, choice.baseline)
    check_names(rankers)
    rankers = {name: _announced(tell, name, rank) for name, rank in rankers.items()}
    sets = setting.tested()
    for name in [name for name, cases in sets.items() if not len(cases)]:
        console.print(f"  {name}: no case is left", highlight=False)
        del sets[name]
    counts = train_counts(store, setting.split.refit_stop)
    lists: Mapping[str, Any] = {}
    if config.evaluation.sampled and sets:
        lists = sampled.draws(next(iter(sets.values())), store, counts)
        fewest = int((lists["never_drawn"] != PAD).sum(axis=2).min()) - 1
        if fewest < sampled.NEGATIVES:
            console.print(
                f"[yellow]  the sampled protocol finds only {fewest:,} unseen items for some target"
                f", not {sampled.NEGATIVES}: its figures cannot be compared with published ones",
                highlight=False,
            )
        if is_first():
            write_arrays(Path(config.workdir) / "sampled_candidates.npz", lists)
    comparison = compare(
        rankers,
        sets,
        store,
        counts=counts,
        resamples=config.evaluation.bootstrap,
        sampled_lists=lists,
        within=setting.split.within,
    )
    return Tested(comparison, validation, validated)


def _chosen(setting: Setting, name: str, found: TunedBaseline) -> dict[str, Any]:
    """The validation metric of a tuned baseline, and how it was chosen."""
    on_cold = name == "content-knn" and setting.split.cold_validation
    return {
        "ndcg@10": round(found.chosen.ndcg, 6),
        "settings": dict(found.chosen.settings),
        "trials": len(found.trials),
        **({"cases": "cold"} if on_cold else {}),
    }


def _rankers(setting: Setting, model: FittedModel) -> dict[str, Ranker]:
    """The model with its corrections and, if they move items, alone."""
    corrections = model.corrections
    corrected = {setting.name: corrections}
    if corrections.moves:
        corrected[f"{setting.name} alone"] = Corrections(corrections.offset_alone)
    return {
        name: partial(setting.rank, model.params, model.trained, corrections=chosen)
        for name, chosen in corrected.items()
    }


def _teller(setting: Setting, console: Console) -> Callable[[str], None]:
    """A function that says what is done next, where ranking all cases takes long."""
    validation, items = setting.split.validation, len(setting.store.catalog)
    if choosing(validation, items) is validation:
        return lambda name: None
    return lambda what: console.print(f"  {what}", markup=False, highlight=False)


def _announced(tell: Callable[[str], None], name: str, rank: Ranker) -> Ranker:
    def announced(cases: Cases, among: npt.NDArray[np.int32] | None = None, /) -> Ranking:
        tell(f"ranking with {name}")
        return rank(cases, among)

    return announced


def _tuned(
    setting: Setting, own: Mapping[str, Grid], tell: Callable[[str], None]
) -> dict[str, TunedBaseline]:
    """Tune the built-in baselines, unless the config turns them off, and the caller's `own`."""
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
            begun=lambda name: tell(f"tuning {name}"),
        )
    for name, grid in own.items():
        tell(f"tuning {name}")
        found[name] = tune(grid(store, split.train_stop), store=store, split=split, rank=rank)
    return found


def check_own(baselines: Mapping[str, Grid]) -> None:
    """Refuse baseline names that a results table already uses, before any work is done."""
    if not isinstance(baselines, Mapping):
        raise UserError(f"baselines is a {type(baselines).__name__}; expected a dict, name -> grid")
    check_names(baselines)
    for name in baselines:
        require_a(str, name, f"the name {name!r} of a baseline", "text")
        if name in (*OWN_NAMES, *GRIDS, *SPECIAL):
            raise UserError(f"baseline {name!r} is there already; give yours another name")
