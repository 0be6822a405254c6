"""The in-batch softmax against hand-computed examples, and its laws."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import L, mesh_of

from bert4rec_jax.config import (
    Config,
    ConfigError,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    TrainingConfig,
)
from bert4rec_jax.data.pipeline import StepToBatch
from bert4rec_jax.data.plan import Plan
from bert4rec_jax.data.split import train_counts
from bert4rec_jax.errors import UserError
from bert4rec_jax.sharding import Along, global_rows, put
from bert4rec_jax.training.coverage import make_plan, require_targets, target_share, trained_items
from bert4rec_jax.training.in_batch import (
    InBatch,
    _uniformly,
    in_batch_cross_entropy,
)
from bert4rec_jax.training.losses import FullSoftmax, cross_entropy
from bert4rec_jax.training.masking import mask_items
from bert4rec_jax.training.parts import build_model
from bert4rec_jax.training.slots import Slots
from bert4rec_jax.training.step import Constants, create_state, make_train_step

V, D = 16, 4
_loss = jax.jit(in_batch_cross_entropy, static_argnums=6)


def each_alone(labels, hidden, weights=None):
    """Histories of one slot each, with their label as the only item."""
    column = np.asarray(labels, np.int32)[:, None]
    weights = np.ones(column.shape, np.float32) if weights is None else weights
    ones = np.ones_like(column)
    return Slots(hidden[:, None], column, weights, ones, column, ones)


def arrays(seed=0):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(V, D)).astype(np.float32)
    return vectors, generator.normal(size=V).astype(np.float32), generator


def loss(
    asked, vectors, bias, share, *,
    negatives=V, uniform=0, drawable=None, segments=1, key=0, own=False,
):  # fmt: skip
    drawable = np.ones(V, bool) if drawable is None else drawable
    given = jax.tree.map(jnp.asarray, (asked, vectors, bias, share, drawable))
    how = InBatch(negatives, uniform, segments, own)
    return _loss(jax.random.key(key), *given, how)


def test_the_logq_correction_by_hand():
    """Two users with the targets a and b; a is 3/4 of all targets, b 1/4; two negatives drawn."""
    vectors, bias = np.zeros((V, D), np.float32), np.zeros(V, np.float32)
    bias[2], bias[3] = np.log(6.0), np.log(2.0)
    share = np.zeros(V, np.float32)
    share[2], share[3] = 0.75, 0.25
    asked = each_alone([2, 3], np.zeros((2, D), np.float32))
    # E = 2 Q: a 1.5, b .5. Against the target a, with odds 6, stands b with 2 / .5 = 4: p = 6 / 10.
    # Against the target b, with odds 2, stands a with 6 / 1.5 = 4: p = 2 / 6.
    expected = -(np.log(6 / 10) + np.log(2 / 6)) / 2
    np.testing.assert_allclose(loss(asked, vectors, bias, share), expected, rtol=1e-6)
    even = np.full(V, 0.5, np.float32)  # without correction a has 6 of 8: -(ln 6/8 + ln 2/8) / 2
    expected = -(np.log(6 / 8) + np.log(2 / 8)) / 2
    np.testing.assert_allclose(loss(asked, vectors, bias, even), expected, rtol=1e-6)


def test_uniform_negatives_are_counted_in_by_hand():
    """One target a, always drawn; four uniform draws from c alone: E_a = 1, E_c = 4."""
    vectors, bias = np.zeros((V, D), np.float32), np.zeros(V, np.float32)
    bias[2], bias[5] = np.log(3.0), np.log(8.0)
    share = np.zeros(V, np.float32)
    share[2] = 1.0
    asked = each_alone([2], np.zeros((1, D), np.float32))
    # Four negatives of odds 8 / 4 each, the target's odds 3 / 1: p = 3 / (3 + 8).
    found = loss(asked, vectors, bias, share, uniform=4, drawable=np.arange(V) == 5)
    np.testing.assert_allclose(found, -np.log(3 / 11), rtol=1e-6)


def test_the_normaliser_is_that_of_the_full_softmax_on_average():
    """1 / p of the target is the sum of all odds over its own, whatever the shares of the draws."""
    vectors, bias, generator = arrays()
    bias = bias[:6]
    share = np.zeros(6, np.float32)
    share[2] = 1.0  # the batch holds the target alone, so other items are drawn uniformly only
    asked = each_alone([2], generator.normal(size=(1, D)).astype(np.float32))
    odds = np.exp(asked.hidden[0, 0] @ vectors[:6].T + bias)
    drawn = [
        np.exp(loss(asked, vectors[:6], bias, share, uniform=3, drawable=np.ones(6, bool), key=key))
        for key in range(2000)
    ]
    error = np.std(drawn) / len(drawn) ** 0.5
    assert abs(np.mean(drawn) - odds.sum() / odds[2]) < 4 * error < 0.2 * odds.sum() / odds[2]


def test_items_of_the_own_history_are_negatives_where_they_can_be_chosen_again():
    """One history a b, both targets, drawn both; odds a 3, b 1 and Q 1/2 each, so E = 1."""
    vectors, bias = np.zeros((V, D), np.float32), np.zeros(V, np.float32)
    bias[2] = np.log(3.0)
    share = np.zeros(V, np.float32)
    share[2:4] = 0.5
    items, ones = np.array([[2, 3]], np.int32), np.ones((1, 2), np.int32)
    asked = Slots(
        np.zeros((1, 2, D), np.float32), items, ones.astype(np.float32), ones, items, ones
    )
    np.testing.assert_allclose(loss(asked, vectors, bias, share), 0, atol=1e-6)
    expected = -(np.log(3 / 4) + np.log(1 / 4)) / 2
    np.testing.assert_allclose(loss(asked, vectors, bias, share, own=True), expected, rtol=1e-6)


def test_equals_the_full_softmax_where_each_item_is_a_target_once_and_q_is_uniform():
    vectors, bias, generator = arrays()
    hidden = generator.normal(size=(V, D)).astype(np.float32)
    labels = generator.permutation(V).astype(np.int32)
    weights = generator.uniform(0.5, 2, size=(V, 1)).astype(np.float32)
    share = np.full(V, 1 / V, np.float32)

    def in_batch(hidden, vectors, bias):
        return loss(each_alone(labels, hidden, weights), vectors, bias, share)

    def full(hidden, vectors, bias):
        given = each_alone(labels, hidden, weights), vectors, bias, np.ones(V, bool)
        return cross_entropy(*jax.tree.map(jnp.asarray, given), FullSoftmax(V))

    found, expected = (
        jax.value_and_grad(f, argnums=(0, 1, 2))(hidden, vectors, bias) for f in (in_batch, full)
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    chex.assert_trees_all_close(found[1], expected[1], atol=1e-6)


def test_an_item_of_the_same_history_is_no_negative_of_it():
    """Targets a a b; b's history also holds a. Nothing is left against b, and b alone against a."""
    vectors, bias, generator = arrays()
    hidden = generator.normal(size=(3, D)).astype(np.float32)
    share = np.full(V, 1 / 3, np.float32)
    asked = each_alone([2, 2, 3], hidden)
    both = np.array([[2, 0], [2, 0], [3, 2]], np.int32)
    asked = asked._replace(tokens=both, token_segments=(both > 0).astype(np.int32))
    scores = hidden @ vectors.T + bias
    against_b = [np.logaddexp(scores[row, 2], scores[row, 3]) - scores[row, 2] for row in (0, 1)]
    np.testing.assert_allclose(loss(asked, vectors, bias, share), sum(against_b) / 3, rtol=1e-5)


