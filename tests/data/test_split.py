import dataclasses
from itertools import chain

import numpy as np
import pytest
from sample import interactions

from bert4rec_jax.data import split
from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.split import (
    first_days,
    global_time,
    in_training,
    leave_one_out,
    train_counts,
)
from bert4rec_jax.data.store import write_store
from bert4rec_jax.errors import UserError


def make(path, histories, **changes):
    """A store of histories: user -> items, each with its timestamp. Items get tokens 2, 3, ...

    Token order is the order of appearance in the sorted log.
    """
    rows = list(chain(*([(u, item, t) for item, t in items] for u, items in histories.items())))
    log = dataclasses.replace(interactions(rows).in_time_order(), **changes)
    return write_store(log, path / "store", titles={}, source={})


def questions(store, cases):
    """(user, history, target) with external ids."""
    ids = ("pad", "mask", *store.catalog.item_ids)
    users = store.user_ids()
    return [
        (users[user], "".join(ids[token] for token in history), ids[store.tokens[row]])
        for user, row, history in zip(cases.users, cases.rows, cases.histories(store))
    ]


def trained(store, stop):
    ids = ("pad", "mask", *store.catalog.item_ids)
    return [
        "".join(ids[token] for token in store.tokens[start:end])
        for start, end in zip(store.offsets, stop)
    ]


def in_order(items):
    return [(item, t) for t, item in enumerate(items)]


def test_leave_one_out_by_hand(tmp_path):
    store = make(
        tmp_path,
        {
            "long": in_order("abcd"),
            "three": in_order("xyz"),
            "two": in_order("ab"),
            "one": in_order("c"),
        },
    )
    split = leave_one_out(store)
    assert trained(store, split.train_stop) == ["ab", "x", "ab", "c"]
    assert questions(store, split.validation) == [("long", "ab", "c"), ("three", "x", "y")]
    assert questions(store, split.test["test"]) == [("long", "abc", "d"), ("three", "xy", "z")]
    assert split.test["test"].dropped == {"fewer than 3 interactions": 2}
    assert split.validation.dropped == {"fewer than 3 interactions": 2}
    assert not split.refits


def test_leave_one_out_drops_targets_seen_before(tmp_path):
    store = make(
        tmp_path, {"again": in_order("abca"), "middle": in_order("aab"), "new": in_order("abc")}
    )
    split = leave_one_out(store)
    assert questions(store, split.validation) == [("again", "ab", "c"), ("new", "a", "b")]
    assert questions(store, split.test["test"]) == [("middle", "aa", "b"), ("new", "ab", "c")]
    assert split.validation.dropped == {"target already in the history": 1}
    assert split.test["test"].dropped == {"target already in the history": 1}
    # What is dropped from the questions stays in the training part.
    assert trained(store, split.train_stop) == ["ab", "a", "a"]


@pytest.mark.parametrize("rows_at_once", [1, 50, 1 << 22])
def test_what_was_seen_before_is_found_in_blocks_of_any_size(tmp_path, monkeypatch, rows_at_once):
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnop"))
    lengths = generator.integers(1, 20, 60)
    store = make(
        tmp_path,
        {f"u{n}": in_order(generator.choice(letters, size)) for n, size in enumerate(lengths)},
    )
    monkeypatch.setattr(split, "_ROWS_AT_ONCE", rows_at_once)
    cases = leave_one_out(store).test["test"]
    expected = [
        (f"u{n}", history[:-1], history[-1])
        for n, history in enumerate(trained(store, store.offsets[1:]))
        if len(history) >= 3 and history[-1] not in history[:-1]
    ]
    assert 0 < len(expected) < (lengths >= 3).sum()
    assert sorted(questions(store, cases)) == sorted(expected)


def test_leave_one_out_needs_three_interactions(tmp_path):
    store = make(tmp_path, {"two": in_order("ab"), "one": in_order("c")})
    with pytest.raises(UserError, match=r"at least 3 interactions; the longest of 2 .* has 2"):
        leave_one_out(store)


