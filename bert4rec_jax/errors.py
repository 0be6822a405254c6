"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """A mistake in the input or the configuration.

    The message names what came, what was expected and the way out. Entry points print it without a
    traceback and exit with status 2; library users catch it like any other exception.
    """
