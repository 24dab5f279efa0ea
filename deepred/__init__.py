"""DeepRED: Deep Image Prior Powered by RED (Mataev, Elad and Milanfar, 2019), as it can be run."""

__version__ = "0.1.0"

from .errors import DivergedError, InputError
from .restoration import Result, restore
from .settings import Settings, preset

__all__ = ["DivergedError", "InputError", "Result", "Settings", "preset", "restore"]
