"""The k-core: users and items that have enough interactions with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import UserError

Pairs = Iterable[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Core:
    """Which users and items are kept; a row is kept if both its user and its item are.

    Attributes:
      users: `[U]`: mask of the kept users.
      items: `[I]`: mask of the kept items.
      too_active: number of users that were left out for having more than the most rows.
    """

    users: Marks
    items: Marks
    too_active: int


def k_core(
    pairs: Callable[[], Pairs],
    num_users: int,
    num_items: int,
    *,
    min_user_interactions: int,
    min_item_interactions: int,
    max_user_interactions: int | None = None,
) -> Core:
    """Find the users and items of the k-core, filtering until nothing changes.

    Args:
      pairs: called once per pass, of which there may be many; yields the users and items of all
        rows, in pieces.
      num_users: U; users are 0 .. U - 1.
      num_items: I; items are 0 .. I - 1.
      min_user_interactions: rows with kept items that a user needs.
      min_item_interactions: rows with kept users that an item needs.
      max_user_interactions: a user with more rows, with whatever items, is left out before
        anything is counted for others; None: no user is.

    Raises:
      UserError: no row is left.
    """
    keep_users, keep_items = np.ones(num_users, bool), np.ones(num_items, bool)
    if max_user_interactions is not None:
        all_rows = np.zeros(num_users, np.int64)
        for users, _ in pairs():
            add_counts(users, all_rows)
        keep_users = all_rows <= max_user_interactions
    too_active = num_users - int(keep_users.sum())
    while True:
        user_counts, item_counts = np.zeros(num_users, np.int64), np.zeros(num_items, np.int64)
        rows = 0
        for users, items in pairs():
            kept = keep_users[users] & keep_items[items]
            add_counts(users[kept], user_counts)
            add_counts(items[kept], item_counts)
            rows += len(users)
        weak_users = user_counts < min_user_interactions
        weak_items = item_counts < min_item_interactions
        keep_users &= ~weak_users
        keep_items &= ~weak_items
        if not user_counts[weak_users].any() and not item_counts[weak_items].any():
            break
    if not user_counts.any():
        at_most = f" and at most {max_user_interactions}" if too_active else ""
        raise UserError(
            f"no interaction is left of {rows:,} after filtering for users with at least "
            f"{min_user_interactions}{at_most} and items with at least {min_item_interactions} "
            "interactions; lower the minimum of interactions per user or per item"
            + ", or raise the maximum"
            * bool(too_active)
        )
    return Core(keep_users, keep_items, too_active)


def add_counts(codes: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]) -> None:
    """Add to `counts` how often each code occurs; cheap if the codes lie close together."""
    if len(codes):
        first, stop = int(codes.min()), int(codes.max()) + 1
        counts[first:stop] += np.bincount(codes - first)
