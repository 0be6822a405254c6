"""Comparison of runs: compares models of recorded runs on the same cases, from their rank files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.checks import require, require_a, require_path, require_whole
from bert4rec_jax.config import OWN_NAMES
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.bootstrap import SEED, Interval, beside_first
from bert4rec_jax.evaluation.metrics import contribution
from bert4rec_jax.evaluation.rank_file import DRAWN, IDS, ROWS, RankedSet
from bert4rec_jax.evaluation.seeds import RecordedRun, groups, label, ranks_in

Floats = npt.NDArray[np.float64]
Ranks = Sequence[npt.NDArray[np.integer]]  # of several runs

_OTHERS = {  # what a difference in each of these arrays means
    "user_ids": "other users, or the same in another order",
    "users": "other users, or the same in another order",
    "item_ids": "other targets",
    "targets": "other targets",
    "rows": "other targets",
}
_TARGETS = {"item_ids", "targets", "rows"}


@dataclass(frozen=True)
class Figure:
    """One metric of one model.

    Attributes:
      own: mean over cases and seeds, with its bootstrap interval.
      of_seeds: mean over cases of each run.
      lead: paired difference, first row minus this one; None for the first row.
      leads_of_seeds: the difference for each seed; empty unless both rows have the same seeds.
    """

    own: Interval
    of_seeds: tuple[float, ...]
    lead: Interval | None
    leads_of_seeds: tuple[float, ...] = ()

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; None for a single run."""
        return _deviation(self.of_seeds)

    @property
    def lead_deviation(self) -> float | None:
        """Sample standard deviation of the lead over seeds; None unless seeds can be paired."""
        return _deviation(self.leads_of_seeds)

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to 6 places."""
        found: dict[str, Any] = {
            "mean": round(self.own.mean, 6),
            "interval_95": [round(self.own.low, 6), round(self.own.high, 6)],
        }
        if self.deviation is not None:
            found["deviation"] = round(self.deviation, 6)
            found["of_seeds"] = [round(mean, 6) for mean in self.of_seeds]
        if self.lead is not None:
            found["lead"] = round(self.lead.mean, 6)
            found["lead_interval_95"] = [round(self.lead.low, 6), round(self.lead.high, 6)]
        if self.lead_deviation is not None:
            found["lead_deviation"] = round(self.lead_deviation, 6)
            found["leads_of_seeds"] = [round(lead, 6) for lead in self.leads_of_seeds]
        return found


def _deviation(of_seeds: Sequence[float]) -> float | None:
    return float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else None


@dataclass(frozen=True, eq=False)
class Row:
    """One model of one run, or of several runs that differ only in their seed.

    Attributes:
      model: its name in the runs.
      runs: the runs that have this model.
      figures: metric name -> figure.
    """

    model: str
    runs: tuple[RecordedRun, ...]
    figures: Mapping[str, Figure]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "runs": [str(run.path) for run in self.runs],
            "seeds": [run.seed for run in self.runs],
            **{name: figure.to_json() for name, figure in self.figures.items()},
        }


@dataclass(frozen=True, eq=False)
class ComparedSet:
    """All models over one set of cases.

    Attributes:
      cases, users: number of cases, and of users; a user may have several cases.
      drawn: what the resamples of the intervals draw: `users`, or `items`, the targets; as for the
        first run, see `assessment.assess`.
      rows: one per model; all others are compared with the first.
      notes: what could not be checked about the cases.
    """

    cases: int
    users: int
    drawn: str
    rows: list[Row]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = [row.to_json() for row in self.rows]
        return {
            "cases": self.cases,
            "users": self.users,
            "interval_over": self.drawn,
            "notes": self.notes,
            "models": rows,
        }


def compare_runs(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    metrics: str | Sequence[str] = ("hr@10", "ndcg@10"),
    models: str | Sequence[str] = (),
    resamples: int = 1000,
    validation: bool = False,
) -> dict[str, ComparedSet]:
    """Compare the models of several runs on the sets of cases that all runs have.

    Runs that differ only in their seed form a group. Each of its models is one row, with metrics
    averaged over seeds case by case.

    Args:
      paths: folders of runs, or `ranks.npz` files; the first model of the first one is compared
        with all others.
      metrics: one or several of `hr@K`, `ndcg@K` and `mrr`.
      models: model names as in results tables; empty for all.
      resamples: number of bootstrap resamples.
      validation: compare on the validation cases of the runs instead of the test.

    Raises:
      UserError: ranks cannot be read or are about different cases; no set is in all files; a model
        or metric is unknown; no run or metric is given, or a run twice; `resamples` is no whole
        number from 1 on.
    """
    metrics, models = _texts("metrics", metrics), _texts("models", models)
    if not metrics:
        raise UserError("no metric is named; give one or more, such as ndcg@10")
    for name in metrics:
        contribution(name, np.ones(1, np.int64))
    resamples = require_whole(resamples, "resamples")
    require(resamples >= 1, "resamples", resamples, "at least 1")
    if isinstance(paths, str | PathLike):
        paths = [paths]
    require_a(Iterable, paths, "paths", "folders of runs, or ranks.npz files")
    places = [require_path(path, "one of paths") for path in paths]
    runs = [RecordedRun.open(path, validation=validation) for path in places]
    _check_paths(runs, validation=validation)
    runs = [_in_order_of(runs[0], run) for run in runs]
    shared = _shared_sets(runs)
    _check_models(runs, models, shared)
    sets = {}
    classes = _note_on_times(runs)
    for name in shared:
        notes = [_check_same_cases(name, runs[0], run) for run in runs[1:]] + [classes]
        first = runs[0].ranks.sets[name]
        users = first.cases[IDS[0]] if IDS[0] in first.cases else first.cases[ROWS[0]]
        units = first.cases.get(DRAWN, users)
        rows = _rows(name, runs, units, metrics, models, resamples)
        if rows:
            sets[name] = ComparedSet(
                len(users), len(np.unique(users)), first.drawn, rows, [n for n in notes if n]
            )
    return sets


def _texts(name: str, given: str | Sequence[str]) -> list[str]:
    """One or several texts as a list; raises `UserError` for anything else."""
    found = [given] if isinstance(given, str) else given
    listed = isinstance(found, Iterable) and all(isinstance(text, str) for text in found)
    require(listed, name, given, "text, or a list of texts")
    return list(found)


def _rows(
    name: str,
    runs: Sequence[RecordedRun],
    units: npt.NDArray[Any],
    metrics: Sequence[str],
    models: Sequence[str],
    resamples: int,
) -> list[Row]:
    """The rows, group by group; in each, models are in the order of the group's runs.

    Intervals draw the `units [M]` that cases belong to: their users, or their targets. A baseline
    that answers in a later group as in an earlier one is shown once.
    """
    answers: list[tuple[str, tuple[RecordedRun, ...]]] = []
    values, of_seeds = [], []
    shown: defaultdict[str, list[Ranks]] = defaultdict(list)  # the groups of each baseline
    for group in groups(runs):
        named = dict.fromkeys(model for run in group for model in run.ranks.sets[name].ranks)
        for model in [model for model in named if not models or model in models]:
            having = tuple(run for run in group if model in run.ranks.sets[name].ranks)
            ranks = [run.ranks.sets[name].ranks[model] for run in having]
            if model not in OWN_NAMES:
                if any(_all_equal(ranks, others) for others in shown[model]):
                    continue
                shown[model].append(ranks)
            each = {m: np.stack([contribution(m, found) for found in ranks]) for m in metrics}
            answers.append((model, having))
            values.append({metric: found.mean(axis=0) for metric, found in each.items()})
            of_seeds.append({metric: tuple(found.mean(axis=1)) for metric, found in each.items()})
    rng = np.random.default_rng(SEED)
    compared = beside_first(values, rng=rng, resamples=resamples, users=units)
    rows: list[Row] = []
    for (model, having), means, (own, lead) in zip(answers, of_seeds, compared):
        first = answers[0][1], of_seeds[0]
        leads = {m: _leads(*first, having, means, m) if rows else () for m in metrics}
        figures = {m: Figure(own[m], means[m], lead.get(m), leads[m]) for m in metrics}
        rows.append(Row(model, having, figures))
    return rows


def _all_equal(ranks: Ranks, others: Ranks) -> bool:
    """Whether all runs of two groups answer the same, whatever the seed."""
    return all(np.array_equal(each, others[0]) for each in (*ranks, *others))


def _leads(
    first: Sequence[RecordedRun],
    of_first: Mapping[str, tuple[float, ...]],
    runs: Sequence[RecordedRun],
    of_runs: Mapping[str, tuple[float, ...]],
    metric: str,
) -> tuple[float, ...]:
    """What the first row is ahead by, seed by seed; empty if the seeds are not the same."""
    seeds, others = ([run.seed for run in group] for group in (first, runs))
    if None in seeds or sorted(map(str, seeds)) != sorted(map(str, others)):
        return ()
    theirs = dict(zip(others, of_runs[metric]))
    return tuple(mine - theirs[seed] for seed, mine in zip(seeds, of_first[metric]))


def _in_order_of(first: RecordedRun, run: RecordedRun) -> RecordedRun:
    sets = {
        name: found.in_order_of(first.ranks.sets.get(name, found))
        for name, found in run.ranks.sets.items()
    }
    return replace(run, ranks=replace(run.ranks, sets=sets))


def _check_paths(runs: Sequence[RecordedRun], *, validation: bool) -> None:
    if not runs:
        raise UserError("no run to compare; give folders of runs, or ranks.npz files")
    places = [ranks_in(run.path, validation=validation).resolve() for run in runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{runs[number].path} is given twice; leave one out")


def _check_models(runs: Sequence[RecordedRun], models: Sequence[str], sets: Sequence[str]) -> None:
    known = dict.fromkeys(
        model for run in runs for name in sets for model in run.ranks.sets[name].ranks
    )
    for model in models:
        if model not in known:
            raise UserError(
                f"no run has a model {model!r} in {' or '.join(sets)}; there are "
                f"{', '.join(known)} (quote names with spaces)"
            )


def _shared_sets(runs: Sequence[RecordedRun]) -> list[str]:
    shared = [
        name for name in runs[0].ranks.sets if all(name in run.ranks.sets for run in runs[1:])
    ]
    if not shared:
        listed = "; ".join(f"{run.path}: {', '.join(run.ranks.sets)}" for run in runs)
        raise UserError(
            f"no test set is in all files ({listed}); compare runs with the same --data.split"
        )
    return shared


def _check_same_cases(name: str, first: RecordedRun, other: RecordedRun) -> str:
    """Check that two runs have the same cases in a set.

    Returns:
      A note on what could not be checked; empty if everything was.

    Raises:
      UserError: the cases differ, or cannot be compared.
    """
    here, there = first.ranks.sets[name], other.ranks.sets[name]
    difference = _difference(here, there)
    if difference:
        raise UserError(
            f"{other.path} has other cases than {first.path} in {name!r}: {difference}"
            f"{_other_data(first, other)}. Compare runs on the same data and split"
        )
    if here.sha256 and there.sha256:
        return ""
    compared = here.cases.keys() & there.cases.keys()
    if not compared:
        raise UserError(
            f"{other.path} says {', '.join(there.cases)} of its cases in {name!r}, {first.path} "
            f"says {', '.join(here.cases)}: nothing to compare them by; write {' and '.join(IDS)}"
        )
    if compared & _TARGETS:
        what = "users and targets were"
    elif "user_ids" in compared:
        what = "users were"
    else:
        what = "order of cases and numbers of users, which say nothing about who they are, were"
    return f"{label([other])}: only its {what} compared with those of {label([first])}"


def _other_data(first: RecordedRun, other: RecordedRun) -> str:
    """The settings of data in which two runs differ, in brackets; empty where none is known."""
    here, there = first.settings or {}, other.settings or {}
    names = [name for name in here if name.startswith("data.") and name in there]
    told = [f"{x} {here[x]} there, {there[x]} here" for x in names if here[x] != there[x]]
    return f" ({'; '.join(told)})" if told else ""


def _note_on_times(runs: Sequence[RecordedRun]) -> str:
    """A note on models of two classes, those that know the time of the request, and the others."""
    knowing = [run for run in runs if run.knows_time]
    others = [run for run in runs if run.knows_time is False]
    if not knowing or not others:
        return ""
    return (
        f"{label(knowing)}: the model knows the time of the request (model.times), and that of "
        f"{label(others)} does not; compare it with recent-popular-at-request"
    )


def _difference(here: RankedSet, there: RankedSet) -> str:
    """How the cases of two sets differ; empty if no difference is known."""
    if len(here) != len(there):
        return f"{len(there):,} cases instead of {len(here):,}"
    if here.sha256 and here.sha256 == there.sha256:
        return ""
    keys = [key for key in IDS if key in here.cases and key in there.cases]
    if len(keys) < len(IDS):  # for files without ids, compare rows of the store
        keys += [key for key in ROWS if key in here.cases and key in there.cases]
    for key in keys:
        if not np.array_equal(here.cases[key], there.cases[key]):
            return _OTHERS[key]
    return "other histories, or another catalog" if here.sha256 and there.sha256 else ""
