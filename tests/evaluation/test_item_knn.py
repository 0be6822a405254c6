"""ItemKNN: similarities of five histories, worked by hand, and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from bert4rec_jax.data.ranges import in_parts
from bert4rec_jax.evaluation import item_knn
from bert4rec_jax.evaluation.item_knn import ItemKNN, similarities

# abc, abd, acb, bd and a: a and b have 4 watchers, c and d 2.
STOP = (3, 3, 3, 2, 1)


def neighbours_of(letters, source, *, neighbours=99, shrinkage=0.0):
    matrix = similarities(
        letters.store, letters.stop(*STOP), neighbours=neighbours, shrinkage=shrinkage
    )
    return letters.by_letter(matrix.toarray()[letters.token(source)], "abcde")


def test_cosine_by_hand(five):
    assert neighbours_of(five, "a") == pytest.approx(
        [0, 3 / 4, 2 / math.sqrt(8), 1 / math.sqrt(8), 0]
    )
    assert neighbours_of(five, "c") == pytest.approx([2 / math.sqrt(8), 2 / math.sqrt(8), 0, 0, 0])


def test_shrinkage_adds_to_the_denominator(five):
    assert neighbours_of(five, "a", shrinkage=4)[1] == pytest.approx(3 / (4 + 4))


def test_an_item_keeps_its_nearest_neighbours_and_their_ties(five):
    assert np.flatnonzero(neighbours_of(five, "a", neighbours=1)).tolist() == [1]
    assert np.flatnonzero(neighbours_of(five, "a", neighbours=2)).tolist() == [1, 2]
    assert np.flatnonzero(neighbours_of(five, "c", neighbours=1)).tolist() == [0, 1]


def test_an_item_watched_twice_has_one_watcher(write):
    letters = write(["aab", "a"])
    matrix = similarities(letters.store, letters.stop(3, 1), neighbours=9, shrinkage=0)
    a, b = letters.tokens("ab")
    assert matrix[a, b] == pytest.approx(1 / math.sqrt(2))


def test_agrees_with_scikit_learn_in_blocks_of_any_size(store, monkeypatch):
    watched = np.zeros((store.num_users, store.catalog.num_rows))
    for user in range(store.num_users):
        watched[user, store.history(user)] = 1
    expected = cosine_similarity(watched.T)
    np.fill_diagonal(expected, 0)
    whole = similarities(store, store.offsets[1:], neighbours=999, shrinkage=0)
    np.testing.assert_allclose(whole.toarray(), expected, atol=1e-6)
    for cells in (1, 7 * store.catalog.num_rows):
        monkeypatch.setattr(item_knn, "_CELLS_AT_ONCE", cells)
        found = similarities(store, store.offsets[1:], neighbours=999, shrinkage=0)
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_short_histories_of_a_large_catalog_have_few_blocks(write, monkeypatch):
    letters = write(["".join(map(chr, range(n, n + 3))) for n in range(1_000, 1_300, 3)])
    parts = []

    def counted(*args):
        parts.extend(in_parts(*args))
        return parts

    monkeypatch.setattr(item_knn, "in_parts", counted)
    monkeypatch.setattr(item_knn, "_CELLS_AT_ONCE", letters.store.catalog.num_rows)
    similarities(letters.store, letters.store.offsets[1:], neighbours=9, shrinkage=0)
    assert len(parts) == 2  # each of the 300 items is similar to 3, itself included


def test_scores_add_decayed_similarities_and_order_the_rest_by_popularity(five):
    model = ItemKNN.fit(five.store, five.stop(*STOP), neighbours=99, shrinkage=0, decay=0.5)
    # History a c: sim(c, j) + sim(a, j) / 2.
    scores = model.scores(five.case(2, 2), five.store)[0]
    root = math.sqrt(8)
    expected = [2 / root, 2 / root + 3 / 8, 1 / root, 1 / root / 2, 0]
    assert five.by_letter(scores, "abcde") == pytest.approx(expected, abs=1e-5)
    # History d: c is no neighbour of it, e was never watched; c comes first.
    case = five.case(1, 2)
    after_d = model.scores(type(case)(case.users, case.rows + 1, {}), five.store)[0]
    unreached = ItemKNN.fit(five.store, five.stop(*STOP), neighbours=99, shrinkage=0, decay=0)
    c, e = unreached.scores(type(case)(case.users, case.rows + 1, {}), five.store)[0][
        five.tokens("ce")
    ]
    assert after_d[five.token("c")] > c > e == 0


def test_impossible_settings_are_errors(five):
    for settings, message in (
        ({"neighbours": 0, "shrinkage": 0}, "neighbours is 0; expected at least 1"),
        ({"neighbours": 1, "shrinkage": -1}, "shrinkage is -1; expected at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ItemKNN.fit(five.store, five.stop(*STOP), decay=0.5, **settings)


def test_name_and_settings(five):
    model = ItemKNN.fit(five.store, five.stop(*STOP), neighbours=9, shrinkage=1, decay=0.5)
    assert model.name == "item-knn"
    assert model.settings == {"neighbours": 9, "shrinkage": 1, "decay": 0.5}
