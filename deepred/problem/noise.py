"""An estimate of the noise level of a measurement."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.fft import dctn  # scikit-image brings SciPy
from torch import Tensor

from ..errors import InputError

SIDE, FEW = 16, 8  # of the blocks: pixels a side, and the fewest that give a level
NONE = "no noise found in the image: give its level with sigma"


class NoiseLevel(NamedTuple):
    """An estimate in image units. If it is uncertain, `why` gives the reason, and the true level is
    likely between `low` and `high`; else `why` is empty and both are sigma."""

    sigma: float
    low: float
    high: float
    why: str

    def told(self, option: str = "sigma") -> str:
        """For a message, of 255; `option` is the argument by which the level can be given."""
        text = f"sigma = {255 * self.sigma:.1f} of 255"
        if not self.why:
            return text
        low, high = (
            f"{x:.1f}" if x < 10 else f"{x:.0f}" for x in (255 * self.low, 255 * self.high)
        )
        known = f"between {low} and {high}; give {option} if you know it"
        return f"{text} (uncertain: {self.why}; {known})"


def estimate(y: Tensor) -> NoiseLevel:
    """The standard deviation of the noise in an image (1, C, H, W), in image units.

    For a file that was compressed or resized this is the deviation from the same file without
    noise; for clipped noise, that before clipping. Measured in the quietest blocks of the image,
    separately for each octave of frequencies, after Ponomarenko et al. (2007; Colom and Buades,
    IPOL 2013): in blocks whose other frequencies are weak, since a picture's content fills many
    octaves at one place, while noise is independent between octaves. If the two finest octaves have
    noise of equal strength, it is taken as white; if the finest is weaker (JPEG, enlarging), the
    octaves are summed.

    Raises
    ------
    InputError
        If it finds none, or y is smaller than a block.
    """
    if y.ndim != 4 or min(y.shape[2:]) < SIDE:
        raise InputError(
            f"no noise level can be told from {tuple(y.shape)}, less than {SIDE}x{SIDE} pixels: "
            "give it with sigma"
        )
    planes = y[0].detach().cpu().numpy().astype(np.float32)
    if planes.min() == planes.max():
        raise InputError(NONE)
    octaves, counts, many = _quiet_octaves(planes)
    # A coefficient's variance in each combination of the channels. The lowest frequencies, mostly
    # content, are given that of the octave above.
    level = (octaves @ counts + octaves[:, -1] * (SIDE**2 - counts.sum())) / SIDE**2
    white = octaves[:, 1] <= 1.2**2 * octaves[:, 0]
    level = np.where(white, octaves[:, 0], level)
    others, why = [level.min()], ""  # other possible levels
    if _jpeg(planes):
        others = [level.mean()]
        # Quantisation removed from flat blocks all noise below half a step, but not elsewhere. The
        # second octave, with finer steps, shows what was there; in the colours half is gone.
        level[0] = max(level[0], octaves[0, 1])
        variance, why = level.mean(), "the file was a JPEG, which lost a part of its noise"
    elif octaves[:, 0].max() > 16 * octaves[:, 0].min():
        # Grey noise if it is white; else more likely content, or smoothed colours.
        variance, why = level.mean(), "the colours have much less noise than the brightness"
        if not white[0]:
            variance, others = level.min(), [level.mean()]
    else:  # the same noise in all combinations: measured in that with the least content
        least = level.argmin()
        variance = level[least]
        if not white[least]:
            why = "the noise is weaker at the finest scale, as in an enlarged picture"
            others += [octaves[0, 0]] if len(level) == 1 else []  # content, if there is no colour
        elif level.mean() > 2 * variance:
            why, others = "there is little flat area", [level.mean()]
    if many < FEW:
        why = why or f"fewer than {FEW} blocks of {SIDE}x{SIDE} pixels are free of clipping"
    sigma = math.sqrt(variance)
    if not sigma > 1e-6:  # rounding, in flat areas
        raise InputError(NONE)
    if not why:
        return NoiseLevel(sigma, sigma, sigma, why)
    # Margins that hold for nine in ten of 27 photographs with noise of 20, as JPEG or resized.
    low, high = (math.sqrt(pick(variance, *others)) for pick in (min, max))
    return NoiseLevel(sigma, 0.8 * low, 1.3 * high, why)


def _blocks(planes: np.ndarray, side: int, step: int) -> np.ndarray:
    """The square blocks of (C, H, W) every `step` pixels: (blocks, C, side, side)."""
    windows = np.lib.stride_tricks.sliding_window_view(planes, (side, side), (1, 2))
    return np.moveaxis(windows[:, ::step, ::step], 0, 2).reshape(-1, len(planes), side, side)


def _quiet_octaves(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The variance of a DCT coefficient in quiet blocks, (C, 3), octaves from fine to coarse.

    C counts the combinations of the channels by a DCT over them: first brightness, then differences
    of colour. Also returns the number of coefficients in each octave, and of blocks without
    clipping.
    """
    step = SIDE // 2 * math.ceil(math.sqrt(planes.size / 3) / 1024)  # at most about 16,000 blocks
    blocks = _blocks(planes, SIDE, step)
    black, white = planes.min(), planes.max()  # white is not 1 for 12 bits in 16
    clipped = ((blocks == black) | (blocks == white)).mean((1, 2, 3))
    mean = (blocks.mean((1, 2, 3)) - black) / (white - black)
    # Resizing and JPEG hide clipping, but leave it within about 6 % of black and white.
    spoilt = clipped + ((mean < 0.06) | (mean > 0.94))
    few = min(len(blocks), FEW)
    kept = spoilt <= max(0.05, np.partition(spoilt, few - 1)[few - 1])
    kept &= clipped < 0.6  # half of the noise on black; more is a picture in black and white
    if not kept.any():
        raise InputError(NONE)
    # Clipping a share s of normal noise on one side leaves 1 - 1.6 s of its variance.
    whole = 1 - 1.6 * clipped[kept].clip(0, 0.5)
    energy = dctn(blocks[kept], axes=(1, 2, 3), norm="ortho") ** 2 / whole[:, None, None, None]
    index = np.maximum.outer(np.arange(SIDE), np.arange(SIDE))
    bands = [(index >= low) & (index < 2 * low) for low in (SIDE // 2, SIDE // 4, SIDE // 8)]
    counts = np.array([band.sum() for band in bands])
    energy = np.stack([energy[:, :, band].sum(2) for band in bands], 2)  # blocks, C, octaves
    rest = energy.sum((1, 2), keepdims=True) - energy
    few = min(len(energy), max(FEW, int(0.03 * len(energy))))
    quiet = np.argpartition(rest, few - 1, axis=0)[:few]
    median = np.median(np.take_along_axis(energy, quiet, 0), 0)
    chi2 = counts * (1 - 2 / (9 * counts)) ** 3  # the median of chi^2 (Wilson and Hilferty 1931)
    return median / chi2, counts, int((spoilt <= 0.05).sum())


def _jpeg(planes: np.ndarray) -> bool:
    """Whether the fine 8x8 DCT coefficients of brightness have many more zeros on JPEG's grid than
    off it; after rounding to 8 bits a zero is below .5 of 255."""
    weights = (0.299, 0.587, 0.114) if len(planes) == 3 else (1 / len(planes),) * len(planes)
    brightness = np.tensordot(np.float32(weights), planes, 1)[None]
    fine = np.add.outer(np.arange(8), np.arange(8)) >= 6

    def zeros(start: int) -> float:
        blocks = _blocks(brightness[:, start:, start:], 8, 8)
        return (np.abs(dctn(blocks, axes=(2, 3), norm="ortho")[..., fine]) < 0.5 / 255).mean()

    return bool(zeros(0) > 1.35 * (zeros(4) + 0.01))
