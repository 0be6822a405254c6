"""Turns Ctrl-C and SIGTERM into a request to stop that the training loop checks between steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

import jax
import numpy as np

from bert4rec_jax.processes import is_first

_EVERY = 16  # steps
_STOPPING = b"\nstopping after the current step, and saving; Ctrl-C again stops at once\n"


class Interrupted(KeyboardInterrupt):
    """Training received a signal to stop and has saved its state; it can be continued."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}; step {step} is saved, and the same command "
            "continues from there"
        )
        self.step = step
        self.exit_code = 128 + number


class Abandoned(KeyboardInterrupt):
    """A validation was given up because the process received a signal to stop."""


class Interruption:
    """Context manager that records SIGINT and SIGTERM; after a first signal, Ctrl-C stops at once.

    The first process of a run says so, as a signal usually reaches all of them.
    Only the main thread of a process can handle signals; in other threads nothing is recorded.
    """

    def __init__(self) -> None:
        self._received = 0
        self._asked = -_EVERY
        self._tells = is_first()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._tells and not self._received:  # a step may be long, and its program compiled first
            os.write(2, _STOPPING)
        self._received = number

    def poll(self) -> None:
        """Give up what is being computed, if a signal was received.

        Several processes cannot agree on the moment, so they go on until `requested` is asked.

        Raises:
          Abandoned: it was.
        """
        if self._received and jax.process_count() == 1:
            raise Abandoned

    def requested(self, step: int, *, last: bool = False) -> int:
        """The number of the signal received, or 0; the same in all processes at the same step.

        Several processes exchange it only every 16 steps and at the last one, because doing so at
        every step would slow training down.
        """
        if jax.process_count() == 1:
            return self._received
        if step - self._asked < _EVERY and not last:
            return 0
        self._asked = step
        from jax.experimental import multihost_utils

        everyone = multihost_utils.process_allgather(np.asarray(self._received))
        return int(np.max(everyone))
