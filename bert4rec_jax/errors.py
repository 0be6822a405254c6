"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """A mistake in the input or the configuration.

    The message names what came, what was expected and the way out. Entry points print it without a
    traceback and exit with `status`; library users catch it like any other exception.
    """

    status = 2


class TemporaryError(UserError):
    """No mistake in the input: the machine refuses for now, as where its disk is full.

    Once there is room (or permission, or another process has ended) the same command goes on. The
    status is EX_TEMPFAIL of sysexits.h, by which scripts know that they may try again.
    """

    status = 75
