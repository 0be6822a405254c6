"""Cold items: which ones, that no training history holds them, and what is asked about them."""

from dataclasses import replace

import numpy as np
import pytest
from sample import interactions

from bert4rec_jax.data.cold import ColdItems, arrange, choose_cold, cold_items
from bert4rec_jax.data.split import in_training, train_counts
from bert4rec_jax.data.store import SequenceStore, write_arranged, write_store
from bert4rec_jax.errors import UserError


def make(path, histories):
    """A store of histories of one-letter items; user names in order of their first event."""
    rows = [(user, item, t) for user, items in enumerate(histories) for t, item in enumerate(items)]
    return write_store(interactions(rows).in_time_order(), path / "store", titles={}, source={})


def letters(store, tokens):
    return "".join(("pad", "mask", *store.catalog.item_ids)[token] for token in tokens)


def held_out(store, validation, test):
    masks = []
    for half in (validation, test):
        mask = np.zeros(store.catalog.num_rows, bool)
        mask[[store.catalog.token(letter) for letter in half]] = True
        masks.append(mask)
    return ColdItems(*masks)


def arranged(store, cold, path, **options):
    """The arranged store and its split."""
    found = arrange(store, cold)
    changed = write_arranged(
        store, path, rows=found.rows, offsets=found.offsets, users=found.users, source={}
    )
    return changed, cold_items(changed, found, cold, **options)


def questions(store, cases):
    users = store.user_ids()
    return [
        (users[user], letters(store, history), letters(store, [store.tokens[row]]))
        for user, row, history in zip(cases.users, cases.rows, cases.histories(store))
    ]


# v, w are cold for validation, x, y for test.
HISTORIES = ["avbwcxd", "xab", "abcde", "vxawy", "wabc"]


def test_questions_by_hand(tmp_path):
    store = make(tmp_path, HISTORIES)
    changed, split = arranged(store, held_out(store, "vw", "xy"), tmp_path / "cold")
    assert changed.user_ids()[:5] == store.user_ids()
    training = [
        letters(changed, changed.tokens[start:stop])
        for start, stop in zip(changed.offsets, split.train_stop)
    ]
    # Of abcd the last two are asked for; "ab" and "a" are too short for that, and trained on whole.
    assert training == ["ab", "ab", "abc", "a", "a", "", "", "", ""]
    assert questions(changed, split.validation) == [
        ("0", "ab", "c"), ("2", "abc", "d"), ("4", "a", "b")
    ]  # fmt: skip
    assert questions(changed, split.test["test_warm"]) == [
        ("0", "abc", "d"), ("2", "abcd", "e"), ("4", "ab", "c")
    ]  # fmt: skip
    assert questions(changed, split.cold_validation) == [("0", "ab", "w"), ("3", "a", "w")]
    assert split.cold_validation.dropped == {"no cold item": 2, "no warm item before it": 1}
    assert questions(changed, split.test["test_cold"]) == [("0", "abc", "x"), ("3", "a", "y")]
    assert split.test["test_cold"].dropped == {"no cold item": 2, "no warm item before it": 1}
    both = questions(changed, split.test["test_warm"]) + questions(changed, split.test["test_cold"])
    assert questions(changed, split.test["test_all"]) == both
    assert letters(store, split.within["test_cold_only"]) == "xy"
    assert next(iter(split.test)) == "test_warm"
    assert not split.refits


def test_warm_targets_of_the_history_are_asked_for_only_with_repeats(tmp_path):
    store = make(tmp_path, ["abavbwx"])
    cold = held_out(store, "vw", "x")
    for repeats, expected in ((False, []), (True, [("0", "aba", "b")])):
        changed, split = arranged(store, cold, tmp_path / str(repeats), repeats=repeats)
        assert questions(changed, split.test["test_warm"]) == expected
        assert questions(changed, split.test["test_cold"]) == [("0", "abab", "x")]


def test_ratings_and_times_go_along(tmp_path):
    rows = [("u", "a", 5, 1.0), ("u", "x", 6, 2.0), ("u", "b", 7, 3.0), ("u", "v", 8, 4.0)]
    path = tmp_path / "rated"
    store = write_store(interactions(rows).in_time_order(), path, titles={}, source={})
    changed = arranged_rows(store, held_out(store, "v", "x"), tmp_path / "cold")
    assert changed.timestamps.tolist() == [5, 7, 5, 7, 8, 5, 6]
    assert changed.ratings.tolist() == [1, 3, 1, 3, 4, 1, 2]
    assert changed.catalog == store.catalog
    assert SequenceStore.open(tmp_path / "cold").fingerprint == changed.fingerprint


