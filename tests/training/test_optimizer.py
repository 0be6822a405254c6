"""The optimizer against AdamW written out in NumPy (Loshchilov and Hutter 2019, algorithm 2)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert4rec_jax.config import OptimizerConfig
from bert4rec_jax.training.optimizer import make_optimizer

CONFIG = OptimizerConfig(b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.3, clip_norm=2.0)
PARAMS = {"dense": {"kernel": np.array([1.0, -2.0]), "bias": np.array([0.5])}}
GRADIENTS = [
    {"dense": {"kernel": np.array([3.0, 4.0]), "bias": np.array([12.0])}},  # norm 13: clipped
    {"dense": {"kernel": np.array([-0.1, 0.2]), "bias": np.array([0.4])}},
    {"dense": {"kernel": np.array([0.0, 1.0]), "bias": np.array([-1.0])}},
]


def rate(count):
    return 0.1 / (1 + count)


def by_hand(config):
    """The parameters after each update; `t` counts updates from 1."""
    params = {name: value.copy() for name, value in PARAMS["dense"].items()}
    m, v = ({name: np.zeros_like(value) for name, value in params.items()} for _ in range(2))
    for t, gradients in enumerate(GRADIENTS, start=1):
        of_dense = gradients["dense"]
        norm = np.sqrt(sum((g**2).sum() for g in of_dense.values()))
        for name, value in params.items():
            g = of_dense[name] * min(1, config.clip_norm / norm)
            m[name] = config.b1 * m[name] + (1 - config.b1) * g
            v[name] = config.b2 * v[name] + (1 - config.b2) * g**2
            first, second = m[name] / (1 - config.b1**t), v[name] / (1 - config.b2**t)
            decay = config.weight_decay * value if name == "kernel" else 0
            params[name] = value - rate(t - 1) * (first / (np.sqrt(second) + config.eps) + decay)
        yield {name: value.copy() for name, value in params.items()}


@pytest.mark.parametrize(
    "changes", [{}, {"clip_norm": 100.0}, {"weight_decay": 0.0}, {"b1": 0.0}, {"eps": 1e-8}]
)
def test_it_is_adamw_of_clipped_gradients_whose_biases_do_not_decay(changes):
    config = dataclasses.replace(CONFIG, **changes)
    optimizer = make_optimizer(config, rate)
    params = jax.tree.map(jnp.float32, PARAMS)
    state = optimizer.init(params)
    for gradients, expected in zip(GRADIENTS, by_hand(config), strict=True):
        updates, state = optimizer.update(jax.tree.map(jnp.float32, gradients), state, params)
        params = optax.apply_updates(params, updates)
        for name, value in expected.items():
            np.testing.assert_allclose(params["dense"][name], value, rtol=1e-5, err_msg=name)
