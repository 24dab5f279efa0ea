"""Linear degradations H of Section 2.1, each with its exact adjoint.

An operator is any callable from an image tensor (N, C, H, W) to a measurement tensor that torch
can differentiate; the solver asks for nothing more. The classes here add `adjoint`, which RED alone
needs, and are plain values: equal if they do the same, hashable, pickleable. They work in the
precision and on the device of what they are given. `task` names the presets that suit them, and
`image_shape` tells the image's (C, H, W) from the measurement's where the two differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError, positive, real, whole
from .presets import TASKS


@dataclass(frozen=True)
class Identity:
    """H = I: denoising (Section 2.1)."""

    task: ClassVar = "denoise"
    keeps_range: ClassVar = True  # an image in [0, 1] measures as about [0, 1]

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y


@dataclass(frozen=True)
class Blur:
    """Circular convolution of each channel with a kernel: deblurring (Section 4.3).

    The paper does not say what is beyond the border: that it is circular reproduces the row of
    Table 5 for the blurred images.

    Parameters
    ----------
    kernel : (h, w) of real numbers, any sizes; its origin is at (h // 2, w // 2). Kept as nested
        tuples; `Blur.of` takes tensors, too.
    method : "fft", or "spatial" for a sum over the kernel; equal to rounding. "auto" takes what is
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
        if self.method not in ("auto", "fft", "spatial"):
            raise InputError(f"method must be auto, fft or spatial, got {self.method!r}")
        array = _table(self.kernel)
        if not array.size:
            raise InputError("a blur kernel must be a table of numbers (h, w)")
        if not np.isfinite(array).all() or not array.any():
            raise InputError("a blur kernel must be finite and not all zero")
        object.__setattr__(self, "kernel", tuple(tuple(row) for row in array.tolist()))

    @classmethod
    def of(cls, kernel: np.ndarray | Tensor, method: str = "auto") -> Blur:
        """A blur with the kernel of an array (h, w); InputError if it is none."""
        return cls(kernel.detach().cpu().numpy() if isinstance(kernel, Tensor) else kernel, method)

    @classmethod
    def uniform(cls, side: int = 9) -> Blur:
        """The uniform kernel of Section 4.3, side x side entries of 1 / side^2.

        InputError if side is no whole number of at least 1.
        """
        side = whole("side of a kernel", side)
        return cls.of(np.full((side, side), 1 / side**2))

    @classmethod
    def gaussian(cls, side: int = 25, deviation: float = 1.6) -> Blur:
        """The Gaussian kernel of Section 4.3, cut to side x side and scaled to sum 1.

        `deviation` in pixels, above 0 (InputError). The bell is in the middle of the square: for an
        even side half a pixel before the kernel's origin, so that the picture moves by as much.
        """
        side, deviation = whole("side of a kernel", side), positive("deviation", deviation)
        t = np.arange(side) - (side - 1) / 2
        g = np.exp(-0.5 * (t / deviation) ** 2)
        return cls.of(np.outer(g, g) / g.sum() ** 2)

    def __call__(self, x: Tensor) -> Tensor:
        return self._apply(x, adjoint=False)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y, adjoint=True)

    def whitener(self, eps: float) -> Callable[[Tensor], Tensor]:
        """W = (|K|^2 + eps)^(-1/2), scaled to mean 1 over the frequencies, as a map of images.

        K is the kernel's spectrum, 1 at frequency 0 for one of sum 1, and eps above 0 (InputError).

        ||W (Hx - y)||^2 lets all frequencies that the blur has left count nearly alike: the
        back-projection fidelity (Tirer and Giryes 2020; BP-DIP, Zukerman et al. 2020).
        """

        eps = positive("eps", eps)

        def whiten(residual: Tensor) -> Tensor:
            return _filter(residual, _weights(self.kernel, eps, *_place(residual)))

        return whiten

    def _apply(self, x: Tensor, adjoint: bool) -> Tensor:
        _check(x)
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
        _check(x)
        rows, columns = self._matrices(x, x.shape[2], x.shape[3])
        return rows @ x @ columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        _check(y)
        sides = (self.factor * side for side in y.shape[2:])
        rows, columns = self._matrices(y, *sides)
        return rows.T @ y @ columns

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the image, of a measurement's."""
        channels, height, width = shape
        return channels, self.factor * height, self.factor * width

    def whitener(self, eps: float) -> Callable[[Tensor], Tensor]:
        """W = (c H H^T + eps)^(-1/2) on each side, scaled to mean eigenvalue 1, as a map of y's.

        c, the factor, makes the largest eigenvalue about 1; the rest is as for `Blur.whitener`. The
        window leaves little to gain: a side's eigenvalues fall to half the largest, not to nothing.
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


@dataclass(frozen=True)
class Inpaint:
    """The identity with missing rows: inpainting (Section 2.1). Missing pixels measure as 0.

    The rows stay in their places, so that y is an image that one can look at: H is a projection,
    its own adjoint. Make one with `Inpaint.of`, `Inpaint.random` or
    `deepred.io.kernels.read_mask`.

    Parameters
    ----------
    bits : the mask, one bit a pixel, packed by rows (numpy.packbits); 1 where a pixel is seen.
    shape : (C, H, W) of the mask, C = 1 for one that all channels share.

    Raises
    ------
    InputError
        If nothing is seen, or the mask does not fit an image that it is applied to.
    """

    task: ClassVar = "inpaint"
    keeps_range: ClassVar = True

    bits: bytes
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if len(self.bits) != -(-int(np.prod(self.shape)) // 8):
            raise InputError("a mask's bits must be those of its shape: make one with Inpaint.of")
        if not any(self.bits):
            raise InputError("a mask must leave something to see: all of it is 0")

    @classmethod
    def of(cls, mask: np.ndarray | Tensor) -> Inpaint:
        """With the mask of an array (H, W) or (C, H, W), 1 or True where a pixel is seen.

        InputError if it has other shapes or values, or nothing is seen.
        """
        try:
            mask = np.asarray(mask.detach().cpu() if isinstance(mask, Tensor) else mask)
        except ValueError:  # rows of several lengths
            mask = np.zeros(0)
        if mask.ndim not in (2, 3) or not np.isin(mask, (0, 1)).all():
            raise InputError("a mask must be an array (H, W) or (C, H, W) of zeros and ones")
        mask = mask[None] if mask.ndim == 2 else mask
        return cls(np.packbits(mask.astype(bool)).tobytes(), tuple(mask.shape))

    @classmethod
    def random(cls, shape: tuple[int, ...], seen: float, seed: int = 0) -> Inpaint:
        """Each pixel seen with probability `seen` in (0, 1], drawn from `seed`.

        A shape (H, W) makes one draw for all channels, (C, H, W) one for each. InputError if
        `seen` is outside its range, or the shape or the seed are none.
        """
        share = real(seen)
        if not 0 < share <= 1:
            raise InputError(f"the share of seen pixels must be in (0, 1], got {seen!r}")
        shape = tuple(whole("a side of the mask", side) for side in shape)
        return cls.of(np.random.default_rng(whole("seed", seed, 0)).random(shape) < share)

    @property
    def holes(self) -> Inpaint:
        return self

    @property
    def seen(self) -> float:
        """The share of pixels that are seen."""
        return float(_mask(self.bits, self.shape, torch.float64, torch.device("cpu")).mean())

    def mask(self, like: Tensor) -> Tensor:
        """The mask (1, C or 1, H, W) in the precision and on the device of an image."""
        _check(like)
        channels, height, width = self.shape
        if like.shape[2:] != (height, width) or channels not in (1, like.shape[1]):
            raise InputError(
                f"a mask of {width}x{height} with {channels} channel(s) does not fit an image of "
                f"{like.shape[3]}x{like.shape[2]} with {like.shape[1]}"
            )
        return _mask(self.bits, self.shape, like.dtype, like.device)

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.mask(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)


@dataclass(frozen=True)
class Physics:
    """The noiseless map x -> A(x) of a deepinv physics object, linear or not.

    Calling such an object adds its noise, which H must not; `adapted` makes this of one.
    """

    physics: object

    def __call__(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the image: `img_size`, else A^T y's; a measurement's where it has neither.

        Many of deepinv's objects have no `img_size` (Downsampling, Tomography, Decolorize).
        """
        told = getattr(self.physics, "img_size", None)
        if told is not None and len(told) == 3:
            return tuple(told)
        if not hasattr(self.physics, "A_adjoint"):
            return tuple(shape)
        buffers = getattr(self.physics, "buffers", tuple)()  # of its precision, where it is
        like = next((b for b in buffers if b.is_floating_point()), torch.zeros(()))
        return tuple(self.adjoint(like.new_zeros((1, *shape))).shape[1:])

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y.

        Raises
        ------
        InputError
            If the physics is not linear.
        """
        if not hasattr(self.physics, "A_adjoint"):
            raise InputError(f"{type(self.physics).__name__} is not linear: it has no adjoint")
        return self.physics.A_adjoint(y)


def adapted(H: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    """What may be given as H, as an operator: None is the identity, deepinv's physics a `Physics`.

    Any other callable is one already.

    Raises
    ------
    InputError
        If H is not callable.
    """
    if H is None:
        return Identity()
    if not callable(H):
        raise InputError(f"H must be a callable, image -> measurement, got {type(H).__name__}")
    physics = callable(getattr(H, "A", None)) and hasattr(H, "noise_model")
    return Physics(H) if physics else H


def task_of(H: Callable[[Tensor], Tensor]) -> str:
    """The task whose presets suit an operator; "denoise" for one that tells none of ours."""
    told = getattr(H, "task", None)
    return told if isinstance(told, str) and told in TASKS else "denoise"


def holes(H: Callable[[Tensor], Tensor]) -> Inpaint | None:
    """The `Inpaint` that a measurement is seen through, scaled or after others; None without."""
    told = getattr(H, "holes", None)
    return told if isinstance(told, Inpaint) else None


def seen(y: Tensor, H: Callable[[Tensor], Tensor]) -> Tensor:
    """y with 0 where an `Inpaint` sees nothing: what a damaged photograph has there is nothing."""
    hole = holes(H)
    return y if hole is None else torch.where(hole.mask(y) > 0, y, 0)


def image_shape(H: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) of the image whose measurement has a shape (C, h, w); the same unless H tells."""
    tell = getattr(H, "image_shape", None)
    return tuple(shape if tell is None else tell(tuple(shape)))


