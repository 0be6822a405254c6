"""Locks: mark a folder or a file as in use by a process; the kernel releases those of dead ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PAUSE = 0.05  # seconds between two attempts
_QUIET = 1.0  # seconds to wait before anything is said


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder or a file, which stays locked if it is renamed.

    Raises:
      BlockingIOError: another process, or another part of this one, holds the lock.
      OSError: the path does not exist, or its file system or the operating system has no such
        locks.
    """
    descriptor = os.open(path, os.O_RDONLY)  # fails on Windows, which has no fcntl
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_in_turn(path: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `locked` as soon as others let go of it; for work of seconds.

    Args:
      path: what to lock.
      waits: called once if that takes longer than a second.

    Raises:
      OSError: as for `locked`.
    """
    until, told = time.monotonic() + _QUIET, False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(path))
                break
            except BlockingIOError:
                if not told and time.monotonic() >= until:
                    waits()
                    told = True
                time.sleep(_PAUSE)
        yield