def test_packed_histories_hold_their_own_items_only():
    """Two histories in one row are each other's negatives, as in rows of their own."""
    vectors, bias, generator = arrays()
    hidden = generator.normal(size=(2, D)).astype(np.float32)
    share = np.full(V, 1 / 2, np.float32)
    alone = loss(each_alone([2, 3], hidden), vectors, bias, share)
    pair, numbers = np.array([[2, 3]], np.int32), np.array([[1, 2]], np.int32)
    packed = Slots(hidden[None], pair, np.ones((1, 2), np.float32), numbers, pair, numbers)
    np.testing.assert_allclose(loss(packed, vectors, bias, share, segments=2), alone, rtol=1e-6)


def test_every_item_of_training_is_drawn_equally_often():
    drawable = np.zeros(20, bool)
    drawable[[2, 3, 7, 19]] = True
    drawn = np.asarray(_uniformly(jax.random.key(0), jnp.asarray(drawable), 4000))
    shares = np.bincount(drawn, minlength=20) / 4000
    np.testing.assert_allclose(shares, drawable / 4, atol=4 * np.sqrt(0.25 * 0.75 / 4000))
    assert not shares[~drawable].any()


def test_slots_that_are_not_in_use_change_nothing():
    vectors, bias, generator = arrays()
    hidden = generator.normal(size=(3, D)).astype(np.float32)
    share = np.full(V, 1 / 2, np.float32)
    expected = loss(each_alone([2, 3], hidden[:2]), vectors, bias, share)
    weights = np.array([[1], [1], [0]], np.float32)
    found = loss(each_alone([2, 3, 4], hidden, weights), vectors, bias, share)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    dead = each_alone([2, 3, 4], hidden, np.zeros((3, 1), np.float32))
    gradients = jax.grad(lambda v: loss(dead, v, bias, share))(vectors)
    assert loss(dead, vectors, bias, share) == 0 and not np.asarray(gradients).any()


