"""Interactions: users, items, times and ratings as columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class Interactions:
    """N interactions as columns; users and items are codes into their tables of external ids.

    Attributes:
      users: `[N]` int32, indices into `user_ids`.
      items: `[N]` int32, indices into `item_ids`.
      timestamps: `[N]` int64, seconds since 1970, or the row number where the log has no time.
      ratings: `[N]` float32, NaN where unrated.
      user_ids: external user ids, strings.
      item_ids: external item ids, strings.
      timed: whether `timestamps` are real times; time-based splits need them.
      fractions: `[N]` int32, nanoseconds after `timestamps`, by which rows are sorted but which are
        not stored. None: all are 0.
    """

    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    timestamps: npt.NDArray[np.int64]
    ratings: npt.NDArray[np.float32]
    user_ids: pa.StringArray
    item_ids: pa.StringArray
    timed: bool = True
    fractions: npt.NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        columns = (self.users, self.items, self.timestamps, self.ratings, self.fractions)
        lengths = {len(column) for column in columns if column is not None}
        if len(lengths) != 1:
            raise ValueError(f"columns differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Interactions:
        """The given rows (indices or a mask); the id tables stay as they are."""
        return replace(
            self,
            users=self.users[rows],
            items=self.items[rows],
            timestamps=self.timestamps[rows],
            ratings=self.ratings[rows],
            fractions=None if self.fractions is None else self.fractions[rows],
        )

    def in_time_order(self) -> Interactions:
        """Sort by (user, timestamp, fraction), input order breaking ties, and drop repeated rows.

        Rows with the same (user, item, timestamp) are one interaction, whatever their fractions;
        the first in time order stays. The sort is stable because the order of ties decides up to a
        quarter of MovieLens test targets. The result has no fractions.
        """
        finest = () if self.fractions is None else (self.fractions,)
        rows = np.lexsort((*finest, self.timestamps, self.users))
        ordered = replace(self, fractions=None).take(rows)
        repeated = _repeated(ordered)
        return ordered.take(~repeated) if repeated.any() else ordered

    def without_repeats(self) -> Interactions:
        """Of consecutive rows of one user with the same item, only the first; rows in time order.

        Example: the items x x y x of a user become x y x. A row is kept whole, with its own time
        and rating: what is kept does not depend on what came later.
        """
        goes_on = (self.users[1:] == self.users[:-1]) & (self.items[1:] == self.items[:-1])
        return self.take(~np.concatenate([np.zeros(min(len(self), 1), bool), goes_on]))


def _repeated(ordered: Interactions) -> npt.NDArray[np.bool_]:
    """Mask of rows whose (user, item, timestamp) came before; rows sorted by (user, timestamp)."""
    same_moment = np.zeros(len(ordered), bool)
    same_moment[1:] = (ordered.users[1:] == ordered.users[:-1]) & (
        ordered.timestamps[1:] == ordered.timestamps[:-1]
    )
    repeated = np.zeros(len(ordered), bool)
    if not same_moment.any():
        return repeated
    tied = same_moment.copy()
    tied[:-1] |= same_moment[1:]
    rows = np.flatnonzero(tied)
    moment = np.cumsum(~same_moment)[rows]  # one number per (user, timestamp)
    order = np.lexsort((ordered.items[rows], moment))
    again = (np.diff(moment[order]) == 0) & (np.diff(ordered.items[rows][order]) == 0)
    repeated[rows[order[1:][again]]] = True
    return repeated
