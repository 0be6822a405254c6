"""The item table: ids, content, and what an item without an id is known by."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bert4rec_jax.models.item_table import ItemTable

V, D, F = 8, 4, 3
TRAINED = np.array([False, False, True, True, True, False, False, False])
CONTENT = np.zeros((V, F), np.float32)
CONTENT[2:6] = [[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 2]]  # token 4 has none


def make(content_dim=F, unknown_rate=0.0, seed=0):
    table = ItemTable(V, D, nn.initializers.normal(1.0), content_dim, unknown_rate)
    params = table.init(jax.random.key(seed), deterministic=True)["params"]
    params = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(9), x.shape), params)
    return table, params


def apply(table, params, *, key=None):
    variables = {"params": params, "catalog": {"features": CONTENT, "trained": TRAINED}}
    rngs = None if key is None else {"dropout": jax.random.key(key)}
    return table.apply(variables, deterministic=key is None, rngs=rngs)


def test_without_content_it_is_the_embedding():
    table, params = make(content_dim=0)
    vectors, bias = table.apply({"params": params}, deterministic=True)
    chex.assert_shape([vectors, bias], [(V, D), (V,)])
    assert params.keys() == {"embedding", "bias"}
    np.testing.assert_array_equal(vectors, params["embedding"])


def test_with_content_it_is_the_formula():
    table, p = make()
    vectors, bias = apply(table, p)
    ids, biases = np.array(p["embedding"]), np.array(p["bias"])
    ids[5], biases[5] = p["unknown"], p["unknown_bias"]  # never trained on, but with content
    np.testing.assert_allclose(vectors, ids + CONTENT @ np.asarray(p["content"]), atol=1e-5)
    np.testing.assert_allclose(bias, biases + CONTENT @ np.asarray(p["content_bias"]), atol=1e-5)


def test_mask_and_items_without_content_keep_their_own_vector():
    table, params = make(unknown_rate=0.999)
    vectors, _ = apply(table, params, key=0)
    for token in (0, 1, 4):
        np.testing.assert_array_equal(vectors[token], params["embedding"][token])


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_items_lose_their_id_with_the_given_probability(rate):
    table, params = make(unknown_rate=rate)
    expected = params["unknown"] + CONTENT[3] @ params["content"]

    @jax.jit
    def lost(key):
        variables = {"params": params, "catalog": {"features": CONTENT, "trained": TRAINED}}
        vectors, bias = table.apply(variables, deterministic=False, rngs={"dropout": key})
        whole_pair = jnp.abs(bias[3] - params["unknown_bias"] - params["content_bias"][1]) < 1e-5
        return (jnp.abs(vectors[3] - expected).max() < 1e-5) & whole_pair

    draws = jax.vmap(lost)(jax.random.split(jax.random.key(0), 4000))
    assert abs(draws.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / 4000)


def test_no_id_of_an_untrained_item_is_ever_used():
    table, params = make()

    def total(p):
        vectors, bias = apply(table, p)
        return (vectors * jnp.arange(D)).sum() + bias.sum()

    gradient = jax.grad(total)(params)
    assert (gradient["embedding"][5] == 0).all() and gradient["bias"][5] == 0
    assert (gradient["embedding"][3] != 0).any() and (gradient["unknown"] != 0).any()


def test_an_offset_moves_the_bias_of_untrained_items_alone():
    table, params = make()
    constants = {"features": CONTENT, "trained": TRAINED}
    plain = table.apply({"params": params, "catalog": constants}, deterministic=True)
    moved = table.apply(
        {"params": params, "catalog": {**constants, "offset": np.float32(2)}}, deterministic=True
    )
    np.testing.assert_array_equal(moved[0], plain[0])
    np.testing.assert_allclose(moved[1] - plain[1], np.where(TRAINED, 0, 2), atol=1e-6)
    np.testing.assert_array_equal(moved[1][TRAINED], plain[1][TRAINED])
