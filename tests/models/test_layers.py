"""Attention and the transformer layer against the formulas, written out in NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bert4rec_jax.models.initial import Initial
from bert4rec_jax.models.layers import (
    FeedForward,
    MultiHeadAttention,
    TransformerLayer,
    attention_weights,
)

B, L, D, H = 2, 5, 8, 2
INITIAL = Initial(*[nn.initializers.normal(0.5)] * 3)


def numpy_attention(params, queries, context, visible):
    """softmax(Q K^T / sqrt(d_k) + bias of distance) V, H heads, output projection; in float64."""

    def heads(x, p):
        return np.einsum("bld,dhk->bhlk", x, p["kernel"]) + p["bias"][:, None, :]

    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    q, k, v = heads(queries, p["query"]), heads(context, p["key"]), heads(context, p["value"])
    logits = np.einsum("bhqk,bhlk->bhql", q, k) / np.sqrt(q.shape[-1])
    if "position_bias" in p:
        table = p["position_bias"]["distance"]
        zero = table.shape[1] // 2
        for q_at, k_at in np.ndindex(logits.shape[2:]):
            logits[:, :, q_at, k_at] += table[:, zero + k_at - q_at]
    logits = np.where(visible[:, None], logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhql,bhlk->bqhk", weights, v)
    return np.einsum("bqhk,hkd->bqd", mixed, p["output"]["kernel"]) + p["output"]["bias"]


def numpy_layer_norm(x, p):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-12) * np.asarray(p["scale"]) + np.asarray(p["bias"])


def numpy_feed_forward(x, p):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)
    if "gate" in p:
        a, b = (x @ p[name]["kernel"] + p[name]["bias"] for name in ("expand", "gate"))
        return (a / (1 + np.exp(-a)) * b) @ p["project"]["kernel"] + p["project"]["bias"]
    h = x @ np.asarray(p["expand"]["kernel"], np.float64) + np.asarray(p["expand"]["bias"])
    h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    return h @ np.asarray(p["project"]["kernel"], np.float64) + np.asarray(p["project"]["bias"])


@pytest.fixture
def inputs():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(B, L, D))
    visible = np.ones((B, L, L), bool)
    visible[0, :, 3:] = False
    visible[1, :, 4:] = False
    return x, visible


def randomised(params, seed=1):
    """Parameters away from their special starting values (zero biases, unit scales)."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return tree.unflatten([x + 0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])


