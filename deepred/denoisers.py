"""Denoisers f(x, sigma): any callable from an image tensor (N, C, H, W) and a noise level in image
units to an image tensor of the same shape will do. Here are those that the paper uses, and TV.

All run on the CPU in float64 or float32 inside libraries that release the interpreter lock, so that
the solver can run them beside the Theta-update (Figure 1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from skimage import restoration
from torch import Tensor

from .errors import InputError

NAMES = ("nlm", "bm3d", "tv")


def named(name: str) -> Callable[[Tensor, float], Tensor]:
    """The denoiser of a name in `NAMES`.

    Raises
    ------
    InputError
        If there is none of that name, or its optional package is not installed.
    """
    if name not in NAMES:
        raise InputError(f"unknown denoiser {name!r}; known are {', '.join(NAMES)}")
    if name == "bm3d":
        _bm3d_package()
    return {"nlm": nlm, "bm3d": bm3d, "tv": tv}[name]


def nlm(x: Tensor, sigma: float, *, patch: int = 5, distance: int = 6, h: float = 0.6) -> Tensor:
    """Non-local means (Buades, Coll and Morel 2005), scikit-image's fast mode on each channel.

    The filter strength is ``h * sigma`` and sigma is subtracted from patch distances: the setting
    whose mean over the paper's nine images is the 29.13 dB of Section 4.1 (29.17 with
    scikit-image 0.19 and later, which no longer counts the centre pixel twice).
    """
    return _each(
        x,
        lambda channel: restoration.denoise_nl_means(
            channel,
            patch_size=patch,
            patch_distance=distance,
            h=h * sigma,
            sigma=sigma,
            fast_mode=True,
        ),
    )


def nlm_weights(
    x: Tensor, sigma: float, *, patch: int = 5, distance: int = 6, h: float = 0.6
) -> Tensor:
    """The sum of the weights that `nlm` gives to the pixels about each pixel, its own being 1.

    As scikit-image's fast mode has them: mirrored border; squared distances less 2 sigma^2 a
    pixel, summed over a window that lacks the patch's first row and column (a habit of its
    integral images) but divided by the patch's size; weights below exp(-5) dropped. Its
    exponential is a table, good to .2 %. Up to version 0.18 scikit-image counted the own pixel
    twice (its pull request 5923), which gave ``(w * nlm(x) + x) / (w + 1)`` with these weights w.
    """
    side, reach = 2 * (patch // 2), patch // 2 + distance
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    rows, columns = (length + side - 1 for length in x.shape[2:])
    places = range(1, 2 * distance + 2)
    middle = padded[..., distance + 1 :, distance + 1 :][..., :rows, :columns]
    total = torch.zeros_like(x)
    for down in places:
        for right in places:
            moved = padded[..., down : down + rows, right : right + columns]
            apart = F.avg_pool2d((middle - moved).square(), side, stride=1) - 2 * sigma**2
            exponent = apart.clamp_min(0) * (side / (patch * h * sigma)) ** 2
            total += torch.where(exponent > 5, 0, torch.exp(-exponent))
    return total


def tv(x: Tensor, sigma: float) -> Tensor:
    """Total variation (Rudin, Osher and Fatemi 1992; Chambolle's algorithm), each channel.

    scikit-image's weight is set to sigma: the size of jumps it removes is of the noise's size.
    """
    if sigma == 0:  # nothing to remove; scikit-image would divide by it
        return x.detach().clone()
    images = [
        restoration.denoise_tv_chambolle(image, weight=sigma, channel_axis=0) for image in _array(x)
    ]
    return _tensor(np.stack(images), x)


def bm3d(x: Tensor, sigma: float) -> Tensor:
    """BM3D (Dabov et al. 2007) by the authors' package: CBM3D for three channels.

    The package `bm3d` is free for non-commercial use only, hence an optional extra. It runs on one
    thread: several add up in no fixed order, and equal calls would differ in the seventh digit.

    Raises
    ------
    InputError
        If the package is not installed.
    """
    package = _bm3d_package()
    profile = package.BM3DProfile()
    profile.num_threads = 1
    if x.shape[1] == 3:  # bm3d.bm3d on RGB is not CBM3D: no luminance-chrominance transform
        images = [
            package.bm3d_rgb(image.transpose(1, 2, 0), sigma, profile).transpose(2, 0, 1)
            for image in _array(x)
        ]
        return _tensor(np.stack(images), x)
    return _each(x, lambda channel: package.bm3d(channel, sigma, profile).reshape(channel.shape))


def _bm3d_package():
    try:
        import bm3d as package
    except ImportError:
        raise InputError(
            "denoiser 'bm3d' needs the package bm3d (free for non-commercial use): "
            "pip install 'deepred[bm3d]', or use nlm"
        ) from None
    return package


def _each(x: Tensor, denoise: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Apply a denoiser of one plane (H, W) to each image and channel."""
    planes = _array(x)
    return _tensor(np.stack([np.stack([denoise(c) for c in image]) for image in planes]), x)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like)
