"""DeepRED: Deep Image Prior Powered by RED (Mataev, Elad and Milanfar, 2019), as it can be run."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .errors import DivergedError, InputError
    from .presets import preset
    from .restoration import Problem, Result, restore, restore_all
    from .settings import Settings

__all__ = ["DivergedError", "InputError", "Problem", "Result", "Settings"]
__all__ += ["preset", "restore", "restore_all"]

_HOMES = {"DivergedError": "errors", "InputError": "errors", "Settings": "settings"}
_HOMES["preset"] = "presets"


def __getattr__(name: str) -> object:
    """What `__all__` names, imported when it is asked for: `deepred --help` needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'restoration')}", __name__), name)
