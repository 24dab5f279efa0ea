"""BM3D and CBM3D in torch, on the image's device: the denoiser "bm3d".

Written from the papers: K. Dabov, A. Foi, V. Katkovnik and K. Egiazarian, "Image denoising by
sparse 3-D transform-domain collaborative filtering", IEEE Transactions on Image Processing 16
(2007), and, by the same, "Color image denoising via sparse 3D collaborative filtering with grouping
constraint in luminance-chrominance space", ICIP 2007.

Three things make it fast without kernels of its own. All blocks of the image are transformed once,
and groups are gathered from that table. Filtered groups are added up, weighted, in such a table,
too, so that the inverse transform, which is linear, is applied once per position and not to each
member of each group. And the host never waits for a value.

Groups are added up as integers, whose sum does not depend on the order, which CUDA's atomic
additions leave open. Matrix products are in float64, because `Engine` may let those of float32 be
TF32, with 10 bits of mantissa.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError, whole
from .common import array, check, each, mirrored, tensor

BLOCK = 8  # pixels a side
DISTANCE = 19  # pixels that blocks are looked for in each direction: 39 x 39 positions
GROUPS = (16, 32)  # blocks in a group of the first and of the second stage, at most
SHARE = 0.4  # of the noise's variance, in the Wiener filter
# Integers are in units of 2^-44. A block of values up to 1 has norm 14 in the opponent space, a
# group 14 sqrt(32) = 79, and a block is in at most 39^2 groups: sums stay below 2^63 = 2^(44+19).
FRACTION = 2.0**44
# Low-pass filter of the wavelet bior1.5 (Cohen, Daubechies and Feauveau 1992), less sqrt(2).
BIOR = (3 / 256, -3 / 256, -22 / 256, 22 / 256, 0.5, 0.5, 22 / 256, -22 / 256, -3 / 256, 3 / 256)


def bm3d_torch(
    x: Tensor, sigma: float, *, step: int = 3, threshold: float = 3.0, chunk: int | None = None
) -> Tensor:
    """BM3D of images, CBM3D where they have three channels, on x's device and in its precision.

    The parameters are the papers' for sigma up to 40/255, with three exceptions. Groups always have
    the full size, without the papers' bound on the distance, which cost 0.02 dB. The threshold and
    the Wiener filter's share of the noise are 3 and 0.4 instead of 2.7 and 1, as in DeepInverse's
    BM3D: not better, but nearer to the package `bm3d`. On 128x128 crops of the nine images the mean
    is 0.01 dB from that at sigma 25 and 5, and single images at most 0.07 and 0.12 dB.

    Parameters
    ----------
    x : images (N, C, H, W), float32 or float64, of any size; unless there are three channels, each
        channel is denoised on its own.
    sigma : noise level in image units.
    step : from one reference block to the next, in pixels, at most 8.
    threshold : of the first stage, in units of sigma (lambda_3D).
    chunk : reference blocks at a time, in whole rows: memory is about 100 kB for each, with three
        channels in float32. Only the last digits of the result depend on it.

    Raises
    ------
    InputError
        If x is no image of floats (N, C, H, W), sigma no finite number of at least 0, or step not 1
        to 8.
    """
    sigma, step = check(x, sigma), whole("step", step, 1, BLOCK)
    x = x.detach()
    if sigma == 0:
        return x.clone()
    chunk = chunk or (16384 if x.is_cuda else 1024)
    images = x if x.shape[1] == 3 else x.flatten(0, 1).unsqueeze(1)
    results = []
    for image in images:
        # Integers need a known range. Dividing by a power of two is exact; it is 1 for most images.
        limits = torch.finfo(x.dtype)
        unit = image.abs().amax().clamp_min(limits.tiny).log2().ceil().exp2()
        unit = unit.clamp_max(limits.max)
        noisy, level = _framed(_opponent(image / unit), step), sigma / unit
        basic = _stage(noisy, None, threshold * level, step, chunk)
        final = _stage(noisy, basic, level, step, chunk)
        restored = _opponent(final[:, : x.shape[2], : x.shape[3]], back=True) * unit
        # Adds 0, or NaN if the image is not finite, so that the solver sees it.
        results.append(restored + 0 * image.abs().amax())
    return torch.stack(results).reshape(x.shape)


def _stage(noisy: Tensor, basic: Tensor | None, level: Tensor, step: int, chunk: int) -> Tensor:
    """The first stage, hard thresholding at `level`, or the second: Wiener filtering by `basic`.

    Images are (channels, height, width), luminance first. `level` () is sigma in the second stage.
    """
    height, width = noisy.shape[1:]
    high, wide = height - BLOCK + 1, width - BLOCK + 1  # positions of blocks
    forward, back = _transform("bior" if basic is None else "dct", noisy.device)
    # At a corner this many blocks are within reach; the size of a group is a power of two.
    reach = min(high, DISTANCE + 1) * min(wide, DISTANCE + 1)
    size = min(GROUPS[basic is not None], 2 ** (reach.bit_length() - 1))
    rows = -(-high // step)
    at_once = max(1, chunk // -(-wide // step))
    total, weights = torch.zeros_like(noisy), torch.zeros_like(noisy)
    for first in range(0, rows, at_once):
        last = min(first + at_once, rows)
        top = max(first * step - DISTANCE, 0)
        bottom = min((last - 1) * step + DISTANCE, high - 1) + BLOCK
        place = _match((noisy if basic is None else basic)[0], first, last, step, size)
        place = (place - top * wide).T.contiguous()  # (size, references), in the band's table
        place.clamp_(0, (bottom - top - BLOCK + 1) * wide - 1)  # arbitrary for non-finite images
        group = _haar(_blocks(noisy[:, top:bottom], forward)[place])
        if basic is None:
            gain = group.abs().gt_(level)
        else:
            gain = _haar(_blocks(basic[:, top:bottom], forward)[place]).square_()
            # Above 0, even if the square of the level underflows.
            noise = (SHARE * level.square()).clamp_min(torch.finfo(gain.dtype).tiny)
            gain = gain.div_(gain + noise)
        gain[0, :, :, 0] = 1  # a group keeps its mean: a constant image stays as it is
        group = _haar(group.mul_(gain), back=True)
        weight = FRACTION / gain.square_().sum((0, 3))  # inverse to the noise left, at most 1
        del gain
        parts = _aggregated(group, weight, place, back, bottom - top, width)
        total[:, top:bottom] += parts[0]
        weights[:, top:bottom] += parts[1]
    return total / weights


def _match(plane: Tensor, first: int, last: int, step: int, size: int) -> Tensor:
    """The `size` blocks most like each reference block of rows first to last - 1, itself first.

    (references, size) positions ``row * (width - 7) + column``, by mean squared difference.
    """
    width, side, wide = plane.shape[1], 2 * DISTANCE + 1, plane.shape[1] - BLOCK + 1
    here = plane[first * step : (last - 1) * step + BLOCK]
    # Blocks that reach over the border have an infinite distance.
    around = F.pad(plane, (DISTANCE,) * 4, value=math.inf)[first * step :]
    apart = plane.new_empty((last - first, -(-wide // step), side, side))
    shifted = plane.new_empty((side, *here.shape))  # by 0 to side - 1 columns
    for down in range(side):
        there = around[down : down + len(here)].unfold(1, width, 1).transpose(0, 1)
        means = F.avg_pool2d(torch.sub(there, here, out=shifted).square_(), BLOCK, step)
        apart[:, :, down] = means.permute(1, 2, 0)
    apart[:, :, DISTANCE, DISTANCE] = -1  # first in its group, so that every pixel is in one
    shift = apart.flatten(0, 1).flatten(1).topk(size, largest=False).indices
    row = torch.arange(first, last, device=plane.device) * step
    column = torch.arange(0, wide, step, device=plane.device)
    place = (row[:, None] * wide + column).reshape(-1, 1)
    return place + (shift // side - DISTANCE) * wide + shift % side - DISTANCE


def _blocks(image: Tensor, forward: Tensor) -> Tensor:
    """All blocks of (channels, height, width), transformed: (positions, channels, 64)."""
    blocks = image.unfold(1, BLOCK, 1).unfold(2, BLOCK, 1).permute(1, 2, 0, 3, 4)
    rows = blocks.reshape(-1, BLOCK**2).double() @ forward.T
    return rows.to(image.dtype).view(-1, len(image), BLOCK**2)


def _haar(t: Tensor, *, back: bool = False) -> Tensor:
    """The orthonormal Haar transform along the first dimension, of a power of two, in place."""
    gaps = [2**k for k in range(len(t).bit_length() - 1)]
    for gap in reversed(gaps) if back else gaps:  # each level is its own inverse
        a, b = t[:: 2 * gap], t[gap :: 2 * gap]
        total = (a + b).mul_(math.sqrt(0.5))
        torch.sub(a, b, out=b).mul_(math.sqrt(0.5))
        a.copy_(total)
    return t


def _aggregated(
    group: Tensor, weight: Tensor, place: Tensor, back: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Weighted sums (channels, height, width) of the groups' blocks, and of their weights.

    `group` (size, references, channels, 64) holds coefficients, of the blocks at `place` (size,
    references); it is overwritten. `weight` is (references, channels), in units of 1 / FRACTION, as
    are the sums.
    """
    window = _transform("window", group.device)[0].to(group.dtype)
    cells = (height - BLOCK + 1) * (width - BLOCK + 1)

    def image(t: Tensor) -> Tensor:
        """Blocks (positions, channels, 64) under the window, each added where it belongs."""
        return F.fold((t * window).flatten(1).T.unsqueeze(0), (height, width), BLOCK)[0]

    def sums(t: Tensor) -> Tensor:
        """(size, references, ...) by position, exact: (positions, ...)."""
        total = torch.zeros((cells, *t.shape[2:]), dtype=torch.int64, device=t.device)
        return total.index_add_(0, place.flatten(), t.flatten(0, 1).long()).double()

    blocks = sums(group.mul_(weight[..., None])) @ back.T
    weights = sums(weight.expand(len(place), -1, -1)).to(group.dtype)
    return image(blocks.to(group.dtype)), image(weights[..., None])