def degrade(
    x: Tensor, H: Callable[[Tensor], Tensor], sigma: float, seed: int, *, clip: bool = True
) -> Tensor:
    """y = H x + v with white Gaussian noise v of level sigma, clipped to [0, 1].

    The paper does not say that it clips, but the rows of its tables for measured images have it.

    Parameters
    ----------
    x : image (N, C, H, W) in [0, 1].
    H : operator, image -> measurement.
    sigma : in image units: 25 / 255, say; at most 1 where y is clipped.
    seed : the noise is drawn on the CPU in float32 from it alone. The missing pixels of an
        `Inpaint` have none, scaled or as the outer part of a composition too.
    clip : whether y is cut to [0, 1].

    Raises
    ------
    InputError
        If sigma is no number of at least 0, or above 1 where y is clipped; if x is no image of
        floats, or the seed no whole number of at least 0.
    """
    level, seed, H = real(sigma), whole("seed", seed, 0), adapted(H)
    if not 0 <= level < math.inf or (clip and level > 1):
        raise InputError(f"sigma must be in [0, 1], image units, got {sigma!r}: 25 is 25 / 255")
    _check(x)
    y = H(x)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    y = seen(y + level * noise.to(y), H)
    return y.clamp(0, 1) if clip else y


# What the operators are made of, kept once made: all depend on sizes alone ------------------------


