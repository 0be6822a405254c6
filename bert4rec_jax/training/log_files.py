"""Files of a training log: JSON lines, and events for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter

from bert4rec_jax.errors import TemporaryError
from bert4rec_jax.outputs import whole_file

LINES = "log.jsonl"


class LogFiles:
    """Writes `log.jsonl` and TensorBoard events to a folder.

    On entry, the lines of steps after `start` are removed, because a run that continues from an
    earlier checkpoint repeats those steps.

    Args:
      folder: made if it does not exist.
      start: updates done so far.
      events: whether to write events as well as lines.
    """

    def __init__(self, folder: Path, start: int, *, events: bool) -> None:
        self._folder, self._start, self._with_events = folder, start, events
        self._events: SummaryWriter | None = None

    def __enter__(self) -> LogFiles:
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            _drop_after(self._folder / LINES, self._start)
            self._lines = (self._folder / LINES).open("a", encoding="utf-8")
            if self._with_events:
                purged = self._start + 1
                self._events = SummaryWriter(str(self._folder), purge_step=purged, flush_secs=1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An error while closing (a full disk) would hide the error that stopped the run.
        with self._writing() if error is None else suppress(Exception):
            self._lines.close()
            if self._events is not None:
                self._events.close()

    def write(self, step: int, line: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        """Write a line, and its scalars as events."""
        with self._writing():
            self._lines.write(json.dumps({"step": step, **line}) + "\n")
            self._lines.flush()
            if self._events is not None:
                for name, value in scalars.items():
                    self._events.add_scalar(name, value, step)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TemporaryError(
                f"cannot write the training log in {self._folder}: {error.strerror or error}; "
                "make room and start the same command again"
            ) from error


def _drop_after(path: Path, step: int) -> None:
    """Keep only the lines of steps up to `step`; lines that hold no step are dropped too."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with whole_file(path) as file:
        file.write("".join(kept).encode())
