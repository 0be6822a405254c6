"""A train step without data or devices: compiles the step of a config from shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bert4rec_jax.config import Config
from bert4rec_jax.data.batch import Batch
from bert4rec_jax.training.in_batch import InBatch
from bert4rec_jax.training.parts import Sizes, make_parts
from bert4rec_jax.training.step import Constants, TrainState, TrainStep

_STEPS = 1000  # per epoch and in total: constants in the program that do not change its shape


@dataclass(frozen=True)
class StepDescription:
    """The train step that `fit` runs, and the shapes of its arguments.

    Attributes:
      step: the train step.
      state: shapes of the train state.
      batch: shapes of the global batch, over all hosts.
      constants: shapes of the constants.
      slots: slots S per row.
      create: initialises a state; needs the devices to be present.
    """

    step: TrainStep
    state: TrainState
    batch: Batch
    constants: Constants
    slots: int
    create: Callable[[], TrainState]

    def compile(self) -> jax.stages.Compiled:
        """Compile the step for its mesh."""
        return self.step.compile(self.state, self.batch, self.constants)


def describe(config: Config, mesh: Mesh, *, num_rows: int) -> StepDescription:
    """The train step of a config without content, user features and times.

    Args:
      config: all settings.
      mesh: the devices, which need not be present.
      num_rows: rows V of the item table.
    """
    length, batch_size = config.data.max_length, config.training.batch_size
    parts = make_parts(config, Sizes(num_rows), total_steps=_STEPS)
    state: TrainState = jax.eval_shape(parts.new_state)
    shape: Any = jax.ShapeDtypeStruct
    dtypes = (jnp.int32, jnp.int8, jnp.int32, jnp.int32, jnp.uint32, jnp.float32, jnp.int32)
    batch: Any = Batch(*(shape((batch_size, length), dtype) for dtype in dtypes))
    in_softmax: Any = shape((num_rows,), bool)
    softmax = parts.softmax(mesh)
    target_share = shape((num_rows,), jnp.float32) if isinstance(softmax, InBatch) else None
    constants = Constants(in_softmax, {}, target_share)
    step = parts.train_step(mesh, state, constants, steps_per_epoch=_STEPS)
    return StepDescription(
        step, state, batch, constants, parts.slots, partial(parts.create_state, mesh)
    )
