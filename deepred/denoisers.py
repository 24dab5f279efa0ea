"""Denoisers f(x, sigma): any callable from an image tensor (N, C, H, W) and a noise level in image
units to an image tensor of the same shape will do. Here are those that the paper uses, others that
one may compare with them, and `learned` for networks. They raise an InputError where x is no image,
or sigma below 0 or not finite.

All run inside libraries that release the interpreter lock, so that the solver can run them beside
the Theta-update (Figure 1). BM3D is of `deepred.denoise.bm3d`, on any device; NLM is scikit-image's
on the CPU, and has a second form in torch for the GPU.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from skimage import restoration
from torch import Tensor, nn

from .compute import native
from .denoise.bm3d import bm3d_torch
from .errors import InputError, at_least

NAMES = ("nlm", "bm3d", "tv", "wavelet", "bilateral", "median")


def named(name: str) -> Callable[[Tensor, float], Tensor]:
    """The denoiser of a name in `NAMES`.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in NAMES:
        raise InputError(f"unknown denoiser {name!r}; known are {', '.join(NAMES)}")
    return dict(zip(NAMES, (nlm, bm3d_torch, tv, wavelet, bilateral, median)))[name]


def adapted(f: str | nn.Module | Callable[[Tensor, float], Tensor]) -> Callable:
    """What may be given as denoiser, as one: a name of `NAMES`, a module (`learned`), a callable.

    The callable is not differentiated, and what it returns is in the image's precision.

    Raises
    ------
    InputError
        If it is none of them. When called, if the callable makes no image of x's shape.
    """
    if isinstance(f, str):
        return named(f)
    if isinstance(f, nn.Module):
        return learned(f)
    if not callable(f):
        raise InputError(
            f"denoiser must be one of {', '.join(NAMES)}, a callable f(x, sigma) or a torch "
            f"module, got {f!r}"
        )

    @functools.wraps(f, updated=())
    @torch.no_grad()
    def denoise(x: Tensor, sigma: float) -> Tensor:
        name = getattr(f, "__name__", type(f).__name__)
        return _of_its_shape(f(x.clone(), sigma), x, name)  # it may work in place

    return denoise


