"""The conditions on RED's denoiser (Section 2.3, footnote 4), measured at an image.

With them x - f(x) is the gradient of rho(x) = 1/2 x^T (x - f(x)), and rho is convex: f should be
differentiable, locally homogeneous, have a symmetric Jacobian, and be passive. Reehorst and
Schniter (IEEE Transactions on Computational Imaging 5, 2019, arXiv:1806.02296) found the symmetry
to fail for the denoisers in use. Measured in float64, by differences, for any f.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import red
from .errors import InputError

Denoise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Conditions:
    """What `measure` finds; each is 0 for an ideal f but `radius`, which is to be at most 1.

    homogeneity : ||J x - f(x)|| / ||f(x)||, the derivative of f((1 + e) x) - (1 + e) f(x).
    asymmetry : ||J - J^T||_F / ||J||_F; sqrt(2) if J and J^T have nothing in common.
    radius : the largest modulus of an eigenvalue of J.
    kinks : ||f(x + h) + f(x - h) - 2 f(x)|| / ||f(x + h) - f(x - h)|| for small random h, twice
        the disagreement of the derivatives from both sides; of the size of h where f is smooth.
    gradient : ||x - f(x) - grad rho(x)|| / ||x - f(x)||, what RED takes against what Eq. (3) has.
    """

    homogeneity: float
    asymmetry: float
    radius: float
    kinks: float
    gradient: float


def measure(f: Denoise, x: Tensor, *, step: float = 1e-4, seed: int = 0) -> Conditions:
    """The conditions at one small image, from the whole Jacobian.

    Parameters
    ----------
    f : x -> f(x), the noise level chosen; is given batches (N, C, H, W).
    x : (1, C, H, W), of a few hundred pixels: f is applied to twice as many images.
    step : of the central differences, and size of `kinks`' changes, in image units.
    seed : of the directions for `kinks`.

    Raises
    ------
    InputError
        If x is no single image, or f does not keep its shape.
    """
    x = x.double()
    fx, J = f(x), jacobian(f, x, step)
    flat = x.flatten()
    generator = torch.Generator().manual_seed(seed)
    h = step * torch.randn(8, *x.shape[1:], generator=generator, dtype=x.dtype)
    ahead, behind = f(x + h), f(x - h)
    claimed = red.gradient(x, fx)
    return Conditions(
        homogeneity=_ratio(J @ flat - fx.flatten(), fx),
        asymmetry=_ratio(J - J.T, J),
        radius=float(torch.linalg.eigvals(J).abs().max()),
        kinks=_ratio(ahead + behind - 2 * fx, ahead - behind),
        gradient=_ratio(claimed - true_gradient(fx, J, x), claimed),
    )


def jacobian(f: Denoise, x: Tensor, step: float = 1e-4, *, batch: int = 64) -> Tensor:
    """J_ij = d f(x)_i / d x_j by central differences, (n, n) for the n numbers of x, float64."""
    if x.ndim != 4 or x.shape[0] != 1:
        raise InputError(f"x must be one image (1, C, H, W), got {tuple(x.shape)}")
    x, n = x.double(), x.numel()
    columns = []
    for units in torch.eye(n, dtype=x.dtype).reshape(n, *x.shape[1:]).split(batch):
        change = f(x + step * units) - f(x - step * units)
        if change.shape != units.shape:
            raise InputError(f"f makes {tuple(change.shape)} of {tuple(units.shape)}")
        columns.append(change.flatten(1) / (2 * step))
    return torch.cat(columns).T


def true_gradient(fx: Tensor, J: Tensor, x: Tensor) -> Tensor:
    """grad rho(x) = x - 1/2 f(x) - 1/2 J^T x, which needs no condition but differentiability."""
    return x - 0.5 * fx - 0.5 * (J.T @ x.flatten()).reshape(x.shape)


def spectral_radius(
    f: Denoise, x: Tensor, *, step: float = 1e-4, iterations: int = 100, seed: int = 0
) -> float:
    """The largest modulus of an eigenvalue of J by power iteration, without the matrix.

    For images of any size: two calls of f an iteration. The growth over the last half of the
    iterations, so that a pair of complex eigenvalues does no harm; it approaches from below.
    """
    x = x.double()
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    growth = []
    for _ in range(iterations):
        v = v / v.norm()
        size = step / v.abs().max()  # `step` at the pixel that changes most
        v = (f(x + size * v) - f(x - size * v)) / (2 * size)
        if not v.any():
            return 0.0
        growth.append(v.norm().log())
    return float(torch.stack(growth[iterations // 2 :]).mean().exp())


def _ratio(a: Tensor, b: Tensor) -> float:
    return float(a.norm() / b.norm().clamp(min=torch.finfo(b.dtype).tiny))
