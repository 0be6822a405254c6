"""Workdir: one training at a time in a run's folder, and one command that writes its results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.locks import locked, locked_in_turn
from bert4rec_jax.processes import alone, barrier, everywhere, is_first

_SECONDS = 10  # to wait for a file of another host
_RECORDING = ".recording"  # locked while results are written; a training locks the workdir itself


@contextmanager
def training_in(workdir: Path) -> Iterator[None]:
    """Keep other commands from training in a folder while the block runs.

    The first process holds a lock; all processes of the run learn whether it got it. On a file
    system without locks, nothing is locked. The lock ends when its process dies. A folder that is
    made for the lock, and in which nothing is written, is removed again.

    Raises:
      TemporaryError: another process trains there.
      UserError: not all processes see the same folder.
    """
    with ExitStack() as stack:
        free = True
        if is_first():
            for folder in (*reversed(workdir.parents), workdir):  # removed in reverse
                if not folder.exists():
                    stack.callback(_remove_if_empty, folder)
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
        _require_shared(workdir)
        yield


@contextmanager
def recording_in(workdir: Path, console: Console) -> Iterator[None]:
    """Keep other commands from writing results to a folder while the block runs.

    For blocks that read earlier results, join new ones to them and write both: of two at once, one
    would lose what the other wrote. Waits for another one, and says so after a second. On a file
    system without locks, nothing is locked.
    """

    def waits() -> None:
        console.print(
            f"[yellow]waiting for another command that writes results to {escape(str(workdir))}"
        )

    with ExitStack() as stack:
        with suppress(OSError):  # a later write reports what is wrong with the folder
            (workdir / _RECORDING).touch()
            stack.enter_context(locked_in_turn(workdir / _RECORDING, waits))
        yield


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _require_shared(workdir: Path) -> None:
    """Check that all processes see the folder of the first one, where checkpoints are written."""
    if alone():
        return
    mark = workdir / ".seen-by-all"
    if is_first():
        with suppress(OSError):
            mark.touch()
    barrier("the workdir is marked")
    until = time.monotonic() + _SECONDS
    while not mark.exists() and time.monotonic() < until:  # network file systems may take a moment
        time.sleep(0.1)
    seen = everywhere(mark.exists())
    if is_first():
        with suppress(OSError):
            mark.unlink()
    if not seen:
        raise UserError(
            f"the workdir {workdir} is not the same folder for all processes of the run; give one "
            "that all hosts see, such as a network file system"
        )
