"""The two ways a restoration can fail on its user: bad input, and a fit that will not settle."""

from __future__ import annotations

import math
import numbers
import operator


class InputError(ValueError):
    """What was asked for cannot be done; the message says what is wrong and what would do.

    The command line prints the message as one line and ends with exit code 2.
    """


class DivergedError(RuntimeError):
    """The fit collapsed or became non-finite more often than the solver rolls back."""


def whole(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least` as an int; numpy's are whole numbers, too.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def positive(name: str, value: object) -> float:
    """A finite number above 0 as a float; numpy's are numbers, too.

    Raises
    ------
    InputError
        If it is none.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise InputError(f"{name} must be a number above 0, got {value!r}")
    return float(value)
