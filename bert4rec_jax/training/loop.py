"""The training loop, in a fixed order: validate, save, fetch a batch, step, log the previous step.

Because of this order, a checkpoint holds the validations up to its step, and a run that continues
from it does exactly what the uninterrupted run did next.

A GPU computes a small step faster than the host can launch it. So several steps can form a stride:
the devices get their batches stacked and run all of them in one dispatch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import UserError
from bert4rec_jax.training.checkpoints import Checkpoints
from bert4rec_jax.training.interruption import Abandoned, Interrupted, Interruption
from bert4rec_jax.training.run_record import RunRecord
from bert4rec_jax.training.step import Metrics, TrainState

Validations = list[dict[str, float]]
# Maps parameters to metrics. While it computes, it calls the function that it is given, which
# raises `Abandoned` if the process is to stop.
Validate = Callable[[Any, Callable[[], None]], dict[str, float]]


class Reporter(Protocol):
    """Receives the events of a training, to display and record them."""

    def stepped(self, step: int, metrics: Metrics) -> None:
        """Called after update `step`; metrics are host values."""
        ...

    def validated(self, step: int, metrics: dict[str, float], *, better: bool) -> None:
        """Called after a validation at `step`; `better` tells whether it is the best so far."""
        ...

    def checkpointed(self, step: int) -> None:
        """Called when the saving of a checkpoint has begun, which goes on in the background."""
        ...


@dataclass(frozen=True)
class Stopping:
    """When to validate, to save and to stop.

    Attributes:
      total_steps: steps of the whole run.
      evaluate_every: steps between validations; 0 for no validation.
      save_every: steps between checkpoints.
      metric: name of the validation metric used for early stopping.
      patience: validations without a better value before training stops.
      at_once: steps per stride, if no validation or checkpoint is due between them.
    """

    total_steps: int
    evaluate_every: int
    save_every: int
    metric: str
    patience: int
    at_once: int = 1

    def validates(self, step: int, validations: Validations) -> bool:
        """Whether the state after `step` updates is to be validated, and was not so far."""
        if not self.evaluate_every or step == 0 or any(v["step"] == step for v in validations):
            return False
        return step % self.evaluate_every == 0 or step == self.total_steps

    def stride(self, step: int) -> int:
        """Number of steps in the stride that starts at `step`, a function of `step` alone.

        So a run that continues from a checkpoint takes the same strides as an uninterrupted one.
        """
        end = step + self.at_once
        rhythms = [every for every in (self.evaluate_every, self.save_every) if every]
        due = min([self.total_steps, *((step // every + 1) * every for every in rhythms)])
        return self.at_once if step % self.at_once == 0 and end <= due else 1

    def strides(self, step: int) -> npt.NDArray[np.int64]:
        """`[N, 2]`: first step and number of steps of each stride, from `step` to the end."""
        found: list[tuple[int, int]] = []
        while step < self.total_steps:
            found.append((step, self.stride(step)))
            step += found[-1][1]
        return np.array(found, np.int64).reshape(-1, 2)

    def ends(self, step: int, validations: Validations) -> bool:
        """Whether training ends after `step` updates: all are done, or patience has run out."""
        if step >= self.total_steps:
            return True
        values = [v[self.metric] for v in validations]
        return bool(values) and len(values) - 1 - values.index(max(values)) >= self.patience

    def missed(self, validations: Validations) -> tuple[int, int] | None:
        """The steps at which patience would have ended training, and of the best one after that.

        None if the best validation came before that end, or there is no such end.
        """
        values = [v[self.metric] for v in validations]
        best = values.index(max(values)) if values else 0
        for count in range(1, best + 1):
            if self.ends(0, validations[:count]):
                return int(validations[count - 1]["step"]), int(validations[best]["step"])
        return None


def train(
    *,
    state: TrainState,
    step: int,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    batches: Callable[[npt.NDArray[np.int64]], Iterator[Any]],
    validate: Validate,
    checkpoints: Checkpoints,
    record: RunRecord,
    stopping: Stopping,
    reporter: Reporter,
) -> tuple[TrainState, RunRecord]:
    """Train from `step` to the end.

    Args:
      state: the state after `step` updates.
      step: number of updates done so far.
      train_step: runs one stride; if it has several steps, their metrics are stacked.
      batches: maps strides to batches on the devices; those of a stride with several steps are
        stacked.
      validate: maps parameters to validation metrics; abandoned when a signal to stop comes.
      checkpoints: where states are saved.
      record: the run's record, with the validations so far.
      stopping: when to validate, to save and to stop.
      reporter: notified of steps and validations.

    Returns:
      The state after the last update and the record with all validations and the time taken.

    Raises:
      Interrupted: the process received a signal to stop; the state is saved.
      UserError: the loss or the gradient is not finite, or a checkpoint could not be written.
    """
    source = batches(stopping.strides(step))
    first, began, seconds_before = step, time.monotonic(), record.seconds

    def timed(record: RunRecord) -> RunRecord:
        if step == first:
            return record
        return replace(record, seconds=seconds_before + time.monotonic() - began)

    last: tuple[range, Metrics] | None = None
    with Interruption() as interruption:
        while True:
            signal = interruption.requested(step)
            validates = stopping.validates(step, record.validations)
            saves = step > 0 and (validates or signal != 0 or step % stopping.save_every == 0)
            if saves:
                _log(last, checkpoints, reporter)  # check the loss before validating or saving
                last = None
            if validates and not signal:
                try:
                    metrics = validate(state.params, interruption.poll)
                except Abandoned:
                    signal = interruption.requested(step)
                else:
                    better = all(
                        metrics[stopping.metric] > v[stopping.metric] for v in record.validations
                    )
                    entry = {"step": float(step), **metrics}
                    record = replace(record, validations=[*record.validations, entry])
                    reporter.validated(step, metrics, better=better)
            if saves:
                record = timed(record)
                checkpoints.save(state, record)
                reporter.checkpointed(step)
            if signal:
                checkpoints.wait()
                raise Interrupted(step, signal)
            if stopping.ends(step, record.validations):
                signal = interruption.requested(step, last=True)
                break
            count = stopping.stride(step)
            state, metrics_of_steps = train_step(state, next(source))
            previous, last = last, (range(step + 1, step + count + 1), metrics_of_steps)
            step += count
            _log(previous, checkpoints, reporter)
            checkpoints.check()
    _log(last, checkpoints, reporter)
    if not saves:
        record = timed(record)
        checkpoints.save(state, record)
    checkpoints.wait()
    if signal:
        raise Interrupted(step, signal)
    return state, record


def _log(last: tuple[range, Metrics] | None, checkpoints: Checkpoints, reporter: Reporter) -> None:
    """Fetch the metrics of a stride, check that they are finite, and report them."""
    if last is None:
        return
    steps, metrics = last[0], jax.device_get(last[1])
    for number, step in enumerate(steps):
        each = metrics if len(steps) == 1 else {name: x[number] for name, x in metrics.items()}
        _require_finite(step, each, checkpoints)
        reporter.stepped(step, each)


def _require_finite(step: int, metrics: Metrics, checkpoints: Checkpoints) -> None:
    for name in ("loss", "grad_norm"):
        if not math.isfinite(float(metrics[name])):
            checkpoints.wait()
            saved = checkpoints.steps()
            good = f"the last good checkpoint is step {saved[-1]}" if saved else "nothing was saved"
            raise UserError(
                f"{name} is {float(metrics[name])} at step {step}; {good}. Lower "
                "optimizer.peak-lr (with the Noam schedule optimizer.noam-scale) or "
                "optimizer.clip-norm, or lengthen optimizer.warmup-steps"
                + (", and train in another workdir" if saved else "")
            )
