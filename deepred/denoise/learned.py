"""A denoiser of a torch module."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import InputError
from .common import called, check


def learned(module: nn.Module) -> Callable[[Tensor, float], Tensor]:
    """A denoiser of a torch module called as module(x, sigma): deepinv's all are, or one's own.

    A copy of it, in evaluation mode, without gradients, on the image's device and in its precision.
    Weights are the caller's, as they are now: nothing is downloaded here.

    Raises
    ------
    InputError
        If it is no module. When called, if the module does not take the image (grey for colour,
        say, or without a noise level) or does not return one of its shape.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"learned needs a torch module, got {type(module).__name__}: any other callable "
            "f(x, sigma) is a denoiser as it is"
        )
    name, module = type(module).__name__, copy.deepcopy(module).eval()

    @torch.no_grad()
    def denoise(x: Tensor, sigma: float) -> Tensor:
        one_each = isinstance(sigma, Tensor) and sigma.ndim  # a level for each image, as deepinv's
        sigma = sigma if one_each else check(x, sigma)
        return called(module.to(x), x, sigma, name)

    return denoise
