"""Shares of a picture and of noise by frequency, against mixtures whose shares are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepred.beyond import frequency
from deepred.errors import InputError

EDGES = (0, 0.0625, 0.125, 0.25, 0.75)


def _picture_and_noise(channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, channels, 20, 17, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
def test_shares_of_a_mixture_are_its_coefficients(channels):
    picture, noise = _picture_and_noise(channels)
    found = frequency.shares(0.7 * picture - 0.2 * noise, picture, noise, EDGES)
    assert len(found) == 4
    # Least squares in float64, of well conditioned columns.
    np.testing.assert_allclose(found, [(0.7, -0.2)] * 4, atol=1e-12)


def test_shares_of_a_band_are_of_that_band_alone():
    picture, noise = _picture_and_noise()
    frequency = torch.fft.fftfreq(20)[:, None] ** 2 + torch.fft.fftfreq(17) ** 2
    low = torch.fft.ifft2(torch.fft.fft2(picture + noise) * (frequency < 0.125**2)).real
    found = frequency.shares(low, picture, noise, EDGES)
    np.testing.assert_allclose(found, [(1, 1), (1, 1), (0, 0), (0, 0)], atol=1e-12)


def test_shares_leave_a_rest_that_neither_explains():
    picture, noise = _picture_and_noise()
    picture[:, 2] = noise[:, 2] = 0
    image = 0.4 * picture + 0.1 * noise
    image[:, 2] = torch.rand(20, 17)
    np.testing.assert_allclose(
        frequency.shares(image, picture, noise, EDGES), [(0.4, 0.1)] * 4, atol=1e-12
    )


@pytest.mark.parametrize("edges", [(), (0.1,), (0.2, 0.1), (0.1, 0.1)])
def test_shares_need_ascending_edges(edges):
    picture, noise = _picture_and_noise()
    with pytest.raises(InputError, match="ascending"):
        frequency.shares(picture, picture, noise, edges)


def test_shares_of_what_is_not_finite_are_nan():
    picture, noise = _picture_and_noise()
    broken = picture.clone()
    broken[0, 0, 3, 4] = math.nan
    assert np.isnan(frequency.shares(broken, picture, noise, EDGES)).all()


def test_shares_are_of_images_of_one_shape():
    picture, noise = _picture_and_noise()
    with pytest.raises(InputError, match="of one shape"):
        frequency.shares(picture[..., 1:], picture, noise, EDGES)


def test_shares_need_a_picture_and_a_noise():
    picture, noise = _picture_and_noise()
    for other in (torch.zeros_like(picture), -2 * picture):
        with pytest.raises(InputError, match="are dependent"):
            frequency.shares(noise, picture, other, EDGES)
