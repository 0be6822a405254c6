"""Bootstrap: how much the mean of a metric varies with the sample of users.

Percentile intervals (Efron, 1979): users are drawn with replacement, the mean is computed, and the
interval contains the middle 95 % of such means. It does not cover the variation over training
seeds, which is reported separately. A user with several cases is drawn with all of them; the mean
is over cases.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SEED = 0  # of reported intervals, so that all models of all runs share the same resamples
_DRAWS_AT_ONCE = 1 << 22  # 32 MiB of indices, and 32 MiB of weights
_VALUES_AT_ONCE = 1 << 25  # 256 MiB of values for which the same draws are used


@dataclass(frozen=True)
class Interval:
    """A mean over cases and the ends of its interval."""

    mean: float
    low: float
    high: float


class BesideFirst(NamedTuple):
    """The intervals of one model, and of the first model minus it; none for the first itself."""

    own: dict[str, Interval]
    lead: dict[str, Interval]


def intervals(
    values: Mapping[str, Floats],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
    users: Iterable[Hashable] | None = None,
) -> dict[str, Interval]:
    """Percentile intervals of several means over the same M cases.

    All columns share the same resamples. So do several calls, if their generators have the same
    seed and `users` are the same.

    Args:
      values: name -> `[M]` values per case, as returned by `metrics.contributions`.
      rng: draws the users.
      resamples: number of resamples; each draws as many users as there are.
      level: share of the resampled means inside the interval, in (0, 1).
      users: `[M]`, the user of each case, or what else is to be drawn with all of its cases; None
        if every user has exactly one case.

    Raises:
      ValueError: there are no users, the columns differ in length, or `users` has another length.
    """
    (found,) = _all_intervals([values], rng=rng, resamples=resamples, level=level, users=users)
    return found


def differences(
    values: Mapping[str, Floats],
    baseline: Mapping[str, Floats],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
    users: Iterable[Hashable] | None = None,
) -> dict[str, Interval]:
    """Paired intervals of `mean(values) - mean(baseline)`: both use the same resampled users.

    Args:
      values: name -> `[M]` values per case.
      baseline: the same names and cases, in the same order.
      rng, resamples, level, users: see `intervals`.

    Raises:
      ValueError: names or lengths differ, or there are no users.
    """
    gaps = _gaps(values, baseline)
    return intervals(gaps, rng=rng, resamples=resamples, level=level, users=users)


def beside_first(
    models: Iterable[Mapping[str, Floats]],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
    users: Iterable[Hashable] | None = None,
) -> list[BesideFirst]:
    """Intervals of several models, and of what the first one is ahead of each other one.

    They are those of `intervals` and `differences` with generators of the same seed, but users are
    drawn once for many models, because that takes most of the time.

    Args:
      models: name -> `[M]` values per case, for each model; the same names and cases.
      rng, resamples, level, users: see `intervals`.

    Raises:
      ValueError: names or lengths differ, or there are no users.
    """

    def tables() -> Iterator[Mapping[str, Floats]]:
        first: Mapping[str, Floats] | None = None
        for values in models:
            yield values
            if first is None:
                first = values
            else:
                yield _gaps(first, values)

    found = _all_intervals(tables(), rng=rng, resamples=resamples, level=level, users=users)
    own, leads = [*found[:1], *found[1::2]], [{}, *found[2::2]]
    return [BesideFirst(*each) for each in zip(own, leads)]


def _gaps(values: Mapping[str, Floats], baseline: Mapping[str, Floats]) -> dict[str, Floats]:
    """Name -> `[M]` differences per case."""
    if values.keys() != baseline.keys():
        raise ValueError(f"metrics differ: {sorted(values)} against {sorted(baseline)}")
    for name in values:
        if len(values[name]) != len(baseline[name]):
            raise ValueError(
                f"{name} is over {len(values[name])} users and {len(baseline[name])}; a paired "
                "difference needs the same users"
            )
    # Subtracting per case first makes identical models differ by exactly 0 in every resample; as
    # arrays, because series of pandas would be matched by their labels.
    return {name: np.asarray(values[name]) - np.asarray(baseline[name]) for name in values}


def _all_intervals(
    tables: Iterable[Mapping[str, Floats]],
    *,
    rng: np.random.Generator,
    resamples: int,
    level: float,
    users: Iterable[Hashable] | None,
) -> list[dict[str, Interval]]:
    """The `intervals` of each table, with the same draws for all."""
    numbers = None if users is None else _numbered(users)
    state = rng.bit_generator.state
    found = []
    for group in _groups(_Table.of(values, numbers) for values in tables):
        rng.bit_generator.state = state
        sums = resampled_means([t.per_user for t in group], rng=rng, resamples=resamples)
        for table, means in zip(group, sums):
            if numbers is not None:
                means = means[:, :-1] / means[:, -1:]
            low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
            ends = zip(table.names, table.means, low, high)
            found.append({name: Interval(*map(float, three)) for name, *three in ends})
    return found


class _Table(NamedTuple):
    """The values of one model.

    Attributes:
      names: of the S metrics.
      means: `[S]`, over cases.
      per_user: `[M, S]`, or `[U, S + 1]` as from `_added_up`.
    """

    names: Sequence[str]
    means: Floats
    per_user: Floats

    @classmethod
    def of(cls, values: Mapping[str, Floats], numbers: npt.NDArray[np.int64] | None) -> _Table:
        lengths = {len(column) for column in values.values()}
        if len(lengths) > 1:
            raise ValueError(
                f"columns are over different users; their lengths are {sorted(lengths)}"
            )
        if not values or lengths == {0}:
            raise ValueError("no user to draw; an interval needs at least one")
        columns = np.stack([np.asarray(column, np.float64) for column in values.values()], axis=1)
        per_user = columns if numbers is None else _added_up(columns, numbers)
        return cls(list(values), columns.mean(0), per_user)


def _groups(tables: Iterable[_Table]) -> Iterator[list[_Table]]:
    """Cut tables into groups of a bounded size."""
    group: list[_Table] = []
    for table in tables:
        group.append(table)
        if sum(t.per_user.size for t in group) >= _VALUES_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _numbered(users: Iterable[Hashable]) -> npt.NDArray[np.int64]:
    """`[M]`: the number of each case's user.

    Users are in the order of their first case, so that with one case per user the draws are the
    same as without `users`.
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(user, len(numbers)) for user in users], np.int64)


