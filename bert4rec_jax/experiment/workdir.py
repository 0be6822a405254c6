"""Workdir: one training at a time in a run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bert4rec_jax.errors import TemporaryError
from bert4rec_jax.locks import locked
from bert4rec_jax.processes import everywhere, is_first


@contextmanager
def training_in(workdir: Path) -> Iterator[None]:
    """Keep other commands from training in a folder while the block runs.

    The first process holds a lock; all processes of the run learn whether it got it. On a file
    system without locks, nothing is locked. The lock ends when its process dies.

    Raises:
      TemporaryError: another process trains there.
    """
    with ExitStack() as stack:
        free = True
        if is_first():
            with suppress(OSError):  # a later write reports what is wrong with the folder
                workdir.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(workdir))
            except BlockingIOError:
                free = False
            except OSError:
                pass
        if not everywhere(free):
            raise TemporaryError(
                f"another process is training in {workdir}; run the same command again once it has "
                "ended, or choose another --workdir"
            )
        yield
