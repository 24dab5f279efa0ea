"""The two ways a restoration can fail on its user: bad input, and a fit that will not settle."""


class InputError(ValueError):
    """What was asked for cannot be done; the message says what is wrong and what would do.

    The command line prints the message as one line and ends with exit code 2.
    """


class DivergedError(RuntimeError):
    """The fit collapsed or became non-finite more often than the solver rolls back."""
