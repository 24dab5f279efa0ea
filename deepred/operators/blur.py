"""Circular convolution: deblurring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, choice, positive, whole
from .common import check


@dataclass(frozen=True)
class Blur:
    """Circular convolution of each channel with a kernel: deblurring (Section 4.3).

    The paper does not say what is beyond the border: circular convolution reproduces the row of
    Table 5 for the blurred images.

    Parameters
    ----------
    kernel : (h, w) of real numbers, any sizes; its origin is at (h // 2, w // 2). Kept as nested
        tuples; `Blur.of` takes tensors, too.
    method : "fft", or "spatial" for a sum over the kernel; equal to rounding. "auto" takes the
        faster: with Fourier transforms the kernel's size costs nothing, and from 5 x 5 on they win
        (256 x 256 x 3 with its gradient on one core: 7 ms; summed 6 at 3 x 3, 16 at 5 x 5, 65 at
        25 x 25).

    Raises
    ------
    InputError
        If the kernel is empty, ragged, not finite, or all zero.
    """

    task: ClassVar = "deblur"
    keeps_range: ClassVar = True

    kernel: tuple[tuple[float, ...], ...]
    method: str = "auto"

    def __post_init__(self) -> None:
        choice("method", self.method, ("auto", "fft", "spatial"))
        array = _table(self.kernel)
        if not array.size:
            raise InputError("a blur kernel must be a table of numbers (h, w)")
        if not np.isfinite(array).all() or not array.any():
            raise InputError("a blur kernel must be finite and not all zero")
        object.__setattr__(self, "kernel", tuple(tuple(row) for row in array.tolist()))

    @classmethod
    def of(cls, kernel: np.ndarray | Tensor, method: str = "auto") -> Blur:
        """A blur with the kernel of an array (h, w); InputError if it is none."""
        return cls(kernel, method)

    @classmethod
    def uniform(cls, side: int = 9) -> Blur:
        """The uniform kernel of Section 4.3, side x side entries of 1 / side^2.

        InputError if side is no whole number of at least 1.
        """
        side = whole("side of a kernel", side, 1, 1000)
        return cls.of(np.full((side, side), 1 / side**2))

    @classmethod
    def gaussian(cls, side: int = 25, deviation: float = 1.6) -> Blur:
        """The Gaussian kernel of Section 4.3, cut to side x side and scaled to sum 1.

        `deviation` in pixels, above 0 (InputError). The Gaussian is centred in the square: for an
        even side that is half a pixel before the kernel's origin, and shifts the picture by as
        much.
        """
        side, deviation = whole("side of a kernel", side, 1, 1000), positive("deviation", deviation)
        t = np.arange(side) - (side - 1) / 2
        g = np.exp(-0.5 * (t / deviation) ** 2)
        return cls.of(np.outer(g, g) / g.sum() ** 2)

    def __call__(self, x: Tensor) -> Tensor:
        return self._apply(x, adjoint=False)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y, adjoint=True)

    def doubt(self, y: Tensor) -> str | None:
        """A sentence if the kernel shifts the picture by half a pixel or more, as even sides do."""
        weights = np.abs(self.kernel)
        places = (np.arange(side) - side // 2 for side in weights.shape)
        down, right = (weights.sum(1 - i) @ t / weights.sum() for i, t in enumerate(places))
        if max(abs(down), abs(right)) < 0.499:
            return None
        return (
            f"the kernel's centre of mass is {down:.1f} pixels below and {right:.1f} right of its "
            "origin, its pixel (h // 2, w // 2), and the picture is shifted by as much: pad the "
            "kernel to odd sides, or ignore this if the motion was such"
        )

    def whitener(self, eps: float) -> Callable[[Tensor], Tensor]:
        """W = (|K|^2 + eps)^(-1/2), scaled to mean 1 over the frequencies, as a map of images.

        K is the kernel's spectrum, 1 at frequency 0 for one of sum 1, and eps above 0 (InputError).

        In ||W (Hx - y)||^2 all frequencies that survive the blur have nearly the same weight: the
        back-projection fidelity (Tirer and Giryes 2020; BP-DIP, Zukerman et al. 2020).
        """

        eps = positive("eps", eps)

        def whiten(residual: Tensor) -> Tensor:
            return _filter(residual, _weights(self.kernel, eps, *_place(residual)))

        return whiten

    def _apply(self, x: Tensor, adjoint: bool) -> Tensor:
        check(x)
        small = len(self.kernel) * len(self.kernel[0]) < 25
        if self.method == "spatial" or (self.method == "auto" and small):
            return self._sum(x, adjoint)
        K = _transfer(self.kernel, *_place(x))
        return _filter(x, K.conj() if adjoint else K)

    def _sum(self, x: Tensor, adjoint: bool) -> Tensor:
        kernel = _taps(self.kernel, x.dtype, x.device)
        h, w = kernel.shape
        if h > x.shape[2] or w > x.shape[3]:  # wraps around the image more than once
            kernel = torch.fft.fftshift(_periodic(self.kernel, *x.shape[2:])).to(x)
            h, w = kernel.shape
        top, left = h // 2, w // 2  # rows of the kernel before its origin
        before, after = (top, left), (h - 1 - top, w - 1 - left)
        if not adjoint:  # torch's convolution is a correlation
            kernel, before, after = kernel.flip(0, 1), after, before
        x = F.pad(x, (before[1], after[1], before[0], after[0]), mode="circular")
        return F.conv2d(x, kernel.expand(x.shape[1], 1, h, w), groups=x.shape[1])


def _table(values: object) -> np.ndarray:
    """An array (h, w) of real numbers, empty for what is none."""
    try:
        values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        array = np.array(values)
        array = np.zeros(0) if np.iscomplexobj(array) else array.astype(float)
    except (ValueError, TypeError, RuntimeError, OverflowError):  # no table, words, graphs
        array = np.zeros(0)
    return array if array.ndim == 2 else np.zeros(0)


def _place(x: Tensor) -> tuple[int, int, torch.dtype, torch.device]:
    return x.shape[2], x.shape[3], x.dtype, x.device


def _filter(x: Tensor, K: Tensor) -> Tensor:
    """Multiply the spectrum of each channel by K (H, W // 2 + 1)."""
    return torch.fft.irfft2(K * torch.fft.rfft2(x), s=x.shape[2:])


def _periodic(kernel: tuple[tuple[float, ...], ...], height: int, width: int) -> Tensor:
    """The kernel on a torus of height x width, its origin at (0, 0); values that overlap add up."""
    values = torch.tensor(kernel, dtype=torch.float64)
    rows = (torch.arange(values.shape[0]) - values.shape[0] // 2) % height
    columns = (torch.arange(values.shape[1]) - values.shape[1] // 2) % width
    torus = torch.zeros(height, width, dtype=torch.float64)
    return torus.index_put((rows[:, None], columns[None]), values, accumulate=True)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is cached must serve a later fit
def _taps(kernel, dtype, device) -> Tensor:
    """A small kernel where the image is."""
    return torch.tensor(kernel, dtype=dtype, device=device)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is cached must serve a later fit
def _transfer(kernel, height: int, width: int, dtype, device) -> Tensor:
    """K, the spectrum of the kernel on a torus of the image's size."""
    K = torch.fft.rfft2(_periodic(kernel, height, width))
    return K.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is cached must serve a later fit
def _weights(kernel, eps: float, height: int, width: int, dtype, device) -> Tensor:
    """The spectrum of `Blur.whitener`, real."""
    power = torch.fft.fft2(_periodic(kernel, height, width)).abs().square()
    W = (power + eps).rsqrt()
    return (W / W.mean())[:, : width // 2 + 1].to(device, dtype)
