"""Regularisation by denoising (RED): Eq. (3), its gradient, the x-updates, and RED on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError, choice, positive
from .operators import adapted, holes, seen

Denoise = Callable[[Tensor], Tensor]


def rho(x: Tensor, fx: Tensor) -> Tensor:
    """The regulariser of Eq. (3), 1/2 x^T (x - f(x)); x and f(x) of one shape, a scalar tensor."""
    return 0.5 * torch.sum(x * (x - fx))


def gradient(x: Tensor, fx: Tensor) -> Tensor:
    """The gradient of rho, x - f(x), exact where f is homogeneous with a symmetric Jacobian.

    x and f(x) of one shape, which is the result's.

    NLM, BM3D and most learned denoisers have no symmetric Jacobian (Reehorst and Schniter 2018):
    for them RED is defined by this, and it is not the derivative of Eq. (3).
    """
    return x - fx


def fixed_point(fx: Tensor, v: Tensor, lam: Tensor | float, mu: Tensor | float) -> Tensor:
    """Eq. (11): x_{j+1} = (lam f(x_j) + mu v) / (lam + mu), with v = T_theta(z) + u.

    f(x_j) and v of one shape, which is the result's; lam + mu above 0.
    """
    return (lam * fx + mu * v) / (lam + mu)


def steepest_descent(
    x: Tensor, fx: Tensor, v: Tensor, lam: Tensor | float, mu: Tensor | float, c: float
) -> Tensor:
    """Eq. (12): x_{j+1} = x_j - c [lam (x_j - f(x_j)) + mu (x_j - v)], with v = T_theta(z) + u.

    For f with eigenvalues in [0, 1] it descends where c < 2 / (lam + mu); at c = 1 / (lam + mu)
    it is Eq. (11).
    """
    return x - c * (lam * gradient(x, fx) + mu * (x - v))


def total_variation(x: Tensor) -> Tensor:
    """|x_{i+1,j} - x_ij| + |x_{i,j+1} - x_ij| of each pixel, 0 beyond the border: (N, C, H, W).

    Its sum is the anisotropic total variation, the regulariser of DIP-TV (Liu, Sun, Xu and Kamilov
    2018, arXiv 1810.12864).
    """
    rows = F.pad(x.diff(dim=-2).abs(), (0, 0, 0, 1))
    return rows + F.pad(x.diff(dim=-1).abs(), (0, 1))


def solve(
    y: Tensor,
    H,
    denoise: Denoise,
    lam: float,
    *,
    method: str = "fixed-point",
    c: float | None = None,
    clip: bool = False,
    x0: Tensor | None = None,
    cg_steps: int = 30,
    cg_tolerance: float = 1e-8,
) -> Iterator[tuple[Tensor, Tensor]]:
    """RED on its own: minimise 1/2 ||Hx - y||^2 + lam/2 x^T (x - f(x)), Eq. (1) with Eq. (3).

    Yields (x_{k+1}, f(x_k)) after each iteration, endlessly; the caller stops. By the fixed-point
    strategy of Romano, Elad and Milanfar (2017), (H^T H + lam I) x_{k+1} = H^T y + lam f(x_k),
    solved by conjugate gradients, or by steepest descent with step c (by default 1 / (1 + lam),
    which is stable for ||H|| <= 1).

    Parameters
    ----------
    y : the measurement.
    H : an operator with `adjoint`, or a physics object of deepinv.
    denoise : x -> f(x) for a chosen noise level, of images in y's precision; not differentiated.
    lam : weight of the prior, above 0.
    method : "fixed-point" or "steepest-descent".
    c : the step of steepest descent, above 0.
    clip : keep x in [0, 1] after each iteration.
    x0 : where to start; by default y if it has the image's shape and nothing is missing, else
        H^T y / H^T H 1, an interpolation that keeps a constant image as it is, with its mean where
        nothing is seen.

    Raises
    ------
    InputError
        If lam or c is not above 0, there is no such method, or H has no adjoint.
    """
    lam, c = positive("lam", lam), None if c is None else positive("c", c)
    choice("method", method, ("fixed-point", "steepest-descent"))
    H = adapted(H)
    if not hasattr(H, "adjoint"):
        raise InputError("RED alone needs an H with an adjoint: H.adjoint(y)")
    y = seen(y.detach(), H)
    back = H.adjoint(y)
    if x0 is None:
        x0 = y if y.shape == back.shape and holes(H) is None else _interpolated(back, H)

    def normal(t: Tensor) -> Tensor:
        return H.adjoint(H(t)) + lam * t

    def iterates(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            with torch.no_grad():
                fx = denoise(x)
            if method == "fixed-point":
                x = _conjugate_gradients(normal, back + lam * fx, x, cg_steps, cg_tolerance)
            else:
                step = 1 / (1 + lam) if c is None else c
                x = x - step * (H.adjoint(H(x)) - back + lam * gradient(x, fx))
            x = x.clamp(0, 1) if clip else x
            yield x, fx

    return iterates(x0.clone())


def _interpolated(back: Tensor, H) -> Tensor:
    weight = H.adjoint(H(torch.ones_like(back)))
    seen = weight > 0.01 * weight.max()
    return torch.where(seen, back / torch.where(seen, weight, 1), back.sum() / weight.sum())


def _conjugate_gradients(A, b: Tensor, x: Tensor, steps: int, tolerance: float) -> Tensor:
    """Solve A x = b for a symmetric positive definite A, from x on, to a relative residual."""
    r = b - A(x)
    p, rr = r, torch.sum(r * r)
    stop = tolerance**2 * torch.sum(b * b)
    for _ in range(steps):
        if rr <= stop:
            break
        Ap = A(p)
        alpha = rr / torch.sum(p * Ap)
        x = x + alpha * p
        r = r - alpha * Ap
        rr, before = torch.sum(r * r), rr
        p = r + (rr / before) * p
    return x


def boosted(
    f: Callable[[Tensor, float], Tensor], sigma: float, share: float, H, y: Tensor
) -> Denoise:
    """x -> f(x), or f(x + a H^T(y - Hx)) for a share a above 0, without gradients.

    The latter is the boosting of Romano and Elad (SIIMS 2015): it returns what x has lost, together
    with a share a of the noise, which f removes again.
    """

    @torch.no_grad()
    def denoise(x: Tensor) -> Tensor:
        return f(x + share * H.adjoint(y - H(x)) if share else x, sigma)

    return denoise
