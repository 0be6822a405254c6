"""Errors that the user can fix, what other errors say, and warnings."""

import warnings
from collections.abc import Callable

Notify = Callable[[str], None]
"""Called with a sentence the user should see."""


class UserError(Exception):
    """A mistake in the input or the configuration.

    The message says what was found, what was expected and how to fix it. Entry points print it
    without a traceback and exit with `status`; library users catch it like any other exception.
    """

    status = 2


class TemporaryError(UserError):
    """A failure of the machine, such as a full disk, rather than a mistake in the input.

    Once the cause is gone (there is room or permission, or another process has ended), the same
    command can continue. The status is EX_TEMPFAIL of sysexits.h, which tells scripts that they may
    try again.
    """

    status = 75


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 200 characters; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def warn(sentence: str) -> None:
    """Show a sentence about what may be a mistake as a Python warning.

    It is what functions do with such sentences when they are called from Python. Commands print
    them.
    """
    warnings.warn(sentence, stacklevel=3)