def nlm(x: Tensor, sigma: float, *, patch: int = 5, distance: int = 6, h: float = 0.6) -> Tensor:
    """Non-local means (Buades, Coll and Morel 2005), scikit-image's fast mode on each channel.

    The filter strength is ``h * sigma`` and sigma is subtracted from patch distances: the setting
    whose mean over the paper's nine images is the 29.13 dB of Section 4.1 (29.17 with
    scikit-image 0.19 and later, which no longer counts the centre pixel twice). For a tensor on
    a GPU `nlm_torch` computes the same there.

    Parameters
    ----------
    x : images (N, C, H, W).
    sigma : their noise level, of which 0 leaves them as they are, in the same units.
    patch, distance : side of the patches, and how far they are looked for, in pixels.
    h : filter strength, of sigma.

    Raises
    ------
    InputError
        If x is no image of floats (N, C, H, W), or sigma below 0 or not finite: of all denoisers
        here.
    """
    sigma = _check(x, sigma)
    if x.is_cuda:
        return nlm_torch(x, sigma, patch=patch, distance=distance, h=h)
    if patch == 5 and sigma > 0 and x.dtype == torch.float32 and native.library() is not None:
        return native.nlm(x, sigma, distance, h)
    return _each(
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

    That is, with its habits: mirrored border; squared distances less 2 sigma^2 a pixel, summed over
    a window that lacks the patch's first row and column (its integral images begin there) but
    divided by the patch's size; weights below exp(-5) dropped; and a piecewise linear exponential.
    scikit-image computes in float64 whatever it is given: in float64 the two agree to 1e-7, in
    float32 to 1e-6 but where a weight at that threshold falls on its other side (3e-5 seen).

    Parameters
    ----------
    x : images (N, C, H, W) of any size, each plane on its own.
    sigma, patch, distance, h : as for `nlm`; an even patch is made one larger, as there.
    own_twice : count the pixel itself twice, as scikit-image did up to version 0.18 (its pull
        request 5923).

    A row of shifts at a time, so that it takes memory for about ``6 * (2 * distance + 1)`` images.
    """
    sigma = _check(x, sigma)
    if sigma == 0:  # nothing to remove; the distances would be divided by it
        return x.detach().clone()
    x = x.detach()
    rows, columns = x.shape[2:]
    patch += 1 - patch % 2
    side, reach = 2 * (patch // 2), patch // 2 + distance
    wide = _mirrored(_mirrored(x, 2, reach), 3, reach)
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


def _mirrored(x: Tensor, dim: int, reach: int) -> Tensor:
    """x with `reach` more at both ends of a dimension, mirrored as often as it takes."""
    size = x.shape[dim]
    index = torch.arange(-reach, size + reach, device=x.device) % max(2 * size - 2, 1)
    return x.index_select(dim, torch.minimum(index, (2 * size - 2 - index).abs()))


def _box(t: Tensor, dim: int, side: int) -> Tensor:
    """Sums of `side` neighbours along a dimension, which is side - 1 shorter after."""
    length = t.shape[dim] - side + 1
    return sum(t.narrow(dim, first, length) for first in range(1, side)) + t.narrow(dim, 0, length)


def _table_exp(t: Tensor) -> Tensor:
    """exp(-t) as scikit-image has it: the exponent of a float, with the mantissa left linear.

    N. N. Schraudolph, "A fast, compact approximation of the exponential function", Neural
    Computation 11 (1999), with the constant of least mean square error: 0.971 at 0, within 4 %.
    """
    power = -t / math.log(2) - 60801 / 2**20
    whole = power.floor()
    return torch.exp2(whole) * (1 + power - whole)


def tv(x: Tensor, sigma: float) -> Tensor:
    """Total variation (Rudin, Osher and Fatemi 1992; Chambolle's algorithm), each channel.

    scikit-image's weight is set to sigma: the size of jumps it removes is of the noise's size.
    """
    sigma = _check(x, sigma)
    if sigma == 0:  # nothing to remove; scikit-image would divide by it
        return x.detach().clone()
    images = [
        restoration.denoise_tv_chambolle(image, weight=sigma, channel_axis=0) for image in _array(x)
    ]
    return _tensor(np.stack(images), x)


def wavelet(x: Tensor, sigma: float) -> Tensor:
    """Soft thresholds of wavelet coefficients (BayesShrink: Chang, Yu and Vetterli 2000).

    scikit-image's, averaged over 4 x 4 cyclic shifts (Coifman and Donoho 1995), without which the
    thresholds leave marks of the grid. Three channels by way of YCbCr, as its documentation advises
    for colour: .4 to 1.9 dB more than channel by channel (crops of 96 x 96, sigma 3 to 25).
    """
    sigma = _check(x, sigma)
    if sigma == 0 or min(x.shape[2:]) < 2:  # nothing to remove, or nothing to halve
        return x.detach().clone()

    def denoise(image: np.ndarray) -> np.ndarray:  # (C, H, W)
        return restoration.denoise_wavelet(
            image, sigma, channel_axis=0, convert2ycbcr=len(image) == 3, rescale_sigma=True
        )

    def spun(image: np.ndarray) -> Iterator[np.ndarray]:
        for down, right in product(range(4), repeat=2):
            shifted = np.roll(image, (down, right), (1, 2))
            yield np.roll(denoise(shifted), (-down, -right), (1, 2))

    # A threshold divided by a coefficient of next to nothing is infinite, and taken as such. Not by
    # a filter of warnings: those are one for all threads, and this runs beside others.
    with np.errstate(over="ignore"):
        return _tensor(np.stack([sum(spun(image)) / 16 for image in _array(x)]), x)


def bilateral(x: Tensor, sigma: float, *, distance: float = 1.25, reach: int = 3) -> Tensor:
    """Bilateral filter (Tomasi and Manduchi 1998): the mean of what is near in place and in value.

    Weights exp(-d^2 / (2 distance^2) - (x_i - x_j)^2 / (2 (3 sigma)^2)) over 7 x 7 pixels of each
    channel, mirrored at the border; two noisy pixels of one colour are sqrt(2) sigma apart. In
    torch, as in scikit-image 0.26's own the neighbours weigh more than the pixel itself (over 7 x 7
    pixels 3.6 times on one side and 9.4 on the other, where the formula says .73), which loses 3 to
    6 dB to this with these parameters.
    """
    sigma = _check(x, sigma)
    if sigma == 0:  # nothing to remove
        return x.detach().clone()
    x = x.detach()
    rows, columns = x.shape[2:]
    wide = _mirrored(_mirrored(x, 2, reach), 3, reach)
    total, weighted = torch.zeros_like(x), torch.zeros_like(x)
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            there = wide[..., i : i + rows, j : j + columns]
            apart = ((i - reach) ** 2 + (j - reach) ** 2) / distance**2
            weights = torch.exp(-0.5 * (apart + ((there - x) / (3 * sigma)).square()))
            total += weights
            weighted += weights * there
    return weighted / total


def median(x: Tensor, sigma: float = 0.0) -> Tensor:
    """The median of 3 x 3 pixels of each channel, mirrored at the border without the edge pixel.

    It knows no noise level: `sigma` has no part in it, and it changes an image at 0 as at any.
    """
    _check(x, sigma)
    x = x.detach()
    wide = _mirrored(_mirrored(x, 2, 1), 3, 1)
    windows = wide.unfold(2, 3, 1).unfold(3, 3, 1)  # (N, C, H, W, 3, 3)
    return windows.flatten(-2).median(-1).values


def learned(module: nn.Module) -> Callable[[Tensor, float], Tensor]:
    """A denoiser of a torch module called as module(x, sigma): deepinv's all are, or one's own.

    A copy of it, in evaluation mode, without gradients, on the image's device and in its precision.
    Weights are the caller's, as they are now: nothing is downloaded here.

    Raises
    ------
    InputError
        If it is no module. When called, if the module does not take the image (grey for colour,
        say, or without a noise level) or does not return one of its shape.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"learned needs a torch module, got {type(module).__name__}: any other callable "
            "f(x, sigma) is a denoiser as it is"
        )
    name, module = type(module).__name__, copy.deepcopy(module).eval()

    @torch.no_grad()
    def denoise(x: Tensor, sigma: float) -> Tensor:
        one_each = isinstance(sigma, Tensor) and sigma.ndim  # a level for each image, as deepinv's
        sigma = sigma if one_each else _check(x, sigma)
        try:
            fx = module.to(x)(x.clone(), sigma)  # it may work in place
        except torch.cuda.OutOfMemoryError:  # a RuntimeError, too, and no fault of the image's
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{name} does not take (x, sigma) with x {tuple(x.shape)} of {x.dtype}: {why}"
            ) from error
        return _of_its_shape(fx, x, name)

    return denoise


