"""What every command does around its work: memory settings before, readable errors after.

Imports neither jax nor numpy, so that the settings are in place before these are loaded.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType, TracebackType

from bert4rec_jax.errors import UserError, first_line

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


_GRACE = 5  # seconds for the others to come to the same end


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception, so that open resources are cleaned up while it propagates."""

    exit_code = 128 + signal.SIGTERM


def run_command(command: Callable[[], None]) -> None:
    """Run a command and end the process on an error or a signal.

    The exit status is a `UserError`'s own, 128 + n after signal n, or 1 after a broken pipe. Too
    little memory on a device is reported as a `UserError` is.
    """
    tune_memory()
    # What Orbax and asyncio log is either reported in one clear error or of no use to users.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    _hide_echoes()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an unprintable title must not end a run
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        _leave_others(error.status)
        sys.exit(error.status)
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        status = getattr(interrupt, "exit_code", 130)
        _leave_others(status)
        sys.exit(status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        status = UserError.status if _is_out_of_memory(error) else 1
        _leave_others(status)
        if status == 1:
            raise
        print(
            f"error: a device has not enough memory ({first_line(error)}); choose smaller batches, "
            "shorter rows or a smaller model, or split the item table over more devices",
            file=sys.stderr,
        )
        sys.exit(status)
    finally:
        signal.signal(signal.SIGTERM, before)


def run_program(main: Callable[[], None]) -> None:
    """Call the main function of a program, and end the process with its status.

    After an error or a signal nothing is left to be done, but threads of XLA and Arrow may be at
    work. If the interpreter is torn down under them, they can end the process with a status of
    their own (a segmentation fault, an abort), so it ends at once.
    """
    try:
        main()
    except SystemExit as end:
        if not end.code or _is_one_of_several():
            raise
        if not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether JAX had no memory for an array."""
    by_jax = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    return by_jax and any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory"))


def _leave_others(status: int) -> None:
    """End the process in a few seconds, if it is one of several that may wait for each other.

    At its exit JAX waits for the others, for minutes, while they wait for this process; its status
    would then be that of an aborted one.
    """
    if _is_one_of_several():
        timer = threading.Timer(_GRACE, os._exit, [status])
        timer.daemon = True
        timer.start()


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.distributed.is_initialized())


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the cleanup
    raise Terminated("stopped by SIGTERM")


def _hide_echoes() -> None:
    """Show a failed checkpoint once, where the training loop reports it; lose no signal.

    Orbax passes an error of its background thread to the training loop, but the thread prints it as
    well. Then each of TensorStore's other writes fails because its event loop is closed by then,
    and reports that too.
    """
    warnings.filterwarnings("ignore", message=".*was never awaited")
    show, show_unraisable, show_thread = (
        sys.excepthook, sys.unraisablehook, threading.excepthook,
    )  # fmt: skip
    late = "Event loop is closed"

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if str(error) != late:
            show(kind, error, trace)

    def unraisable(event: sys.UnraisableHookArgs) -> None:
        if isinstance(event.exc_value, KeyboardInterrupt):  # in a callback, where it gets lost
            number = signal.SIGINT
            if isinstance(event.exc_value, Terminated):
                number = signal.SIGTERM
                signal.signal(number, _terminate)
            threading.Timer(0.1, os.kill, [os.getpid(), number]).start()
        elif str(event.exc_value) != late:
            show_unraisable(event)

    def of_thread(event: threading.ExceptHookArgs) -> None:
        frames = traceback.extract_tb(event.exc_traceback)
        if not any("orbax" in frame.filename for frame in frames):
            show_thread(event)

    sys.excepthook, sys.unraisablehook, threading.excepthook = hook, unraisable, of_thread


def tune_memory() -> None:
    """Let glibc keep freed memory: JAX on CPU otherwise spends much of a step on page faults.

    Has an effect on glibc only. Memory use rises somewhat. Commands call this, a library import
    never does: the setting applies to the whole process.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)
