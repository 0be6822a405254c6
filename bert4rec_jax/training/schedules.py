"""Learning rate schedules. `t` counts updates from 1, optax from 0, so `t = count + 1`."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import optax


def noam(*, dim: int, warmup_steps: int, scale: float) -> optax.Schedule:
    """The Noam schedule, `scale * dim^-0.5 * min(t^-0.5, t * w^-1.5)` with w = `warmup_steps`.

    Vaswani et al. 2017, eq. 3, with scale 1 there. The peak, at t = w, is `scale * (dim * w)^-0.5`.
    With `scale = w^-0.5` the peak is `dim^-0.5 / w`.
    """

    def schedule(count: optax.ScalarOrSchedule) -> jnp.ndarray:
        t = jnp.asarray(count, jnp.float32) + 1
        return scale * dim**-0.5 * jnp.minimum(t**-0.5, t * warmup_steps**-1.5)

    return schedule


def learning_rate(
    kind: Literal["noam", "linear", "cosine", "constant"],
    *,
    peak_lr: float,
    noam_scale: float,
    warmup_steps: int,
    total_steps: int,
    dim: int,
) -> optax.Schedule:
    """The learning rate schedule of a run.

    Except for `noam`, the warm-up is linear. After it, `linear` and `cosine` decay to 0 at
    `total_steps`, and `constant` stays at the peak. See `OptimizerConfig` for the arguments.
    """
    if kind == "noam":
        return noam(dim=dim, warmup_steps=warmup_steps, scale=noam_scale)
    warmup = min(warmup_steps, total_steps)
    rest = max(total_steps - warmup, 1)
    after: optax.Schedule = {
        "linear": optax.linear_schedule(peak_lr, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak_lr, rest),
        "constant": optax.constant_schedule(peak_lr),
    }[kind]
    # Start at peak / warmup, not at 0, so that the first update has an effect.
    rise = optax.linear_schedule(peak_lr / warmup, peak_lr, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])