def test_working_in_pieces_changes_nothing(monkeypatch):
    vectors, bias, generator = arrays()
    labels = generator.integers(2, V, size=(3, 7)).astype(np.int32)
    ones = np.ones_like(labels)
    hidden = generator.normal(size=(3, 7, D)).astype(np.float32)
    asked = Slots(hidden, labels, ones.astype(np.float32), ones, labels, ones)
    share = np.full(V, 1 / V, np.float32)
    whole = jax.value_and_grad(lambda v: loss(asked, v, bias, share))(vectors)
    monkeypatch.setattr("bert4rec_jax.training.in_batch._LARGEST", 3 * V * 3)
    pieces = jax.value_and_grad(lambda v: loss(asked, v, bias, share))(vectors)
    chex.assert_trees_all_close(pieces, whole, atol=1e-6)


def test_target_shares_leave_out_the_first_item(store):
    config = Config(
        data=DataConfig(path="x", max_length=5), masking=MaskingConfig(objective="next")
    )
    plan = make_plan(config, store, store.offsets[1:])
    shares = target_share(config, plan, store, (6.0, 9.0))
    windows = [store.tokens[max(a, b - 5) : b] for a, b in zip(store.offsets, store.offsets[1:])]
    targets = np.concatenate([window[1:] for window in windows])
    expected = np.bincount(targets, minlength=len(shares)) / len(targets)
    asked = expected > 0
    np.testing.assert_allclose(shares[asked], expected[asked], rtol=1e-6)
    np.testing.assert_allclose(shares[~asked], 1 / len(targets), rtol=1e-6)
    disliked = MaskingConfig(objective="next", loss_down=0.0)
    liked = target_share(Config(data=config.data, masking=disliked), plan, store, (6.0, 9.0))
    assert not np.allclose(liked, shares)
    nothing = MaskingConfig(objective="next", loss_down=0.0, loss_up=0.0, loss_none=0.0)
    require_targets(Config(data=config.data, masking=nothing), plan, store, (6.0, 9.0))
    with pytest.raises(UserError, match="loss weight of 0"):  # no rating is that high
        require_targets(Config(data=config.data, masking=nothing), plan, store, (6.0, 99.0))


@pytest.mark.parametrize(
    "masking",
    [MaskingConfig(rate=0.3, last_only=0.0), MaskingConfig(rate=0.3, last_only=1.0),
     MaskingConfig(rate=0.2, last_only=0.3, weight_two_up=8.0, weight_down=0.2),
     MaskingConfig(objective="mixed", rate=0.4, last_only=0.1, loss_down=0.0)],
)  # fmt: skip
def test_target_shares_are_those_of_the_masks(store, masking):
    """Labels of many draws of masks, over all histories of the store."""
    whole = Config(data=DataConfig(path="x", max_length=30), masking=masking)
    plan = make_plan(whole, store, store.offsets[1:])
    shares = target_share(whole, plan, store, (6.0, 9.0))
    batch = StepToBatch(plan, store, (6.0, 9.0))(0)
    draw = jax.jit(
        lambda key: mask_items(
            key, batch, rate=masking.rate, last_only=masking.last_only, slots=29,
            thumb_weights=masking.thumb_weights, loss_weights=masking.loss_weights,
            next_item=masking.next_item,
        )
    )  # fmt: skip
    found = np.zeros(len(shares))
    for key in jax.random.split(jax.random.key(0), 400):
        masked = draw(key)
        asked = np.asarray(masked.weights) > 0
        found += np.bincount(np.asarray(masked.labels)[asked], minlength=len(shares))
    often = found > 100
    assert often.sum() > 20
    # Weights change slightly as items are drawn without replacement; else only chance is left.
    np.testing.assert_allclose(shares[often], (found / found.sum())[often], rtol=0.25)
    bias = np.log(shares[often] * found.sum() / found[often])
    assert abs(np.average(bias, weights=found[often])) < 0.02


