"""BERT4Rec: shapes, what it can see, and what changes nothing."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert4rec_jax.config import ModelConfig
from bert4rec_jax.data.catalog import MASK
from bert4rec_jax.models.bert4rec import BERT4Rec
from bert4rec_jax.models.history import History
from bert4rec_jax.models.two_tower import TwoTower
from bert4rec_jax.training.parts import build_model

V, L, D = 256, 8, 16


@functools.cache
def make(content_dim=0, **changes):
    config = ModelConfig(**{"dim": D, "heads": 2, "layers": 2, "ffn_dim": 32, **changes})
    model = build_model(config, num_rows=V, max_length=L, content_dim=content_dim)
    row = jnp.zeros((1, L), jnp.int32)
    init = jax.jit(functools.partial(model.init, deterministic=True))
    params = init(jax.random.key(0), History(row, row, row, row, row != 0), row[:, :1])
    # Away from tiny starting weights, so that differences show.
    return model, jax.tree.map(lambda x: x * 8 if x.ndim > 1 else x, params)


@pytest.mark.parametrize("kind", ["bert4rec", "two-tower"])
def test_identity_begins_by_comparing_items_with_those_of_the_history(kind):
    """Untrained, the vector of a history points to its own items, and to no other."""
    changes = {"kind": kind, "dim": 64, "head": "linear", "init_scale": 0.1}
    tokens, positions, segments = row([3, 4, 5])

    def cosines(initial):
        model, params = make(**changes, initial=initial)
        params = jax.tree.map(lambda x: x / 8 if x.ndim > 1 else x, params)
        history = encode(model, params, tokens, positions, segments, [2], causal=True)[0, 0]
        items = model.apply(params, method="item_vectors")[0][2:]
        lengths = np.linalg.norm(items, axis=1) * np.linalg.norm(history)
        return np.asarray(items @ history) / lengths

    own, others = [1, 2, 3], np.delete(np.arange(V - 2), [1, 2, 3])
    assert cosines("identity")[own].min() > 0.25
    assert abs(cosines("identity")[others].mean()) < 0.02
    assert cosines("random")[own].max() < 0.2


def row(items, width=L):
    """One history as a row: tokens, positions, segments."""
    n = len(items)
    tokens = np.zeros((1, width), np.int32)
    positions, segments = np.zeros_like(tokens), np.zeros_like(tokens)
    tokens[0, :n], positions[0, :n], segments[0, :n] = items, np.arange(L - n, L), 1
    return tokens, positions, segments


@functools.partial(jax.jit, static_argnums=0)
def _encode(model, params, history, slots):
    return model.apply(params, history, slots, deterministic=True, method="encode")


def encode(model, params, tokens, positions, segments, slots, *, causal=False, thumbs=0):
    slots = np.asarray(slots, np.int32).reshape(len(tokens), -1)
    from_left = np.broadcast_to(causal, np.shape(tokens))
    given = np.broadcast_to(np.int8(thumbs), np.shape(tokens))
    return _encode(model, params, History(tokens, given, positions, segments, from_left), slots)


@pytest.mark.parametrize("kind", [BERT4Rec, TwoTower])
def test_config_and_module_have_the_same_fields(kind):
    module = {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
    config = {f.name for f in dataclasses.fields(ModelConfig)} - {"kind", "attention"}
    given = {"num_rows", "max_length", "content_dim", "fused"}
    assert module - config == given and config <= module


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "pre", "ffn": "swiglu", "dtype": "bfloat16"},
        {"position_bias": True, "head": "linear", "thumbs": True, "dtype": "bfloat16"},
        {"kind": "two-tower", "position_bias": True, "thumbs": True, "dtype": "bfloat16"},
    ],
    ids=["paper", "pre-norm, gated", "position bias, linear head, thumbs", "two towers"],
)
def test_shapes_and_types(changes):
    model, params = make(**changes)
    tokens = np.full((3, L), 5, np.int32)
    slots = np.zeros((3, 4), np.int32)
    apply = jax.jit(functools.partial(model.apply, deterministic=True))
    hidden, vectors, bias = apply(
        params, History(tokens, slots[:, :1], tokens, tokens, tokens == 0), slots
    )
    chex.assert_shape([hidden, vectors, bias], [(3, 4, D), (V, D), (V,)])
    chex.assert_type([hidden, vectors, bias], jnp.float32)
    chex.assert_tree_all_finite((hidden, vectors, bias))


def with_position_bias(params):
    """The same parameters with biases that are not zero."""

    def leaf(path, x):
        if path[-1].key != "distance":
            return x
        return jax.random.normal(jax.random.key(1), x.shape)

    return jax.tree_util.tree_map_with_path(leaf, params)


TOWERS = {"kind": "two-tower", "layers": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 1, "position_bias": True},
        {"layers": 2},
        {"layers": 3, "position_bias": True},
        {**TOWERS, "position_bias": True},
    ],
)
def test_the_asked_slots_do_not_change_results(changes):
    model, params = make(**changes)
    params = with_position_bias(params)
    one = encode(model, params, *row([3, 4, MASK, 6]), [2])
    many = encode(model, params, *row([3, 4, MASK, 6]), [0, 1, 2, 3])
    np.testing.assert_allclose(one[0, 0], many[0, 2], atol=1e-5)


def test_padding_and_width_change_nothing():
    model, params = make()
    narrow = encode(model, params, *row([3, 4, MASK], width=3), [2])
    wide = encode(model, params, *row([3, 4, MASK], width=L), [2])
    np.testing.assert_allclose(narrow, wide, atol=1e-5)
    tokens, positions, segments = row([3, 4, MASK])
    tokens[0, 3:] = 9  # whatever stands in the padding
    np.testing.assert_allclose(encode(model, params, tokens, positions, segments, [2]), wide)


def test_batch_composition_changes_nothing():
    model, params = make()
    alone = encode(model, params, *row([3, 4, MASK]), [2])
    together = [np.concatenate(pair) for pair in zip(row([3, 4, MASK]), row([7, 8, 9, MASK]))]
    both = encode(model, params, *together, [[2], [3]])
    np.testing.assert_allclose(both[:1], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "causal"),
    [
        ({}, False),
        ({"position_bias": True}, True),
        ({**TOWERS, "layers": 1, "position_bias": True}, True),
    ],
)
def test_packed_histories_do_not_see_each_other(changes, causal):
    model, params = make(**changes)
    params = with_position_bias(params)
    tokens = np.array([[3, 4, MASK, 7, MASK, 0, 0, 0]], np.int32)
    positions = np.array([[L - 3, L - 2, L - 1, L - 2, L - 1, 0, 0, 0]], np.int32)
    segments = np.array([[1, 1, 1, 2, 2, 0, 0, 0]], np.int32)
    packed = encode(model, params, tokens, positions, segments, [2, 4], causal=causal)
    for slot, (history, at) in enumerate([([3, 4, MASK], 2), ([7, MASK], 1)]):
        alone = encode(model, params, *row(history), [at], causal=causal)
        np.testing.assert_allclose(packed[0, slot], alone[0, 0], atol=1e-5)


def test_context_is_read_in_both_directions():
    model, params = make()
    base = encode(model, params, *row([3, 4, MASK, 6, 7]), [2])
    for changed in ([5, 4, MASK, 6, 7], [3, 4, MASK, 6, 8]):
        assert np.abs(encode(model, params, *row(changed), [2]) - base).max() > 1e-3


def test_a_causal_row_sees_nothing_of_what_comes_later():
    model, params = make()
    base = encode(model, params, *row([3, 4, 5, 6, 7]), [0, 2, 4], causal=True)
    changed = encode(model, params, *row([3, 4, 5, 8, 9]), [0, 2, 4], causal=True)
    np.testing.assert_array_equal(base[0, :2], changed[0, :2])
    assert np.abs(base[0, 2] - changed[0, 2]).max() > 1e-3
    earlier = encode(model, params, *row([8, 4, 5, 6, 7]), [0, 2, 4], causal=True)
    assert (np.abs(base - earlier).max(-1) > 1e-4).all()


def test_both_kinds_of_rows_in_one_batch():
    model, params = make()
    tokens, positions, segments = (np.repeat(x, 2, 0) for x in row([3, 4, 5, 6, 7]))
    kinds = np.array([[True], [False]])
    both = encode(model, params, tokens, positions, segments, [[2], [2]], causal=kinds)
    for number, causal in enumerate((True, False)):
        alone = encode(model, params, *row([3, 4, 5, 6, 7]), [2], causal=causal)
        np.testing.assert_allclose(both[number], alone[0], atol=1e-5)


def test_thumbs_matter_only_to_a_model_that_reads_them():
    for thumbs in (False, True):
        model, params = make(thumbs=thumbs)
        history = row([3, 4, MASK])
        base = encode(model, params, *history, [2])
        liked = np.zeros((1, L), np.int8)
        liked[0, 0] = 3
        changed = encode(model, params, *history, [2], thumbs=liked)
        assert (np.abs(base - changed).max() > 1e-3) == thumbs


def test_order_matters():
    model, params = make()
    base = encode(model, params, *row([3, 4, 5, MASK]), [3])
    swapped = encode(model, params, *row([4, 3, 5, MASK]), [3])
    assert np.abs(base - swapped).max() > 1e-3


def test_gradient_reaches_the_history_and_not_the_padding():
    model, params = make()
    tokens, positions, segments = row([3, 4, MASK])

    def total(table):
        p = jax.tree.map(lambda x: x, params)
        p["params"]["item_table"]["embedding"] = table
        return encode(model, p, tokens, positions, segments, [2]).sum()

    gradient = jax.jit(jax.grad(total))(params["params"]["item_table"]["embedding"])
    reached = set(np.flatnonzero(np.abs(gradient).sum(1)).tolist())
    assert reached == {3, 4, MASK}


def test_dropout_needs_its_key_and_changes_results():
    model, params = make(dropout=0.5)
    tokens, positions, segments = row([3, 4, MASK])
    history = History(tokens, tokens * 0, positions, segments, tokens < 0)

    @jax.jit
    def drawn(key):
        rngs = {"dropout": key}
        return model.apply(
            params, history, np.array([[2]]), deterministic=False, rngs=rngs, method="encode"
        )

    draw = [drawn(jax.random.key(k)) for k in (0, 0, 1)]
    assert (draw[0] == draw[1]).all() and not (draw[0] == draw[2]).all()
