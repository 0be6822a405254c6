"""Histories: weights by position, and products that do not depend on how a matrix is kept."""

import numpy as np
import pytest
import scipy.sparse as sp

from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.evaluation import histories
from bert4rec_jax.evaluation.histories import (
    decayed_histories,
    dense_if_small,
    product,
    training_rows,
)


def test_training_rows_end_before_stop(five):
    users, tokens = training_rows(five.store, five.stop(2, 3, 0, 1, 1))
    assert list(users) == [0, 0, 1, 1, 1, 3, 4]
    assert list(tokens) == list(five.tokens("ababdba"))


def test_the_last_item_weighs_one_and_each_before_it_decays(five):
    row = decayed_histories(five.case(1, 2), five.store, 0.5).toarray()[0]
    assert five.by_letter(row, "abcde") == [0.5, 1, 0, 0, 0]


def test_without_decay_only_the_last_item_stays(five):
    row = decayed_histories(five.case(1, 2), five.store, 0).toarray()[0]
    assert five.by_letter(row, "abcde") == [0, 1, 0, 0, 0]


def test_weights_below_a_thousandth_are_left_out(write):
    letters = write(["abcdefgh"])
    row = decayed_histories(letters.case(0, 7), letters.store, 0.2).toarray()[0]
    expected = [0, 0, 0.0016, 0.008, 0.04, 0.2, 1, 0]
    assert letters.by_letter(row, "abcdefgh") == pytest.approx(expected)


def test_an_item_watched_twice_adds_up(write):
    letters = write(["abab"])
    row = decayed_histories(letters.case(0, 3), letters.store, 0.5).toarray()[0]
    assert letters.by_letter(row, "ab") == [1 + 1 / 4, 1 / 2]


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_outside_its_range_is_an_error(five, decay):
    with pytest.raises(ValueError, match=rf"decay is {decay}; expected a value in \[0, 1\)"):
        decayed_histories(five.case(0, 1), five.store, decay)


def test_products_have_equal_bits_however_the_matrix_is_kept(store, monkeypatch):
    cases = leave_one_out(store).validation
    weights = decayed_histories(cases, store, 0.7)
    items = store.catalog.num_rows
    drawn = np.random.default_rng(0).random((items, items), np.float32)
    matrix = sp.csr_array(np.where(drawn < 0.1, drawn, 0))
    kept = dense_if_small(matrix)
    assert isinstance(kept, np.ndarray)
    monkeypatch.setattr(histories, "_DENSE_CELLS", items * items - 1)
    assert dense_if_small(matrix) is matrix
    np.testing.assert_array_equal(product(weights, kept), product(weights, matrix))
    np.testing.assert_allclose(product(weights, kept), weights.toarray() @ kept, rtol=1e-5)
