"""Image quality against the ground truth. The solver never calls these; callbacks do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from .errors import InputError
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


def shares(
    image: Tensor, picture: Tensor, noise: Tensor, edges: Sequence[float]
) -> list[tuple[float, float]]:
    """How much of a picture and of the noise on it an image holds, in bands of frequency.

    In each band the image is a picture + b noise + a rest that is orthogonal to both: (a, b), by
    least squares over the Fourier coefficients of all channels. A perfect restoration has (1, 0)
    everywhere, the measurement picture + noise (1, 1), an image without the band (0, 0).

    Parameters
    ----------
    image, picture, noise : (N, C, H, W), of one shape. The shares of an image that is not finite
        are NaN.
    edges : ascending bounds of the bands, in cycles per pixel: .5 is the highest along a side, .71
        along a diagonal. A band includes its lower bound.

    Raises
    ------
    InputError
        If there are fewer than two edges, they do not ascend, the shapes differ, or picture and
        noise are linearly dependent in a band, or 0.
    """
    edges = [float(edge) for edge in edges]
    if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
        raise InputError(f"edges must be two or more ascending numbers, got {edges}")
    if not image.shape == picture.shape == noise.shape:
        told = ", ".join(str(tuple(t.shape)) for t in (image, picture, noise))
        raise InputError(f"image, picture and noise must be of one shape, got {told}")
    if not torch.isfinite(image).all():
        return [(math.nan, math.nan)] * (len(edges) - 1)
    spectra = [torch.fft.fft2(t.detach().cpu().double()) for t in (picture, noise, image)]
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in image.shape[2:])
    frequency = (rows[:, None].square() + columns.square()).sqrt()
    found = []
    for low, high in pairwise(edges):
        inside = (frequency >= low) & (frequency < high)
        parts = [torch.view_as_real(s[..., inside]).flatten() for s in spectra]
        basis = torch.stack(parts[:2], dim=1)
        gram = basis.T @ basis
        if torch.linalg.det(gram) <= 1e-12 * gram.diagonal().prod():
            band = f"the band from {low:g} to {high:g} cycles per pixel"
            raise InputError(f"picture and noise are dependent in {band}")
        a, b = torch.linalg.solve(gram, basis.T @ parts[2]).tolist()
        found.append((a, b))
    return found


def _mse(image: Tensor, truth: Tensor) -> float:
    return torch.mean((image.detach().double() - truth.detach().double()) ** 2).item()


def _luma(image: Tensor) -> Tensor:
    rgb = torch.round(image.detach().double().clamp(0, 1) * 255)
    weights = rgb.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return torch.round((rgb * weights).sum(1, keepdim=True) / 255 + 16) / 255
