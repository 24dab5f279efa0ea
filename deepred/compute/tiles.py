"""A large image in overlapping tiles, which are blended so that no seam is seen."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles of a side of so many pixels begin: evenly, at least `overlap` in common.

    Raises
    ------
    InputError
        If the tiles are not more than twice as large as their overlap.
    """
    if tile >= side:
        return [0]
    if tile <= 2 * overlap:
        raise InputError(f"tiles that overlap by {overlap} need a side above {2 * overlap}")
    count = math.ceil((side - overlap) / (tile - overlap))
    return [round(i * (side - tile) / (count - 1)) for i in range(count)]


def boxes(height: int, width: int, tile: int, overlap: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each tile, row by row."""
    rows, columns = starts(height, tile, overlap), starts(width, tile, overlap)
    return [(slice(r, r + tile), slice(c, c + tile)) for r in rows for c in columns]


def tiled(
    y: Tensor, restore_tile: Callable[[Tensor], Tensor], scale: int, tile: int, overlap: int
) -> Tensor:
    """Restore a measurement tile by tile.

    Each tile has a weight that rises from its inner borders over `overlap` pixels as sin^2; the
    result is the weighted mean, so that the weights of a pixel sum to 1.

    Parameters
    ----------
    y : measurement (1, C, H, W).
    restore_tile : part of y (1, C, h, w) -> its restoration (1, C', scale h, scale w).
    scale : how many times larger the restoration's sides are.
    tile, overlap : side of the tiles, and what neighbours have in common, in pixels of y.

    Returns
    -------
    (1, C', scale H, scale W).

    Raises
    ------
    InputError
        If the tiles are not more than twice as large as their overlap.
    """
    height, width = y.shape[2:]
    total: Tensor | None = None
    weights = y.new_zeros(scale * height, scale * width)
    for box in boxes(height, width, tile, overlap):
        part = restore_tile(y[..., box[0], box[1]])
        weight = torch.outer(
            _ramps(box[0], height, scale, overlap), _ramps(box[1], width, scale, overlap)
        ).to(part)
        if total is None:
            total = part.new_zeros((1, part.shape[1], *weights.shape))
        larger = tuple(slice(scale * s.start, scale * s.stop) for s in box)
        total[(..., *larger)] += weight * part
        weights[larger] += weight
    return total / weights


def _ramps(place: slice, side: int, scale: int, overlap: int) -> Tensor:
    """Weights along one side of a tile, without a ramp where it ends at the image's border."""
    length, reach = scale * (min(place.stop, side) - place.start), scale * overlap
    at = torch.arange(length) + 0.5
    before = at if place.start > 0 else torch.full_like(at, reach)
    after = at.flip(0) if place.stop < side else torch.full_like(at, reach)
    ramp = torch.minimum(before, after).clamp(max=reach) / max(reach, 1)
    return torch.sin(ramp * math.pi / 2).square() if reach else torch.ones_like(at)
