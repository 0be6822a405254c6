"""The cross-entropy against its formula in float64, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.losses import FullSoftmax, cross_entropy
from bert4rec_jax.training.slots import Slots
from bert4rec_jax.training.tiling import BLOCKS, number_of_chunks

N, D, V = 24, 8, 96


def example(seed=0, n=N):
    generator = np.random.default_rng(seed)
    in_softmax = generator.random(V) < 0.8
    in_softmax[:2] = False
    labels = generator.choice(np.flatnonzero(in_softmax), n)
    return {
        "hidden": generator.normal(size=(n, D)).astype(np.float32),
        "vectors": generator.normal(size=(V, D)).astype(np.float32),
        "bias": generator.normal(size=V).astype(np.float32),
        "labels": labels.astype(np.int32),
        "weights": (generator.random(n) < 0.6).astype(np.float32),
        "in_softmax": in_softmax,
    }


def by_formula(hidden, vectors, bias, labels, weights, in_softmax):
    """- sum_s w_s log softmax(h_s . e + b)[label_s] / sum_s w_s, and its gradients, in float64."""
    hidden, vectors, bias = (np.asarray(x, np.float64) for x in (hidden, vectors, bias))
    scores = np.where(in_softmax, hidden @ vectors.T + bias, -np.inf)
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    one_hot = np.eye(V)[labels]
    share = weights[:, None] / weights.sum()
    loss = -(share[:, 0] * np.log(p[np.arange(len(labels)), labels])).sum()
    to_scores = (p - one_hot) * share
    return loss, (to_scores @ vectors, to_scores.T @ hidden, to_scores.sum(0))


def of_arrays(hidden, vectors, bias, labels, weights, in_softmax, softmax, histories=None):
    """The loss of flat arrays: rows of one slot each, or of as many as the `histories` have.

    `histories` are the tokens and segments of the rows, and the segments of the slots.
    """
    column = labels[:, None]
    tokens, segments, of_slots = histories or (column, jnp.ones_like(column), jnp.ones_like(column))
    hidden, labels, weights = (
        x.reshape(*of_slots.shape, *x.shape[1:]) for x in (hidden, labels, weights)
    )
    slots = Slots(hidden, labels, weights, of_slots, tokens, segments)
    return cross_entropy(slots, vectors, bias, in_softmax, softmax)


_loss = jax.jit(of_arrays, static_argnames="softmax")
_value_and_gradients = jax.jit(
    jax.value_and_grad(of_arrays, argnums=(0, 1, 2)), static_argnames="softmax"
)


def value_and_gradients(arrays, chunk=V, blocks=BLOCKS):
    softmax = FullSoftmax(chunk, blocks=blocks)
    return _value_and_gradients(*map(jnp.asarray, arrays.values()), softmax=softmax)


@pytest.mark.parametrize("chunk", [V, 32, 7])
def test_value_and_gradients_equal_the_formula_in_any_chunks(chunk):
    arrays = example()
    loss, gradients = value_and_gradients(arrays, chunk)
    expected, expected_gradients = by_formula(**arrays)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for gradient, wanted in zip(gradients, expected_gradients):
        np.testing.assert_allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize("chunk", [V, 40])
@pytest.mark.parametrize("blocks", [BLOCKS, 1])
@pytest.mark.parametrize("live", [1.0, 0.4])  # of 9 blocks 9, and 4
def test_more_slots_than_a_block(chunk, live, blocks):
    arrays = example(n=1100)
    arrays["weights"] = (np.random.default_rng(1).random(1100) < live).astype(np.float32)
    loss, gradients = value_and_gradients(arrays, chunk, blocks)
    expected, expected_gradients = by_formula(**arrays)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for gradient, wanted in zip(gradients, expected_gradients):
        np.testing.assert_allclose(gradient, wanted, atol=1e-6)


def test_the_value_is_the_same_without_gradients():
    arrays = example()
    alone = _loss(*map(jnp.asarray, arrays.values()), softmax=FullSoftmax(32))
    np.testing.assert_allclose(alone, value_and_gradients(arrays, 32)[0], rtol=1e-6)


def test_gradients_are_scaled_by_what_is_made_of_the_loss():
    arrays = {name: jnp.asarray(value) for name, value in example().items()}

    def cubed(hidden, vectors, bias):
        others = (arrays[name] for name in ("labels", "weights", "in_softmax"))
        return of_arrays(hidden, vectors, bias, *others, FullSoftmax(32)) ** 3

    found = jax.grad(cubed, argnums=(0, 1, 2))(*list(arrays.values())[:3])
    loss, gradients = value_and_gradients(arrays, 32)
    for gradient, plain in zip(found, gradients):
        np.testing.assert_allclose(gradient, 3 * loss**2 * plain, rtol=1e-5)


@pytest.mark.parametrize(
    ("chunk", "mesh", "blocks"),
    [
        (V, (1, 1), BLOCKS),
        (32, (1, 1), BLOCKS),
        (V, (2, 2), BLOCKS),
        (V, (1, 1), 1),
        (32, (2, 2), 1),
    ],
)
def test_other_items_of_the_own_history_are_no_alternatives(chunk, mesh, blocks):
    """Four rows of two histories; an item that is there twice stays where it is asked for."""
    generator = np.random.default_rng(0)
    arrays = example()
    tokens = generator.choice(np.flatnonzero(arrays["in_softmax"]), (4, 12))
    tokens[:, 1] = tokens[:, 0]
    segments = np.repeat([[1] * 5 + [2] * 5 + [0] * 2], 4, axis=0)
    slots = np.array([generator.permutation(10)[:6] for _ in range(4)])
    slots[:, 0] = 0
    of_slots = np.take_along_axis(segments, slots, 1)
    arrays["labels"] = np.take_along_axis(tokens, slots, 1).reshape(-1)
    outside = np.array(
        [
            [np.isin(np.arange(V), row[own == one]) & (np.arange(V) != row[place])
             for place, one in zip(asked, ones)]
            for row, own, asked, ones in zip(tokens, segments, slots, of_slots)
        ]
    ).reshape(N, V)  # fmt: skip
    expected, expected_gradients = by_formula(
        **{**arrays, "in_softmax": arrays["in_softmax"] & ~outside}
    )
    devices = jax.devices()[: mesh[0] * mesh[1]]
    with jax.set_mesh(make_mesh(data=mesh[0], model=mesh[1], devices=devices)):
        loss, gradients = _value_and_gradients(
            *map(jnp.asarray, arrays.values()),
            histories=tuple(map(jnp.asarray, (tokens, segments, of_slots))),
            softmax=FullSoftmax(chunk, max_segments=2, own=False, blocks=blocks),
        )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for gradient, wanted in zip(gradients, expected_gradients):
        np.testing.assert_allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize("blocks", [BLOCKS, 1])
def test_only_live_slots_matter(blocks):
    arrays = example()
    dead = arrays["weights"] == 0
    changed = {**arrays, "hidden": np.where(dead[:, None], 1e6, arrays["hidden"])}
    loss, gradients = value_and_gradients(arrays, blocks=blocks)
    changed_loss, changed_gradients = value_and_gradients(changed, blocks=blocks)
    assert loss == changed_loss
    for gradient, other in zip(gradients, changed_gradients):
        np.testing.assert_array_equal(gradient, other)
    assert (np.asarray(gradients[0])[dead] == 0).all()


def test_no_live_slot_is_zero_with_zero_gradients():
    arrays = example()
    arrays["weights"][:] = 0
    loss, gradients = value_and_gradients(arrays)
    assert loss == 0
    assert all((np.asarray(g) == 0).all() for g in gradients)


def test_items_outside_the_softmax_get_no_gradient_and_do_not_change_the_loss():
    arrays = example()
    outside = ~arrays["in_softmax"]
    changed = {**arrays, "vectors": np.where(outside[:, None], 50.0, arrays["vectors"])}
    loss, gradients = value_and_gradients(arrays)
    assert loss == value_and_gradients(changed)[0]
    assert (np.asarray(gradients[1])[outside] == 0).all()
    assert (np.asarray(gradients[2])[outside] == 0).all()


def test_extreme_scores_stay_finite():
    arrays = example()
    arrays["hidden"] *= 1e4
    loss, gradients = value_and_gradients(arrays)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("model", [1, 2, 8])
def test_a_mesh_changes_nothing(model):
    arrays = example()
    expected, expected_gradients = value_and_gradients(arrays)
    with jax.set_mesh(make_mesh(model=model)):
        loss, gradients = value_and_gradients(arrays, chunk=12)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for gradient, wanted in zip(gradients, expected_gradients):
        np.testing.assert_allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("items", "chunk", "expected"),
    [(96, 96, 1), (96, 95, 2), (96, 20, 5), (96, 1, 96), (97, 20, 5)],
)
def test_there_are_as_few_chunks_as_can_be(items, chunk, expected):
    assert number_of_chunks(items, chunk) == expected
