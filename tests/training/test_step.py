"""The train step on one device and on meshes: the same loss, gradients, metrics and updates."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import optax
import pytest

from bert4rec_jax.config import MaskingConfig, ModelConfig
from bert4rec_jax.data.pipeline import StepToBatch
from bert4rec_jax.data.plan import Plan
from bert4rec_jax.data.thumbs import DOWN
from bert4rec_jax.sharding import Along, make_mesh, put
from bert4rec_jax.training.in_batch import InBatch
from bert4rec_jax.training.inputs import TrainingData, catalog_constants, trained_on
from bert4rec_jax.training.losses import FullSoftmax
from bert4rec_jax.training.masking import mask_items, num_slots
from bert4rec_jax.training.parts import build_model
from bert4rec_jax.training.step import Constants, create_state, make_train_step, slots_loss

L, B, F = 12, 16, 5
MASKING = MaskingConfig(rate=0.3, last_only=0.2)
FULL = FullSoftmax(100)
MESHES = {"1 device": (1, 1), "8 x 1": (8, 1), "2 x 4": (2, 4)}


@pytest.fixture(scope="module")
def setting(store):
    return setting_of(store)


def setting_of(store, *, times=False):
    config = ModelConfig(
        dim=16, heads=2, layers=2, ffn_dim=32, dropout=0.0, attention_dropout=0.0, thumbs=True,
        unknown_rate=0.3, times=times,
    )  # fmt: skip
    model = build_model(config, num_rows=store.catalog.num_rows, max_length=L, content_dim=F)
    plan = Plan(store.offsets[:-1], store.offsets[1:], L, B, "recent", True, 3, seed=0)
    batches = [StepToBatch(plan, store, (6, 9))(step) for step in range(3)]
    features = np.random.default_rng(0).normal(size=(store.catalog.num_rows, F))
    content = np.where(store.catalog.is_item()[:, None], features, 0).astype(np.float32)
    trained = trained_on(TrainingData(store, (6, 9), times=times), plan, store.offsets[1:])

    def constants(mesh):
        catalog = catalog_constants(mesh, content, trained)
        return Constants(put(mesh, Along.ITEMS, trained.items), catalog)

    return model, plan, batches, constants


def mesh_of(shape):
    devices = np.asarray(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    full = make_mesh()  # for the axis names and types
    return jax.sharding.Mesh(devices, full.axis_names, axis_types=full.axis_types)


def run(setting, shape, optimizer=None, masking=MASKING):
    """Three steps; returns states and metrics on the host."""
    model, plan, batches, constants_on = setting
    mesh = mesh_of(shape)
    optimizer = optimizer or optax.sgd(0.5)
    state = create_state(mesh, model, optimizer, seed=0, max_length=L)
    step = make_train_step(
        mesh, state, constants_on(mesh), model, optimizer, masking=masking,
        slots=num_slots(
            rate=masking.rate, next_item=masking.next_item, max_length=L, max_segments=3
        ),
        seed=0, steps_per_epoch=plan.steps_per_epoch, softmax=FULL,
    )  # fmt: skip
    seen = [jax.device_get(state)]
    metrics = []
    for batch in batches:
        state, values = step(state, step.place(batch), constants_on(mesh))
        seen.append(jax.device_get(state))
        metrics.append(jax.device_get(values))
    return seen, metrics


@pytest.fixture(scope="module")
def on_one_device(setting):
    return run(setting, (1, 1))


@pytest.mark.parametrize("shape", [(1, 1), (2, 4)])
def test_steps_done_together_equal_steps_done_one_by_one(setting, on_one_device, shape):
    model, plan, batches, constants_on = setting
    mesh = mesh_of(shape)
    state = create_state(mesh, model, optax.sgd(0.5), seed=0, max_length=L)
    step = make_train_step(
        mesh, state, constants_on(mesh), model, optax.sgd(0.5), masking=MASKING,
        slots=num_slots(rate=MASKING.rate, next_item=0, max_length=L, max_segments=3),
        seed=0, steps_per_epoch=plan.steps_per_epoch, softmax=FULL,
    )  # fmt: skip
    stacked = jax.tree.map(lambda *values: np.stack(values), *batches)
    state, metrics = step(state, step.place(stacked), constants_on(mesh))
    seen, one_by_one = on_one_device
    for name, values in metrics.items():
        chex.assert_equal(len(values), len(batches))
        expected = [each[name] for each in one_by_one]
        np.testing.assert_allclose(values, expected, rtol=2e-5)
    chex.assert_trees_all_close(jax.device_get(state), seen[-1], atol=2e-5)


@pytest.mark.parametrize("shape", list(MESHES.values())[1:], ids=list(MESHES)[1:])
def test_meshes_agree(setting, on_one_device, shape):
    # Plain gradient descent: the difference of parameters is the gradient.
    states, metrics = run(setting, shape)
    expected_states, expected_metrics = on_one_device
    chex.assert_trees_all_close(states, expected_states, atol=2e-6)
    for found, expected in zip(metrics, expected_metrics):
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
        np.testing.assert_allclose(found["grad_norm"], expected["grad_norm"], rtol=1e-5)
        np.testing.assert_array_equal(found["items_by_thumb"], expected["items_by_thumb"])
        np.testing.assert_array_equal(found["masked_by_thumb"], expected["masked_by_thumb"])


def test_meshes_agree_on_a_model_that_reads_times(store):
    """It keeps the day on which each item was first seen, a row per token."""
    timed = setting_of(store, times=True)
    (_, expected), (_, metrics) = (run(timed, MESHES[name]) for name in ("1 device", "2 x 4"))
    for found, wanted in zip(metrics, expected):
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)


def test_the_step_counts(on_one_device):
    assert [int(state.step) for state in on_one_device[0]] == [0, 1, 2, 3]


def losses_of_one_batch(setting, *, dropout=0.0, softmax=FULL, seed=0):
    """The loss of the first batch in four steps that learn nothing, of two epochs of two steps."""
    model, _, batches, constants_on = setting
    model, mesh = model.clone(dropout=dropout, unknown_rate=0.0), mesh_of((1, 1))
    constants = constants_on(mesh)
    if isinstance(softmax, InBatch):
        share = constants.in_softmax / constants.in_softmax.sum()
        constants = constants._replace(target_share=share)
    state = create_state(mesh, model, optax.sgd(0.0), seed=0, max_length=L)
    step = make_train_step(
        mesh, state, constants, model, optax.sgd(0.0), masking=MASKING,
        slots=num_slots(rate=MASKING.rate, next_item=0, max_length=L, max_segments=3),
        seed=seed, steps_per_epoch=2, softmax=softmax,
    )  # fmt: skip
    losses = []
    for _ in range(4):
        state, metrics = step(state, step.place(batches[0]), constants)
        losses.append(float(metrics["loss"]))
    return losses


def test_masks_are_drawn_anew_in_every_epoch(setting):
    losses = losses_of_one_batch(setting)
    assert losses[0] == losses[1] != losses[2] == losses[3]


@pytest.mark.parametrize("drawn", [{"dropout": 0.3}, {"softmax": InBatch(4, 0, 3)}])
def test_dropout_and_negatives_are_drawn_anew_in_every_step(setting, drawn):
    assert len(set(losses_of_one_batch(setting, **drawn))) == 4


def test_the_seed_decides_on_parameters_masks_dropout_and_negatives(setting):
    """Or the spread over seeds would be that of the order of the data alone."""
    model, mesh = setting[0], mesh_of((1, 1))
    tables = [
        create_state(mesh, model, optax.sgd(0.0), seed=seed, max_length=L).params["item_table"]
        for seed in (0, 1)
    ]
    assert (np.asarray(tables[0]["embedding"]) != np.asarray(tables[1]["embedding"])).any()
    for drawn in ({}, {"dropout": 0.3}, {"softmax": InBatch(4, 0, 3)}):
        losses, others = (losses_of_one_batch(setting, **drawn, seed=seed) for seed in (0, 1))
        assert not set(losses) & set(others)


def test_thumb_counts_are_those_of_the_batch(setting, on_one_device):
    _, _, batches, _ = setting
    for batch, metrics in zip(batches, on_one_device[1]):
        real = batch.segments > 0
        expected = [int(((batch.thumbs == t) & real).sum()) for t in range(4)]
        assert metrics["items_by_thumb"].tolist() == expected


def test_masked_items_are_counted_whatever_they_weigh_in_the_loss(setting, on_one_device):
    """Loss weights do not change the masks, so they do not change what the log says of them."""
    masking = dataclasses.replace(MASKING, loss_down=0.0, loss_up=2.0)
    _, metrics = run(setting, (1, 1), masking=masking)
    for found, expected in zip(metrics, on_one_device[1]):
        assert expected["masked_by_thumb"][DOWN] > 0
        np.testing.assert_array_equal(found["masked_by_thumb"], expected["masked_by_thumb"])


def test_thumbs_to_predict_are_those_of_the_next_items(setting):
    _, metrics = run(setting, (1, 1), masking=MaskingConfig(objective="next"))
    for batch, found in zip(setting[2], metrics):
        follows = (batch.segments[:, 1:] > 0) & (batch.segments[:, 1:] == batch.segments[:, :-1])
        expected = np.bincount(batch.thumbs[:, 1:][follows], minlength=4)
        assert len(set(expected)) > 1
        assert found["masked_by_thumb"].tolist() == expected.tolist()


@functools.partial(jax.jit, static_argnames=("model", "slots"))
def loss_and_gradient(model, params, batch, constants, *, slots):
    chosen = mask_items(
        jax.random.key(5),
        batch,
        rate=0.3,
        last_only=0.2,
        thumb_weights=(1, 1, 2, 3),
        loss_weights=(1, 1, 2, 3),
        next_item=0.0,
        slots=slots,
    )

    def loss(params):
        return slots_loss(
            model, params, constants, batch, chosen, FullSoftmax(256), dropout_key=None
        )

    return *jax.value_and_grad(loss)(params), chosen.weights.sum()


def test_packing_and_batch_composition_change_neither_loss_nor_gradient(store, setting):
    model, _, _, constants_on = setting
    known = constants_on(mesh_of((1, 1)))
    params = create_state(mesh_of((1, 1)), model, optax.sgd(0.1), seed=0, max_length=L).params

    def batch_of(*, pack):
        plan = Plan(store.offsets[:-1], store.offsets[1:], L, 64, "recent", pack, 3, seed=0)
        assert plan.steps_per_epoch == 1
        return StepToBatch(plan, store, (6, 9))(0)

    alone = batch_of(pack=False)
    order = np.random.default_rng(0).permutation(64)
    shuffled = jax.tree.map(lambda x: x[order], alone)
    slots = num_slots(rate=0.3, next_item=0, max_length=L, max_segments=3)
    expected = loss_and_gradient(model, params, alone, known, slots=slots)
    assert expected[2] > 100
    for other in (shuffled, batch_of(pack=True)):
        found = loss_and_gradient(model, params, other, known, slots=slots)
        assert found[2] == expected[2]
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        chex.assert_trees_all_close(found[1], expected[1], atol=1e-6)


def test_the_model_cannot_see_the_masked_item(setting):
    """What the encoder reads does not depend on what stood at a masked position."""
    _, _, batches, _ = setting
    batch = batches[0]
    settings = {
        "rate": 0.3,
        "last_only": 0.2,
        "thumb_weights": (1,) * 4,
        "loss_weights": (1,) * 4,
        "next_item": 0.0,
        "slots": 6,
    }
    mask = jax.jit(functools.partial(mask_items, **settings))
    first = mask(jax.random.key(0), batch)
    hidden = np.asarray(first.tokens) == 1
    other = batch._replace(
        tokens=np.where(hidden, 7, batch.tokens), thumbs=np.where(hidden, 2, batch.thumbs)
    )
    second = mask(jax.random.key(0), other)
    np.testing.assert_array_equal(first.thumbs, second.thumbs)
    np.testing.assert_array_equal(first.tokens, second.tokens)
    np.testing.assert_array_equal(first.slots, second.slots)
