"""The noise of a measurement: its level where that is not known, and what clipping leaves of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from skimage.restoration import estimate_sigma
from torch import Tensor

from .errors import InputError


def noise_level(y: Tensor) -> float:
    """The standard deviation of the noise in an image (1, C, H, W), in image units.

    scikit-image's estimate from the finest wavelet coefficients (Donoho and Johnstone 1994), mean
    over the channels. Clipping makes it low in dark or bright images.

    Raises
    ------
    InputError
        If it finds none.
    """
    with warnings.catch_warnings():  # of an image without detail, scikit-image takes an empty mean
        warnings.simplefilter("ignore", RuntimeWarning)
        sigma = estimate_sigma(y[0].detach().cpu().numpy(), channel_axis=0, average_sigmas=True)
    if not sigma > 1e-6:  # of a flat image rounding is left, 1e-16 or so
        raise InputError("no noise found in the image: give its level with sigma")
    return float(sigma)


def perturbed(z: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """z + scale n, n standard normal from `generator`: the fresh noise on the network's input."""
    n = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    return z + scale * n


def clipped_variance(sigma: float, like: Tensor, points: int = 1025) -> Callable[[Tensor], Tensor]:
    """The variance of clip(x + sigma n, 0, 1), n standard normal, as a function of its mean.

    A network fitted to clipped measurements tends to their mean, not to x: near black the mean of
    clip(sigma n) is .4 sigma and the variance a third of sigma^2. Means beyond those of black and
    white count as black and white. By table, linear between `points` values of x; a plain
    interpolation on the device of `like`.
    """
    x = torch.linspace(0, 1, points, dtype=torch.float64)
    a, b = -x / sigma, (1 - x) / sigma  # the noise is clipped to 0 where n < a, to 1 where n > b
    below, above = torch.special.ndtr(a), torch.special.ndtr(-b)
    density_a, density_b = (torch.exp(-0.5 * t * t) / math.sqrt(2 * math.pi) for t in (a, b))
    inside = 1 - below - above
    mean = x * inside + sigma * (density_a - density_b) + above
    square = (
        x**2 * inside
        + 2 * x * sigma * (density_a - density_b)
        + sigma**2 * (inside + a * density_a - b * density_b)
        + above
    )
    mean, variance = mean.to(like), (square - mean**2).to(like)

    def variance_at(m: Tensor) -> Tensor:
        right = torch.searchsorted(mean, m.contiguous()).clamp(1, points - 1)
        left = right - 1
        share = ((m - mean[left]) / (mean[right] - mean[left])).clamp(0, 1)
        return torch.lerp(variance[left], variance[right], share)

    return variance_at
