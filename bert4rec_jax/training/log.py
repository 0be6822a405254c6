"""The training log: a progress bar, JSON lines, TensorBoard events and Weights & Biases."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from bert4rec_jax.errors import TemporaryError
from bert4rec_jax.outputs import whole_file
from bert4rec_jax.training.wandb_run import open_run

_THUMBS = ("none", "down", "up", "two_up")
_PLAIN_EVERY = 15.0  # seconds between progress lines when there is no terminal for a bar


class TrainingLog:
    """Shows progress, writes `log.jsonl` and TensorBoard events; implements `loop.Reporter`.

    On entry, the lines of steps after `start` are removed, because a run that continues from an
    earlier checkpoint repeats those steps.

    Args:
      folder: where the files are written.
      console: where progress is shown.
      title: name of the run on the progress bar.
      start: updates done so far.
      total: updates of the whole run.
      examples_per_step: mean number of histories in a step.
      every: steps between written lines.
      metric: the validation metric that selects the best model.
      learning_rate: maps the number of updates done to the learning rate of the next one.
      active: whether this process shows and writes anything; true for the first process only.
      over: whether training has come to its end before; then nothing is left to log.
      wandb: Weights & Biases project that gets the same scalars; empty for none.
      config: all settings, for Weights & Biases.
    """

    def __init__(
        self,
        folder: Path,
        console: Console,
        *,
        title: str,
        start: int,
        total: int,
        examples_per_step: float,
        every: int,
        metric: str,
        learning_rate: Callable[[int], Any],
        active: bool,
        over: bool = False,
        wandb: str = "",
        config: dict[str, Any] | None = None,
    ) -> None:
        self._path = folder / "log.jsonl"
        self._console = console
        self._title = title
        self._start, self._total = start, total
        self._examples_per_step = examples_per_step
        self._every = every
        self._metric = metric
        self._learning_rate = learning_rate
        self._active = active
        self._wandb, self._config, self._over = wandb, config or {}, over
        self._run: Any = None
        self._events: SummaryWriter | None = None
        self._best = ""
        self._thumbs = np.zeros((2, 4))
        self._losses: list[float] = []
        self._window = (start, time.monotonic())
        self._first: tuple[int, float] | None = None
        self._last_plain = time.monotonic()

    def __enter__(self) -> TrainingLog:
        if not self._active:
            return self
        folder = self._path.parent
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            if self._wandb and not self._over:
                fresh = self._start == 0
                self._run = open_run(self._wandb, folder, self._config, fresh=fresh)
            _drop_after(self._path, self._start)
            self._file = self._path.open("a", encoding="utf-8")
            if not self._over:
                self._events = SummaryWriter(str(folder), purge_step=self._start + 1, flush_secs=1)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("step {task.completed:,}/{task.total:,}"),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(
            self._title,
            total=self._total,
            completed=self._start,
            now="compiling" if self._start < self._total else "done",
        )
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._active:
            self._progress.stop()
            # An error while closing (a full disk) would hide the error that stopped the run.
            with self._writing() if error is None else suppress(Exception):
                self._file.close()
                if self._events is not None:
                    self._events.close()
            if self._run is not None:
                self._run.finish(exit_code=0 if error is None else 1)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TemporaryError(
                f"cannot write the training log in {self._path.parent}: {error.strerror or error}; "
                "make room and start the same command again"
            ) from error

    def stepped(self, step: int, metrics: dict[str, Any]) -> None:
        """Show the step; every `every` steps write means and rates since the last written line."""
        if not self._active:
            return
        now = time.monotonic()
        first, began = self._first = self._first or (step, now)
        self._losses.append(float(metrics["loss"]))
        self._thumbs += np.stack([metrics["items_by_thumb"], metrics["masked_by_thumb"]])
        if step % self._every and step != self._total:
            self._progress.update(self._task, completed=step)
            return
        since, moment = self._window
        rate = (step - since) * self._examples_per_step / max(now - moment, 1e-9)
        loss = float(np.mean(self._losses))
        items, masked = self._thumbs
        line: dict[str, Any] = {
            "step": step,
            "loss": round(loss, 6),
            "grad_norm": round(float(metrics["grad_norm"]), 6),
            "learning_rate": float(self._learning_rate(step - 1)),
            "examples_per_second": round(rate, 1),
            "masked_share": {
                name: round(float(m / n), 4) for name, n, m in zip(_THUMBS, items, masked) if n
            },
        }
        self._write(line)
        text = f"loss {loss:.3f}  {rate:,.0f} examples/s{self._best}"
        self._progress.update(self._task, completed=step, now=text)
        due = now - self._last_plain >= _PLAIN_EVERY and step > first
        if not self._console.is_terminal and due:
            # Includes the time of validations so far, because there will be more of them, but not
            # that of the first step, which compiles.
            each = (now - began) / (step - first)
            self._console.print(
                f"{self._title}: step {step:,}/{self._total:,}  {text}  "
                f"ETA {(self._total - step) * each:,.0f} s",
                soft_wrap=True,
            )
            self._last_plain = now
        self._losses = []
        self._thumbs[:] = 0
        self._window = (step, now)

    def validated(self, step: int, metrics: dict[str, float], *, better: bool) -> None:
        """Show and write validation metrics."""
        if not self._active:
            return
        self._write({"step": step, "validation": {k: round(v, 6) for k, v in metrics.items()}})
        shown = dict.fromkeys(("hr@10", "ndcg@10", "hr@200", "mrr", self._metric))
        values = "  ".join(f"{name} {metrics[name]:.4f}" for name in shown)
        self._console.print(
            f"  step {step:>7,}  validation  {values}{'  best so far' if better else ''}",
            highlight=False,
            soft_wrap=True,
        )
        if better:
            self._best = f"  {self._metric} {metrics[self._metric]:.4f}"
        self.checkpointed(step)

    def checkpointed(self, step: int) -> None:
        """Begin to measure the rate anew: validating and saving is not training."""
        self._window = (step, time.monotonic())

    def _write(self, line: dict[str, Any]) -> None:
        step = line["step"]
        scalars = {name: value for name, value in _flat(line) if name != "step"}
        with self._writing():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            if self._events is not None:
                for name, value in scalars.items():
                    self._events.add_scalar(name, value, step)
        if self._run is not None:
            self._run.log(scalars, step=step)


def _flat(line: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Flatten nested dicts to names `outer/inner`, by which TensorBoard groups."""
    found = []
    for name, value in line.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}/")
        else:
            found.append((prefix + name, value))
    return found


def _drop_after(path: Path, step: int) -> None:
    """Keep only the lines of steps up to `step`; lines that are not valid JSON are dropped too."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text + "\n")
        except (ValueError, KeyError):
            continue
    with whole_file(path) as file:
        file.write("".join(kept).encode())
