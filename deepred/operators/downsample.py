"""Lanczos downsampling: super-resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError, positive, whole
from .common import check


@dataclass(frozen=True)
class Downsample:
    """Every side divided by an integer factor with a Lanczos-2 window: super-resolution.

    The forward model of DIP's code, which DeepRED's experiments use: taps of the window scaled by
    the factor, about the centre of each factor x factor block (phase .5), the border replicated.
    It is separable, y = D x D^T with a matrix for each side, so that the adjoint is exact by
    construction. For odd factors the centre of a block is a pixel, and the taps lie accordingly
    (DIP's code has none of those).

    Raises
    ------
    InputError
        If the factor is no whole number of at least 1, or does not divide the image's sides.
    """

    task: ClassVar = "sr"
    keeps_range: ClassVar = True

    factor: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", whole("factor", self.factor))

    def __call__(self, x: Tensor) -> Tensor:
        check(x)
        rows, columns = self._matrices(x, x.shape[2], x.shape[3])
        return rows @ x @ columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        check(y)
        sides = (self.factor * side for side in y.shape[2:])
        rows, columns = self._matrices(y, *sides)
        return rows.T @ y @ columns

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the image, of a measurement's."""
        channels, height, width = shape
        return channels, self.factor * height, self.factor * width

    def whitener(self, eps: float) -> Callable[[Tensor], Tensor]:
        """W = (c H H^T + eps)^(-1/2) on each side, scaled to mean eigenvalue 1, as a map of y's.

        c, the factor, makes the largest eigenvalue about 1; the rest is as for `Blur.whitener`.
        There is little to gain: the eigenvalues fall to half the largest, not to 0.
        """
        eps = positive("eps", eps)

        def whiten(residual: Tensor) -> Tensor:
            rows, columns = (
                _whitening_matrix(side, self.factor, eps, residual.dtype, residual.device)
                for side in residual.shape[2:]
            )
            return rows @ residual @ columns

        return whiten

    def _matrices(self, like: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        if height % self.factor or width % self.factor:
            raise InputError(
                f"an image of {width}x{height} cannot be made {self.factor} times smaller: crop "
                f"its sides to multiples of {self.factor}"
            )
        return tuple(
            _lanczos_matrix(side, self.factor, like.dtype, like.device) for side in (height, width)
        )


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is cached must serve a later fit
def _lanczos_matrix(side: int, factor: int, dtype, device) -> Tensor:
    """D of `Downsample`: side / factor rows of weights with sum 1, the border replicated."""
    reach = 2 * factor
    # Distances of the taps from the centre of a block, in pixels: whole, or halves between.
    t = torch.arange(-reach, reach, dtype=torch.float64) + (1 - factor % 2) / 2
    t = t[t.abs() < reach]
    d = t / factor
    taps = torch.sinc(d) * torch.sinc(d / 2)
    taps = taps / taps.sum()
    centres = torch.arange(side // factor, dtype=torch.float64) * factor + (factor - 1) / 2
    columns = (centres[:, None] + t).round().long().clamp(0, side - 1)
    D = torch.zeros(side // factor, side, dtype=torch.float64)
    D.scatter_add_(1, columns, taps.expand(len(centres), -1).contiguous())
    return D.to(device, dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is cached must serve a later fit
def _whitening_matrix(side: int, factor: int, eps: float, dtype, device) -> Tensor:
    """Of `Downsample.whitener`, for a side of y; symmetric."""
    D = _lanczos_matrix(side * factor, factor, torch.float64, torch.device("cpu"))
    power, vectors = torch.linalg.eigh(factor * D @ D.T)
    weights = (power + eps).rsqrt()
    W = (vectors * (weights / weights.mean())) @ vectors.T
    return W.to(device, dtype)
