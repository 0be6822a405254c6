"""The training loop. Its order is a contract: evaluate, save, take a batch, step, log the last.

So a checkpoint holds the validations up to its step, and a run that continues from it does exactly
what the uninterrupted run did next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax

from bert4rec_jax.errors import UserError
from bert4rec_jax.training.checkpoints import Checkpoints, RunRecord
from bert4rec_jax.training.interruption import Interrupted, Interruption
from bert4rec_jax.training.step import Metrics, TrainState

Validations = list[dict[str, float]]


class Reporter(Protocol):
    """Told of what happens, to show and to write it."""

    def stepped(self, step: int, metrics: Metrics) -> None:
        """Update `step` was done; metrics are host values."""
        ...

    def validated(self, step: int, metrics: dict[str, float], *, better: bool) -> None:
        """The state after `step` updates was validated."""
        ...


@dataclass(frozen=True)
class Stopping:
    """When to validate, and when to stop.

    Attributes:
      total_steps: steps of the whole run.
      evaluate_every: steps between validations; 0 for none.
      save_every: steps between checkpoints.
      metric: name of the validation metric that is followed.
      patience: validations without a better value before training stops.
    """

    total_steps: int
    evaluate_every: int
    save_every: int
    metric: str
    patience: int

    def validates(self, step: int) -> bool:
        """Whether the state after `step` updates is validated."""
        if not self.evaluate_every or step == 0:
            return False
        return step % self.evaluate_every == 0 or step == self.total_steps

    def ends(self, step: int, validations: Validations) -> bool:
        """Whether training is over after `step` updates."""
        if step >= self.total_steps:
            return True
        values = [v[self.metric] for v in validations]
        return bool(values) and len(values) - 1 - values.index(max(values)) >= self.patience


def train(
    *,
    state: TrainState,
    step: int,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    batches: Callable[[int, int], Iterator[Any]],
    validate: Callable[[Any], dict[str, float]],
    checkpoints: Checkpoints,
    record: RunRecord,
    stopping: Stopping,
    reporter: Reporter,
) -> tuple[TrainState, RunRecord]:
    """Train from `step` to the end.

    Args:
      state: the state after `step` updates.
      step: where the run is.
      train_step: one update.
      batches: from (first step, last step + 1) to their batches on the devices.
      validate: from parameters to validation metrics.
      checkpoints: where states are saved.
      record: the run's record, with the validations so far.
      stopping: when to validate and to stop.
      reporter: told of steps and validations.

    Returns:
      The state after the last update and the record with all validations.

    Raises:
      Interrupted: asked to stop; the state is saved.
      UserError: the loss or the gradient is not finite, or a checkpoint could not be written.
    """
    source = batches(step, stopping.total_steps)
    last: tuple[int, Metrics] | None = None
    with Interruption() as interruption:
        while True:
            signal = interruption.requested(step)
            validates = stopping.validates(step) and not _validated(record, step)
            saves = step > 0 and (validates or signal != 0 or step % stopping.save_every == 0)
            if saves:
                _log(last, checkpoints, reporter)  # nothing broken is validated or saved
                last = None
            if validates and not signal:
                metrics = validate(state.params)
                better = all(
                    metrics[stopping.metric] > v[stopping.metric] for v in record.validations
                )
                entry = {"step": float(step), **metrics}
                record = replace(record, validations=[*record.validations, entry])
                reporter.validated(step, metrics, better=better)
            if saves:
                checkpoints.save(state, record)
            if signal:
                checkpoints.wait()
                raise Interrupted(step, signal)
            if stopping.ends(step, record.validations):
                break
            state, metrics_of_step = train_step(state, next(source))
            step += 1
            previous, last = last, (step, metrics_of_step)
            _log(previous, checkpoints, reporter)
            checkpoints.check()
    _log(last, checkpoints, reporter)
    checkpoints.save(state, record)
    checkpoints.wait()
    return state, record


def _log(last: tuple[int, Metrics] | None, checkpoints: Checkpoints, reporter: Reporter) -> None:
    """Fetch the metrics of a step, refuse what is not finite, and report."""
    if last is None:
        return
    step, metrics = last[0], jax.device_get(last[1])
    for name in ("loss", "grad_norm"):
        if not math.isfinite(float(metrics[name])):
            checkpoints.wait()
            saved = checkpoints.steps()
            good = f"the last good checkpoint is step {saved[-1]}" if saved else "nothing was saved"
            raise UserError(
                f"{name} is {float(metrics[name])} at step {step}; {good}. Lower "
                "optimizer.peak-lr or optimizer.clip-norm, or lengthen optimizer.warmup-steps"
            )
    reporter.stepped(step, metrics)


def _validated(record: RunRecord, step: int) -> bool:
    return any(v["step"] == step for v in record.validations)
