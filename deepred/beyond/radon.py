"""Tomography: the Radon transform of Section 2.1 and its filtered back-projection."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from skimage.transform import iradon
from torch import Tensor

from ..errors import InputError, choice, positive, real, whole

FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann")  # of skimage's iradon


@dataclass(frozen=True)
class Radon:
    """Parallel-beam projections of a square image, the mean along each ray: tomography.

    An image (N, C, side, side) becomes a sinogram (N, C, angles, side): at each angle the image is
    rotated about the pixel (side // 2, side // 2) with bilinear interpolation and averaged over its
    rows. `skimage.transform.radon` gives the transpose and sums, which is `side` times as large;
    the two agree to 1e-13 of the norm, in float32 to 1e-6. What leaves the square is cut: an image
    is to be 0 outside the inscribed circle. The mean keeps values in [0, 1], and ||H||^2 at most
    about angles / side (.9 of that for views over 180 degrees); with more views than side,
    `Scaled(H, (side / angles)**0.5)` suits methods that need ||H|| of at most about 1.

    The weights are one sparse matrix, about 4 side^2 numbers per angle: the adjoint is exact.

    Parameters
    ----------
    side : of the image in pixels, and number of detectors.
    angles : a tuple, in degrees, any number in any order.

    Raises
    ------
    InputError
        If there is no angle, one is no finite number, or an image is not of that size.
    """

    task: ClassVar = "tomography"

    side: int
    angles: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "side", whole("side", self.side, 2, 10**5))
        angles = tuple(map(real, self.angles)) if isinstance(self.angles, tuple) else ()
        if not angles or not np.isfinite(angles).all():  # an array or a list could not be hashed
            raise InputError("angles must be a tuple of one or more finite numbers, in degrees")
        object.__setattr__(self, "angles", angles)

    @classmethod
    def views(cls, side: int, count: int, span: float = 180.0) -> Radon:
        """`count` views at equal steps over `span` degrees, the first at 0, the end left out.

        Fewer than side views, or a span below 180 (limited angle), leave the image undetermined.
        InputError if count is no whole number of at least 1, or span not above 0.
        """
        count, span = whole("the number of views", count, 1, 10**6), positive("span", span)
        return cls(side, tuple(float(k) * span / count for k in range(count)))

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the image, of a sinogram's."""
        return shape[0], self.side, self.side

    def __call__(self, x: Tensor) -> Tensor:
        self._check("image", x, (self.side, self.side))
        product = _Product.apply(x.flatten(2), *self._matrices(x))
        return product.unflatten(2, (len(self.angles), self.side))

    def adjoint(self, y: Tensor) -> Tensor:
        self._check("sinogram", y, (len(self.angles), self.side))
        A, At = self._matrices(y)
        return _Product.apply(y.flatten(2), At, A).unflatten(2, (self.side, self.side))

    def fbp(self, y: Tensor, filter_name: str | None = "ramp") -> Tensor:
        """Filtered back-projection of a sinogram (N, C, angles, side), by `skimage`'s iradon.

        Returns (N, C, side, side), 0 outside the inscribed circle and not confined to [0, 1]. Every
        view counts as 180 / views degrees: right for equal steps over 180 degrees.
        """
        self._check("sinogram", y, (len(self.angles), self.side))
        if filter_name is not None:
            choice("filter", filter_name, FILTERS)
        planes = self.side * y.detach().cpu().numpy().reshape(-1, *y.shape[2:])
        images = [iradon(p.T, np.array(self.angles), filter_name=filter_name) for p in planes]
        return torch.from_numpy(np.stack(images).reshape(*y.shape[:2], self.side, self.side)).to(y)

    def doubt(self, y: Tensor) -> str | None:
        """A sentence if y cannot be means along rays of an image in [0, 1], as sums are not."""
        if y.max() <= 2:
            return None
        return (
            f"the sinogram's largest value is {y.max():.3g}, and the mean along a ray is at most 1 "
            f"for an image in [0, 1]: divide one of sums by side, {self.side}"
        )

    def whitener(self, eps: float) -> Callable[[Tensor], Tensor]:
        """W = (|frequency| + eps)^(1/2) along the detectors, scaled to mean 1, as a map of y's.

        The frequency is 1 at the detectors' highest (Nyquist), and eps above 0 (InputError).

        H^T H nearly divides by the frequency (the central slice theorem), which the ramp filter of
        back-projection undoes: with its root in the data term ||W (Hx - y)||^2 all frequencies have
        nearly the same weight, as for `Blur.whitener`.
        """

        eps = positive("eps", eps)

        def whiten(residual: Tensor) -> Tensor:
            frequency = torch.fft.fftfreq(self.side, dtype=residual.dtype, device=residual.device)
            W = (2 * frequency.abs() + eps).sqrt()
            W = (W / W.mean())[: self.side // 2 + 1]
            return torch.fft.irfft(W * torch.fft.rfft(residual), n=self.side)

        return whiten

    def _check(self, what: str, t: Tensor, wanted: tuple[int, int]) -> None:
        if not isinstance(t, Tensor) or not t.is_floating_point():
            raise InputError(f"the {what} must be a float tensor")
        if t.ndim != 4 or tuple(t.shape[2:]) != wanted:
            raise InputError(
                f"the {what} must be (N, C, {wanted[0]}, {wanted[1]}), got {tuple(t.shape)}"
            )

    def _matrices(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return _weights(self.side, self.angles, like.dtype, like.device)


class _Product(torch.autograd.Function):
    """A t of each plane for a constant sparse A, given with its transpose; t is (N, C, pixels)."""

    @staticmethod
    def forward(ctx, t: Tensor, A: Tensor, At: Tensor) -> Tensor:
        ctx.matrices = A, At
        return (A @ t.flatten(0, 1).T).T.unflatten(0, t.shape[:2])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        A, At = ctx.matrices
        return _Product.apply(gradient, At, A), None, None


@lru_cache(maxsize=8)  # tens of megabytes each
@torch.inference_mode(False)  # what is cached must serve a later fit
def _weights(side: int, angles: tuple[float, ...], dtype, device) -> tuple[Tensor, Tensor]:
    """The matrix of `Radon`, (angles * side, side^2), and its transpose."""
    centre = side // 2
    row, column = np.mgrid[:side, :side]  # of the turned image: the ray is its column
    rays, pixels, weights = [], [], []
    for k, angle in enumerate(np.deg2rad(angles)):
        c, s = np.cos(angle), np.sin(angle)
        across = c * (column - centre) + s * (row - centre) + centre
        down = -s * (column - centre) + c * (row - centre) + centre
        left, top = np.floor(across).astype(int), np.floor(down).astype(int)
        for i in (0, 1):
            for j in (0, 1):
                weight = (1 - np.abs(down - top - i)) * (1 - np.abs(across - left - j))
                y, x = top + i, left + j
                inside = (y >= 0) & (y < side) & (x >= 0) & (x < side) & (weight > 0)
                rays.append((k * side + column)[inside])
                pixels.append((y * side + x)[inside])
                weights.append(weight[inside] / side)
    place = np.stack([np.concatenate(rays), np.concatenate(pixels)])
    A = torch.sparse_coo_tensor(
        torch.from_numpy(place),
        torch.from_numpy(np.concatenate(weights)),
        (len(angles) * side, side * side),
        check_invariants=False,
    ).coalesce()
    with warnings.catch_warnings():  # torch says that this layout is in beta
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        return tuple(M.coalesce().to_sparse_csr().to(device, dtype) for M in (A, A.T))
