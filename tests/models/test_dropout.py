"""Dropout: its rate, its scale, and bits without a pattern that statistics can see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bert4rec_jax.models.dropout import Dropout, hashed_bits
from bert4rec_jax.sharding import Along, make_mesh, put

SHAPE = (64, 50, 32)


@functools.partial(jax.jit, static_argnums=1)
def bits(seed, shape=SHAPE):
    return hashed_bits(jax.random.bits(jax.random.key(seed), (2,), jnp.uint32), shape)


@functools.partial(jax.jit, static_argnums=2)
def dropped(seed, x, rate):
    return Dropout(rate).apply({}, x, deterministic=False, rngs={"dropout": jax.random.key(seed)})


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_zeros_is_the_rate_and_the_mean_stays(rate):
    result = np.asarray(dropped(0, jnp.ones(SHAPE), rate))
    n = result.size
    assert abs((result == 0).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_allclose(result[result != 0], 1 / (1 - rate), rtol=1e-6)


def test_without_need_nothing_is_drawn():
    x = jnp.arange(6.0)
    assert (Dropout(0.5).apply({}, x, deterministic=True) == x).all()
    assert (Dropout(0.0).apply({}, x, deterministic=False) == x).all()


def test_the_type_stays():
    assert dropped(0, jnp.ones(8, jnp.bfloat16), 0.5).dtype == jnp.bfloat16


@pytest.mark.parametrize("seed", range(3))
def test_every_byte_is_uniform(seed):
    values = np.asarray(bits(seed))
    for shift in (0, 8, 16, 24):
        counts = np.bincount((values.ravel() >> shift) & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("lag", [1, 2, 32, 31, 50 * 32])
def test_neighbours_are_not_correlated(lag):
    """Neither along a row, nor down a column, nor from one history to the next."""
    flat = np.asarray(bits(1)).ravel() / 2**32 - 0.5
    correlation = (flat[:-lag] * flat[lag:]).mean() * 12
    assert abs(correlation) < 4.5 / np.sqrt(len(flat))


def test_masks_of_different_keys_are_independent():
    first, second = (np.asarray(bits(seed)) / 2**32 - 0.5 for seed in (0, 1))
    assert abs((first * second).mean() * 12) < 4.5 / np.sqrt(first.size)


def test_runs_of_kept_elements_have_their_geometric_lengths():
    kept = np.asarray(bits(2)).ravel() >= 2**31
    edges = np.flatnonzero(np.diff(kept)) + 1
    lengths = np.diff(edges)
    observed = np.bincount(np.minimum(lengths, 10), minlength=11)[1:]
    expected = len(lengths) * np.array([*(0.5**k for k in range(1, 10)), 0.5**9])
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_sharding_changes_nothing():
    mesh = make_mesh()
    x = np.ones((16, 8), np.float32)
    np.testing.assert_array_equal(dropped(0, put(mesh, Along.ROWS, x), 0.5), dropped(0, x, 0.5))