# Times 1 .. 10, so T = 9 (the lower .9 quantile: index floor(.9 * 9) = 8), and T_val, of the
# times 1 .. 9, is 8 (index floor(.9 * 8) = 7).
TIMELINE = {
    "early": [("a", 1), ("b", 2), ("c", 3)],
    "validated": [("a", 4), ("b", 5), ("d", 9)],
    "tested": [("a", 6), ("c", 7), ("b", 8), ("e", 10)],
}


def test_global_time_by_hand(tmp_path):
    store = make(tmp_path, TIMELINE)
    split = global_time(store)
    assert trained(store, split.train_stop) == ["abc", "ab", "acb"]
    assert trained(store, split.refit_stop) == ["abc", "abd", "acb"]
    assert split.refits
    assert questions(store, split.validation) == [("validated", "ab", "d")]
    assert questions(store, split.test["test"]) == [("tested", "acb", "e")]
    assert questions(store, split.test["test_first"]) == [("tested", "acb", "e")]
    assert next(iter(split.test)) == "test"


def test_global_time_asks_for_the_last_and_separately_for_the_first_event(tmp_path):
    # Times 1 .. 10 again, halved: T = 5 (index floor(.5 * 9) = 4), T_val = 3 (index 2 of 1 .. 5).
    store = make(
        tmp_path,
        {
            "u": [("a", 1), ("b", 4), ("c", 6), ("d", 8), ("e", 10)],
            "cold": [("a", 7), ("b", 9)],
            "v": [("a", 2), ("b", 3), ("c", 5)],
        },
    )
    split = global_time(store, quantile=0.5)
    assert trained(store, split.train_stop) == ["a", "", "ab"]
    assert trained(store, split.refit_stop) == ["ab", "", "abc"]
    assert questions(store, split.validation) == [("u", "a", "b"), ("v", "ab", "c")]
    # The last event: what came after T before it is part of the history.
    assert questions(store, split.test["test"]) == [("u", "abcd", "e"), ("cold", "a", "b")]
    assert split.test["test"].dropped == {}
    # The first event: a user who is new at T has no history and is counted.
    assert questions(store, split.test["test_first"]) == [("u", "ab", "c")]
    assert split.test["test_first"].dropped == {"no history before the target": 1}


def test_global_time_validates_on_the_last_event_of_its_period(tmp_path):
    # T = 5 and T_val = 3, as above: both d and e are in the period.
    store = make(
        tmp_path,
        {"u": list(zip("abcde", range(1, 6))), "later": list(zip("abcde", range(6, 11)))},
    )
    split = global_time(store, quantile=0.5)
    assert trained(store, split.train_stop) == ["abc", ""]
    assert questions(store, split.validation) == [("u", "abcd", "e")]


def test_targets_of_the_history_are_asked_for_only_with_repeats(tmp_path):
    store = make(tmp_path, {"u": list(zip("abcabcabca", range(1, 11)))})

    def asked(**options):
        splits = (
            leave_one_out(store, **options),
            leave_one_out(store, np.ones(10, bool), **options),
            global_time(store, quantile=0.5, **options),
        )
        return [
            [questions(store, cases) for cases in (split.validation, *split.test.values())]
            for split in splits
        ]

    last_two = [[("u", "abcabcab", "c")], [("u", "abcabcabc", "a")]]
    by_time = [[("u", "abca", "b")], [("u", "abcabcabc", "a")], [("u", "abcab", "c")]]
    assert asked(repeats=True) == [last_two, last_two, by_time]
    assert asked() == [[[], []], [[], []], [[], [], []]]


def test_global_time_from_a_moment(tmp_path):
    """The test begins at 6: as with T = 5 in the test above."""
    timeline = {
        "u": [("a", 1), ("b", 4), ("c", 6), ("d", 8), ("e", 10)],
        "cold": [("a", 7), ("b", 9)],
        "v": [("a", 2), ("b", 3), ("c", 5)],
    }
    store = make(tmp_path, timeline)
    by_moment, by_quantile = (
        global_time(store, quantile=0.5, test_from=6),
        global_time(store, quantile=0.5),
    )
    np.testing.assert_array_equal(by_moment.refit_stop, by_quantile.refit_stop)
    np.testing.assert_array_equal(by_moment.train_stop, by_quantile.train_stop)
    for moment in (1, 11):
        with pytest.raises(UserError, match=r"goes from 1970-01-01 to 1970-01-01, so no test begi"):
            global_time(store, test_from=moment)


