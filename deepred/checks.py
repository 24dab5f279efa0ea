"""That a problem fits together, asked once, before its first iteration."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .errors import InputError
from .settings import Settings


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
