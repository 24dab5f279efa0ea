"""Non-local means: scikit-image's, by kernels in C++, and in torch for the GPU."""

from __future__ import annotations

import math

import torch
from skimage import restoration
from torch import Tensor

from ..compute import native
from .common import check, each, mirrored


def nlm(x: Tensor, sigma: float, *, patch: int = 5, distance: int = 6, h: float = 0.6) -> Tensor:
    """Non-local means (Buades, Coll and Morel 2005), scikit-image's fast mode on each channel.

    The filter strength is ``h * sigma``, and 2 sigma^2 is subtracted from squared differences: the
    setting that gives the 29.13 dB of Section 4.1 as the mean over the paper's nine images (29.17
    since scikit-image 0.19, which no longer counts the centre pixel twice). On a GPU `nlm_torch`
    computes the same.

    Parameters
    ----------
    x : images (N, C, H, W).
    sigma : their noise level in the same units; 0 leaves them as they are.
    patch, distance : side of the patches, and how far they are looked for, in pixels.
    h : filter strength, in units of sigma.

    Raises
    ------
    InputError
        If x is no image of floats (N, C, H, W), or sigma is negative or not finite, as for all
        denoisers here.
    """
    sigma = check(x, sigma)
    if x.is_cuda:
        return nlm_torch(x, sigma, patch=patch, distance=distance, h=h)
    if patch == 5 and sigma > 0 and x.dtype == torch.float32 and native.library() is not None:
        return native.nlm(x, sigma, distance, h)
    return each(
        x,
        lambda channel: restoration.denoise_nl_means(
            channel,
            patch_size=patch,
            patch_distance=distance,
            h=h * sigma,
            sigma=sigma,
            fast_mode=True,
        ).reshape(channel.shape),  # it drops a dimension of one pixel
    )


def nlm_torch(
    x: Tensor,
    sigma: float,
    *,
    patch: int = 5,
    distance: int = 6,
    h: float = 0.6,
    own_twice: bool = False,
) -> Tensor:
    """`nlm` in torch, on x's device and in its precision: what scikit-image's fast mode computes.

    That is: mirrored border; squared distances minus 2 sigma^2 per pixel, summed over a window
    without the patch's first row and column (its integral images begin there) but divided by the
    patch's size; weights below exp(-5) dropped; a piecewise linear exponential. scikit-image always
    computes in float64: in float64 the two agree to 1e-7, in float32 to 1e-6, except where a weight
    falls on the other side of that threshold (3e-5 seen).

    Parameters
    ----------
    x : images (N, C, H, W) of any size, each plane on its own.
    sigma, patch, distance, h : as for `nlm`; an even patch becomes one larger, as there.
    own_twice : count the pixel itself twice, as scikit-image did up to version 0.18 (its pull
        request 5923).

    It takes memory for about ``6 * (2 * distance + 1)`` images, a row of shifts at a time.
    """
    sigma = check(x, sigma)
    if sigma == 0:  # nothing to remove; the distances would be divided by it
        return x.detach().clone()
    x = x.detach()
    rows, columns = x.shape[2:]
    patch += 1 - patch % 2
    side, reach = 2 * (patch // 2), patch // 2 + distance
    wide = mirrored(mirrored(x, 2, reach), 3, reach)
    first, last = distance + 1, distance + side  # of the window about the first pixel
    here = wide[..., first : rows + last, first : columns + last].unsqueeze(-2)
    total = x.new_zeros(x.shape)
    weighted = x.new_zeros(x.shape)
    for down in range(2 * distance + 1):
        strip = wide[..., down + 1 : down + rows + side, 1:]
        there = strip.unfold(-1, columns + side - 1, 1)  # (N, C, rows, 2 distance + 1, columns)
        apart = _box(_box((here - there).square_(), -1, side), -3, side)
        exponent = (apart - 2 * (side * sigma) ** 2).clamp_min_(0) / (patch * h * sigma) ** 2
        weights = _table_exp(exponent).masked_fill_(exponent > 5, 0)
        row = wide[..., down + patch // 2 :, patch // 2 :][..., :rows, : columns + 2 * distance]
        total += weights.sum(-2)
        weighted += (weights * row.unfold(-1, columns, 1)).sum(-2)
    if own_twice:
        own = _table_exp(x.new_zeros(()))
        total, weighted = total + own, weighted + own * x
    return weighted / total


def _box(t: Tensor, dim: int, side: int) -> Tensor:
    """Sums of `side` neighbours along a dimension, which is side - 1 shorter after."""
    length = t.shape[dim] - side + 1
    return sum(t.narrow(dim, first, length) for first in range(1, side)) + t.narrow(dim, 0, length)


def _table_exp(t: Tensor) -> Tensor:
    """exp(-t) as in scikit-image: the exponent of a float, the mantissa linear.

    N. N. Schraudolph, "A fast, compact approximation of the exponential function", Neural
    Computation 11 (1999), with the constant of least mean square error: 0.971 at 0, within 4 %.
    """
    power = -t / math.log(2) - 60801 / 2**20
    whole = power.floor()
    return torch.exp2(whole) * (1 + power - whole)
