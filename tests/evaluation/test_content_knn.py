"""ContentKNN: cosines of content, worked by hand."""

import math

import numpy as np
import pytest

from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.evaluation.content_knn import ContentKNN
from bert4rec_jax.evaluation.tuning import tune_all

# Content of a, b, c, d; nothing is known of e.
ROWS = {"a": (3, 0), "b": (1, 1), "c": (0, 2), "d": (-1, 0), "e": (0, 0)}


def fit(letters, stop, **settings):
    content = np.zeros((letters.store.catalog.num_rows, 2), np.float32)
    for letter, row in ROWS.items():
        content[letters.token(letter)] = row
    return ContentKNN.fit(letters.store, letters.stop(*stop), content, **settings)


def test_decayed_cosines_by_hand(five):
    model = fit(five, (3, 3, 3, 2, 1), decay=0.5, centred=False)
    # The history a b of the first user: b weighs 1, a .5.
    scores = five.by_letter(model.scores(five.case(0, 2), five.store)[0], "abcde")
    half = math.sqrt(0.5)
    expected = [half + 0.5, 1 + 0.5 * half, half, -half - 0.5, 0]
    assert scores == pytest.approx(expected, abs=1e-5)


def test_popularity_orders_what_is_equally_alike(five):
    model = fit(five, (3, 3, 3, 2, 1), decay=0.5, centred=False)
    scores = model.scores(five.case(4, 1), five.store)[0]  # after a: c and e are at cosine 0
    c, e = (scores[five.token(letter)] for letter in "ce")
    assert c > e == 0  # c has two training events, e none


def test_centred_cosines_are_about_the_mean_of_what_is_known(five):
    model = fit(five, (3, 3, 3, 2, 1), decay=0, centred=True)
    # The mean of a to d is (.75, .75): c is (-.75, 1.25) from it, d (-1.75, -.75).
    scores = five.by_letter(model.scores(five.case(4, 1), five.store)[0], "ade")
    a, d = np.array([2.25, -0.75]), np.array([-1.75, -0.75])
    cosine = a @ d / np.linalg.norm(a) / np.linalg.norm(d)
    assert scores == pytest.approx([1, cosine, 0], abs=1e-5)


def test_an_item_that_nobody_watched_is_found_by_its_content(five):
    model = fit(five, (1, 1, 1, 0, 1), decay=0, centred=False)  # training knows a alone
    scores = five.by_letter(model.scores(five.case(0, 2), five.store)[0], "abcde")  # after b
    assert np.argsort(scores)[::-1][:3].tolist() == [1, 0, 2]


def test_it_is_tuned_where_there_is_content(store):
    content = np.random.default_rng(0).normal(size=(store.catalog.num_rows, 3)).astype(np.float32)
    asked = []

    def rank(baseline, cases):
        asked.append((baseline.name, cases))
        return np.full(len(cases), 2 if baseline.settings.get("decay") == 0.7 else 3)

    split = leave_one_out(store)
    found = tune_all(store, split, rank, names=["popular"], content=content)
    assert list(found) == ["popular", "content-knn"]
    assert found["content-knn"].chosen.settings == {"decay": 0.7, "centred": False}
    assert all(cases is split.validation for _, cases in asked)