def _added_up(columns: Floats, numbers: npt.NDArray[np.int64]) -> Floats:
    """`[U, S + 1]`: for each user, the sums of all columns, and the number of cases.

    Raises:
      ValueError: `numbers` and `columns` differ in length.
    """
    if len(numbers) != len(columns):
        raise ValueError(f"{len(numbers)} users for {len(columns)} cases; expected one each")
    sums = [np.bincount(numbers, column) for column in (*columns.T, np.ones(len(columns)))]
    return np.stack(sums, axis=1)


def resampled_means(
    tables: Sequence[Floats], *, rng: np.random.Generator, resamples: int
) -> list[Floats]:
    """`[resamples, S]` for each table: the mean of each column over M rows, drawn with replacement.

    Args:
      tables: `[M, S]` each; all see the same draws.
      rng: draws the rows, in blocks that bound the memory; block sizes do not change the draws.
      resamples: number of resamples.
    """
    rows = len(tables[0])
    means = [np.empty((resamples, table.shape[1])) for table in tables]
    block = min(max(1, _DRAWS_AT_ONCE // rows), resamples)
    # With the number of times each row was drawn, the means of a table are a matrix product; as
    # floats, because NumPy has no fast product of integers and floats.
    times = np.empty((block, rows))
    for start in range(0, resamples, block):
        drawn = rng.integers(0, rows, (min(block, resamples - start), rows))
        for weights, resample in zip(times, drawn):
            weights[:] = np.bincount(resample, minlength=rows)
        for table, found in zip(tables, means):  # faster than one product with many columns
            found[start : start + block] = times[: len(drawn)] @ table / rows
    return means
