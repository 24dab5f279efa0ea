"""Whether a problem fits together, asked once, before its first iteration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import InputError, at_least, choice, real, shown, whole
from ..operators import seen
from ..presets import METHODS
from ..settings import Settings

if TYPE_CHECKING:
    from . import Problem, Resolved


@runtime_checkable
class Rule(Protocol):
    """When a run is to end, without the truth; `deepred.beyond.stopping` has some."""

    @property
    def best(self) -> tuple[int, Tensor] | None: ...
    def update(self, state: object) -> bool: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, saved: dict) -> None: ...


def kinds(p: Problem) -> None:
    """Check each argument by itself; InputError if one is not what it is to be."""
    red_alone = p.method == "red"
    choice("method", p.method, METHODS)
    if p.settings is not None and not isinstance(p.settings, Settings):
        raise InputError(
            f"settings must be Settings, such as preset('fast'), got {type(p.settings).__name__}"
        )
    if p.sigma is not None and not 0 < real(p.sigma) < 1:
        got = shown(p.sigma)
        raise InputError(f"sigma must be in (0, 1), image units, got {got}: 25 is 25 / 255")
    whole("seed", p.seed, 0, 2**40 - 1)
    at_least("checkpoint_seconds", p.checkpoint_seconds)
    for value, arguments, wanted in [
        (p.network, "", "network must make a torch module when it is called, such as MyNetwork"),
        (p.callback, "s", "callback must be a callable that takes a state"),
        (p.likelihood, "xy", "likelihood must be a callable (Hx, y) -> terms, such as Poisson(9)"),
    ]:
        if value is not None and not _takes(value, *arguments):
            raise InputError(f"{wanted}; got {shown(value)}")
    if p.checkpoint is not None and not (
        isinstance(p.checkpoint, str | Path) and Path(p.checkpoint).name
    ):
        raise InputError(f"checkpoint must be the path of a file, got {shown(p.checkpoint)}")
    if p.likelihood is not None and red_alone:
        raise InputError("method 'red' is for Gaussian noise: it takes no likelihood")
    if p.stop is not None and red_alone:
        raise InputError("method 'red' has no network that learns the noise: it takes no stop")
    if p.stop is not None and not isinstance(_made(p.stop), Rule):
        raise InputError(
            "stop must make a rule of deepred.beyond.stopping when called, such as "
            f"WindowedVariance or lambda: Discrepancy(sigma); got {shown(p.stop)}"
        )


def _takes(f: object, *arguments: object) -> bool:
    """Whether f can be called with so many arguments."""
    if not callable(f):
        return False
    try:
        inspect.signature(f).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        pass
    return True


def _made(make: object) -> object:
    """What it makes when called without arguments, None if it cannot be called so."""
    try:
        return make()
    except TypeError:
        return None


def measurement(y: Tensor, H: Callable[[Tensor], Tensor]) -> Tensor:
    """y without its graph, and 0 where H sees nothing.

    Raises
    ------
    InputError
        If y is no measurement: not a dense floating tensor (1, C, ...), empty, or not finite.
    """
    if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 3:
        told = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InputError(
            f"y must be a float tensor (1, C, H, W), an array or an image file, got {told}"
        )
    if y.layout != torch.strided or y.is_meta:
        raise InputError("y must be a dense tensor with values: y.to_dense(), and not on 'meta'")
    if y.shape[0] != 1:
        raise InputError(f"one image at a time: y must be (1, C, H, W), got {tuple(y.shape)}")
    if y.numel() == 0:
        raise InputError(f"y is empty: shape {tuple(y.shape)}")
    if y.dtype not in (torch.float32, torch.float64):
        raise InputError(f"y must be float32 or float64, got {y.dtype}")
    y = y.detach()
    y = seen(y.clone() if y.is_inference() else y, H)
    if not torch.isfinite(y).all():
        raise InputError("y contains NaN or infinity: replace those values, or mask them (Inpaint)")
    return y


def scale(y: Tensor, H: Callable[[Tensor], Tensor]) -> str | None:
    """What looks wrong with y or H, in a sentence; None if nothing does.

    An operator's `keeps_range` says that an image in [0, 1] measures as about [0, 1], and its
    `doubt(y)` is a sentence of its own, or None.

    Raises
    ------
    InputError
        If y is far outside [0, 1] and H keeps that range.
    """
    if getattr(H, "keeps_range", False):
        low, high = y.min().item(), y.max().item()
        signed = "an image is in [0, 1]; one in [-1, 1] becomes so by (y + 1) / 2"
        if not -5 < low <= high < 10:
            advice = signed if low < -5 else "divide it by the largest possible value (255)"
            raise InputError(
                f"y must be about in [0, 1], got values from {low:.3g} to {high:.3g}: {advice}"
            )
        if low < -0.2 and (y < 0).double().mean() > 0.1:
            return f"y has many values below 0, down to {low:.2g}: {signed}"
        if high < 0.1:
            return (
                f"y is dark, at most {high:.3g} where white is 1: if these are 12 bits in a 16-bit "
                "file, divide by 4095"
            )
    doubt = getattr(H, "doubt", None)
    return doubt(y) if callable(doubt) else None


def needs(p: Resolved) -> None:
    """Check that the settings have what they need; InputError if they do not."""
    s, sigma = p.settings, p.sigma
    if s.growth and p.method != "red" and not (sigma or hasattr(p.likelihood, "deviation")):
        raise InputError("settings.growth needs the noise level: give sigma above 0")
    if s.x_start == "denoised" and not (sigma and p.denoise):
        raise InputError("x_start='denoised' needs a denoiser and the noise level sigma")
    if p.method == "red":
        if not hasattr(p.H, "adjoint"):
            raise InputError("method 'red' needs an H with an adjoint: H.adjoint(y)")
        if p.denoise is None:
            raise InputError("method 'red' needs a denoiser")
        return
    if s.precondition and not hasattr(p.H, "whitener"):
        raise InputError(
            "settings.precondition needs an operator with a whitener: "
            "Blur, Framed, Downsample, Radon"
        )
    if s.strengthen and not hasattr(p.H, "adjoint"):
        raise InputError("settings.strengthen needs an operator with an adjoint")
    if s.precondition and p.likelihood is not None:
        raise InputError("settings.precondition is for the L2 term: set it to 0 with a likelihood")
