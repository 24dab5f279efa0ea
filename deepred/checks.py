"""That a problem fits together, asked once, before its first iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .errors import InputError, real, whole
from .operators import seen
from .presets import METHODS
from .settings import Settings

if TYPE_CHECKING:
    from .problem import Problem


@runtime_checkable
class Rule(Protocol):
    """When a run is to end, without the truth; `deepred.beyond.stopping` has some."""

    @property
    def best(self) -> tuple[int, Tensor] | None: ...
    def update(self, state: object) -> bool: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, saved: dict) -> None: ...


def problem(
    settings: Settings,
    H: Callable[[Tensor], Tensor],
    network: nn.Module,
    denoiser,
    sigma: float | None,
    likelihood,
) -> None:
    """That settings have what they need; InputError if they do not."""
    if settings.growth and not (sigma and sigma > 0) and not hasattr(likelihood, "deviation"):
        raise InputError("settings.growth needs the noise level: give sigma above 0")
    if settings.x_start == "denoised" and not (sigma and denoiser):
        raise InputError("x_start='denoised' needs a denoiser and the noise level sigma")
    if settings.denoiser is not None and denoiser is None:
        raise InputError("these settings need a denoiser f(x, sigma)")
    if settings.precondition and not hasattr(H, "whitener"):
        raise InputError(
            "settings.precondition needs an operator with a whitener: "
            "Blur, Framed, Downsample, Radon"
        )
    if settings.strengthen and not hasattr(H, "adjoint"):
        raise InputError("settings.strengthen needs an operator with an adjoint")
    if settings.precondition and likelihood is not None:
        raise InputError("settings.precondition is for the L2 term: set it to 0 with a likelihood")
    if not any(p.requires_grad for p in network.parameters()):
        raise InputError("the network has no parameters to fit")


def measured(made: object, output: Tensor, y: Tensor) -> None:
    """That H makes of the network's image what y can be compared with; InputError if not."""
    if not isinstance(made, Tensor):
        raise InputError(f"H must return a tensor, got {type(made).__name__}")
    if made.shape != y.shape:
        raise InputError(
            f"H maps the network's image to shape {tuple(made.shape)}, "
            f"but y has shape {tuple(y.shape)}"
        )
    if made.dtype != y.dtype:
        raise InputError(f"H makes {made.dtype} of {y.dtype}: it must keep the precision")
    if output.requires_grad and not made.requires_grad:
        raise InputError(
            "H must be differentiable by torch: what it returns has no gradient, as after "
            "numpy() or detach()"
        )


def terms(made: object, measured: Tensor) -> None:
    """That a likelihood returns what can be descended; InputError if not."""
    if not isinstance(made, Tensor) or (measured.requires_grad and not made.requires_grad):
        raise InputError("the likelihood must return a tensor that torch can differentiate")


def same_shape(x_start: str, y: Tensor, output: Tensor) -> None:
    """That x may start at y; InputError if y is no image of the network's shape."""
    if y.shape != output.shape:
        raise InputError(
            f"x_start={x_start!r} needs y of the image's shape {tuple(output.shape)}, y has "
            f"{tuple(y.shape)}: use x_start='zeros'"
        )


def kinds(problem: Problem) -> None:
    """Refuse arguments that are not what they are to be, each by itself."""
    p, red_alone = problem, problem.method == "red"
    if p.method not in METHODS:
        raise InputError(f"unknown method {p.method!r}; known are {', '.join(METHODS)}")
    if p.settings is not None and not isinstance(p.settings, Settings):
        raise InputError(
            f"settings must be Settings, such as preset('fast'), got {type(p.settings).__name__}"
        )
    if p.sigma is not None and not 0 < real(p.sigma) < 1:
        raise InputError(f"sigma must be in (0, 1), image units, got {p.sigma!r}: 25 is 25 / 255")
    if whole("seed", p.seed, 0) >= 2**40:
        raise InputError(f"seed must be below 2**40, got {p.seed}")
    if p.network is not None and not callable(p.network):
        raise InputError(
            "network must make a torch module when it is called, such as lambda: MyNetwork(); got "
            f"{p.network!r}"
        )
    if p.callback is not None and not callable(p.callback):
        raise InputError(f"callback must be a callable, got {p.callback!r}")
    if p.likelihood is not None and (isinstance(p.likelihood, type) or not callable(p.likelihood)):
        raise InputError(
            "likelihood must be a callable (Hx, y) -> terms, such as Poisson(10), got "
            f"{p.likelihood!r}"
        )
    if p.likelihood is not None and red_alone:
        raise InputError("method 'red' is for Gaussian noise: it takes no likelihood")
    if p.stop is not None and red_alone:
        raise InputError("method 'red' has no network that learns the noise: it takes no stop")
    if p.stop is not None and not isinstance(_made(p.stop), Rule):
        raise InputError(
            "stop must make a rule of deepred.beyond.stopping when called, such as "
            f"WindowedVariance or lambda: Discrepancy(sigma); got {p.stop!r}"
        )


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
        If y is no measurement: not a floating tensor (1, C, ...), empty, or not finite.
    """
    if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 3:
        told = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InputError(
            f"y must be a float tensor (1, C, H, W), got {told}; see deepred.io.images.to_tensor"
        )
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
