"""User features in the towers: whose they are, what they change, and that they can be learnt."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sample import interactions
from test_step import mesh_of

from bert4rec_jax.config import (
    Config,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.pipeline import StepToBatch
from bert4rec_jax.data.plan import Plan
from bert4rec_jax.data.split import leave_one_out, train_counts
from bert4rec_jax.data.store import write_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.evaluator import Evaluator, ScoringModel
from bert4rec_jax.experiment import protocol
from bert4rec_jax.models.history import History
from bert4rec_jax.sharding import Along, global_rows, put
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.losses import FullSoftmax
from bert4rec_jax.training.masking import mask_items, num_slots
from bert4rec_jax.training.parts import build_model
from bert4rec_jax.training.step import Constants, create_state, make_train_step, slots_loss

L, B, G = 12, 16, 3
TOWERS = ModelConfig(
    kind="two-tower", dim=16, heads=2, layers=0, ffn_dim=32, dropout=0.0, attention_dropout=0.0,
    init_scale=0.3,
)  # fmt: skip
QUIET = Console(quiet=True)


def plan_of(store, *, pack, batch_size=B):
    return Plan(store.offsets[:-1], store.offsets[1:], L, batch_size, "recent", pack, 3, seed=0)


def features_of(store):
    """Random ones, of user u in row u + 1."""
    rows = np.random.default_rng(0).normal(size=(store.num_users + 1, G))
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def model(store):
    """Two towers with user features, and parameters that make use of them."""
    module = build_model(TOWERS, num_rows=store.catalog.num_rows, max_length=L)
    state = create_state(mesh_of((1, 1)), module, optax.sgd(0.1), seed=0, max_length=L, user_dim=G)
    params = jax.device_get(state.params)
    params["user_features"]["kernel"] = jax.random.normal(jax.random.key(1), (G, 16))
    return module, params


def test_user_features_begin_as_if_there_were_none(store):
    module = build_model(TOWERS, num_rows=store.catalog.num_rows, max_length=L)
    optimizer = optax.adamw(0.1)
    plain, with_users = (
        create_state(mesh_of((1, 1)), module, optimizer, seed=0, max_length=L, user_dim=dim).params
        for dim in (0, G)
    )
    kernel = with_users.pop("user_features")["kernel"]
    assert kernel.shape == (G, 16) and not kernel.any()
    assert digest(plain) == digest(with_users)


def test_a_batch_numbers_the_user_of_every_position(store):
    users = np.repeat(np.arange(store.num_users), np.diff(store.offsets))
    for pack in (False, True):
        plan = plan_of(store, pack=pack)
        with_users = StepToBatch(plan, store, (6, 9), with_users=True)
        for step in range(plan.steps_per_epoch):
            spans = plan.step(plan.epoch(0), step)
            expected = np.zeros((B, L), np.int32)
            for row, column, start, length in zip(
                spans.rows, spans.columns, spans.starts, spans.lengths
            ):
                expected[row, column : column + length] = 1 + users[start : start + length]
            batch = with_users(step)
            np.testing.assert_array_equal(batch.users, expected)
            plain = StepToBatch(plan, store, (6, 9))(step)
            assert plain.users is None and len(jax.tree.leaves(plain)) == 7


def test_users_without_rows_are_passed_over():
    class Store:
        offsets = np.array([0, 0, 3, 3, 5, 5])
        tokens, ratings = np.arange(2, 7, dtype=np.int32), np.zeros(5, np.float32)
        timestamps = np.zeros(5, np.int64)

    plan = Plan(Store.offsets[:-1], Store.offsets[1:], L, 2, "recent", False, 3, seed=0)
    batch = StepToBatch(plan, Store, (6, 9), with_users=True)(0)
    assert {(t, u) for t, u in zip(batch.tokens[:, 0], batch.users[:, 0])} == {(2, 2), (5, 4)}


def loss_of(store, model, *, pack, features):
    """The sum of losses and gradients over an epoch, weighed by targets."""
    module, params = model
    plan = plan_of(store, pack=pack, batch_size=64)
    assert plan.steps_per_epoch == 1
    batch = StepToBatch(plan, store, (6, 9), with_users=True)(0)
    slots = num_slots(rate=0.3, next_item=1.0, max_length=L, max_segments=3 if pack else 1)
    masked = mask_items(
        jax.random.key(0), batch, rate=0.3, last_only=0, thumb_weights=(1, 1, 1, 1),
        loss_weights=(1, 1, 1, 1), next_item=1.0, slots=slots,
    )  # fmt: skip
    constants = Constants(store.catalog.is_item(), {})

    @jax.jit
    def loss(params, features):
        read = constants._replace(users=features)
        return slots_loss(module, params, read, batch, masked, FullSoftmax(256), dropout_key=None)

    return jax.value_and_grad(loss)(params, features)


def test_packed_equals_unpacked(store, model):
    found = loss_of(store, model, pack=True, features=features_of(store))
    expected = loss_of(store, model, pack=False, features=features_of(store))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    shuffled = features_of(store)[::-1].copy()
    assert abs(loss_of(store, model, pack=True, features=shuffled)[0] - expected[0]) > 1e-3


def test_features_of_another_user_change_nothing(model):
    """Two histories in one row, and each asked at its end."""
    module, params = model
    tokens = np.array([[3, 4, 5, 6, 7, 0]], np.int32)
    segments = np.array([[1, 1, 1, 2, 2, 0]], np.int32)
    positions = np.array([[9, 10, 11, 10, 11, 0]], np.int32)
    users = np.random.default_rng(0).normal(size=(1, 6, G)).astype(np.float32)

    def encode(users, tokens=tokens, positions=positions, segments=segments, slots=(2, 4)):
        history = History(
            tokens, 0 * tokens, positions, segments, tokens >= 0, users=np.float32(users)
        )
        asked = np.array([slots], np.int32)
        return module.apply(
            {"params": params}, history, asked, deterministic=True, method="encode"
        )[0]

    both = encode(users)
    changed = users.copy()
    changed[0, 3:] = 9
    np.testing.assert_array_equal(encode(changed)[0], both[0])
    assert np.abs(encode(changed)[1] - both[1]).max() > 1e-3
    first = (tokens[:, :3], positions[:, :3], segments[:, :3], (2,))
    np.testing.assert_allclose(encode(users[:, 2:3], *first)[0], both[0], atol=1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1), marks=pytest.mark.slow), (2, 4)])
def test_meshes_agree(store, shape):
    features = features_of(store)
    trained = train_counts(store, store.offsets[1:]) > 0

    def run(shape):
        mesh, plan = mesh_of(shape), plan_of(store, pack=True)
        module = build_model(TOWERS, num_rows=store.catalog.num_rows, max_length=L)
        optimizer = optax.sgd(0.5)
        state = create_state(mesh, module, optimizer, seed=0, max_length=L, user_dim=G)
        constants = Constants(
            put(mesh, Along.ITEMS, trained), {}, None, put(mesh, Along.NEITHER, features)
        )
        step = make_train_step(
            mesh, state, constants, module, optimizer, masking=MaskingConfig(objective="next"),
            slots=num_slots(rate=0.2, next_item=1.0, max_length=L, max_segments=3), seed=0,
            steps_per_epoch=plan.steps_per_epoch, softmax=FullSoftmax(100),
        )  # fmt: skip
        to_batch = StepToBatch(plan, store, (6, 9), with_users=True)
        for number in range(2):
            state, _ = step(state, global_rows(mesh, to_batch(number)), constants)
        return jax.device_get(state.params)

    found, expected = run(shape), run((1, 1))
    assert np.abs(expected["user_features"]["kernel"]).max() > 1e-4
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_the_evaluator_gives_each_case_its_user(store, model):
    module, params = model
    features, cases = features_of(store), leave_one_out(store).test["test"]
    scoring = ScoringModel(
        module, {"params": params}, known=store.catalog.is_item(), max_length=L, causal=True
    )

    def lists(features, cases=cases):
        asked = Evaluator(store, batch_size=16, item_chunk=64, thumbs=(6, 9), users=features)
        return asked.rank_model(scoring, cases).top

    expected = lists(features)
    changed = features.copy()
    changed[1 + cases.users[3]] += 5
    rows = (lists(changed) != expected).any(axis=1)
    assert rows[3] and rows.sum() == 1
    assert (lists(np.zeros_like(features)) != expected).any(axis=1).mean() > 0.5


def test_users_are_for_two_towers_alone():
    with pytest.raises(ConfigError, match=r"data.users is 'x.csv'; expected none: only two towers"):
        Config(data=DataConfig(users="x.csv"))


@pytest.fixture(scope="module")
def taste(once):
    """Everyone sees the same 8 items in any order, then the one of their taste, one of four.

    The first 60 teach that: they go back to what they saw, which is not asked for. Of the others it
    is asked in validation, and what they saw says nothing about it.
    """

    def make(folder):
        generator = np.random.default_rng(0)
        rows, tastes = [], {}
        for user in range(120):
            tastes[f"{user}"] = ("sweet", "salty", "sour", "bitter")[user % 4]
            first, own = generator.permutation(8), 8 + user % 4
            seen = [*first, own, *first[:2]] if user < 60 else [*first, own, 12]
            rows += [(user, int(item), moment) for moment, item in enumerate(seen)]
        log = interactions(rows).in_time_order()
        write_store(log, folder / "store", titles={}, source={})
        table = pa.table({"user_id": list(tastes), "taste": list(tastes.values())})
        pq.write_table(table, folder / "users.parquet")

    return once("taste", make)


def config_of(folder, workdir, users="users.parquet"):
    return Config(
        data=DataConfig(
            path=str(folder / "store"), max_length=L, users=str(folder / users) if users else "",
        ),
        model=replace(TOWERS, init_scale=0.05),
        masking=MaskingConfig(objective="next"),
        optimizer=OptimizerConfig(peak_lr=0.01, warmup_steps=2, schedule="constant"),
        training=TrainingConfig(epochs=20, batch_size=16, evaluate_every=20),
        evaluation=EvaluationConfig(batch_size=64, bootstrap=100, baselines=False),
        workdir=str(workdir),
    )  # fmt: skip


@pytest.fixture(scope="module")
def learnt(taste, tmp_path_factory):
    """Workdirs and results of runs with and without user features."""
    runs = {}
    for users in ("users.parquet", ""):
        workdir = tmp_path_factory.mktemp("run")
        config = config_of(taste, workdir, users)
        runs[users] = workdir, protocol.run(config, recipe="test", console=QUIET)
    return runs


def test_what_depends_on_the_user_alone_is_learnt(learnt):
    with_users, without = (
        learnt[users][1]["validation"]["two towers"] for users in ("users.parquet", "")
    )
    assert with_users["hr@1"] > 0.9 and without["hr@1"] < 0.5, (with_users, without)


def test_the_run_goes_on_and_is_evaluated_with_the_same_table(learnt, taste):
    workdir, results = learnt["users.parquet"]
    assert protocol.evaluate(workdir, console=QUIET)["test"] == results["test"]
    again = protocol.run(config_of(taste, workdir), recipe="test", console=QUIET)
    assert again["steps"]["resumed_from"] == results["steps"]["done"]
    assert again["parameters_sha256"] == results["parameters_sha256"]


def test_another_table_is_refused(learnt, taste, tmp_path):
    workdir, _ = learnt["users.parquet"]
    table = pq.read_table(taste / "users.parquet")
    try:
        pq.write_table(table.slice(1), taste / "users.parquet")
        with pytest.raises(UserError, match="what is known of users does not match"):
            protocol.evaluate(workdir, console=QUIET)
    finally:
        pq.write_table(table, taste / "users.parquet")


@pytest.mark.slow
def test_a_run_goes_on_from_one_of_the_same_users(learnt, taste, tmp_path):
    """The columns stay, though other users would shape others."""
    workdir, _ = learnt["users.parquet"]
    table = pq.read_table(taste / "users.parquet")
    pq.write_table(
        table.slice(0, 40).append_column("x", pa.array(["a"] * 40)), tmp_path / "u.parquet"
    )
    config = config_of(taste, tmp_path / "next")
    config = replace(
        config, init_from=str(workdir), training=replace(config.training, epochs=1),
        data=replace(config.data, users=str(tmp_path / "u.parquet")),
    )  # fmt: skip
    protocol.run(config, recipe="test", console=QUIET)
    with pytest.raises(UserError, match="trained without user features; go on without"):
        config = replace(config, init_from=str(learnt[""][0]), workdir=str(tmp_path / "other"))
        protocol.run(config, recipe="test", console=QUIET)
