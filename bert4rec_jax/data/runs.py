"""Runs: a log of any length in time order, with a fixed number of rows in memory.

An external sort. Every block of the log is written to disk sorted by user (a run). A range of users
lies together in each run, so the histories of the range are read from all of them and sorted in
memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.rows import Rows


class Runs:
    """Blocks of a log, taken up in input order and given back in time order."""

    def __init__(self, rows: Rows) -> None:
        """Begin with rows on disk, of which there are none yet."""
        self._rows = rows
        self._bounds = [0]  # run r is the rows `bounds[r] : bounds[r + 1]`
        self._counts = np.zeros(0, np.int64)  # rows per user

    def append(self, block: Interactions) -> None:
        """Write the next block of the log as a run."""
        self._rows.append(block.take(np.argsort(block.users, kind="stable")))
        self._bounds.append(len(self._rows))
        counts = np.bincount(block.users, minlength=len(block.user_ids))
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    def in_time_order(self, rows: int) -> Iterator[Interactions]:
        """The whole log by `Interactions.in_time_order`, a range of users at a time.

        Args:
          rows: the most to sort at once; a user who has more is sorted alone.
        """
        first_users = user_ranges(self._counts, rows)
        places = [
            start + np.searchsorted(self._rows.column("users", start, stop), first_users)
            for start, stop in pairwise(self._bounds)
        ]
        for begin, end in pairwise(np.transpose(places)):
            slices = [(a, b) for a, b in zip(begin.tolist(), end.tolist()) if a < b]
            yield self._rows.read(*slices).in_time_order()


def user_ranges(counts: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """Cut users into ranges of at most `rows` rows, or one user.

    Args:
      counts: `[U]` rows per user.
      rows: the most in a range.

    Returns:
      `[R + 1]`: range r holds the users `result[r] : result[r + 1]`.
    """
    total = np.concatenate([[0], np.cumsum(counts)])
    bounds = [0]
    while bounds[-1] < len(counts):
        fitting = int(np.searchsorted(total, total[bounds[-1]] + rows, side="right")) - 1
        bounds.append(max(fitting, bounds[-1] + 1))
    return np.array(bounds, np.int64)
