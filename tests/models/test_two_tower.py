"""TwoTower: what its user tower knows of order, and cosines; the rest is in `test_bert4rec`."""

import flax.linen as nn
import numpy as np
import pytest
from test_bert4rec import TOWERS, encode, make, row, with_position_bias

from bert4rec_jax.models.initial import Initial
from bert4rec_jax.models.pooling import Pooling


def test_without_layers_and_recency_a_history_is_a_set():
    model, params = make(**TOWERS)
    first = encode(model, params, *row([3, 4, 5]), [2], causal=True)
    np.testing.assert_allclose(
        encode(model, params, *row([5, 3, 4]), [2], causal=True), first, atol=1e-5
    )
    assert np.abs(encode(model, params, *row([5, 3, 6]), [2], causal=True) - first).max() > 1e-3


def test_recency_knows_the_order():
    model, params = make(**TOWERS, position_bias=True)
    params = with_position_bias(params)
    first = encode(model, params, *row([3, 4, 5]), [2], causal=True)
    assert np.abs(encode(model, params, *row([5, 3, 4]), [2], causal=True) - first).max() > 1e-3


def test_nothing_of_what_comes_later_is_seen():
    model, params = make(**{**TOWERS, "layers": 1}, position_bias=True)
    short = encode(model, params, *row([3, 4]), [1], causal=True)
    long = encode(model, params, *row([3, 4, 5, 6]), [1], causal=True)
    np.testing.assert_allclose(long, short, atol=1e-5)


def test_pooling_reads_the_last_layer_without_a_norm():
    params = make(**{**TOWERS, "layers": 1}, norm="pre")[1]["params"]
    assert {name for name in params if name.endswith("norm")} == {
        "input_norm", "pooled_norm", "head_norm",
    }  # fmt: skip


def test_the_weights_of_pooling_by_hand():
    """One head of width 1, importance x, recency ln 2 per step back, values x: items 0 and 1."""
    module = Pooling(1, 1, 0.0, 2, np.float32, Initial(*[nn.initializers.zeros] * 3))
    ln2 = float(np.log(2))
    params = {
        "importance": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)},
        "recency": {"distance": np.array([[ln2, 0.0, -9.0]], np.float32)},  # back 1, 0, ahead 1
        "value": {"kernel": np.ones((1, 1, 1)), "bias": np.zeros((1, 1))},
        "output": {"kernel": np.ones((1, 1, 1)), "bias": np.zeros(1)},
    }
    context = np.array([[[0.0], [1.0]]], np.float32)
    visible = np.tril(np.ones((1, 2, 2), bool))
    columns = np.array([[0, 1]])
    found = module.apply({"params": params}, context, visible, columns, deterministic=True)
    e = np.e  # from column 1: weights 2 e^0 of item 0, 1 e^1 of item 1
    np.testing.assert_allclose(found[0, :, 0], [0.0, e / (2 + e)], rtol=1e-6)


@pytest.mark.parametrize("kind", ["bert4rec", "two-tower"])
def test_scores_are_cosines_over_the_temperature(kind):
    model, params = make(kind=kind, temperature=0.1)
    plain, _ = make(kind=kind)
    user = encode(model, params, *row([3, 4, 5]), [2])[0, 0]
    direction = encode(plain, params, *row([3, 4, 5]), [2])[0, 0]
    np.testing.assert_allclose(user, direction / np.linalg.norm(direction) / 0.1, rtol=1e-4)
    vectors, _ = model.apply(params, method="item_vectors")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