def test_attention_weights_sum_to_one_over_what_is_visible(inputs):
    _, visible = inputs
    q = jax.random.normal(jax.random.key(0), (B, H, L, D // H))
    weights = attention_weights(q, q, jnp.asarray(visible))
    chex.assert_shape(weights, (B, H, L, L))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert (np.asarray(weights)[0, :, :, 3:] == 0).all()


def test_attention_is_float32_for_bfloat16_inputs():
    q = jnp.ones((1, 1, 3, 4), jnp.bfloat16)
    assert attention_weights(q, q, jnp.ones((1, 3, 3), bool)).dtype == jnp.float32


@pytest.mark.parametrize("position_bias", [0, L + 2])
def test_attention_equals_its_formula(inputs, position_bias):
    x, visible = inputs
    module = MultiHeadAttention(
        D, H, dropout=0.0, position_bias=position_bias, fused=False, dtype=jnp.float32,
        initial=INITIAL,
    )  # fmt: skip
    arguments = jnp.asarray(x, jnp.float32), jnp.asarray(x, jnp.float32), jnp.asarray(visible)
    params = randomised(module.init(jax.random.key(0), *arguments, deterministic=True)["params"])
    result = module.apply({"params": params}, *arguments, deterministic=True)
    chex.assert_shape(result, (B, L, D))
    np.testing.assert_allclose(result, numpy_attention(params, x, x, visible), atol=2e-5)


@pytest.mark.parametrize(("queries", "is_fused"), [(4, True), (3, False)])
def test_fused_attention_equals_plain_attention(monkeypatch, queries, is_fused):
    """On a GPU with its own kernels; elsewhere what it asks of them is computed by XLA."""
    on_gpu = jax.default_backend() == "gpu"
    asked = []

    def stand_in(q, k, v, *, mask, implementation):
        asked.append(implementation)
        implementation = implementation if on_gpu else "xla"
        return original(q, k, v, mask=mask, implementation=implementation)

    original = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    width, length = 16, 6
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(B, length, width)), jnp.bfloat16)
    visible = jnp.asarray(generator.random((B, queries, length)) < 0.6).at[:, :, 0].set(True)

    def attend(fused):
        module = MultiHeadAttention(
            width, H, dropout=0.0, position_bias=0, fused=fused, dtype=jnp.bfloat16,
            initial=INITIAL,
        )  # fmt: skip
        arguments = x[:, :queries], x, visible
        params = module.init(jax.random.key(0), *arguments, deterministic=True)

        def loss(params):
            result = module.apply(params, *arguments, deterministic=True)
            return (result.astype(jnp.float32) ** 2).sum(), result

        return jax.grad(loss, has_aux=True)(params)

    (gradients, result), (expected_gradients, expected) = attend(True), attend(False)
    assert asked == ["cudnn"] * len(asked) and bool(asked) == is_fused
    np.testing.assert_allclose(
        np.float32(result), np.float32(expected), atol=0.02 * float(abs(expected).max())
    )
    scale = max(float(abs(wanted).max()) for wanted in jax.tree.leaves(expected_gradients))
    chex.assert_trees_all_close(gradients, expected_gradients, atol=0.01 * scale)


@pytest.mark.parametrize(("norm", "ffn"), [("post", "gelu"), ("pre", "swiglu")])
def test_layer_equals_its_formula(inputs, norm, ffn):
    x, visible = inputs
    module = TransformerLayer(D, H, 16, ffn, norm, 0.0, 0.0, 0, False, jnp.float32, INITIAL)
    arguments = jnp.asarray(x, jnp.float32), jnp.asarray(x, jnp.float32), jnp.asarray(visible)
    params = randomised(module.init(jax.random.key(0), *arguments, deterministic=True)["params"])
    result = module.apply({"params": params}, *arguments, deterministic=True)

    norm_1, norm_2 = params["attention_norm"], params["feed_forward_norm"]
    if norm == "post":
        h = numpy_layer_norm(x + numpy_attention(params["attention"], x, x, visible), norm_1)
        expected = numpy_layer_norm(h + numpy_feed_forward(h, params["feed_forward"]), norm_2)
    else:
        normed = numpy_layer_norm(x, norm_1)
        h = x + numpy_attention(params["attention"], normed, normed, visible)
        expected = h + numpy_feed_forward(numpy_layer_norm(h, norm_2), params["feed_forward"])
    np.testing.assert_allclose(result, expected, atol=5e-5)


def test_fewer_queries_give_the_same_results_at_those_positions(inputs):
    x, visible = inputs
    module = TransformerLayer(D, H, 16, "gelu", "post", 0.0, 0.0, 0, False, jnp.float32, INITIAL)
    x, visible = jnp.asarray(x, jnp.float32), jnp.asarray(visible)
    params = module.init(jax.random.key(0), x, x, visible, deterministic=True)
    everywhere = module.apply(params, x, x, visible, deterministic=True)
    at_two = module.apply(params, x[:, 1:3], x, visible[:, 1:3], deterministic=True)
    np.testing.assert_allclose(at_two, everywhere[:, 1:3], atol=1e-6)


def test_feed_forward_acts_on_each_position_alone():
    module = FeedForward(D, 16, "gelu", jnp.float32, INITIAL)
    x = jax.random.normal(jax.random.key(0), (B, L, D))
    params = module.init(jax.random.key(1), x)
    changed = x.at[0, 0].add(1.0)
    same = module.apply(params, x) == module.apply(params, changed)
    assert not same[0, 0].all()
    assert same[0, 1:].all() and same[1].all()
