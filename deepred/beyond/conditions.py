"""The conditions on RED's denoiser (Section 2.3, footnote 4), measured at an image.

If f is differentiable, locally homogeneous, passive and has a symmetric Jacobian, then x - f(x) is
the gradient of rho(x) = 1/2 x^T (x - f(x)), and rho is convex. Reehorst and Schniter (IEEE
Transactions on Computational Imaging 5, 2019, arXiv:1806.02296) found that the denoisers in use
have no symmetric Jacobian. Measured in float64, by finite differences, for any f.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import red
from ..errors import InputError, positive

Denoise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Conditions:
    """What `measure` finds: errors, 0 for an ideal f, and two sizes of J, at most 1 for such an f.

    Reehorst and Schniter's errors of the same names are the squares of `homogeneity` (their second
    form), `asymmetry` and `gradient`. Their first form of homogeneity, ||f((1 + e) x) -
    (1 + e) f(x)||^2 / ||(1 + e) f(x)||^2 with e = .001, is that square times e^2: a millionth.

    homogeneity : ||J x - f(x)|| / ||f(x)||, the error of f((1 + e) x) = (1 + e) f(x) divided by e.
    asymmetry : ||J - J^T||_F / ||J||_F; sqrt(2) if J and J^T have nothing in common.
    radius : the largest modulus of an eigenvalue of J; f is passive if it is at most 1.
    norm : ||J||_2, by how much f may enlarge a small change; the radius, if J is symmetric.
    kinks : how far f is from differentiable, see the function `kinks`.
    gradient : ||x - f(x) - grad rho(x)|| / ||grad rho(x)||, RED's gradient against Eq. (3)'s.
    mismatch : between grad rho by J and the slopes of rho along random directions, relative to
        these. J is meaningful if this is small; it is not if f jumps within a step, or rounds.
    """

    homogeneity: float
    asymmetry: float
    radius: float
    norm: float
    kinks: float
    gradient: float
    mismatch: float


@torch.no_grad()
def measure(
    f: Denoise, x: Tensor, *, step: float = 1e-7, change: float = 1e-3, seed: int = 0
) -> Conditions:
    """The conditions at one small image, from the whole Jacobian.

    Parameters
    ----------
    f : x -> f(x), for a chosen noise level, in float64; is given batches (N, C, H, W).
    x : (1, C, H, W), of a few hundred numbers: f is applied to twice as many images.
    step : of the differences for J, in image units, small enough to rarely cross a threshold of f:
        with 1e-6 the mismatch of BM3D was above .05 at 7 noisy patches of 24, with 1e-7 at none.
    change : the size at which `kinks` looks for them, a quarter of a grey level of 255.
    seed : of the random directions.

    Raises
    ------
    InputError
        If x is no single image, or f does not keep its shape.
    """
    x = _image(x)
    fx, J = f(x), jacobian(f, x, step)
    claimed, true = red.gradient(x, fx), true_gradient(fx, J, x)
    h = step * _directions(x, 8, seed)
    ahead, behind = (
        torch.stack([red.rho(t, ft) for t, ft in zip(moved, f(moved))]) for moved in (x + h, x - h)
    )
    slopes = ahead - behind
    return Conditions(
        homogeneity=_ratio(J @ x.flatten() - fx.flatten(), fx),
        asymmetry=_ratio(J - J.T, J),
        radius=float(torch.linalg.eigvals(J).abs().max()),
        norm=float(torch.linalg.matrix_norm(J, 2)),
        kinks=kinks(f, x, change, seed=seed),
        gradient=_ratio(claimed - true, true),
        mismatch=_ratio(slopes - 2 * h.flatten(1) @ true.flatten(), slopes),
    )


@torch.no_grad()
def kinks(f: Denoise, x: Tensor, change: float = 1e-3, *, seed: int = 0) -> float:
    """||f(x + h) + f(x - h) - 2 f(x)|| / ||f(x + h) - f(x - h)|| over eight random h.

    h is Gaussian with deviation `change` in each number of x, (1, C, H, W). The ratio is half the
    difference of the two one-sided differences relative to their mean: 0 for a linear f,
    proportional to h for a smooth f, and near 1 as long as jumps of f within reach of h dominate.
    InputError if x is no single finite image, or the change not above 0.
    """
    x, change = _image(x), positive("change", change)
    h = change * _directions(x, 8, seed)
    ahead, behind = f(x + h), f(x - h)
    return _ratio(ahead + behind - 2 * f(x), ahead - behind)


@torch.no_grad()
def jacobian(f: Denoise, x: Tensor, step: float = 1e-7, *, batch: int = 64) -> Tensor:
    """J_ij = d f(x)_i / d x_j by central differences, (n, n) for the n numbers of x, float64.

    InputError if x is no single finite image, f does not keep its shape, or the step is not above
    0.
    """
    x, n, step = _image(x), x.numel(), positive("step", step)
    columns = []
    for units in torch.eye(n, dtype=x.dtype, device=x.device).view(n, *x.shape[1:]).split(batch):
        change = f(x + step * units) - f(x - step * units)
        if change.shape != units.shape:
            raise InputError(f"f makes {tuple(change.shape)} of {tuple(units.shape)}")
        columns.append(change.double().flatten(1) / (2 * step))
    return torch.cat(columns).T


def true_gradient(fx: Tensor, J: Tensor, x: Tensor) -> Tensor:
    """grad rho(x) = x - 1/2 f(x) - 1/2 J^T x, for any differentiable f."""
    return x - 0.5 * fx - 0.5 * (J.T @ x.flatten()).reshape(x.shape)


def _image(x: Tensor) -> Tensor:
    """x in float64, if it is one image."""
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[0] != 1:
        told = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"x must be one image (1, C, H, W), got {told}")
    if not torch.isfinite(x).all():
        raise InputError("x contains NaN or infinity")
    return x.double()


def _directions(x: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *x.shape[1:], generator=generator, dtype=x.dtype).to(x.device)


def _ratio(a: Tensor, b: Tensor) -> float:
    return float(a.norm() / b.norm().clamp(min=torch.finfo(b.dtype).tiny))
