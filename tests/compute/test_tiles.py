"""Tiles: what they make of parts is the whole again, and nobody sees where they meet."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

from deepred.compute.tiles import boxes, starts, tiled
from deepred.denoisers import nlm
from deepred.errors import InputError
from deepred.io.images import to_tensor


@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (65, 32), (40, 0), (97, 8), (130, 32)])
@pytest.mark.parametrize("scale", [1, 4])
def test_parts_make_the_whole(tile, overlap, scale):
    """Sides that nothing divides; the weights of a pixel sum to 1."""
    y = torch.rand(1, 3, 131, 97, generator=torch.Generator().manual_seed(0))

    def enlarge(part):
        return part.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    # a weighted mean of up to four equal float32 numbers: a few roundings of 6e-8
    assert (tiled(y, enlarge, scale, tile, overlap) - enlarge(y)).abs().max() < 1e-6
    ones = tiled(y, lambda part: torch.ones_like(enlarge(part))[:, :1], scale, tile, overlap)
    assert (ones - 1).abs().max() < 1e-6
    assert torch.equal(tiled(y, enlarge, scale, 131, overlap), enlarge(y))  # one tile


@pytest.mark.parametrize("side", range(60, 200, 7))
def test_tiles_cover_a_side_and_overlap(side):
    places = starts(side, 60, 16)
    assert places[0] == 0 and places[-1] + 60 == max(side, 60)
    assert all(0 < b - a <= 60 - 16 for a, b in pairwise(places))


def test_tiles_that_are_all_overlap_are_refused():
    with pytest.raises(InputError, match="need a side above 64"):
        boxes(500, 500, 64, 32)


def test_an_operator_with_context_is_nearly_that_of_the_whole():
    """A blur reaches 12 pixels: nearer to its border a tile is wrong, and has little weight."""
    y = torch.rand(1, 1, 200, 180, generator=torch.Generator().manual_seed(1))

    def blur(x):
        return F.avg_pool2d(F.pad(x, (12, 12, 12, 12), mode="replicate"), 25, 1)

    whole = blur(y)
    error = (tiled(y, blur, 1, 150, 64) - whole).abs().max()
    alone = (blur(y[..., :150, :150]) - whole[..., :150, :150]).abs().max()
    # two sides of a pixel, each with a share of at most sin^2(12 / 64 pi / 2) of a wrong value
    assert error <= 2 * math.sin(12 / 64 * math.pi / 2) ** 2 * alone
    assert alone > 0.01


def test_no_seam_is_seen():
    """The mean |gradient| over the lines where tiles begin and end, beside that of the others."""
    x = to_tensor(skimage.data.astronaut()[:150, 100:250])
    y = x + 25 / 255 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    result = tiled(y, lambda part: nlm(part, 25 / 255), 1, 80, 32)
    whole = nlm(y, 25 / 255)
    for axis in (2, 3):
        places = starts(150, 80, 32)
        lines = [at - 1 for start in places for at in (start, start + 80) if 0 < at < 150]
        off = np.setdiff1d(np.arange(149), lines)

        def seams(image, axis=axis, lines=lines, off=off):
            gradient = image.diff(dim=axis).abs().mean((0, 1, 5 - axis)).numpy()
            return gradient[lines].mean() / gradient[off].mean()

        # Three to five lines of 150 pixels, the ratio in the whole image's own: it varies by what
        # the picture has there. A step of 1 of 255 at each line would add a third to it.
        assert seams(result) < 1.1 * seams(whole)
