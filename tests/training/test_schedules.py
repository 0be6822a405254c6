"""Learning rates against closed forms; t counts updates from 1."""

import dataclasses
from functools import partial

import jax
import numpy as np
import optax
import pytest

from bert4rec_jax.config import ModelConfig, OptimizerConfig
from bert4rec_jax.training.optimizer import decays, make_schedule
from bert4rec_jax.training.parts import build_model
from bert4rec_jax.training.schedules import noam
from bert4rec_jax.training.step import new_state


def at(schedule, t):
    return float(schedule(t - 1))


@pytest.mark.parametrize(("d", "w"), [(256, 10_000), (64, 100)])
def test_standard_noam_has_its_closed_form(d, w):
    schedule = noam(dim=d, warmup_steps=w, scale=1.0)
    np.testing.assert_allclose(at(schedule, 1), d**-0.5 * w**-1.5, rtol=1e-6)
    np.testing.assert_allclose(at(schedule, w), d**-0.5 * w**-0.5, rtol=1e-6)
    np.testing.assert_allclose(at(schedule, 4 * w), d**-0.5 * w**-0.5 / 2, rtol=1e-6)


@pytest.mark.parametrize(("d", "w"), [(256, 10_000), (64, 100)])
def test_noam_scaled_by_the_root_of_the_warm_up_peaks_at_root_d_over_w(d, w):
    schedule = noam(dim=d, warmup_steps=w, scale=w**-0.5)
    np.testing.assert_allclose(at(schedule, 1), d**-0.5 * w**-2, rtol=1e-6)
    np.testing.assert_allclose(at(schedule, w), d**-0.5 / w, rtol=1e-6)
    np.testing.assert_allclose(at(schedule, 4 * w), d**-0.5 / w / 2, rtol=1e-6)
    if (d, w) == (256, 10_000):
        np.testing.assert_allclose(at(schedule, w), 6.25e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "middle", "end"), [("linear", 0.5, 0), ("cosine", 0.5, 0), ("constant", 1, 1)]
)
def test_warm_up_then_decay(kind, middle, end):
    config = OptimizerConfig(schedule=kind, peak_lr=1e-3, warmup_steps=10)
    schedule = make_schedule(config, dim=64, total_steps=110)
    np.testing.assert_allclose(at(schedule, 1), 1e-4, rtol=1e-6)
    np.testing.assert_allclose(at(schedule, 10), 1e-3, rtol=1e-6)
    np.testing.assert_allclose(at(schedule, 61), 1e-3 * middle, rtol=1e-5)
    np.testing.assert_allclose(at(schedule, 111), 1e-3 * end, atol=1e-12)


def test_noam_is_reached_through_the_config():
    config = OptimizerConfig(schedule="noam", noam_scale=2.0, warmup_steps=10)
    schedule = make_schedule(config, dim=64, total_steps=50)
    np.testing.assert_allclose(at(schedule, 10), 2 * (64 * 10) ** -0.5, rtol=1e-6)


def test_the_warm_up_of_noam_may_go_on_after_the_run():
    config = OptimizerConfig(schedule="noam", warmup_steps=100)
    schedule = make_schedule(config, dim=64, total_steps=3)
    np.testing.assert_allclose(at(schedule, 3), 64**-0.5 * 3 * 100**-1.5, rtol=1e-6)


def test_a_warm_up_longer_than_the_run_still_rises():
    config = dataclasses.replace(OptimizerConfig(), warmup_steps=100)
    schedule = make_schedule(config, dim=64, total_steps=3)
    assert at(schedule, 1) < at(schedule, 2) < at(schedule, 3)


def test_what_is_called_bias_or_scale_does_not_decay():
    model = build_model(ModelConfig(dim=8, position_bias=True), num_rows=16, max_length=4)
    state = jax.eval_shape(partial(new_state, model, optax.sgd(0.1), seed=0, max_length=4))
    found = jax.tree_util.tree_leaves_with_path(decays(state.params))
    without = {jax.tree_util.keystr(path[-2:]) for path, decay in found if not decay}
    assert without == {
        f"['{module}']['{name}']"
        for modules, names in (
            (("input_norm", "head_norm", "attention_norm", "feed_forward_norm"), ("bias", "scale")),
            (("query", "key", "value", "output", "expand", "project", "transform"), ("bias",)),
            (("item_table",), ("bias",)),
        )
        for module in modules
        for name in names
    }
    decaying = {path[-1].key for path, decay in found if decay}
    assert decaying == {"embedding", "position_embedding", "distance", "kernel"}
