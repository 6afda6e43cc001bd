"""Errors that are the caller's to mend, shown by the command line as one line without a traceback."""


class InputError(ValueError):
    """Input, configuration or environment is not as expected.

    The message names the problem, the value received and the mend, in one line.
    """


class DivergedError(InputError):
    """The training loss is no longer finite."""


class ClusterError(RuntimeError):
    """Another process of a distributed training is gone; the message, in one line, says how to go on."""


class Interrupted(Exception):
    """Training was asked to stop, has saved its state and can be resumed; `signal` is the number of what asked."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