def _check(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(
            "an image must be a float tensor in [0, 1]; see deepred.io.images.to_tensor"
        )
    if x.ndim != 4:
        raise InputError(f"an image must be (N, C, H, W), got {tuple(x.shape)}")


def _table(values: object) -> np.ndarray:
    """An array (h, w) of real numbers, empty for what is none."""
    try:
        array = np.array(values)
        array = np.zeros(0) if np.iscomplexobj(array) else array.astype(float)
    except (ValueError, TypeError, RuntimeError):  # rows of several lengths, words, graphs
        array = np.zeros(0)
    return array if array.ndim == 2 else np.zeros(0)


def _place(x: Tensor) -> tuple[int, int, torch.dtype, torch.device]:
    return x.shape[2], x.shape[3], x.dtype, x.device


def _filter(x: Tensor, K: Tensor) -> Tensor:
    """Multiply the spectrum of each channel by K (H, W // 2 + 1)."""
    return torch.fft.irfft2(K * torch.fft.rfft2(x), s=x.shape[2:])


def _periodic(kernel: tuple[tuple[float, ...], ...], height: int, width: int) -> Tensor:
    """The kernel on a torus of height x width with its origin at (0, 0); what laps is added."""
    values = torch.tensor(kernel, dtype=torch.float64)
    rows = (torch.arange(values.shape[0]) - values.shape[0] // 2) % height
    columns = (torch.arange(values.shape[1]) - values.shape[1] // 2) % width
    torus = torch.zeros(height, width, dtype=torch.float64)
    return torus.index_put((rows[:, None], columns[None]), values, accumulate=True)


@lru_cache(maxsize=16)  # each as large as an image
@torch.inference_mode(False)  # what is kept must serve a later fit
def _mask(bits: bytes, shape: tuple[int, int, int], dtype, device) -> Tensor:
    """The mask of `Inpaint`, (1, C, H, W)."""
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=int(np.prod(shape)))
    return torch.from_numpy(mask.reshape(1, *shape)).to(device, dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is kept must serve a later fit
def _taps(kernel, dtype, device) -> Tensor:
    """A small kernel where the image is."""
    return torch.tensor(kernel, dtype=dtype, device=device)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is kept must serve a later fit
def _transfer(kernel, height: int, width: int, dtype, device) -> Tensor:
    """K, the spectrum of the kernel on an image's torus."""
    K = torch.fft.rfft2(_periodic(kernel, height, width))
    return K.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is kept must serve a later fit
def _weights(kernel, eps: float, height: int, width: int, dtype, device) -> Tensor:
    """The spectrum of `Blur.whitener`, real."""
    power = torch.fft.fft2(_periodic(kernel, height, width)).abs().square()
    W = (power + eps).rsqrt()
    return (W / W.mean())[:, : width // 2 + 1].to(device, dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is kept must serve a later fit
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
@torch.inference_mode(False)  # what is kept must serve a later fit
def _whitening_matrix(side: int, factor: int, eps: float, dtype, device) -> Tensor:
    """Of `Downsample.whitener`, for a side of y; symmetric."""
    D = _lanczos_matrix(side * factor, factor, torch.float64, torch.device("cpu"))
    power, vectors = torch.linalg.eigh(factor * D @ D.T)
    weights = (power + eps).rsqrt()
    W = (vectors * (weights / weights.mean())) @ vectors.T
    return W.to(device, dtype)
