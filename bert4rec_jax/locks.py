"""Locks: mark a folder as in use by a live process; the kernel releases those of dead ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, which stays locked if it is renamed.

    Raises:
      BlockingIOError: another process, or another part of this one, holds the lock.
      OSError: the folder does not exist, or its file system or the operating system has no such
        locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)  # fails on Windows, which has no fcntl
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
