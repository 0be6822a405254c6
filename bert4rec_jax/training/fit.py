"""Fit: trains a model from a config and training histories, or continues an unfinished run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh
from rich.console import Console
from rich.markup import escape

from bert4rec_jax.config import Config
from bert4rec_jax.data.batch import Batch
from bert4rec_jax.data.pipeline import StepToBatch, batches
from bert4rec_jax.data.plan import Plan
from bert4rec_jax.errors import UserError
from bert4rec_jax.sharding import Along, platform, put, row_share
from bert4rec_jax.training.checkpoints import Checkpoint
from bert4rec_jax.training.coverage import make_plan, require_targets, target_share
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.inputs import TrainingData, catalog_constants, trained_on
from bert4rec_jax.training.log import Course, training_log
from bert4rec_jax.training.loop import Stopping, Validate, Validations, train
from bert4rec_jax.training.parts import make_parts
from bert4rec_jax.training.restore import best_checkpoint, make_record, open_checkpoints
from bert4rec_jax.training.step import Constants, TrainState, TrainStep

_AT_ONCE = 8  # steps per dispatch on GPUs and TPUs: launching a small step outlasts computing it


@dataclass(frozen=True)
class TrainResult:
    """A trained model.

    Attributes:
      params: the best parameters by validation, or the last ones without validation.
      step: number of updates after which `params` were taken.
      last_step: total number of updates.
      last_digest: digest of the parameters after the last update.
      resumed_from: the step this run continued from; 0 for a fresh start.
      validations: one dict per validation: `step` and the metrics.
      seconds: time that training took, validations included, over all starts of the run.
    """

    params: Any
    step: int
    last_step: int
    last_digest: str
    resumed_from: int
    validations: Validations
    seconds: float


def fit(
    config: Config,
    data: TrainingData,
    *,
    mesh: Mesh,
    stop: npt.NDArray[np.int64],
    folder: Path,
    console: Console,
    title: str,
    validate: Validate | None,
    steps: int | None = None,
    scheduled: int | None = None,
    initial: Callable[[TrainState], TrainState] | None = None,
) -> TrainResult:
    """Train on each user's rows `offsets[u]:stop[u]`; continue an unfinished run in `folder`.

    Args:
      config: all settings.
      data: the training data.
      mesh: the devices.
      stop: `[U]` end of each user's training rows.
      folder: gets `checkpoints/`, `log.jsonl` and TensorBoard events.
      console: shows progress.
      title: name of the run on the progress bar.
      validate: as for `loop.train`; None trains without validation.
      steps: number of updates; None for `config.training.epochs` epochs.
      scheduled: number of updates after which the learning rate has decayed; None for that many
        epochs.
      initial: maps a freshly initialised state to the one to start from, for example that of an
        earlier run; not called when a run is continued.

    Raises:
      UserError: `folder` holds a model of more steps; or see `require_targets`, `loop.train` and
        `Checkpoints.restore_latest`.
      Interrupted: the process received a signal to stop; the state is saved.
    """
    training = config.training
    plan = make_plan(config, data.store, stop)
    require_targets(config, plan, data.store, data.thumbs)
    every_epoch = training.epochs * plan.steps_per_epoch
    total = every_epoch if steps is None else steps
    fused = config.model.attention == "fused" and platform(mesh) == "gpu"
    parts = make_parts(config, data.sizes, total_steps=scheduled or every_epoch, fused=fused)
    abstract = jax.eval_shape(parts.new_state)
    stopping = Stopping(
        total_steps=total,
        evaluate_every=training.evaluate_every * plan.steps_per_epoch if validate else 0,
        save_every=training.save_every,
        metric=training.metric,
        patience=training.patience,
        at_once=training.steps_at_once or (1 if platform(mesh) == "cpu" else _AT_ONCE),
    )
    checkpoints = open_checkpoints(
        config,
        folder,
        keep=training.keep,
        warn=lambda text: console.print(f"[yellow]{escape(text)}; taking the one before it"),
    )
    try:
        record = make_record(config, data)
        found = checkpoints.restore_latest(abstract, mesh, record)
        if found is None:
            state = parts.create_state(mesh)
            found = Checkpoint(0, initial(state) if initial else state, record)
        else:  # settings that may change between two starts are those of the last one
            found = replace(found, record=replace(found.record, config=record.config))
        if found.step > total:
            raise UserError(
                f"{folder} holds a model of {found.step:,} steps, and {total:,} are asked for: the "
                "checkpoint of as many steps, which validation had selected, is lost. Move "
                f"{folder} away, and the same command trains it again"
            )
        over = _is_over(found, stopping)
        if found.step and not over:
            console.print(f"  continuing from step {found.step:,} of {total:,}", highlight=False)
        constants = _constants(config, data, mesh, plan, stop)
        step_function = parts.train_step(
            mesh, abstract, constants, steps_per_epoch=plan.steps_per_epoch
        )
        course = Course(
            start=found.step,
            total=total,
            examples_per_step=plan.epoch(0).num_examples / plan.steps_per_epoch,
            learning_rate=parts.schedule,
            over=over,
        )
        with training_log(config, folder, console, title, course) as log:
            state, record = train(
                state=found.state,
                step=found.step,
                train_step=lambda state, batch: step_function(state, batch, constants),
                batches=_batches(data, plan, step_function),
                validate=validate or (lambda params, poll: {}),
                checkpoints=checkpoints,
                record=found.record,
                stopping=stopping,
                reporter=log,
            )
        best = best_checkpoint(checkpoints, abstract, mesh, record, state)
    finally:
        checkpoints.close()
    return TrainResult(
        params=best.state.params,
        step=best.step,
        last_step=int(state.step),
        last_digest=digest(state.params),
        resumed_from=found.step,
        validations=record.validations,
        seconds=record.seconds,
    )


def _is_over(found: Checkpoint, stopping: Stopping) -> bool:
    """Whether a run that is opened at a checkpoint has come to its end before.

    Raises:
      UserError: with the patience given, it would have ended before its best validation.
    """
    validations = found.record.validations
    if missed := stopping.missed(validations):
        raise UserError(
            f"training.patience is {stopping.patience}; with it, training would have ended at step "
            f"{missed[0]:,}, but the best validation of this run is that of step {missed[1]:,}. "
            "Give a larger one, or use another workdir"
        )
    ended = stopping.ends(found.step, validations)
    return ended and not stopping.validates(found.step, validations)


def _constants(
    config: Config,
    data: TrainingData,
    mesh: Mesh,
    plan: Plan,
    stop: npt.NDArray[np.int64],
) -> Constants:
    """What the train step reads and never changes, on the devices."""
    trained, targets = trained_on(data, plan, stop), None
    if config.training.in_batch_negatives:
        share = target_share(config, plan, data.store, data.thumbs)
        targets = put(mesh, Along.ITEMS, share)
    return Constants(
        put(mesh, Along.ITEMS, trained.items),
        catalog_constants(mesh, data.content, trained),
        targets,
        None if data.users is None else put(mesh, Along.NEITHER, data.users),
    )


def _batches(
    data: TrainingData, plan: Plan, step: TrainStep
) -> Callable[[npt.NDArray[np.int64]], Iterator[Batch]]:
    """Maps strides to their batches on the devices; each process reads its share of the rows."""
    share = row_share(step.mesh, plan.batch_size)
    to_batch = StepToBatch(
        plan,
        data.store,
        data.thumbs,
        host=share.number,
        hosts=share.total,
        with_users=data.users is not None,
    )
    return lambda strides: (step.place(batch, share) for batch in batches(to_batch, strides))
