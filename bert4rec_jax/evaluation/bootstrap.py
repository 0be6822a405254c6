"""Bootstrap: how far a mean over users could have come out otherwise, had others been asked.

Percentile intervals (Efron, 1979): users are drawn with replacement, the mean is taken, and the
interval holds the middle 95 % of such means. It says nothing of the spread over training seeds,
which is reported apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

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
) -> dict[str, Interval]:
    """Percentile intervals of means over the same M users.

    All columns see the same resamples; so do calls with equally seeded generators and equal M.

    Args:
      values: name -> `[M]`, what each user adds, as `metrics.contributions` gives it.
      rng: draws the users.
      resamples: how many times M users are drawn.
      level: share of the resampled means inside the interval, in (0, 1).

    Raises:
      ValueError: there are no users, or the columns differ in length.
    """
    lengths = {len(column) for column in values.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns are over different users; their lengths are {sorted(lengths)}")
    if not values or lengths == {0}:
        raise ValueError("no user to draw; an interval needs at least one")
    columns = np.stack([np.asarray(column, np.float64) for column in values.values()], axis=1)
    means = resampled_means(columns, rng=rng, resamples=resamples)
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
) -> dict[str, Interval]:
    """Intervals of `mean(values) - mean(baseline)`, paired: both are read off the same drawn users.

    Args:
      values: name -> `[M]`.
      baseline: the same names and the same users, in the same order.
      rng: draws the users.
      resamples: how many times M users are drawn.
      level: share of the resampled differences inside the interval.

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
    return intervals(gaps, rng=rng, resamples=resamples, level=level)


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
