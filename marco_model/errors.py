"""Errors that are the caller's to mend, shown by the command line as one line without a traceback."""


class InputError(ValueError):
    """Input, configuration or environment is not as expected.

    The message names the problem, the value received and the mend, in one line.
    """