def test_global_time_drops_targets_seen_before(tmp_path):
    timeline = {**TIMELINE, "tested": [("a", 6), ("c", 7), ("b", 8), ("a", 10)]}
    split = global_time(make(tmp_path, timeline))
    assert len(split.test["test"]) == 0
    assert split.test["test"].dropped == {"target already in the history": 1}


def test_global_time_drops_last_events_without_a_history(tmp_path):
    timeline = {"u": TIMELINE["early"] + TIMELINE["validated"] + TIMELINE["tested"][:3]}
    split = global_time(make(tmp_path, {**timeline, "new": [("e", 10)]}))
    assert len(split.test["test"]) == 0
    assert split.test["test"].dropped == {"no history before the target": 1}


def test_global_time_needs_timestamps(tmp_path):
    store = make(tmp_path, TIMELINE, timed=False)
    with pytest.raises(UserError, match=r"needs timestamps, .*; use --data.split leave-one-out"):
        global_time(store)


def test_global_time_needs_events_in_every_period(tmp_path):
    store = make(tmp_path, {"u": [("a", 1), ("b", 1), ("c", 1)]})
    with pytest.raises(UserError, match=r"no user has an event in the validation period"):
        global_time(store)


def test_training_rows_and_counts(tmp_path):
    store = make(tmp_path, {"u": in_order("abcd"), "v": in_order("ba"), "w": in_order("cda")})
    split = leave_one_out(store)
    expected = [True, True, False, False, True, True, True, False, False]
    assert in_training(store, split.train_stop).tolist() == expected
    counts = train_counts(store, split.train_stop)
    assert counts.shape == (256,)
    assert counts[:7].tolist() == [0, 0, 2, 2, 1, 0, 0]  # pad, mask, a, b, c, d, nothing


def test_the_first_day_of_an_item_is_that_of_its_earliest_training_row(tmp_path):
    days = {"u": [("a", 2), ("b", 3), ("c", 4), ("d", 5)], "v": [("b", 1), ("a", 6)]}
    seconds = {user: [(x, day * SECONDS_PER_DAY) for x, day in row] for user, row in days.items()}
    store = make(tmp_path, seconds)
    found = first_days(store, leave_one_out(store).train_stop)
    assert found.shape == (256,)
    # c and d are asked for, not trained on.
    assert found[:7].tolist() == [0, 0, 2, 1, 0, 0, 0]  # pad, mask, a, b, c, d, nothing


def test_cases_can_be_cut_and_masked(tmp_path):
    store = make(tmp_path, {name: in_order("abc") for name in "uvw"})
    cases = leave_one_out(store).test["test"]
    assert [user for user, _, _ in questions(store, cases[1:])] == ["v", "w"]
    assert [user for user, _, _ in questions(store, cases[np.array([True, False, True])])] == [
        "u",
        "w",
    ]


def test_only_liked_items_are_asked_for(tmp_path):
    store = make(
        tmp_path,
        {
            "many": in_order("aBcDe"),  # upper case: liked
            "late": in_order("abCDE"),
            "first": in_order("Abc"),  # one liked item, and nothing before it
            "one": in_order("abC"),
            "start": in_order("AbC"),  # the validation target would have no history
        },
    )
    ids = ("pad", "mask", *store.catalog.item_ids)
    liked = np.array([ids[token].isupper() for token in store.tokens])
    split = leave_one_out(store, liked)
    assert questions(store, split.validation) == [("many", "a", "B"), ("late", "abC", "D")]
    assert questions(store, split.test["test"]) == [("many", "aBc", "D"), ("late", "abCD", "E")]
    assert trained(store, split.train_stop) == ["a", "abC", "Abc", "abC", "AbC"]
    why = "fewer than two liked items after the first"
    assert split.test["test"].dropped == {why: 3} == split.validation.dropped


def test_nothing_liked_is_one_clear_error(tmp_path):
    store = make(tmp_path, {"u": in_order("abc")})
    with pytest.raises(UserError, match=r"no user has two liked items.*--data\.targets any"):
        leave_one_out(store, np.zeros(3, bool))