def test_items_outside_of_all_windows_are_not_trained(store):
    """What only the beginnings of histories hold is in no row, where the last five are read."""
    stop = store.offsets[1:]
    starts = store.offsets[:-1]
    for window, first in (("recent", np.maximum(starts, stop - 5)), ("tiles", starts)):
        config = Config(data=DataConfig(path="x", max_length=5, window=window))
        plan = make_plan(config, store, stop)
        rows = [np.arange(a, b) for a, b in zip(first, stop)]
        if window == "tiles":  # a tile of one item has nothing to see
            rows = [r[1:] if len(r) % 5 == 1 else r for r in rows]
        held = np.zeros(store.catalog.num_rows, bool)
        held[store.tokens[np.concatenate(rows)]] = True
        np.testing.assert_array_equal(trained_items(plan, store), held)
    short = Config(data=DataConfig(path="x", max_length=2, window="recent"))
    assert trained_items(make_plan(short, store, stop), store).sum() < held.sum()
    prefixes = Config(data=DataConfig(path="x", max_length=2, window="random-prefix"))
    every = train_counts(store, stop) > 0
    np.testing.assert_array_equal(trained_items(make_plan(prefixes, store, stop), store), every)


def trained_on(store, shape):
    """Two steps of two towers; the states' parameters and the losses."""
    config = ModelConfig(
        kind="two-tower", dim=16, heads=2, layers=1, ffn_dim=32, position_bias=True,
        dropout=0.0, attention_dropout=0.0, temperature=0.2,
    )  # fmt: skip
    model = build_model(config, num_rows=store.catalog.num_rows, max_length=L)
    plan = Plan(store.offsets[:-1], store.offsets[1:], L, 16, "recent", True, 3, seed=0)
    masking = MaskingConfig(objective="next")
    mesh = mesh_of(shape)
    trained = train_counts(store, store.offsets[1:]) > 0
    whole = Config(data=DataConfig(path="x", max_length=L), masking=masking)
    shares = target_share(whole, plan, store, (6.0, 9.0))
    constants = Constants(put(mesh, Along.ITEMS, trained), {}, put(mesh, Along.ITEMS, shares))
    optimizer = optax.sgd(0.5)
    state = create_state(mesh, model, optimizer, seed=0, max_length=L)
    step = make_train_step(
        mesh, state, constants, model, optimizer, masking=masking, slots=L - 1, seed=0,
        steps_per_epoch=plan.steps_per_epoch, softmax=InBatch(40, 20, 3),
    )  # fmt: skip
    losses = []
    for number in range(2):
        batch = StepToBatch(plan, store, (6, 9))(number)
        state, metrics = step(state, global_rows(mesh, batch), constants)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state.params), losses


@pytest.mark.slow
def test_meshes_agree(store):
    expected, found = trained_on(store, (1, 1)), trained_on(store, (4, 2))
    for ours, theirs in zip(jax.tree.leaves(found[0]), jax.tree.leaves(expected[0])):
        # A float32 sum rounds by the size of its terms, which reach 20 in the largest gradients.
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-6, atol=max(2e-6, 1e-6 * np.abs(theirs).max())
        )
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_settings_that_would_do_nothing_are_refused():
    with pytest.raises(
        ConfigError, match=r"uniform_negatives is 5; expected 0: without training\."
    ):
        TrainingConfig(uniform_negatives=5)
    with pytest.raises(ConfigError, match="objective is 'masked'; expected next: two towers read"):
        Config(model=ModelConfig(kind="two-tower"))
    assert ModelConfig(kind="two-tower", layers=0).layers == 0
    with pytest.raises(ConfigError, match="layers is 0; expected at least 1"):
        ModelConfig(layers=0)
