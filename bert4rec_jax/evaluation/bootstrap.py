"""Bootstrap: how far a mean over users could have come out otherwise, had others been asked.

Percentile intervals (Efron, 1979): users are drawn with replacement, the mean is taken, and the
interval holds the middle 95 % of such means. It says nothing of the spread over training seeds,
which is reported apart. A user who is asked several questions is drawn with all of them; the mean
is over questions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SEED = 0  # of reported intervals: all models of all runs are read off the same drawn users
_DRAWS_AT_ONCE = 1 << 22  # 32 MiB of indices, and as much of weights


@dataclass(frozen=True)
class Interval:
    """A mean over users and the ends of its interval."""

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
    """Percentile intervals of means over the same M questions.

    All columns see the same resamples; so do calls with equally seeded generators and equal users.

    Args:
      values: name -> `[M]`, what each question adds, as `metrics.contributions` gives it.
      rng: draws the users.
      resamples: how many times as many users as there are are drawn.
      level: share of the resampled means inside the interval, in (0, 1).
      users: `[M]`, who is asked each question; None where everyone is asked one.

    Raises:
      ValueError: there are no users, or the columns differ in length.
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
    """Intervals of `mean(values) - mean(baseline)`, paired: both are read off the same drawn users.

    Args:
      values: name -> `[M]`.
      baseline: the same names and the same questions, in the same order.
      rng, resamples, level, users: as for `intervals`.

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
    # Subtracting per user first makes equal models differ by exactly 0 in every resample.
    gaps = {name: values[name] - baseline[name] for name in values}
    return intervals(gaps, rng=rng, resamples=resamples, level=level, users=users)


def _added_up(columns: Floats, users: Iterable[Hashable]) -> Floats:
    """`[U, S + 1]`: the sum of each column and the number of questions of each user, who are
    numbered by their first question, so that one question each changes no draw.

    Raises:
      ValueError: the questions of `users` are not those of `columns`.
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
      rng: draws the rows; memory is bounded, and the bound changes no draw.
      resamples: how often.
    """
    rows, width = columns.shape
    means = np.empty((resamples, width))
    block = max(1, _DRAWS_AT_ONCE // rows)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(0, rows, (count, rows))
        # How often each row was drawn turns the means into one matrix product.
        drawn += rows * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        means[start : start + count] = times @ columns / rows
    return means
