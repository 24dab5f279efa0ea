"""Resizing as the paper did it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from deepred import datasets, metrics, resize
from deepred.images import to_array


def picture(channels=3, height=24, width=36):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, channels, height, width), generator=generator) / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_what_pillow_does(channels):
    x = picture(channels)
    array = to_array(x)
    whole = Image.fromarray(array if channels == 3 else array[..., 0])
    small = np.asarray(whole.resize((9, 6), Image.LANCZOS)).reshape(6, 9, channels)
    large = np.asarray(whole.resize((72, 48), Image.BICUBIC)).reshape(48, 72, channels)
    assert np.array_equal(to_array(resize.shrink(x, 4)), small)
    assert np.array_equal(to_array(resize.bicubic(x, 2)), large)
    shrunk = resize.shrink(x, 4)
    assert torch.equal(shrunk, torch.round(shrunk * 255) / 255)  # 8 bits


@pytest.mark.parametrize(("side", "top"), [(12, 0), (13, 0), (14, 1), (15, 1)])
def test_the_middle_is_kept(side, top):
    x = picture(1, side, 16)
    assert torch.equal(resize.centre_crop(x, 4), x[..., top : top + 12, :])


def bicubic(dataset, name, factor):
    x = resize.centre_crop(datasets.load(dataset, name).image, factor)
    return metrics.psnr_y(resize.bicubic(resize.shrink(x, factor), factor), x)


def test_bicubic_is_the_papers(paper_images):
    # Figure 2 prints two decimals, and there is no noise: only rounding is allowed.
    assert bicubic("set14", "flowers", 4) == pytest.approx(25.82, abs=0.0051)
    assert bicubic("set14", "zebra", 4) == pytest.approx(24.61, abs=0.0051)
