"""Total variation, wavelets, the bilateral and the median filter."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from skimage import restoration
from torch import Tensor

from .common import array, check, mirrored, tensor


def tv(x: Tensor, sigma: float) -> Tensor:
    """Total variation (Rudin, Osher and Fatemi 1992; Chambolle's algorithm), each channel.

    scikit-image's weight is set to sigma, so that it removes jumps of about the noise's size.
    """
    sigma = check(x, sigma)
    if sigma == 0:  # nothing to remove; scikit-image would divide by it
        return x.detach().clone()
    images = [
        restoration.denoise_tv_chambolle(image, weight=sigma, channel_axis=0) for image in array(x)
    ]
    return tensor(np.stack(images), x)


def wavelet(x: Tensor, sigma: float) -> Tensor:
    """Soft thresholds of wavelet coefficients (BayesShrink: Chang, Yu and Vetterli 2000).

    scikit-image's, averaged over 4 x 4 cyclic shifts (Coifman and Donoho 1995), which removes the
    traces of the wavelets' grid. Three channels are transformed to YCbCr, as its documentation
    advises: .4 to 1.9 dB more than channel by channel (crops of 96 x 96, sigma 3 to 25).
    """
    sigma = check(x, sigma)
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

    # A threshold divided by a tiny coefficient is infinite, as it should be. (A filter of warnings
    # would be common to all threads.)
    with np.errstate(over="ignore"):
        return tensor(np.stack([sum(spun(image)) / 16 for image in array(x)]), x)


def bilateral(x: Tensor, sigma: float, *, distance: float = 1.25, reach: int = 3) -> Tensor:
    """Bilateral filter (Tomasi and Manduchi 1998): a mean of pixels near in place and in value.

    Weights exp(-d^2 / (2 distance^2) - (x_i - x_j)^2 / (2 (3 sigma)^2)) over 7 x 7 pixels of each
    channel, mirrored at the border; two noisy pixels of one colour differ by sqrt(2) sigma. Written
    in torch, because in scikit-image 0.26 the neighbours weigh more than the pixel itself (up to
    9.4 times, where the formula says .73), which costs 3 to 6 dB with these parameters.
    """
    sigma = check(x, sigma)
    if sigma == 0:  # nothing to remove
        return x.detach().clone()
    x = x.detach()
    rows, columns = x.shape[2:]
    wide = mirrored(mirrored(x, 2, reach), 3, reach)
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

    It does not use `sigma`, and so changes an image even at 0.
    """
    check(x, sigma)
    x = x.detach()
    wide = mirrored(mirrored(x, 2, 1), 3, 1)
    windows = wide.unfold(2, 3, 1).unfold(3, 3, 1)  # (N, C, H, W, 3, 3)
    return windows.flatten(-2).median(-1).values
