"""One tiny run, its bundle and a scorer for all tests of serving."""

import contextlib
import resource
from dataclasses import replace

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from bert4rec_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.experiment import protocol
from bert4rec_jax.features.build import build, training_items
from bert4rec_jax.features.sources import Sources
from bert4rec_jax.serving.export import read_run, write_bundle
from bert4rec_jax.serving.scorer import load

L = 6  # shorter than most histories: what is seen must not be the window


def make_content(store, folder):
    """Three random numbers per item."""
    np.save(folder / "vectors.npy", np.random.default_rng(0).normal(size=(len(store.catalog), 3)))
    vectors = Sources(embeddings=folder / "vectors.npy")
    build(store, folder / "content", fitted=training_items(store), sources=vectors)


def make_run(store, once, name, **changes):
    """A run of two short epochs, with its metrics; the model knows content and reads thumbs."""
    content = once("content", lambda folder: make_content(store, folder)) / "content"
    config = Config(
        data=DataConfig(path=str(store.path), max_length=L, content=str(content)),
        model=ModelConfig(
            dim=8, heads=2, layers=1, ffn_dim=16, init_scale=0.3, dropout=0.0, thumbs=True
        ),
        masking=MaskingConfig(last_only=0.5),
        optimizer=OptimizerConfig(peak_lr=0.01, warmup_steps=2),
        training=TrainingConfig(epochs=2, batch_size=16, evaluate_every=1),
        evaluation=EvaluationConfig(batch_size=64, bootstrap=100, baselines=False),
    )

    def train(folder):
        whole = replace(config, workdir=str(folder / "run"), **changes)
        protocol.run(whole, recipe="serving", console=Console(quiet=True))

    return once(name, train) / "run"


def bundle_of(once, trained, name):
    """The folder of an exported model."""
    export = once(f"bundle_{name}", lambda folder: write_bundle(trained, folder / "bundle"))
    return export / "bundle"


def scorer_of(once, trained, name):
    return load(bundle_of(once, trained, name), batch_size=16, devices=jax.devices()[:1])


@pytest.fixture(scope="session")
def run(store, once):
    """A run of BERT4Rec."""
    return make_run(store, once, "trained")


@pytest.fixture(scope="session")
def towers(store, once):
    """Two towers trained in batches of each other's targets, and their scorer."""
    workdir = make_run(
        store, once, "towers",
        model=ModelConfig(
            kind="two-tower", dim=8, heads=2, layers=0, ffn_dim=16, init_scale=0.3, dropout=0.0,
            position_bias=True, thumbs=True,
        ),
        masking=MaskingConfig(objective="next"),
        training=TrainingConfig(
            epochs=2, batch_size=16, evaluate_every=1, metric="hr@200", in_batch_negatives=30,
            uniform_negatives=10,
        ),
    )  # fmt: skip
    trained = read_run(workdir, console=Console(quiet=True))
    return trained, scorer_of(once, trained, "towers")


@pytest.fixture(scope="session")
def run_with_users(store, once):
    """A run of two towers that read what is known of 50 of the 60 users."""

    def make(folder):
        numbers = np.random.default_rng(0).permutation(50)
        columns = {
            "gender": [("F", "M", None)[n % 3] for n in numbers],
            "age": [float(20 + n) if n % 7 else None for n in numbers],
            "tags": [["a", "b"][: n % 3] for n in numbers],
        }
        table = pa.table({"user_id": store.user_ids()[:50], **columns})
        pq.write_table(table, folder / "users.parquet")

    users = once("users", make) / "users.parquet"
    content = once("content", lambda folder: make_content(store, folder)) / "content"
    return make_run(
        store, once, "trained_with_users",
        data=DataConfig(
            path=str(store.path), max_length=L, content=str(content), users=str(users)
        ),
        model=ModelConfig(kind="two-tower", dim=8, heads=2, layers=1, ffn_dim=16, dropout=0.0),
        masking=MaskingConfig(objective="next"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def with_users(run_with_users, once):
    """What that run learnt, with weights of user features that show, and its scorer."""
    trained = read_run(run_with_users, console=Console(quiet=True))
    features = trained.variables["params"]["user_features"]
    assert features["kernel"].any()
    drawn = np.random.default_rng(1).normal(size=features["kernel"].shape)
    features["kernel"] = drawn.astype(np.float32)
    return trained, scorer_of(once, trained, "with_users")


@pytest.fixture(scope="session")
def trained(run):
    """What the run learnt."""
    return read_run(run, console=Console(quiet=True))


@pytest.fixture(scope="session")
def bundle(trained, once):
    """The exported run."""
    return bundle_of(once, trained, "plain")


@pytest.fixture(scope="session")
def scorer(bundle):
    """The exported run, loaded."""
    return load(bundle, batch_size=16, devices=jax.devices()[:1])


@pytest.fixture(scope="session")
def rare_run(trained, once):
    """The same model, whose items `item_ids[:5]` had no training event, and its scorer."""
    known = trained.known.copy()
    known[2:7] = False
    changed = replace(trained, known=known)
    return changed, scorer_of(once, changed, "rare")


@pytest.fixture(scope="session")
def rare(rare_run):
    """The scorer of that model."""
    return rare_run[1]


@pytest.fixture(scope="session")
def causal(trained, once):
    """A model that reads from the left, and its scorer."""
    config = replace(trained.config, masking=MaskingConfig(objective="next"))
    changed = replace(trained, config=config)
    return changed, scorer_of(once, changed, "causal")


@pytest.fixture(scope="session")
def histories(store):
    """The whole test histories, as external ids."""
    ids = store.catalog.item_ids
    return [
        [ids[token - 2] for token in history]
        for history in leave_one_out(store).test["test"].histories(store)
    ]


@pytest.fixture
def full_disk():
    """`with full_disk(size)`: no file may grow beyond `size` bytes, so writing fails."""

    @contextlib.contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
