import numpy as np
import pytest
from sample import interactions

from bert4rec_jax.errors import UserError


def rows(log):
    """Back to (user, item, timestamp) tuples."""
    users, items = log.user_ids.to_pylist(), log.item_ids.to_pylist()
    return [
        (users[user], items[item], int(time))
        for user, item, time in zip(log.users, log.items, log.timestamps)
    ]


def test_rows_are_sorted_by_user_then_time_and_ties_keep_the_input_order():
    log = interactions(
        [("b", "x", 5), ("a", "z", 7), ("b", "w", 3), ("a", "y", 7), ("a", "x", 7), ("b", "v", 5)]
    )
    # Users stand in the order of their first appearance: b, then a.
    assert rows(log.in_time_order()) == [
        ("b", "w", 3),
        ("b", "x", 5),
        ("b", "v", 5),
        ("a", "z", 7),
        ("a", "y", 7),
        ("a", "x", 7),
    ]


def test_many_ties_keep_the_input_order():
    log = interactions([("u", item, 1) for item in np.random.default_rng(0).permutation(500)])
    assert [item for _, item, _ in rows(log.in_time_order())] == log.item_ids.to_pylist()


def test_same_user_item_and_time_is_one_interaction_and_the_first_stays():
    log = interactions(
        [
            ("u", "x", 1, 3.0),
            ("u", "y", 1, 4.0),
            ("u", "x", 1, 5.0),  # repeats the first, with another rating
            ("u", "x", 2, 5.0),  # another time
            ("v", "x", 1, 2.0),  # another user
            ("u", "x", 1, 1.0),  # once more
        ]
    )
    ordered = log.in_time_order()
    assert rows(ordered) == [("u", "x", 1), ("u", "y", 1), ("u", "x", 2), ("v", "x", 1)]
    assert ordered.ratings.tolist() == [3.0, 4.0, 5.0, 2.0]


def test_sorting_twice_changes_nothing():
    generator = np.random.default_rng(1)
    log = interactions([tuple(row) for row in generator.integers(0, 6, (200, 3))])
    once = log.in_time_order()
    assert len(once) == len({tuple(row) for row in rows(log)})
    assert rows(once.in_time_order()) == rows(once)


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
    core = log.k_core(min_user=2, min_item=2)
    assert rows(core) == [("a", "w", 1), ("a", "w", 2), ("a", "v", 3), ("a", "v", 4)]


def test_k_core_satisfies_both_minima_and_is_maximal():
    generator = np.random.default_rng(2)
    log = interactions([tuple(row) for row in generator.integers(0, 30, (300, 3))]).in_time_order()
    core = log.k_core(min_user=8, min_item=7)
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
    assert rows(log.k_core(min_user=1, min_item=1)) == rows(log)


def test_k_core_that_leaves_nothing_says_which_minima_to_lower():
    log = interactions([("a", "x", 1), ("b", "y", 1)])
    with pytest.raises(
        UserError, match=r"no interaction is left of 2 .* at least 5 .* at least 3 .*; lower"
    ):
        log.k_core(min_user=5, min_item=3)


def test_columns_of_different_lengths_are_refused():
    log = interactions([("a", "x", 1), ("b", "y", 1)])
    with pytest.raises(ValueError, match=r"columns differ in length: \[1, 2\]"):
        type(log)(log.users[:1], log.items, log.timestamps, log.ratings, log.user_ids, log.item_ids)
