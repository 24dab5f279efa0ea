"""How much of a picture, and of the noise on it, an image holds at each frequency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import InputError


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