def _of_its_shape(fx: object, x: Tensor, name: str) -> Tensor:
    """f(x) in x's precision, if it is an image of x's shape."""
    if not isinstance(fx, Tensor) or fx.shape != x.shape:
        made = tuple(fx.shape) if isinstance(fx, Tensor) else f"a {type(fx).__name__}"
        raise InputError(f"{name} makes {made} of an image {tuple(x.shape)}")
    return fx.to(x)


def bm3d_package(x: Tensor, sigma: float) -> Tensor:
    """BM3D (Dabov et al. 2007) by its authors' package: what `bm3d_torch` is compared with.

    CBM3D for three channels. The package `bm3d` is free for non-commercial use only, hence an
    optional extra. It runs on one thread: several add up in no fixed order, and equal calls would
    differ in the seventh digit.

    Raises
    ------
    InputError
        If the package is not installed.
    """
    sigma = _check(x, sigma)
    package = _bm3d_package()
    profile = package.BM3DProfile()
    profile.num_threads = 1
    if x.shape[1] == 3:  # bm3d.bm3d on RGB is not CBM3D: no luminance-chrominance transform
        images = [
            package.bm3d_rgb(_coloured(image).transpose(1, 2, 0), sigma, profile)
            for image in _array(x)
        ]
        return _tensor(np.stack(images).transpose(0, 3, 1, 2), x)
    return _each(x, lambda channel: package.bm3d(channel, sigma, profile).reshape(channel.shape))


def _coloured(image: np.ndarray) -> np.ndarray:
    """An image (3, H, W) that `bm3d_rgb` can take.

    It divides by the range of luminance and of both chrominances, which is 0 for a grey or a
    constant image, x_0 = 0 among them, and returns NaN: such a one gets a millionth of noise.
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


def _check(x: Tensor, sigma: float) -> float:
    """sigma as a float; InputError if it is no noise level, or x no image."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4 or not x.numel():
        told = f"{tuple(x.shape)}, {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"a denoiser is of float images (N, C, H, W), not of {told}")
    return at_least("sigma, in image units,", sigma)


def _each(x: Tensor, denoise: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Apply a denoiser of one plane (H, W) to each image and channel."""
    planes = _array(x)
    return _tensor(np.stack([np.stack([denoise(c) for c in image]) for image in planes]), x)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like)
