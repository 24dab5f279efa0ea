"""Image quality against the ground truth. The solver never calls these; callbacks do."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from .solver import State


def psnr(image: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all channels, data range 1: 10 log10(1 / MSE)."""
    return -10 * math.log10(_mse(image, truth) or math.ulp(0.0))


def snr(image: Tensor, truth: Tensor) -> float:
    """Signal-to-noise ratio in dB, 20 log10(||truth|| / ||image - truth||), as Liu et al. 2018."""
    power = torch.mean(truth.double() ** 2).item() or math.ulp(0.0)
    # The logarithm of the quotient would be infinite for identical images.
    return 10 * (math.log10(power) - math.log10(_mse(image, truth) or math.ulp(0.0)))


def psnr_y(image: Tensor, truth: Tensor) -> float:
    """PSNR in dB of the luminance, the paper's metric for super-resolution and deblurring.

    Clip, quantise to 8 bits, Y = round((65.481 R + 128.553 G + 24.966 B) / 255 + 16) / 255, data
    range 1, full frame. (N, 3, H, W) images.
    """
    return psnr(_luma(image), _luma(truth))


def ssim(image: Tensor, truth: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), scikit-image's defaults, mean over channels."""
    a, b = (t.detach().cpu().double().numpy()[0] for t in (image, truth))
    return float(structural_similarity(a, b, channel_axis=0, data_range=1.0))


def all_of(image: Tensor, truth: Tensor) -> dict[str, float]:
    """Every metric of this module by name; PSNR-Y where there is colour."""
    found = {"psnr": psnr(image, truth), "snr": snr(image, truth), "ssim": ssim(image, truth)}
    return found | ({"psnr_y": psnr_y(image, truth)} if truth.shape[1] == 3 else {})


def tracker(
    truth: Tensor,
    every: int = 10,
    last: int = 0,
    metric: Callable[[Tensor, Tensor], float] = psnr,
) -> Callable[[State], dict[str, float] | None]:
    """A callback for `deepred.restore`: PSNR of the estimate, x and T(z) every `every` iterations.

    And after the first and after iteration `last`, so that curves are complete. `metric` may be
    `psnr_y` instead. The columns are ``psnr``, ``psnr_x`` and ``psnr_output``.
    """

    def measure(state: State) -> dict[str, float] | None:
        if state.k % every and state.k not in (1, last):
            return None
        images = {"psnr": state.estimate, "psnr_x": state.x, "psnr_output": state.output}
        return {name: metric(image.cpu(), truth) for name, image in images.items()}

    return measure


def _mse(image: Tensor, truth: Tensor) -> float:
    return torch.mean((image.detach().double() - truth.detach().double()) ** 2).item()


def _luma(image: Tensor) -> Tensor:
    rgb = torch.round(image.detach().double().clamp(0, 1) * 255)
    weights = rgb.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return torch.round((rgb * weights).sum(1, keepdim=True) / 255 + 16) / 255
