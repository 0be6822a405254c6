"""Ridge: against scikit-learn, and what it does to an item table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn.linear_model import Ridge as Reference

from bert4rec_jax.evaluation import ridge as module
from bert4rec_jax.evaluation.ridge import PENALTIES, Explained, Ridge, choose_ridge
from bert4rec_jax.models.item_table import ItemTable

V, D, F = 40, 5, 6


@pytest.fixture
def world():
    """Item tokens 2 to 33; 24 to 31 were not trained on, 32 and 33 have no content."""
    generator = np.random.default_rng(0)
    features = np.zeros((V, F), np.float32)
    features[2:32] = generator.normal(size=(30, F))
    counts = np.zeros(V, np.int64)
    counts[2:24] = counts[32:34] = generator.integers(1, 50, 1)
    counts[2:24] = generator.integers(1, 50, 22)
    table = ItemTable(V, D, nn.initializers.normal(1.0), F, 0.1)
    params = table.init(jax.random.key(0), deterministic=True)["params"]
    params = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(9), x.shape), params)

    def vectors(params):
        catalog = {"features": features, "trained": counts > 0}
        found = table.apply({"params": params, "catalog": catalog}, deterministic=True)
        return np.column_stack([np.asarray(x) for x in found])

    return features, counts, params, vectors


def host(params):
    return {name: np.asarray(value) for name, value in params.items()}


@pytest.mark.parametrize("penalty", [0.3, 30.0])
def test_it_is_the_weighted_ridge_regression_of_scikit_learn(world, penalty):
    features, counts, params, vectors = world
    rows = np.arange(2, 24)
    weights = counts[rows] ** 1.5
    reference = Reference(alpha=penalty)
    reference.fit(
        features[rows], vectors(params)[rows], sample_weight=weights / weights.mean()
    )  # all trained items with content, and no others
    found = Explained.of(host(params), features, counts).regression(Ridge(penalty))
    np.testing.assert_allclose(found.weights, reference.coef_.T, atol=1e-5)
    np.testing.assert_allclose(found.constant, reference.intercept_, atol=1e-5)


def test_only_untrained_items_with_content_change(world):
    features, counts, params, vectors = world
    found = Explained.of(host(params), features, counts).regression(Ridge())
    after = vectors(found.applied(params, jnp.asarray(features)))
    untrained = np.arange(24, 32)
    expected = features[untrained] @ found.weights + found.constant
    np.testing.assert_allclose(after[untrained], expected, atol=1e-5)
    others = np.setdiff1d(np.arange(V), untrained)
    np.testing.assert_allclose(after[others], vectors(params)[others], atol=1e-5)
    without = np.flatnonzero(~(features != 0).any(1))
    np.testing.assert_array_equal(after[without], vectors(params)[without])


def test_what_content_explains_is_predicted(world):
    """Vectors that are a function of content: held-out items get theirs."""
    features, counts, params, vectors = world
    exact = {**params, "embedding": 0 * params["embedding"], "bias": 0 * params["bias"] - 1}
    found = Explained.of(host(exact), features, counts).regression(Ridge(1e-6))
    after = vectors(found.applied(exact, jnp.asarray(features)))
    expected = features[24:32] @ np.asarray(exact["content"])
    np.testing.assert_allclose(after[24:32, :-1], expected, atol=1e-3)
    expected = features[24:32] @ np.asarray(exact["content_bias"]) - 1
    np.testing.assert_allclose(after[24:32, -1], expected, atol=1e-3)


def test_of_many_items_the_most_frequent_are_used(world, monkeypatch):
    features, counts, params, _ = world
    monkeypatch.setattr(module, "MOST", 5)
    found = Explained.of(host(params), features, counts)
    frequent = np.argsort(-counts[:24], kind="stable")[:5]
    np.testing.assert_array_equal(found.content, features[frequent])
    assert found.weights.mean() == pytest.approx(1)


def test_nothing_can_be_learnt_without_a_trained_item_with_content(world):
    features, counts, params, _ = world
    assert Explained.of(host(params), features, np.where(features.any(1), 0, counts)) is None


def test_the_best_penalty_is_chosen_or_none():
    found = choose_ridge(lambda ridge: 0.1 if ridge is None else 0.2 - abs(ridge.penalty - 30))
    assert found.chosen == Ridge(30.0)
    assert sorted(ridge.penalty for ridge, _ in found.trials) == list(PENALTIES)
    assert choose_ridge(lambda ridge: 0.1).chosen is None
