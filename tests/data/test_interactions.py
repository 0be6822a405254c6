from dataclasses import replace

import numpy as np
import pytest
from sample import interactions


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


def test_columns_of_different_lengths_are_refused():
    log = interactions([("a", "x", 1), ("b", "y", 1)])
    with pytest.raises(ValueError, match=r"columns differ in length: \[1, 2\]"):
        type(log)(log.users[:1], log.items, log.timestamps, log.ratings, log.user_ids, log.item_ids)


def test_fractions_order_rows_within_a_second_but_do_not_tell_duplicates_apart():
    log = interactions(
        [("u", "x", 1, 3.0), ("u", "y", 1, 4.0), ("u", "x", 1, 5.0), ("u", "z", 0, 1.0)]
    )
    ordered = replace(log, fractions=np.array([30, 20, 10, 40], np.int32)).in_time_order()
    # Of the two rows of x in one second, the earlier one stays.
    assert rows(ordered) == [("u", "z", 0), ("u", "x", 1), ("u", "y", 1)]
    assert ordered.ratings.tolist() == [1.0, 5.0, 4.0]
    assert ordered.fractions is None
