"""Parts: builds the model, the optimizer and the train step from a config and the data's sizes.

All code that trains, restores or compiles a run gets them from here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import optax
from jax.sharding import Mesh

from bert4rec_jax.config import Config, ModelConfig
from bert4rec_jax.models.bert4rec import BERT4Rec
from bert4rec_jax.models.sequence_model import SequenceModel
from bert4rec_jax.models.two_tower import TwoTower
from bert4rec_jax.sharding import platform
from bert4rec_jax.training.in_batch import InBatch
from bert4rec_jax.training.losses import FullSoftmax
from bert4rec_jax.training.masking import num_slots
from bert4rec_jax.training.optimizer import make_optimizer, make_schedule
from bert4rec_jax.training.step import (
    Constants,
    TrainState,
    TrainStep,
    create_state,
    make_train_step,
    new_state,
)
from bert4rec_jax.training.tiling import BLOCKS


@dataclass(frozen=True)
class Sizes:
    """The sizes of the data that parameter shapes depend on.

    Attributes:
      num_rows: rows V of the item table.
      content_dim: content features F per item, 0 without content.
      user_dim: features G per user, 0 without user features.
    """

    num_rows: int
    content_dim: int = 0
    user_dim: int = 0


@dataclass(frozen=True)
class Parts:
    """The parts of a run; see `make_parts`.

    Attributes:
      config: all settings.
      sizes: sizes of the data.
      model: the Flax module.
      schedule: the learning rate schedule.
      optimizer: the optimizer, with that schedule.
    """

    config: Config
    sizes: Sizes
    model: SequenceModel
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation

    @property
    def slots(self) -> int:
        """Slots S per row."""
        masking, data = self.config.masking, self.config.data
        return num_slots(
            rate=masking.rate,
            next_item=masking.next_item,
            max_length=data.max_length,
            max_segments=data.segments_per_row,
        )

    def softmax(self, mesh: Mesh) -> FullSoftmax | InBatch:
        """The softmax that the loss is computed with on these devices."""
        training, segments = self.config.training, self.config.data.segments_per_row
        own = self.config.own_items_compete
        if training.in_batch_negatives:
            negatives, uniform = training.in_batch_negatives, training.uniform_negatives
            return InBatch(negatives, uniform, segments, own=own)
        blocks = 1 if platform(mesh) == "gpu" else BLOCKS  # why: see `losses`
        return FullSoftmax(training.loss_chunk, segments, own=own, blocks=blocks)

    def new_state(self) -> TrainState:
        """A freshly initialised train state; see `step.new_state`."""
        return new_state(self.model, self.optimizer, **self._initial())

    def create_state(self, mesh: Mesh) -> TrainState:
        """A freshly initialised train state, created directly in its shards on the mesh."""
        return create_state(mesh, self.model, self.optimizer, **self._initial())

    def train_step(
        self, mesh: Mesh, state: TrainState, constants: Constants, *, steps_per_epoch: int
    ) -> TrainStep:
        """The train step for a state and constants of these shapes; see `step.make_train_step`."""
        return make_train_step(
            mesh,
            state,
            constants,
            self.model,
            self.optimizer,
            masking=self.config.masking,
            softmax=self.softmax(mesh),
            slots=self.slots,
            seed=self.config.training.seed,
            steps_per_epoch=steps_per_epoch,
        )

    def _initial(self) -> dict[str, int]:
        return {
            "seed": self.config.training.seed,
            "max_length": self.config.data.max_length,
            "user_dim": self.sizes.user_dim,
        }


def make_parts(config: Config, sizes: Sizes, *, total_steps: int, fused: bool = False) -> Parts:
    """Build the parts of a run.

    Args:
      config: all settings.
      sizes: sizes of the data.
      total_steps: number of updates that the learning rate schedule covers.
      fused: train with `layers.fused_attention`, which runs on NVIDIA GPUs only.
    """
    model = build_model(
        config.model,
        num_rows=sizes.num_rows,
        max_length=config.data.max_length,
        content_dim=sizes.content_dim,
        fused=fused,
    )
    schedule = make_schedule(config.optimizer, dim=config.model.dim, total_steps=total_steps)
    return Parts(config, sizes, model, schedule, make_optimizer(config.optimizer, schedule))


def build_model(
    config: ModelConfig,
    *,
    num_rows: int,
    max_length: int,
    content_dim: int = 0,
    fused: bool = False,
) -> SequenceModel:
    """Build the Flax module of a config, for items with `content_dim` content features.

    `fused` uses `layers.fused_attention`, which runs on NVIDIA GPUs only; parameters are the same.
    """
    fields = {n: v for n, v in dataclasses.asdict(config).items() if n != "attention"}
    module = {"bert4rec": BERT4Rec, "two-tower": TwoTower}[fields.pop("kind")]
    return module(
        num_rows=num_rows, max_length=max_length, content_dim=content_dim, fused=fused, **fields
    )
