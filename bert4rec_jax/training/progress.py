"""Progress of a training on the console: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_EVERY = 15.0  # seconds between lines when there is no terminal for a bar


class ProgressDisplay:
    """Shows how many of the `total` updates are done, of which `start` are at the beginning."""

    def __init__(self, console: Console, title: str, *, start: int, total: int) -> None:
        self._console, self._title, self._start, self._total = console, title, start, total
        self._step = start
        self._first: tuple[int, float] | None = None
        self._began = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("step {task.completed:,}/{task.total:,}"),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        now = "compiling" if start < total else "done"
        self._task = self._bar.add_task(title, total=total, completed=start, now=now)

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if error is None and self._step > self._start and not self._console.is_terminal:
            self.line(
                f"{self._title}: ended at step {self._step:,} of {self._total:,}, "
                f"{time.monotonic() - self._began:,.0f} s after its start"
            )

    def stepped(self, step: int, text: str | None = None) -> None:
        """Show the step; `text`, if given, says how the training is doing by now."""
        self._step, now = step, time.monotonic()
        first, began = self._first = self._first or (step, now)
        if text is None:
            self._bar.update(self._task, completed=step)
            return
        self._bar.update(self._task, completed=step, now=text)
        due = now - self._last_line >= _EVERY and step > first
        if not self._console.is_terminal and due:
            # Includes the time of validations so far, because there will be more of them, but not
            # that of the first step, which compiles.
            each = (now - began) / (step - first)
            self._console.print(
                f"{self._title}: step {step:,}/{self._total:,}  {text}  "
                f"ETA {(self._total - step) * each:,.0f} s",
                soft_wrap=True,
            )
            self._last_line = now

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True)
