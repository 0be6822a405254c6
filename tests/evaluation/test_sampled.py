"""Sampled: who may be drawn, in which proportion, and that lists can be published."""

import numpy as np
import pytest

from bert4rec_jax.data.catalog import PAD
from bert4rec_jax.data.split import Cases, leave_one_out, train_counts
from bert4rec_jax.evaluation import sampled
from bert4rec_jax.evaluation.sampled import candidate_lists, draws

both_kinds = pytest.mark.parametrize("seen", ["never drawn", "drawn and dropped"])


def lists(cases, store, counts, *, seen, seed=0, negatives=100):
    rng = np.random.default_rng(seed)
    return candidate_lists(cases, store, counts, seen=seen, rng=rng, negatives=negatives)


@both_kinds
def test_the_target_comes_first_then_distinct_unseen_items_then_padding(store, seen):
    split = leave_one_out(store)
    counts = train_counts(store, split.train_stop)
    found = lists(split.validation, store, counts, seen=seen, negatives=30)
    assert found.shape == (len(split.validation), 31)
    assert found.dtype == np.int32
    for row, target, history in zip(
        found, store.tokens[split.validation.rows], split.validation.histories(store)
    ):
        assert row[0] == target
        negatives = row[row != PAD][1:]
        assert (row[1 + len(negatives) :] == PAD).all()
        assert len(set(negatives)) == len(negatives)
        assert not set(negatives) & {target, *history}
        assert (counts[negatives] > 0).all()


def test_all_that_is_unseen_is_drawn_where_there_is_little(store):
    split = leave_one_out(store)
    counts = train_counts(store, split.train_stop)
    found = lists(split.validation, store, counts, seen="never drawn")
    items = np.flatnonzero(counts)
    for row, target, history in zip(
        found, store.tokens[split.validation.rows], split.validation.histories(store)
    ):
        assert set(row[1:]) - {PAD} == set(items) - {target, *history}


def test_the_variant_loses_exactly_the_seen_items(store):
    split = leave_one_out(store)
    counts = train_counts(store, split.train_stop)
    found = lists(split.validation, store, counts, seen="drawn and dropped")
    items = set(np.flatnonzero(counts))
    lengths = [
        len(items - {target, *history})
        for target, history in zip(
            store.tokens[split.validation.rows], split.validation.histories(store)
        )
    ]
    assert ((found[:, 1:] != PAD).sum(1) == lengths).all()


def test_items_without_a_training_interaction_are_never_drawn(five):
    counts = train_counts(five.store, five.stop(3, 3, 3, 2, 1))
    found = lists(five.case(3, 1), five.store, counts, seen="never drawn")[0]
    assert found[0] == five.token("d")
    assert set(found[1:]) == {PAD, *five.tokens("ac")}


def many(five, times=20_000):
    """The last user's question, whose history is a and whose target is e, many times over."""
    case = five.case(4, 1)
    return Cases(np.repeat(case.users, times), np.repeat(case.rows, times), {})


def shares(five, column, letters="abcde"):
    return [float((column == five.token(letter)).mean()) for letter in letters]


def test_popularity_decides_the_order_of_drawing(five):
    counts = np.zeros(five.store.catalog.num_rows, int)
    counts[five.tokens("abcde")] = [50, 5, 3, 2, 7]
    found = lists(many(five), five.store, counts, seen="never drawn")
    assert shares(five, found[:, 1]) == pytest.approx([0, 5 / 10, 3 / 10, 2 / 10, 0], abs=0.015)
    after_b = found[found[:, 1] == five.token("b")]
    assert shares(five, after_b[:, 2]) == pytest.approx([0, 0, 3 / 5, 2 / 5, 0], abs=0.015)


def test_the_variant_draws_seen_items_by_popularity_too(five):
    counts = np.zeros(five.store.catalog.num_rows, int)
    counts[five.tokens("abcde")] = [10, 5, 3, 2, 7]
    found = lists(many(five), five.store, counts, seen="drawn and dropped", negatives=1)
    assert shares(five, found[:, 1]) == pytest.approx([0, 5 / 20, 3 / 20, 2 / 20, 0], abs=0.015)
    assert (found[:, 1] == PAD).mean() == pytest.approx(10 / 20, abs=0.015)


@both_kinds
def test_lists_depend_on_the_seed_alone(store, seen, monkeypatch):
    split = leave_one_out(store)
    counts = train_counts(store, split.train_stop)
    first = lists(split.validation, store, counts, seen=seen, negatives=9)
    assert (lists(split.validation, store, counts, seen=seen, negatives=9, seed=1) != first).any()
    monkeypatch.setattr(sampled, "_CELLS_AT_ONCE", 7 * len(counts))
    np.testing.assert_array_equal(
        lists(split.validation, store, counts, seen=seen, negatives=9), first
    )


def test_three_draws_are_fixed(store):
    split = leave_one_out(store)
    counts = train_counts(store, split.train_stop)
    found = draws(split.validation, store, counts)["never_drawn"]
    assert found.shape == (3, len(split.validation), 101)
    assert (found[0] != found[1]).any()
    np.testing.assert_array_equal(
        found[2], lists(split.validation, store, counts, seen="never drawn", seed=2)
    )


def test_more_negatives_than_rows_are_an_error(five):
    counts = np.ones(five.store.catalog.num_rows, int)
    with pytest.raises(ValueError, match="cannot draw 256 negatives from a table of 256 rows"):
        lists(five.case(4, 1), five.store, counts, seen="never drawn", negatives=256)
