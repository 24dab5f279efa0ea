"""Denoisers f(x, sigma), by name.

A denoiser is any callable from an image tensor (N, C, H, W) and a noise level in image units to an
image tensor of the same shape. Here are those of the paper, others to compare with, and `learned`
for networks. They raise InputError if x is no image, or sigma is negative or not finite.

All run inside libraries that release the interpreter lock, so that the solver can run them beside
the Theta-update (Figure 1). `deepred.denoise` has their code, NLM in torch, and the package bm3d.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .denoise.bm3d import bm3d_torch
from .denoise.classical import bilateral, median, tv, wavelet
from .denoise.common import called
from .denoise.learned import learned
from .denoise.nlm import nlm
from .errors import InputError, shown

NAMES = ("nlm", "bm3d", "tv", "wavelet", "bilateral", "median")


def named(name: str) -> Callable[[Tensor, float], Tensor]:
    """The denoiser of a name in `NAMES`.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in NAMES:
        raise InputError(f"unknown denoiser {shown(name)}; known are {', '.join(NAMES)}")
    return dict(zip(NAMES, (nlm, bm3d_torch, tv, wavelet, bilateral, median)))[name]


def adapted(f: str | nn.Module | Callable[[Tensor, float], Tensor]) -> Callable:
    """A denoiser from a name of `NAMES`, a torch module (`learned`) or a callable.

    The callable is not differentiated, and its result is converted to the image's precision.

    Raises
    ------
    InputError
        If f is none of them. When called, if f fails or does not return an image of x's shape.
    """
    if isinstance(f, str):
        return named(f)
    if isinstance(f, nn.Module):
        return learned(f)
    if not callable(f):
        raise InputError(
            f"denoiser must be one of {', '.join(NAMES)}, a callable f(x, sigma) or a torch "
            f"module, got {shown(f)}"
        )

    @functools.wraps(f, updated=())
    @torch.no_grad()
    def denoise(x: Tensor, sigma: float) -> Tensor:
        return called(f, x, sigma, getattr(f, "__name__", type(f).__name__))

    return denoise
