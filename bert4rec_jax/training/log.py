"""The training log: means and rates of steps, and validations; shown, and written everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from bert4rec_jax.config import Config, to_json
from bert4rec_jax.processes import is_first
from bert4rec_jax.training.log_files import LogFiles
from bert4rec_jax.training.loop import Reporter
from bert4rec_jax.training.progress import ProgressDisplay
from bert4rec_jax.training.wandb_run import WandbRun

_THUMBS = ("none", "down", "up", "two_up")


class Sink(Protocol):
    """Anything that keeps what is logged."""

    def write(self, step: int, line: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        """Keep a line: nested, as it is written, and flat, as `outer/inner` -> value."""
        ...


@dataclass(frozen=True)
class Course:
    """The course of a training.

    Attributes:
      start: updates done so far.
      total: updates of the whole run.
      examples_per_step: mean number of histories in a step.
      learning_rate: maps the number of updates done to the learning rate of the next one.
      over: whether training has come to its end before; then nothing is left to log.
    """

    start: int
    total: int
    examples_per_step: float
    learning_rate: Callable[[int], Any]
    over: bool = False


@contextmanager
def training_log(
    config: Config, folder: Path, console: Console, title: str, course: Course
) -> Iterator[Reporter]:
    """The log of a training in `folder`; the first process alone shows and writes anything.

    Raises:
      UserError: Weights & Biases is asked for, and not installed or refuses.
      TemporaryError: a file cannot be written.
    """
    if not is_first():
        yield Silence()
        return
    with ExitStack() as opened:
        sinks: list[Sink] = []
        if config.log.wandb and not course.over:
            run = WandbRun(config.log.wandb, folder, to_json(config), fresh=course.start == 0)
            sinks.append(opened.enter_context(run))
        files = LogFiles(folder, course.start, events=not course.over)
        sinks.insert(0, opened.enter_context(files))
        display = ProgressDisplay(console, title, start=course.start, total=course.total)
        opened.enter_context(display)
        yield TrainingLog(
            course, display, sinks, every=config.training.log_every, metric=config.training.metric
        )


class TrainingLog:
    """The `loop.Reporter` of the process that shows and writes.

    Args:
      course: where the training is, and how far it goes.
      display: shows progress.
      sinks: get a line now and then.
      every: steps between lines.
      metric: the validation metric that selects the best model.
    """

    def __init__(
        self,
        course: Course,
        display: ProgressDisplay,
        sinks: Sequence[Sink],
        *,
        every: int,
        metric: str,
    ) -> None:
        self._course, self._display, self._sinks = course, display, sinks
        self._every, self._metric = every, metric
        self._best = ""
        self._thumbs = np.zeros((2, 4))
        self._losses: list[float] = []
        self._window = (course.start, time.monotonic())

    def stepped(self, step: int, metrics: dict[str, Any]) -> None:
        """Show the step; every `every` steps write means and rates since the last written line."""
        self._losses.append(float(metrics["loss"]))
        self._thumbs += np.stack([metrics["items_by_thumb"], metrics["masked_by_thumb"]])
        if step % self._every and step != self._course.total:
            self._display.stepped(step)
            return
        now = time.monotonic()
        since, moment = self._window
        rate = (step - since) * self._course.examples_per_step / max(now - moment, 1e-9)
        loss = float(np.mean(self._losses))
        items, masked = self._thumbs
        line: dict[str, Any] = {
            "loss": round(loss, 6),
            "grad_norm": round(float(metrics["grad_norm"]), 6),
            "learning_rate": float(self._course.learning_rate(step - 1)),
            "examples_per_second": round(rate, 1),
            "masked_share": {
                name: round(float(m / n), 4) for name, n, m in zip(_THUMBS, items, masked) if n
            },
        }
        self._write(step, line)
        self._display.stepped(step, f"loss {loss:.3f}  {rate:,.0f} examples/s{self._best}")
        self._losses = []
        self._thumbs[:] = 0
        self._window = (step, now)

    def validated(self, step: int, metrics: dict[str, float], *, better: bool) -> None:
        """Show and write validation metrics."""
        self._write(step, {"validation": {k: round(v, 6) for k, v in metrics.items()}})
        shown = dict.fromkeys(("hr@10", "ndcg@10", "hr@200", "mrr", self._metric))
        values = "  ".join(f"{name} {metrics[name]:.4f}" for name in shown)
        self._display.line(
            f"  step {step:>7,}  validation  {values}{'  best so far' if better else ''}"
        )
        if better:
            self._best = f"  {self._metric} {metrics[self._metric]:.4f}"
        self.checkpointed(step)

    def checkpointed(self, step: int) -> None:
        """Begin to measure the rate anew: validating and saving is not training."""
        self._window = (step, time.monotonic())

    def _write(self, step: int, line: dict[str, Any]) -> None:
        scalars = dict(_flat(line))
        for sink in self._sinks:
            sink.write(step, line, scalars)


class Silence:
    """The `loop.Reporter` of all other processes."""

    def stepped(self, step: int, metrics: dict[str, Any]) -> None:
        """Nothing."""

    def validated(self, step: int, metrics: dict[str, float], *, better: bool) -> None:
        """Nothing."""

    def checkpointed(self, step: int) -> None:
        """Nothing."""


def _flat(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Flatten nested dicts to names `outer/inner`, by which TensorBoard groups."""
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
