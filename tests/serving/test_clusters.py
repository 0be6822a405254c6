"""Clusters: looking everywhere finds everything; looking nearby finds most, and nothing wrong."""

import jax.numpy as jnp
import numpy as np
import pytest

from bert4rec_jax.evaluation.ranks import best_items
from bert4rec_jax.serving.clusters import Clusters

V, D, B = 512, 8, 16


@pytest.fixture(scope="module")
def problem():
    generator = np.random.default_rng(0)
    middles = generator.normal(size=(12, D))
    vectors = (middles[generator.integers(12, size=V)] + generator.normal(size=(V, D)) / 5).astype(
        np.float32
    )
    bias = generator.normal(size=V).astype(np.float32) / 5
    listed = (np.arange(V) >= 2) & (generator.random(V) < 0.9)
    hidden = (middles[generator.integers(12, size=B)] * 2).astype(np.float32)
    excluded = generator.integers(0, V, (B, 6)).astype(np.int32)
    return vectors, bias, listed, hidden, excluded


@pytest.fixture(scope="module")
def clusters(problem):
    return Clusters.of(*problem[:4])


def exact(problem, top):
    vectors, bias, listed, hidden, excluded = problem
    return best_items(hidden @ vectors.T + bias, excluded, listed, top=top)


def test_every_listed_item_is_in_one_bucket(problem, clusters):
    tokens = np.asarray(clusters.tokens)
    assert sorted(tokens[tokens > 0]) == np.flatnonzero(problem[2]).tolist()


def test_all_buckets_give_the_exact_lists(problem, clusters):
    hidden, excluded = map(jnp.asarray, problem[3:])
    scores, tokens = clusters.best(hidden, excluded, top=9, probes=10**6)
    expected = exact(problem, 9)
    np.testing.assert_array_equal(tokens, expected[1])
    np.testing.assert_allclose(scores, expected[0], rtol=1e-5)


def test_few_buckets_find_most_and_nothing_that_is_excluded(problem, clusters):
    hidden, excluded = map(jnp.asarray, problem[3:])
    _, tokens = clusters.best(hidden, excluded, top=9, probes=6)
    assert clusters.tokens.shape[0] > 18
    rows = list(zip(np.asarray(tokens), np.asarray(exact(problem, 9)[1]), problem[4]))
    recall = np.mean([len(set(found) & set(best)) / 9 for found, best, _ in rows])
    assert 0.8 < recall <= 1
    for found, _, barred in rows:
        assert not set(found[found > 0]) & set(barred) and problem[2][found[found > 0]].all()


def test_lists_longer_than_what_is_looked_at_are_short(problem, clusters):
    hidden, excluded = map(jnp.asarray, problem[3:])
    scores, tokens = clusters.best(hidden, excluded, top=100, probes=1)
    assert scores.shape == (B, 100)
    assert (np.isneginf(np.asarray(scores)) == (np.asarray(tokens) == 0)).all()
    assert (np.asarray(tokens) > 0).any(axis=1).all() and (np.asarray(tokens)[:, -1] == 0).all()


def test_groups_follow_the_directions_in_which_users_tell_items_apart():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(V, 2)).astype(np.float32) * (9, 1)
    bias, listed = np.zeros(V, np.float32), np.arange(V) >= 2
    users = np.array([[0, 1], [0.01, 2], [0, -1]], np.float32)
    groups = Clusters.of(vectors.astype(np.float32), bias, listed, users)
    nothing = jnp.zeros((3, 1), jnp.int32)
    _, found = groups.best(jnp.asarray(users), nothing, top=9, probes=4)
    _, best = best_items(users @ vectors.T.astype(np.float32), nothing, listed, top=9)
    np.testing.assert_array_equal(found, best)
