"""The k-core by hand, and beside one that removes users and items one at a time."""

import numpy as np
import pytest
from sample import interactions

from bert4rec_jax.data.k_core import k_core
from bert4rec_jax.errors import UserError


def rows(log):
    """Back to (user, item, timestamp) tuples."""
    users, items = log.user_ids.to_pylist(), log.item_ids.to_pylist()
    return [
        (users[user], items[item], int(time))
        for user, item, time in zip(log.users, log.items, log.timestamps)
    ]


def core_of(log, *, min_user, min_item, max_user=None, piece=7):
    """The rows of the core, found in pieces of a few rows."""
    core = k_core(
        lambda: (
            (log.users[start : start + piece], log.items[start : start + piece])
            for start in range(0, len(log), piece)
        ),
        len(log.user_ids),
        len(log.item_ids),
        min_user_interactions=min_user,
        min_item_interactions=min_item,
        max_user_interactions=max_user,
    )
    return log.take(core.users[log.users] & core.items[log.items])


def test_k_core_runs_to_its_fixpoint():
    # z has one row and goes; with it c falls to one row and goes; with c, y falls to one and goes;
    # then b has only x left and goes; then x has only a left, with w twice: nothing is left below 2
    # but x, and after x, a keeps w (two rows) and v (two rows).
    log = interactions(
        [
            ("a", "w", 1), ("a", "w", 2), ("a", "v", 3), ("a", "v", 4), ("a", "x", 5),
            ("b", "x", 1), ("b", "y", 2),
            ("c", "y", 1), ("c", "z", 2),
        ]
    )  # fmt: skip
    core = core_of(log, min_user=2, min_item=2)
    assert rows(core) == [("a", "w", 1), ("a", "w", 2), ("a", "v", 3), ("a", "v", 4)]


def test_k_core_satisfies_both_minima_and_is_maximal():
    generator = np.random.default_rng(2)
    log = interactions([tuple(row) for row in generator.integers(0, 30, (300, 3))]).in_time_order()
    core = core_of(log, min_user=8, min_item=7)
    assert 0 < len(core) < len(log)
    assert np.bincount(core.users)[np.unique(core.users)].min() >= 8
    assert np.bincount(core.items)[np.unique(core.items)].min() >= 7
    # Removing users and items one at a time, in any order, ends at the same core.
    left = rows(log)
    while True:
        users = [user for user, _, _ in left]
        items = [item for _, item, _ in left]
        weak = next((u for u in sorted(set(users)) if users.count(u) < 8), None)
        if weak is not None:
            left = [row for row in left if row[0] != weak]
            continue
        weak = next((i for i in sorted(set(items)) if items.count(i) < 7), None)
        if weak is None:
            break
        left = [row for row in left if row[1] != weak]
    assert rows(core) == left


def test_k_core_of_one_keeps_everything():
    log = interactions([("a", "x", 1), ("b", "y", 1)])
    assert rows(core_of(log, min_user=1, min_item=1)) == rows(log)


def test_k_core_that_leaves_nothing_says_which_minima_to_lower():
    log = interactions([("a", "x", 1), ("b", "y", 1)])
    with pytest.raises(
        UserError, match=r"no interaction is left of 2 .* at least 5 .* at least 3 .*; lower"
    ):
        core_of(log, min_user=5, min_item=3)


def test_users_with_too_many_rows_count_for_no_item():
    # b has three rows, one more than the most, and goes; then y has only c's row and goes; then c
    # falls to one row and goes. a stays: two rows with w, and w has two.
    log = interactions(
        [
            ("a", "w", 1), ("a", "w", 2),
            ("b", "y", 1), ("b", "y", 2), ("b", "w", 3),
            ("c", "y", 1), ("c", "w", 2),
        ]
    )  # fmt: skip
    kept = core_of(log, min_user=2, min_item=2, max_user=2)
    assert rows(kept) == [("a", "w", 1), ("a", "w", 2)]
    assert rows(core_of(log, min_user=2, min_item=2, max_user=3)) == rows(log)


def test_the_most_rows_are_those_before_items_are_left_out():
    # u has three rows, two of them with an item of one row.
    log = interactions([("u", "x", 1), ("u", "y", 2), ("u", "w", 3), ("v", "w", 1)])
    assert rows(core_of(log, min_user=1, min_item=1, max_user=2)) == [("v", "w", 1)]
    with pytest.raises(
        UserError, match=r"at least 1 and at most 2 and items with at least 2 .* raise the maximum$"
    ):
        core_of(log, min_user=1, min_item=2, max_user=2)
