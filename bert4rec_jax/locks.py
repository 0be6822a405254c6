"""Locks: which folder a living process works in, told by the kernel, which lets go of dead ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, also under another name that it gets meanwhile.

    Raises:
      BlockingIOError: another process, or another part of this one, holds it.
      OSError: it is not there, or its file system or the operating system has no such locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)  # Windows, which has no fcntl, refuses here
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
