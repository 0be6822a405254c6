"""External sort: sort a log of any length by time, with a bounded number of rows in memory.

Every block of the log is written to disk sorted by user (a run). The rows of a range of users are
contiguous in each run, so they can be read from all runs and sorted in memory, one range after the
other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.ranges import in_parts
from bert4rec_jax.data.rows import Rows


class Runs:
    """Takes the blocks of a log in input order, and returns the log in time order."""

    def __init__(self, rows: Rows) -> None:
        """Keep the runs in `rows`, which must be empty."""
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
        """The whole log, sorted by `Interactions.in_time_order`, one range of users at a time.

        All rows of a user are in one piece.

        Args:
          rows: maximum number of rows to sort at once; a user with more rows is sorted alone.
        """
        ranges = in_parts(self._counts, rows)
        first_users = [users.start for users in ranges] + [len(self._counts)]
        places = [
            start + np.searchsorted(self._rows.column("users", start, stop), first_users)
            for start, stop in pairwise(self._bounds)
        ]
        for begin, end in pairwise(np.transpose(places)):
            slices = [(a, b) for a, b in zip(begin.tolist(), end.tolist()) if a < b]
            yield self._rows.read(*slices).in_time_order()