def test_a_log_without_times_stays_one_and_nothing_else_is_replaced(tmp_path):
    log = interactions([("u", item, t) for t, item in enumerate("axbv")]).in_time_order()
    store = write_store(replace(log, timed=False), tmp_path / "rows", titles={}, source={})
    cold = held_out(store, "v", "x")
    assert not arranged_rows(store, cold, tmp_path / "cold").timed
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").write_text("")
    with pytest.raises(UserError, match="exists and is not prepared data"):
        arranged_rows(store, cold, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "text").exists()


def arranged_rows(store, cold, path):
    found = arrange(store, cold)
    return write_arranged(
        store, path, rows=found.rows, offsets=found.offsets, users=found.users, source={}
    )


def test_no_cold_item_is_ever_trained_on_or_in_a_history(store, tmp_path):
    cold = choose_cold(store)
    changed, split = arranged(store, cold, tmp_path / "cold")
    counts = train_counts(changed, split.train_stop)
    assert counts[cold.either].sum() == 0 < counts[~cold.either].sum()
    trained = in_training(changed, split.train_stop)
    asked = {"validation": split.validation, "cold": split.cold_validation, **split.test}
    for cases in asked.values():
        assert len(cases)
        for history in cases.histories(changed):
            assert len(history) and not cold.either[history].any()
        assert not trained[cases.rows].any()
    assert cold.validation[changed.tokens[split.cold_validation.rows]].all()
    assert cold.test[changed.tokens[split.test["test_cold"].rows]].all()
    assert not cold.either[changed.tokens[split.test["test_warm"].rows]].any()


def test_every_user_is_asked_for_the_last_cold_item_or_counted(store, tmp_path):
    cold = choose_cold(store)
    changed, split = arranged(store, cold, tmp_path / "cold")
    for half, cases in ((cold.validation, split.cold_validation),
                        (cold.test, split.test["test_cold"])):  # fmt: skip
        expected = []
        for user in range(store.num_users):
            history = store.history(user)
            places = np.flatnonzero(half[history])
            warm = history[: places[-1]][~cold.either[history[: places[-1]]]] if len(places) else []
            if len(warm):
                expected.append((user, tuple(warm), history[places[-1]]))
        names = changed.user_ids()
        found = [
            (store.user_ids().index(names[user]), tuple(history), changed.tokens[row])
            for user, row, history in zip(cases.users, cases.rows, cases.histories(changed))
        ]
        assert found == expected
        assert len(found) + sum(cases.dropped.values()) == store.num_users


def test_a_tenth_each_of_every_stratum_of_popularity(tmp_path):
    # Item i of 100 is watched by 101 - i users, so popularity orders the items.
    rows = [(user, item, item) for item in range(100) for user in range(101 - item)]
    path = tmp_path / "store"
    store = write_store(interactions(rows).in_time_order(), path, titles={}, source={})
    cold = choose_cold(store)
    assert not (cold.validation & cold.test).any()
    tokens = np.array([store.catalog.token(str(item)) for item in range(100)])
    for half in (cold.validation, cold.test):
        assert half.sum() == 10
        assert half[tokens].reshape(10, 10).sum(axis=1).tolist() == [1] * 10
    # A fixed seed, so that the questions of all runs are the same; and a draw of its own for each.
    places = cold.test[tokens].reshape(10, 10).argmax(axis=1)
    assert places.tolist() == [7, 0, 1, 0, 6, 5, 7, 8, 3, 0]


def test_equally_popular_items_are_drawn_in_random_order(tmp_path):
    rows = [(0, item, item) for item in range(100)]
    path = tmp_path / "store"
    store = write_store(interactions(rows).in_time_order(), path, titles={}, source={})
    drawn = choose_cold(store).either[store.catalog.is_item()]
    assert drawn.sum() == 20
    assert drawn.reshape(10, 10).sum(axis=1).tolist() != [2] * 10  # as if the order were a ranking


def test_too_few_items_is_one_clear_error(tmp_path):
    store = make(tmp_path, ["ab", "bc"])
    with pytest.raises(UserError, match="no user has a cold item of validation after a warm one"):
        arrange(store, held_out(store, "", ""))
