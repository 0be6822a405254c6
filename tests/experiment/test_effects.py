"""Every setting has an effect, or is refused where it has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from rich.console import Console

from bert4rec_jax.checks import ConfigError
from bert4rec_jax.config import (
    Config,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    from_json,
    to_json,
)
from bert4rec_jax.experiment import recipes
from bert4rec_jax.experiment.effects import without_effect
from bert4rec_jax.models.history import History
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.fit import fit
from bert4rec_jax.training.inputs import TrainingData
from bert4rec_jax.training.parts import Sizes, make_parts

BASE = Config(
    data=DataConfig(content="catalog", max_length=12, window="tiles", pack=True, max_segments=3),
    model=ModelConfig(dim=16, heads=2, layers=1, ffn_dim=32, position_bias=True, unknown_rate=0.3),
    masking=MaskingConfig(objective="mixed", rate=0.4, last_only=0.5, loss_up=2.0),
    optimizer=OptimizerConfig(warmup_steps=2, peak_lr=1e-2),
    training=TrainingConfig(epochs=2, batch_size=16),
)
NEXT = {"masking.objective": "next"}
IN_BATCH = {"training.in_batch_negatives": 8}
# What makes settings idle, and other values of them.
IDLE = [
    ({}, {"data.time_quantile": 0.8, "optimizer.noam_scale": 2.0}),
    ({"data.pack": False}, {"data.max_segments": 2}),
    ({"data.content": ""}, {"model.unknown_rate": 0.6}),
    ({**NEXT, "model.kind": "two-tower", "model.layers": 0}, {"model.norm": "pre"}),
    (NEXT, {"masking.rate": 0.2, "masking.last_only": 0.1, "masking.weight_none": 2.0,
            "masking.weight_down": 3.0, "masking.weight_up": 4.0, "masking.weight_two_up": 5.0}),
    (IN_BATCH, {"masking.own_negatives": False, "training.loss_chunk": 7}),
    ({"data.repeats": True}, {"masking.own_negatives": False}),
    ({**IN_BATCH, "data.repeats": True}, {"masking.own_negatives": False}),
    ({"optimizer.schedule": "noam"}, {"optimizer.peak_lr": 3e-2}),
]  # fmt: skip


def changed(config, changes):
    values = to_json(config)
    for name, value in changes.items():
        section, field = name.split(".")
        values[section][field] = value
    return from_json(values)


def trained(store, folder, changes):
    """A digest of the parameters after three steps."""
    config = changed(BASE, changes)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), make_mesh().axis_names)
    features = np.random.default_rng(0).normal(size=(store.catalog.num_rows, 5))
    content = np.where(store.catalog.is_item()[:, None], features, 0).astype(np.float32)
    data = TrainingData(store, (6, 9), content if config.data.content else None)
    result = fit(
        config, data, mesh=mesh, stop=store.offsets[1:], folder=folder,
        console=Console(quiet=True), title="", validate=None, steps=3,
    )  # fmt: skip
    return digest(result.params)


@pytest.mark.slow
@pytest.mark.parametrize(("beside", "idle"), IDLE, ids=[", ".join(idle) for _, idle in IDLE])
def test_what_is_called_idle_is_idle(store, tmp_path, beside, idle):
    assert set(idle) <= set(without_effect(changed(BASE, beside)))
    before = trained(store, tmp_path / "before", beside)
    assert trained(store, tmp_path / "after", {**beside, **idle}) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.time_quantile": 0.8}, r"time-quantile 0\.8 has no effect.*data\.split global-time"),
        ({"masking.objective": "next", "masking.rate": 0.3}, r"masking\.rate 0\.3.*masked or mix"),
        ({"optimizer.noam_scale": 2.0}, r"noam-scale 2\.0.*schedule noam"),
        ({"optimizer.schedule": "noam", "optimizer.peak_lr": 1.0}, r"peak-lr 1\.0.*noam-scale"),
        ({"training.in_batch_negatives": 9, "training.loss_chunk": 9}, "loss-chunk 9 has no"),
        ({"data.content": "", "model.unknown_rate": 0.5}, r"unknown-rate 0\.5.*data\.content"),
    ],
)
def test_a_change_without_effect_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipes.recipe("movietweetings", changes)


def test_settings_of_a_recipe_may_be_idle_beside_changes():
    found = recipes.recipe("movietweetings", {"masking.objective": "next"})
    assert "masking.rate" in without_effect(found)


def test_what_the_data_makes_idle_is_refused(store, tmp_path):
    """On a sparse log `general` predicts next items, and masks none."""
    log = tmp_path / "log.csv"
    rows = [f"u{n % 40},i{n % 39 + n % 7},{n}" for n in range(200)]
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    changes = {"data.path": log, "workdir": tmp_path / "run", "data.min_item_interactions": 1}
    assert recipes.recipe("general", changes).masking.objective == "next"
    with pytest.raises(ConfigError, match=r"masking\.rate 0\.3 has no effect"):
        recipes.recipe("general", {**changes, "masking.rate": 0.3})


FUSED = {
    "model.attention": "fused", "model.dtype": "bfloat16", "model.attention_dropout": 0.0,
    "model.position_bias": False, "data.pack": False,
}  # fmt: skip
TOWERS = {**NEXT, "model.kind": "two-tower"}


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"masking.objective": "masked"}, 1),  # int(0.4 * 12 + 0.501) = 5 slots, an odd number
        ({"masking.objective": "masked", "masking.rate": 0.5}, 1),
        ({}, 1),
        (NEXT, 1),
        ({}, 2),
        ({"data.max_length": 13}, 3),
        (TOWERS, 0),
        (TOWERS, 1),
        ({**TOWERS, "data.max_length": 13}, 1),
    ],
)
def test_fused_attention_is_idle_where_no_layer_calls_it(changes, layers, monkeypatch):
    config = changed(BASE, {**FUSED, **changes, "model.layers": layers})
    called = []

    def recorded(queries, keys, values, visible):
        called.append(visible.shape)
        return queries.swapaxes(1, 2)

    monkeypatch.setattr("bert4rec_jax.models.layers.fused_attention", recorded)
    parts = make_parts(config, Sizes(64), total_steps=1, fused=True)
    row = jnp.zeros((1, config.data.max_length), jnp.int32)
    history = History(row, row, row, row, row != 0)
    slots = row[:, : parts.slots]
    jax.eval_shape(lambda: parts.model.init(jax.random.key(0), history, slots, deterministic=True))
    assert ("model.attention" in without_effect(config)) == (not called)
