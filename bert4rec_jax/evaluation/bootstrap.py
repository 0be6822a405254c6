"""Bootstrap: how much the mean of a metric varies with the sample of users.

Percentile intervals (Efron, 1979): users are drawn with replacement, the mean is computed, and the
interval contains the middle 95 % of such means. It does not cover the variation over training
seeds, which is reported separately. A user with several cases is drawn with all of them; the mean
is over cases.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SEED = 0  # of reported intervals, so that all models of all runs share the same resamples
_DRAWS_AT_ONCE = 1 << 22  # 32 MiB of indices, and 32 MiB of weights


@dataclass(frozen=True)
class Interval:
    """A mean over cases and the ends of its interval."""

    mean: float
    low: float
    high: float


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
    lengths = {len(column) for column in values.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns are over different users; their lengths are {sorted(lengths)}")
    if not values or lengths == {0}:
        raise ValueError("no user to draw; an interval needs at least one")
    columns = np.stack([np.asarray(column, np.float64) for column in values.values()], axis=1)
    per_user = columns if users is None else _added_up(columns, users)
    means = resampled_means(per_user, rng=rng, resamples=resamples)
    if users is not None:
        means = means[:, :-1] / means[:, -1:]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {
        name: Interval(float(mean), float(lower), float(upper))
        for name, mean, lower, upper in zip(values, columns.mean(0), low, high)
    }


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
    if values.keys() != baseline.keys():
        raise ValueError(f"metrics differ: {sorted(values)} against {sorted(baseline)}")
    for name in values:
        if len(values[name]) != len(baseline[name]):
            raise ValueError(
                f"{name} is over {len(values[name])} users and {len(baseline[name])}; a paired "
                "difference needs the same users"
            )
    # Subtracting per case first makes identical models differ by exactly 0 in every resample.
    gaps = {name: values[name] - baseline[name] for name in values}
    return intervals(gaps, rng=rng, resamples=resamples, level=level, users=users)


def _added_up(columns: Floats, users: Iterable[Hashable]) -> Floats:
    """`[U, S + 1]`: for each user, the sums of all columns, and the number of cases.

    Users are in the order of their first case, so that with one case per user the draws are the
    same as without `users`.

    Raises:
      ValueError: `users` and `columns` differ in length.
    """
    numbers: dict[Hashable, int] = {}
    asked = np.array([numbers.setdefault(user, len(numbers)) for user in users])
    if len(asked) != len(columns):
        raise ValueError(
            f"{len(asked)} users were asked {len(columns)} questions; expected one each"
        )
    sums = [np.bincount(asked, column) for column in (*columns.T, np.ones(len(columns)))]
    return np.stack(sums, axis=1)


def resampled_means(columns: Floats, *, rng: np.random.Generator, resamples: int) -> Floats:
    """`[resamples, S]`: the mean of each column over M rows drawn with replacement.

    Args:
      columns: `[M, S]`.
      rng: draws the rows, in blocks that bound the memory; block sizes do not change the draws.
      resamples: number of resamples.
    """
    rows, width = columns.shape
    means = np.empty((resamples, width))
    block = max(1, _DRAWS_AT_ONCE // rows)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(0, rows, (count, rows))
        # With the number of times each row was drawn, the means are a single matrix product.
        drawn += rows * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        means[start : start + count] = times @ columns / rows
    return means
