"""The metrics against scikit-image and against formulas written on their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from deepred import metrics
from deepred.errors import InputError
from deepred.solver import State

# Sums over a few thousand float64 numbers in another order.
CLOSE = dict(rel=1e-12)


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def pair(request) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and one near it, (1, C, 33, 47), the second beyond [0, 1] here and there."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, request.param, 33, 47, generator=generator)
    return truth + 0.1 * torch.randn(truth.shape, generator=generator), truth


def arrays(pair) -> list[np.ndarray]:
    return [t[0].permute(1, 2, 0).double().numpy() for t in pair]


def test_psnr_is_scikit_images(pair):
    image, truth = arrays(pair)
    expected = peak_signal_noise_ratio(truth, image, data_range=1)
    assert metrics.psnr(*pair) == pytest.approx(expected, **CLOSE)


def test_ssim_is_scikit_images_mean_over_channels(pair):
    image, truth = arrays(pair)
    each = [
        structural_similarity(truth[..., c], image[..., c], data_range=1)
        for c in range(truth.shape[-1])
    ]
    assert metrics.ssim(*pair) == pytest.approx(np.mean(each), **CLOSE)
    assert metrics.ssim(pair[1], pair[1]) == pytest.approx(1, **CLOSE)


def test_psnr_of_a_constant_difference_is_known():
    truth = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)
    assert metrics.psnr(truth + 0.1, truth) == pytest.approx(20, **CLOSE)
    assert metrics.snr(truth + 0.05, truth) == pytest.approx(20, **CLOSE)


def test_snr_is_its_formula(pair):
    image, truth = arrays(pair)
    expected = 20 * np.log10(np.linalg.norm(truth) / np.linalg.norm(image - truth))
    assert metrics.snr(*pair) == pytest.approx(expected, **CLOSE)


def luminance(array: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 in 8 bits, 16 to 235, of an array (H, W, 3), as MATLAB's rgb2ycbcr has it."""
    red, green, blue = (np.round(255 * np.clip(array[..., c], 0, 1)) for c in range(3))
    return np.round(16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255)


def test_psnr_y_is_that_of_8_bit_luminance():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 3, 33, 47, generator=generator)
    image = truth + 0.1 * torch.randn(truth.shape, generator=generator)
    a, b = (luminance(array) for array in arrays((image, truth)))
    expected = 20 * np.log10(255 / np.sqrt(np.mean((a - b) ** 2)))
    assert metrics.psnr_y(image, truth) == pytest.approx(expected, **CLOSE)


def test_psnr_y_knows_the_luminance_of_colours():
    """Black is 16, white 235; red, green and blue as BT.601 has them, rounded."""
    colours = {(0, 0, 0): 16, (1, 1, 1): 235, (1, 0, 0): 81, (0, 1, 0): 145, (0, 0, 1): 41}
    black = torch.zeros(1, 3, 16, 16)
    for colour, luma in colours.items():
        image = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 16, 16)
        if luma > 16:
            expected = 20 * math.log10(255 / (luma - 16))
            assert metrics.psnr_y(image, black) == pytest.approx(expected, **CLOSE)


def test_psnr_y_is_blind_to_less_than_half_a_grey_level():
    truth = torch.full((1, 3, 16, 16), 100 / 255)
    assert metrics.psnr_y(truth + 0.4 / 255, truth) > 1000
    assert metrics.psnr_y(truth + 0.6 / 255, truth) < 60


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.psnr_y, metrics.snr])
def test_identical_images_give_a_huge_finite_number(metric):
    image = torch.rand(1, 3, 16, 16)
    assert 1000 < metric(image, image) < math.inf


def test_snr_of_a_black_truth_is_a_number():
    black = torch.zeros(1, 3, 16, 16)
    assert -math.inf < metrics.snr(black + 1, black) < -1000
    assert metrics.snr(black, black) == 0


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.snr, metrics.psnr_y, metrics.ssim])
def test_metrics_take_what_a_solver_has_and_leave_it(metric):
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    truth = torch.rand(1, 3, 16, 16)
    before = image.detach().clone()
    assert isinstance(metric(image, truth), float)
    assert torch.equal(image, before)
    # float32 images are measured in float64: no difference but that of their own rounding
    assert metric(image.double(), truth.double()) == metric(image, truth)


def test_the_tracker_measures_at_the_first_and_every_tenth_iteration():
    truth = torch.rand(1, 3, 16, 16)
    track = metrics.tracker(truth)
    images = {"estimate": truth + 0.1, "x": truth + 0.01, "output": truth + 0.001}
    measured = {}
    for k in range(1, 31):
        state = State(k=k, u=truth, fx=truth, terms={}, seconds=0.0, **images)
        measured[k] = track(state)
    assert [k for k, values in measured.items() if values] == [1, 10, 20, 30]
    # the images are float32: 1e-7 of an offset of .001, in dB
    expected = {"psnr": 20, "psnr_x": 40, "psnr_output": 60}
    assert measured[10] == pytest.approx(expected, abs=0.01)


EDGES = (0, 0.0625, 0.125, 0.25, 0.75)


def _picture_and_noise(channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, channels, 20, 17, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
def test_shares_of_a_mixture_are_its_coefficients(channels):
    picture, noise = _picture_and_noise(channels)
    found = metrics.shares(0.7 * picture - 0.2 * noise, picture, noise, EDGES)
    assert len(found) == 4
    # Least squares in float64, of well conditioned columns.
    np.testing.assert_allclose(found, [(0.7, -0.2)] * 4, atol=1e-12)


def test_shares_of_a_band_are_of_that_band_alone():
    picture, noise = _picture_and_noise()
    frequency = torch.fft.fftfreq(20)[:, None] ** 2 + torch.fft.fftfreq(17) ** 2
    low = torch.fft.ifft2(torch.fft.fft2(picture + noise) * (frequency < 0.125**2)).real
    found = metrics.shares(low, picture, noise, EDGES)
    np.testing.assert_allclose(found, [(1, 1), (1, 1), (0, 0), (0, 0)], atol=1e-12)


def test_shares_leave_a_rest_that_neither_explains():
    picture, noise = _picture_and_noise()
    picture[:, 2] = noise[:, 2] = 0
    image = 0.4 * picture + 0.1 * noise
    image[:, 2] = torch.rand(20, 17)
    np.testing.assert_allclose(
        metrics.shares(image, picture, noise, EDGES), [(0.4, 0.1)] * 4, atol=1e-12
    )


@pytest.mark.parametrize("edges", [(), (0.1,), (0.2, 0.1), (0.1, 0.1)])
def test_shares_need_ascending_edges(edges):
    picture, noise = _picture_and_noise()
    with pytest.raises(InputError, match="ascending"):
        metrics.shares(picture, picture, noise, edges)


def test_shares_of_what_is_not_finite_are_nan():
    picture, noise = _picture_and_noise()
    broken = picture.clone()
    broken[0, 0, 3, 4] = math.nan
    assert np.isnan(metrics.shares(broken, picture, noise, EDGES)).all()


def test_shares_are_of_images_of_one_shape():
    picture, noise = _picture_and_noise()
    with pytest.raises(InputError, match="of one shape"):
        metrics.shares(picture[..., 1:], picture, noise, EDGES)


def test_shares_need_a_picture_and_a_noise():
    picture, noise = _picture_and_noise()
    for other in (torch.zeros_like(picture), -2 * picture):
        with pytest.raises(InputError, match="are dependent"):
            metrics.shares(noise, picture, other, EDGES)
