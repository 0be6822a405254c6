"""Tuning: chooses the hyper-parameters of each baseline by validation NDCG@10 alone.

The grids are small and the same for every data set. The chosen baseline is refitted on the rows
that the tested model may be trained on, and only then evaluated on the test cases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import Cases, Split
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.baselines import (
    Baseline,
    Popular,
    RecentPopular,
    Settings,
    Stop,
    Until,
)
from bert4rec_jax.evaluation.content_knn import ContentKNN
from bert4rec_jax.evaluation.item_knn import ItemKNN
from bert4rec_jax.evaluation.markov import Markov
from bert4rec_jax.evaluation.metrics import ndcg
from bert4rec_jax.evaluation.own_history import OwnHistory
from bert4rec_jax.evaluation.search import choosing

Rank = Callable[[Baseline, Cases], npt.NDArray[np.integer]]
Grid = Callable[[SequenceStore, Stop], Iterator[Baseline]]

SELECTED_AT = 10
DAYS = (1, 3, 7, 14, 30)
UNTIL: tuple[Until, ...] = ("end of training", "last event")
DECAYS = (0.6, 0.7, 0.8, 0.9)
OWN_DECAYS = (0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99)
SMOOTHING = (0, 5, 20, 50)
SKIP_DISTANCE = 9


@dataclass(frozen=True)
class Trial:
    """One point of a grid and its NDCG@10 on validation cases."""

    settings: Settings
    ndcg: float


@dataclass(frozen=True, eq=False)
class TunedBaseline:
    """The best baseline of a grid, refitted for the test, and all trials.

    Attributes:
      baseline: fitted on `Split.refit_stop`.
      chosen: its hyper-parameters and NDCG@10 over all validation cases.
      ranks: `[M]`, those of all validation cases by the chosen baseline, before it was refitted.
      trials: all points of the grid, in order; their NDCG@10 is over the cases of `choosing`.
    """

    baseline: Baseline
    chosen: Trial
    ranks: npt.NDArray[np.integer]
    trials: tuple[Trial, ...]


def tune(
    candidates: Iterable[Baseline], *, store: SequenceStore, split: Split, rank: Rank
) -> TunedBaseline:
    """Choose a baseline by validation NDCG@10, on the cases of `choosing`; of equals the earlier.

    Args:
      candidates: baselines fitted on `split.train_stop`; the iterable is consumed lazily.
      store: the data.
      split: where training ends, and the validation cases.
      rank: ranks M cases with a baseline: `[M]`, 1 is best.

    Raises:
      ValueError: there are no candidates.
      UserError: the settings of one cannot be recorded, or one comes twice.
    """
    best: tuple[Trial, Baseline, npt.NDArray[np.integer]] | None = None
    trials = []
    cases = choosing(split.validation, len(store.catalog))
    for candidate in candidates:
        if best is not None and candidate is best[1]:  # it may have the later settings by now
            raise UserError(
                f"the grid of baseline {_name(candidate)!r} yields the same object twice; expected "
                "a new one for each point, such as what dataclasses.replace returns"
            )
        ranks = rank(candidate, cases)
        trial = Trial(_settings(candidate), float(ndcg(ranks, SELECTED_AT).mean()))
        trials.append(trial)
        if best is None or trial.ndcg > best[0].ndcg:
            best = trial, candidate, ranks
    if best is None:
        raise ValueError("no candidate to choose from; a grid has at least one point")
    chosen, baseline, ranks = best
    if cases is not split.validation:
        ranks = rank(baseline, split.validation)
        chosen = replace(chosen, ndcg=float(ndcg(ranks, SELECTED_AT).mean()))
    if split.refits:
        baseline = baseline.refit(store, split.refit_stop)
    return TunedBaseline(baseline, chosen, ranks, tuple(trials))


def tune_all(
    store: SequenceStore,
    split: Split,
    rank: Rank,
    *,
    names: Iterable[str] | None = None,
    content: npt.NDArray[np.float32] | None = None,
    request_time: bool = False,
    repeats: bool = False,
    begun: Callable[[str], None] = lambda name: None,
) -> dict[str, TunedBaseline]:
    """Tune the named baselines, by default all of `GRIDS` that the log allows.

    The baselines of `SPECIAL` are added after these, if they apply: recent popularity at the time
    of the request, with `request_time`; the own history, if items can be chosen again (`repeats`);
    and content-kNN, if there are item features `content` `[V, F]`. If the split holds out items,
    content-kNN is chosen on the validation cases of held-out items, because it is meant for these.
    `begun` is called with the name of each baseline before it is tuned.

    Raises:
      UserError: a name is unknown, or needs timestamps that the log does not have.
    """
    usable = [name for name in GRIDS if store.timed or name not in NEEDS_TIME]
    wanted = usable if names is None else list(names)
    for name in wanted:
        if name not in usable:
            why = "needs timestamps, and this log has none" if name in GRIDS else "is unknown"
            raise UserError(f"baseline {name!r} {why}; choose from {', '.join(usable)}")
    grids = {name: (GRIDS[name], split) for name in wanted}
    if request_time:
        grids["recent-popular-at-request"] = _recent_popular_at_request, split
    if repeats:
        grids["own-history"] = _own_history, split
    if content is not None:
        by_cold = replace(split, validation=split.cold_validation or split.validation)
        grids["content-knn"] = partial(_content_knn, content=content), by_cold
    found = {}
    for name, (grid, chosen_on) in grids.items():
        begun(name)
        candidates = grid(store, split.train_stop)
        found[name] = tune(candidates, store=store, split=chosen_on, rank=rank)
    return found


def check_grids(grids: Mapping[str, Grid], store: SequenceStore, stop: Stop) -> None:
    """Check that all values are grids of baselines, before any work is done.

    Raises:
      UserError: one is not; the message names the first such grid.
    """
    for name, grid in grids.items():
        candidates = grid(store, stop) if callable(grid) and not isinstance(grid, type) else None
        first = next(iter(candidates), None) if isinstance(candidates, Iterable) else None
        missing = [x for x in ("settings", "refit", "scores") if not hasattr(first, x)]
        if missing:
            what = "yields nothing" if first is None else f"yields one without {missing[0]}"
            raise UserError(
                f"baseline {name!r} {what}; expected a function of store and stop that yields "
                "baselines with settings, refit and scores (docs/extending.md)"
            )
        _settings(first)


def _settings(baseline: Any) -> Settings:
    """The settings of a baseline as `metrics.json` holds them; values of NumPy are plain ones."""
    try:
        text = json.dumps(dict(baseline.settings), default=lambda value: value.tolist())
    except (TypeError, ValueError, AttributeError):
        raise UserError(
            f"baseline {_name(baseline)!r} has settings {baseline.settings!r}, which metrics.json "
            "cannot hold; expected a property that is a dict, name -> text or number"
        ) from None
    settings: Settings = json.loads(text)
    return settings


def _name(baseline: Any) -> str:
    return str(getattr(baseline, "name", type(baseline).__name__))


def _popular(store: SequenceStore, stop: Stop) -> Iterator[Baseline]:
    yield Popular.fit(store, stop)


def _recent_popular(store: SequenceStore, stop: Stop) -> Iterator[Baseline]:
    fitted = RecentPopular.fit(store, stop, days=DAYS[0], until=UNTIL[0])
    for until in UNTIL:
        for days in DAYS:
            yield replace(fitted, days=days, until=until)


def _recent_popular_at_request(store: SequenceStore, stop: Stop) -> Iterator[Baseline]:
    fitted = RecentPopular.fit(store, stop, days=DAYS[0], until="request")
    for days in DAYS:
        yield replace(fitted, days=days)


def _own_history(store: SequenceStore, stop: Stop) -> Iterator[Baseline]:
    fitted = OwnHistory.fit(store, stop, decay=OWN_DECAYS[0])
    for decay in OWN_DECAYS:
        yield replace(fitted, decay=decay)


def _markov_1(store: SequenceStore, stop: Stop) -> Iterator[Baseline]:
    fitted = Markov.fit(
        store, stop, distance=1, decay=0, smoothing=0, prior=Popular.fit(store, stop)
    )
    for smoothing in SMOOTHING:
        yield replace(fitted, smoothing=smoothing)


def _skip_gram(store: SequenceStore, stop: Stop) -> Markov:
    prior = Popular.fit(store, stop)
    return Markov.fit(
        store, stop, distance=SKIP_DISTANCE, decay=DECAYS[0], smoothing=0, prior=prior
    )


def _skip_gram_markov(store: SequenceStore, stop: Stop) -> Iterator[Baseline]:
    fitted = _skip_gram(store, stop)
    for decay in DECAYS:
        for smoothing in SMOOTHING:
            yield replace(fitted, decay=decay, smoothing=smoothing)


def _skip_gram_markov_recent(store: SequenceStore, stop: Stop) -> Iterator[Baseline]:
    fitted = _skip_gram(store, stop)
    recent = RecentPopular.fit(store, stop, days=1, until="end of training")
    for days in (1, 7, 14):
        for smoothing in (20, 50, 200, 500):
            yield replace(fitted, decay=0.7, smoothing=smoothing, prior=replace(recent, days=days))


def _item_knn(store: SequenceStore, stop: Stop) -> Iterator[Baseline]:
    for neighbours in (100, 2000):
        for shrinkage in (0, 10):
            fitted = ItemKNN.fit(store, stop, neighbours=neighbours, shrinkage=shrinkage, decay=0.5)
            for decay in (0.5, 0.6, 0.7):
                yield replace(fitted, decay=decay)


def _content_knn(
    store: SequenceStore, stop: Stop, content: npt.NDArray[np.float32]
) -> Iterator[Baseline]:
    for centred in (False, True):
        fitted = ContentKNN.fit(store, stop, content, decay=0.5, centred=centred)
        for decay in (0.5, *DECAYS, 0.95):
            yield replace(fitted, decay=decay)


GRIDS: Mapping[str, Grid] = {
    "popular": _popular,
    "recent-popular": _recent_popular,
    "markov-1": _markov_1,
    "skip-gram-markov": _skip_gram_markov,
    "skip-gram-markov-recent": _skip_gram_markov_recent,
    "item-knn": _item_knn,
}
SPECIAL = ("recent-popular-at-request", "own-history", "content-knn")  # only in some settings
NEEDS_TIME = ("recent-popular", "skip-gram-markov-recent")
