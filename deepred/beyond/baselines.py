"""Reconstruction by total variation, for any operator: the classical prior to compare with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError, positive, whole
from ..operators import adapted, seen


def total_variation(
    y: Tensor, H, weight: float, *, shape: tuple[int, int, int] | None = None, iterations: int = 500
) -> Tensor:
    """min_x 1/2 ||Hx - y||^2 + weight TV(x), TV isotropic and each channel on its own.

    The primal-dual method of Chambolle and Pock (2011) with the saddle function
    <Hx - y, p> - 1/2 ||p||^2 + <grad x, q>, |q| <= weight a pixel; Rudin, Osher and Fatemi (1992)
    for the prior.

    Parameters
    ----------
    y : measurement (N, C, ...).
    H : an operator with `adjoint`, or a physics object of deepinv.
    weight : of the total variation, above 0; for denoising it removes jumps of about its size.
    shape : (C, H, W) of the image; unless given that of H^T y.
    iterations : a fixed number; a few hundred are enough for images.

    Returns
    -------
    The image (N, C, H, W), not clipped.

    Raises
    ------
    InputError
        If the weight is not above 0, H has no adjoint or is 0, or y is not finite.
    """
    weight, iterations = positive("weight", weight), whole("iterations", iterations)
    H = adapted(H)
    if not hasattr(H, "adjoint"):
        raise InputError("total variation needs an H with an adjoint: H.adjoint(y)")
    y = seen(y.detach(), H)
    if not torch.isfinite(y).all():
        raise InputError("y contains NaN or infinity: replace those values, or mask them")
    x = H.adjoint(y) if shape is None else y.new_zeros((len(y), *shape))
    # Scaled so that H is as large as grad, whose squared norm is below 8; p and q are then of about
    # the size of the weight, and steps in this ratio balance primal and dual.
    scale = math.sqrt(8) / _norm(H, x)
    weight = scale**2 * weight
    ratio = 10 * weight
    dual, primal = ratio / 4, 1 / (4 * ratio)  # their product is 1 / (8 + 8)
    p, q = torch.zeros_like(y), torch.zeros_like(_grad(x))
    ahead = x
    for _ in range(iterations):
        p = (p + dual * scale * (H(ahead) - y)) / (1 + dual)
        q = q + dual * _grad(ahead)
        q = q / (q.square().sum(0, keepdim=True).sqrt() / weight).clamp(min=1)
        before, x = x, x - primal * (scale * H.adjoint(p) - _div(q))
        ahead = 2 * x - before
    return x


def _grad(x: Tensor) -> Tensor:
    """Forward differences (2, N, C, H, W), 0 beyond the border."""
    q = x.new_zeros((2, *x.shape))
    q[0, ..., :-1, :] = x.diff(dim=-2)
    q[1, ..., :-1] = x.diff(dim=-1)
    return q


def _div(q: Tensor) -> Tensor:
    """Minus the adjoint of `_grad`."""
    x = torch.zeros_like(q[0])
    x[..., :-1, :] += q[0, ..., :-1, :]
    x[..., 1:, :] -= q[0, ..., :-1, :]
    x[..., :-1] += q[1, ..., :-1]
    x[..., 1:] -= q[1, ..., :-1]
    return x


def _norm(H, like: Tensor, steps: int = 30) -> float:
    """||H|| by power iteration, plus 2 % as that converges from below."""
    v = torch.rand(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    for _ in range(steps):
        v = H.adjoint(H(v / v.norm()))
        if not v.any():
            raise InputError("H maps every image to 0: there is nothing to restore from")
    return 1.02 * math.sqrt(float(v.norm()))
