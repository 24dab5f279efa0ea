"""Crops of both sides, and bicubic means of whole sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepred import datasets, experiments, metrics, resize


def picture(channels=3, height=24, width=36):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, channels, height, width), generator=generator) / 255


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (11, 13, slice(1, 9), slice(0, 12)),  # remainders 3 and 1: the odd pixel goes below, right
        (14, 12, slice(1, 13), slice(0, 12)),  # 2 and 0
        (8, 15, slice(0, 8), slice(1, 13)),  # 0 and 3
    ],
)
def test_both_sides_are_cropped_about_the_middle(height, width, rows, columns):
    x = picture(3, height, width)
    assert torch.equal(resize.centre_crop(x, 4), x[..., rows, columns])
    assert torch.equal(resize.centre_crop(x, 1), x)


def test_resizing_clips_and_keeps_the_type():
    """BICUBIC overshoots at edges: 8 bits clip it, and what was outside before."""
    step = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    step[..., 4:] = 1.5
    large = resize.bicubic(step, 4)
    assert large.dtype == torch.float64 and large.shape == (1, 1, 32, 32)
    assert large.min() == 0 and large.max() == 1
    # to_tensor divides in float32, exact to 6e-8
    torch.testing.assert_close(large * 255, torch.round(large * 255), rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("dataset", "names", "factor", "expected"),
    [
        ("set5", experiments.SET5, 4, 28.70),
        ("set5", experiments.SET5, 8, 24.57),
        ("set14", experiments.SET14, 4, 26.16),
        ("set14", experiments.SET14, 8, 23.14),
    ],
    ids=str,
)
def test_bicubic_means_of_the_sets(paper_images, dataset, names, factor, expected):
    each = []
    for name in names:
        x = resize.centre_crop(datasets.load(dataset, name).image, factor)
        each.append(metrics.psnr_y(resize.bicubic(resize.shrink(x, factor), factor), x))
    # all integers but for the mean: other versions of Pillow may round a pixel otherwise
    assert np.mean(each) == pytest.approx(expected, abs=0.01)
