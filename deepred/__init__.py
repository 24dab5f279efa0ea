"""DeepRED: Deep Image Prior Powered by RED (Mataev, Elad and Milanfar, 2019), as it can be run."""

__version__ = "0.1.0"

from .errors import DivergedError, InputError
from .presets import preset
from .restoration import Problem, Result, restore, restore_all
from .settings import Settings

__all__ = ["DivergedError", "InputError", "Problem", "Result", "Settings"]
__all__ += ["preset", "restore", "restore_all"]