@functools.lru_cache(maxsize=16)  # kept, as a copy to a GPU makes the host wait
def _transform(name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrix and inverse, in float64: of a block in a row, or of a pixel's channels.

    Rows have norm 1, so that each coefficient has the noise of a pixel. "window" is the Kaiser
    window (64,), twice.
    """
    if name == "window":
        window = torch.kaiser_window(BLOCK, periodic=False, beta=2.0, dtype=torch.float64)
        return (torch.outer(window, window).flatten().to(device),) * 2
    if name == "opponent":  # luminance and two chrominances
        matrix = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    elif name == "dct":
        n = torch.arange(BLOCK, dtype=torch.float64)
        matrix = torch.cos(math.pi / BLOCK * (n + 0.5) * n[:, None])
    else:  # the wavelet, periodic, down to one mean
        matrix = torch.eye(BLOCK, dtype=torch.float64)
        for length in (8, 4, 2):
            low, high = torch.zeros(2, length // 2, length, dtype=torch.float64)
            for k in range(length // 2):
                for tap, value in enumerate(BIOR, 2 * k - 4):
                    low[k, tap % length] += value
                high[k, 2 * k], high[k, 2 * k + 1] = 0.5, -0.5
            matrix[:length] = torch.cat([low, high]) @ matrix[:length]
    matrix /= matrix.norm(dim=1, keepdim=True)
    matrix = matrix if name == "opponent" else torch.kron(matrix, matrix)
    return matrix.to(device), torch.linalg.inv(matrix).to(device)


def _opponent(image: Tensor, *, back: bool = False) -> Tensor:
    """Three channels to luminance and chrominances, or back; one channel as it is."""
    if len(image) == 1:
        return image
    matrix = _transform("opponent", image.device)[back].to(image.dtype)
    return (matrix[..., None, None] * image).sum(1)


def _framed(image: Tensor, step: int) -> Tensor:
    """(channels, height, width) mirrored below and right, so that reference blocks end there."""
    for dim in (1, 2):
        length = max(image.shape[dim], BLOCK)
        more = length + (BLOCK - length) % step - image.shape[dim]
        image = mirrored(image, dim, 0, more)
    return image


def bm3d_package(x: Tensor, sigma: float) -> Tensor:
    """BM3D (Dabov et al. 2007) by its authors' package: what `bm3d_torch` is compared with.

    CBM3D for three channels. The package `bm3d` is free for non-commercial use only, hence an
    optional extra. It runs on one thread: several add up in no fixed order, and equal calls differ
    in the seventh digit.

    Raises
    ------
    InputError
        If the package is not installed.
    """
    sigma = check(x, sigma)
    package = _bm3d_package()
    profile = package.BM3DProfile()
    profile.num_threads = 1
    if x.shape[1] == 3:  # bm3d.bm3d on RGB is not CBM3D: no luminance-chrominance transform
        images = [
            package.bm3d_rgb(_coloured(image).transpose(1, 2, 0), sigma, profile)
            for image in array(x)
        ]
        return tensor(np.stack(images).transpose(0, 3, 1, 2), x)
    return each(x, lambda channel: package.bm3d(channel, sigma, profile).reshape(channel.shape))


def _coloured(image: np.ndarray) -> np.ndarray:
    """An image (3, H, W) that `bm3d_rgb` can take.

    It divides by the range of luminance and of both chrominances, which is 0 for a grey or constant
    image (x_0 = 0, say), and returns NaN: to those noise of a millionth is added.
    """
    r, g, b = image
    if min(np.ptp(r + g + b), np.ptp(r - b), np.ptp(r - 2 * g + b)) > 1e-5:
        return image
    noise = np.random.default_rng(0).standard_normal(image.shape)
    return image + 1e-6 * noise.astype(image.dtype)


def _bm3d_package():
    try:
        import bm3d as package
    except ImportError:
        raise InputError(
            "bm3d_package needs the package bm3d (free for non-commercial use): "
            "pip install 'deepred[bm3d]', or use denoiser 'bm3d', which is our own"
        ) from None
    return package
