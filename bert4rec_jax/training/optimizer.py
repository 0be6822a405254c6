"""AdamW with gradient clipping, and no weight decay on layer norms, layer biases or item biases.

The biases per distance, the shared bias of items without an id, and the weights that content adds
to biases are decayed like other weights.
"""

from __future__ import annotations

from typing import Any

import jax
import optax

from bert4rec_jax.config import OptimizerConfig
from bert4rec_jax.training.schedules import learning_rate

_WITHOUT_DECAY = ("bias", "scale")


def decays(params: Any) -> Any:
    """Mask tree, structured as `params`: true for parameters with weight decay."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key not in _WITHOUT_DECAY, params)


def make_schedule(config: OptimizerConfig, *, dim: int, total_steps: int) -> optax.Schedule:
    """The learning rate schedule of a config."""
    return learning_rate(
        config.schedule,
        peak_lr=config.peak_lr,
        noam_scale=config.noam_scale,
        warmup_steps=config.warmup_steps,
        total_steps=total_steps,
        dim=dim,
    )


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW (Loshchilov and Hutter 2019)."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule,
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decays,
        ),
    )
