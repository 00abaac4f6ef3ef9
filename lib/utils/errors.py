"""The error that a user can cause and mend."""


class UserError(RuntimeError):
    """A problem that the user can solve: bad input, a missing file, a wrong key.

    The message names the thing, says what was expected and what to do. Scripts print it without a traceback and exit
    with status 2.
    """
