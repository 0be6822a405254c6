"""Each kind of block, worked out by hand."""

import math

import numpy as np
import pytest

from bert4rec_jax.features.blocks import (
    MOST_KNOTS,
    MOVIES_PER_KNOT,
    VALUES_PER_KNOT,
    NameBlock,
    NumberBlock,
    VectorBlock,
)
from bert4rec_jax.features.movie import Movie
from bert4rec_jax.features.vectors import Vectors


def squared_norms(rows):
    return np.square(rows, dtype=np.float64).sum(axis=1)


def test_names():
    movies = [
        Movie(genres=("War", "Drama")),
        Movie(genres=("Drama",)),
        Movie(),
        Movie(genres=("X",)),
    ]
    block = NameBlock.fit("genres", movies, min_count=1, top=2, buckets=1)
    # Drama, War, the rest, missing; squared norms 2, 1, 1, 1, so the scale is sqrt(4 / 5).
    s = math.sqrt(4 / 5)
    expected = [[s, s, 0, 0], [s, 0, 0, 0], [0, 0, 0, s], [0, 0, s, 0]]
    np.testing.assert_allclose(block.encode(movies), expected, rtol=1e-6)
    assert block.missing == {"genres": 3}
    assert block.encode([]).shape == (0, 4)


def test_a_known_list_without_a_column_is_not_missing():
    block = NameBlock.fit("genres", [Movie(genres=("War",))], min_count=1, top=1, buckets=0)
    other, missing = block.encode([Movie(genres=("X",)), Movie()])
    assert other.tolist() == [0, 0]
    assert missing.tolist() == [0, 1]


def test_numbers():
    movies = [Movie(runtime=80, year=2000), Movie(runtime=120), Movie(year=2000)]
    block = NumberBlock.fit("numbers", ("runtime", "released", "budget"), movies)
    # The knots of runtimes are 80 and 120, that of releases is the middle of 2000; nobody has a
    # budget. Each row has two ones.
    s = math.sqrt(1 / 2)
    expected = [[s, 0, 0, s, 0], [0, s, 0, 0, s], [0, 0, s, s, 0]]
    np.testing.assert_allclose(block.encode(movies), expected, rtol=1e-6)
    assert block.missing == {"runtime": 2, "released": 4}
    assert block.width == 5


def test_a_number_between_knots_shares_its_weight():
    block = NumberBlock.fit("numbers", ("runtime",), [Movie(runtime=80), Movie(runtime=120)])
    given = [Movie(runtime=x) for x in (80, 90, 100, 120)] + [Movie()]
    expected = np.array([[1, 0, 0], [0.75, 0.25, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(block.encode(given), expected * block.scale, rtol=1e-6)


def test_numbers_beyond_the_knots_count_as_the_last_one():
    block = NumberBlock.fit("numbers", ("runtime",), [Movie(runtime=80), Movie(runtime=120)])
    low, first, high, last = block.encode([Movie(runtime=x) for x in (1, 80, 1e9, 120)])
    np.testing.assert_array_equal(low, first)
    np.testing.assert_array_equal(high, last)


def test_knots_are_dense_where_the_numbers_are():
    runtimes = np.concatenate([np.linspace(90, 100, 900), np.linspace(100, 300, 101)[1:]])
    block = NumberBlock.fit("numbers", ("runtime",), [Movie(runtime=x) for x in runtimes])
    (curve,) = block.numbers
    assert len(curve.knots) == MOST_KNOTS and list(curve.knots) == sorted(curve.knots)
    assert sum(knot <= 100 for knot in curve.knots) >= 0.9 * MOST_KNOTS - 1
    assert (curve.knots[0], curve.knots[-1]) == (90, 300)
    few = NumberBlock.fit("numbers", ("runtime",), [Movie(runtime=x) for x in runtimes[:100]])
    assert len(few.numbers[0].knots) == 100 // MOVIES_PER_KNOT
    years = NumberBlock.fit(
        "numbers", ("released",), [Movie(year=1950 + k % 50) for k in range(999)]
    )
    assert len(years.numbers[0].knots) == 50 // VALUES_PER_KNOT


def test_budgets_are_compared_by_their_logarithm():
    movies = [Movie(budget=10.0**exponent - 1) for exponent in (4, 6, 8)]
    block = NumberBlock.fit("numbers", ("budget",), movies)
    middle = block.encode(movies)[1, :2]
    np.testing.assert_allclose(middle, block.scale / 2, rtol=1e-6)


def test_vectors():
    given = Vectors(np.array([[1, 0], [0, 1], [0, 0]], np.float32), np.array([True, True, False]))
    block = VectorBlock.fit("text", given)
    # Less the mean (.5, .5) of those that are there; squared norms .5, .5, 1.
    s = math.sqrt(3 / 2)
    expected = [[s / 2, -s / 2, 0], [-s / 2, s / 2, 0], [0, 0, s]]
    np.testing.assert_allclose(block.encode(given), expected, rtol=1e-6)
    assert block.missing == {"text": 2}


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_fitted_items_have_a_mean_squared_norm_of_one(seed):
    generator = np.random.default_rng(seed)
    movies = [
        Movie(
            keywords=tuple(f"k{k}" for k in generator.integers(0, 60, generator.integers(0, 20))),
            runtime=float(generator.integers(1, 200)) if generator.random() < 0.8 else None,
            budget=float(generator.integers(1, 10**8)) if generator.random() < 0.5 else None,
        )
        for _ in range(200)
    ]
    vectors = Vectors(
        generator.normal(3, 5, (200, 16)).astype(np.float32), generator.random(200) < 0.9
    )
    names = NameBlock.fit("keywords", movies, min_count=3, top=40, buckets=4)
    numbers = NumberBlock.fit("numbers", ("runtime", "budget"), movies)
    text = VectorBlock.fit("text", vectors)
    for rows in (names.encode(movies), numbers.encode(movies), text.encode(vectors)):
        assert squared_norms(rows).mean() == pytest.approx(1, rel=1e-5)
        assert np.isfinite(rows).all()


def test_what_no_one_has_makes_no_block():
    movies = [Movie(), Movie()]
    assert NameBlock.fit("cast", movies, min_count=1, top=9, buckets=1) is None
    assert NumberBlock.fit("numbers", ("runtime",), movies) is None
    assert VectorBlock.fit("text", Vectors(np.zeros((2, 3), np.float32), np.zeros(2, bool))) is None
