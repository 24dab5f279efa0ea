"""The two ways a restoration can fail on its user, and the checks of numbers that are given."""

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
    """The fit collapsed or became non-finite more often than the solver goes back."""


def shown(value: object) -> str:
    """repr(value) for a message: on one line, and not long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an int of more than 4300 digits, or a faulty __repr__
        text = f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."


def plain(value: object) -> object:
    """The one number in an array of numpy or torch as Python's; anything else as it is."""
    try:
        return value.item() if math.prod(value.shape) == 1 else value
    except (AttributeError, TypeError, ValueError, RuntimeError):  # RuntimeError: on device "meta"
        return value


def choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of several words; InputError if it is none of them."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {shown(value)}")
    return value


def whole(name: str, value: object, least: int = 1, most: int = 10**9) -> int:
    """A whole number from `least` to `most` as an int; numpy's are whole numbers, too.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):  # RuntimeError: of torch, on device "meta"
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {shown(value)}")
    if number > most:
        raise InputError(f"{name} must be at most {most}, got {shown(value)}")
    return number


def positive(name: str, value: object) -> float:
    """A finite number above 0 as a float; InputError if it is none."""
    number = real(value)
    if not 0 < number < math.inf:
        raise InputError(f"{name} must be a number above 0, got {shown(value)}")
    return number


def at_least(name: str, value: object, least: float = 0.0) -> float:
    """A finite number of at least `least` as a float; InputError if it is none."""
    number = real(value)
    if not least <= number < math.inf:
        raise InputError(f"{name} must be a number of at least {least:g}, got {shown(value)}")
    return number


def real(value: object) -> float:
    """A real number, or an array or tensor of just one, as a float; NaN for anything else."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an int of hundreds of digits
        return math.inf


def is_memory(error: BaseException) -> bool:
    """Whether an allocation has failed: Python's, torch's on a CPU or on a GPU."""
    name, text = type(error).__name__, str(error)
    return name in ("MemoryError", "OutOfMemoryError") or "allocate memory" in text


def first_line(error: BaseException) -> str:
    """An error in a line: its type and the beginning of its text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
