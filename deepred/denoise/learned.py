"""A denoiser of a torch module."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import InputError
from .common import called, check


def learned(module: nn.Module) -> Callable[[Tensor, float], Tensor]:
    """A denoiser from a torch module called as module(x, sigma), as all of deepinv's are.

    It is a copy with the module's present weights, in evaluation mode, without gradients, on the
    image's device and in its precision. Nothing is downloaded.

    Raises
    ------
    InputError
        If it is no module. When called, if the module does not take the arguments (grey for colour,
        say, or no noise level) or does not return an image of x's shape.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"learned needs a torch module, got {type(module).__name__}: any other callable "
            "f(x, sigma) is a denoiser as it is"
        )
    name, module = type(module).__name__, copy.deepcopy(module).eval()

    @torch.no_grad()
    def denoise(x: Tensor, sigma: float) -> Tensor:
        one_each = isinstance(sigma, Tensor) and sigma.ndim  # a level per image, as in deepinv
        sigma = sigma if one_each else check(x, sigma)
        return called(module.to(x), x, sigma, name)

    return denoise
