"""Ranges: against Python's slices."""

import numpy as np
import pytest

from bert4rec_jax.data.ranges import covered, in_parts, joined, within

STARTS, SIZES = np.array([7, 3, 2, 9]), np.array([3, 0, 2, 1])


def test_joined_by_hand():
    assert joined(STARTS, SIZES).tolist() == [7, 8, 9, 2, 3, 9]
    assert within(SIZES).tolist() == [0, 1, 2, 0, 1, 0]


def test_places_that_ranges_cover():
    places = covered(STARTS, STARTS + SIZES, 11)
    assert np.flatnonzero(places).tolist() == [2, 3, 7, 8, 9]
    assert covered(np.array([0, 1, 4]), np.array([3, 2, 4]), 4).tolist() == [True] * 3 + [False]


def test_nothing_to_join():
    assert joined(STARTS[:0], SIZES[:0]).tolist() == within(np.zeros(3, np.int64)).tolist() == []


@pytest.mark.parametrize("most", [1, 5, 12, 1000])
def test_parts_are_as_long_as_the_bound_allows(most):
    sizes = np.random.default_rng(0).integers(0, 9, 100)
    parts = list(in_parts(sizes, most))
    assert [n for part in parts for n in range(100)[part]] == list(range(100))
    for part in parts:
        assert sizes[part].sum() <= most or part.stop - part.start == 1
        assert part.stop == 100 or sizes[part.start : part.stop + 1].sum() > most


def test_nothing_to_cut():
    assert list(in_parts(np.zeros(0, np.int64), 5)) == []
