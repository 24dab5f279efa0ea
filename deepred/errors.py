"""The two ways a restoration can fail on its user: bad input, and a fit that will not settle."""

from __future__ import annotations

import math
import numbers
import operator
from pathlib import Path


class InputError(ValueError):
    """What was asked for cannot be done; the message says what is wrong and what would do.

    The command line prints the message as one line and ends with exit code 2.
    """


class CheckpointError(InputError):
    """A checkpoint, the file `path`, that cannot be continued from."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}; delete it to start anew")
        self.path, self.why = path, why


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
    number = real(value)
    if not 0 < number < math.inf:
        raise InputError(f"{name} must be a number above 0, got {value!r}")
    return number


def at_least(name: str, value: object, least: float = 0.0) -> float:
    """A finite number of at least `least` as a float; numpy's are numbers, too.

    Raises
    ------
    InputError
        If it is none.
    """
    number = real(value)
    if not least <= number < math.inf:
        raise InputError(f"{name} must be a number of at least {least:g}, got {value!r}")
    return number


def real(value: object) -> float:
    """A real number, or a tensor or array of just one, as a float; NaN for all else."""
    if hasattr(value, "shape") and math.prod(value.shape) == 1:  # of numpy or torch
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an int of hundreds of digits
        return math.inf
