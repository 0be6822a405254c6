"""Restore: the checkpoints of a run, and the best one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh

from bert4rec_jax.config import Config, to_json
from bert4rec_jax.errors import UserError
from bert4rec_jax.training.checkpoints import Checkpoint, Checkpoints
from bert4rec_jax.training.digests import fingerprint
from bert4rec_jax.training.inputs import TrainingData
from bert4rec_jax.training.parts import make_parts
from bert4rec_jax.training.run_record import CHECKPOINTS, RunRecord
from bert4rec_jax.training.step import TrainState


def make_record(config: Config, data: TrainingData) -> RunRecord:
    """The record that the checkpoints of this run store; no validations yet."""
    return RunRecord(
        to_json(config),
        data.store.catalog.fingerprint,
        data.store.fingerprint,
        content=fingerprint(data.known_of_items),
        users=fingerprint(data.users),
    )


def open_checkpoints(
    config: Config, folder: Path, *, keep: int | None, warn: Callable[[str], None]
) -> Checkpoints:
    """Open the checkpoints in a run's folder; None as `keep` is read-only; see `Checkpoints`."""
    return Checkpoints(
        folder / CHECKPOINTS,
        metric=config.training.metric,
        keep=keep,
        warn=warn,
    )


def load_best(
    config: Config,
    data: TrainingData,
    *,
    mesh: Mesh,
    folder: Path,
    warn: Callable[[str], None],
) -> Checkpoint:
    """Load the best checkpoint of a run, finished or not; the newest if none was validated.

    Raises:
      UserError: the folder has no checkpoint that can be read and fits this config and data.
    """
    parts = make_parts(config, data.sizes, total_steps=1)  # the schedule has no state
    abstract = jax.eval_shape(parts.new_state)
    record = make_record(config, data)
    checkpoints = open_checkpoints(config, folder, keep=None, warn=warn)
    try:
        newest = checkpoints.restore_latest(abstract, mesh, record)
        if newest is None:
            raise UserError(f"{folder} holds no checkpoint; train there first")
        return best_checkpoint(checkpoints, abstract, mesh, newest.record, newest.state)
    finally:
        checkpoints.close()


def best_checkpoint(
    checkpoints: Checkpoints,
    abstract: TrainState,
    mesh: Mesh,
    record: RunRecord,
    last: TrainState,
) -> Checkpoint:
    """The best validated checkpoint that can be read; the state `last` if there is none."""
    for step in checkpoints.best_steps(record.validations):
        try:
            return checkpoints.restore(step, abstract, mesh, record)
        except UserError:
            continue
    return Checkpoint(int(last.step), last, record)
