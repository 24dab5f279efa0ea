"""The identity with missing rows: inpainting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, real, shown, whole
from .common import check


@dataclass(frozen=True)
class Inpaint:
    """The identity with missing rows: inpainting (Section 2.1). Missing pixels measure as 0.

    Seen pixels stay in their places, so that y is an image; H is a projection, its own adjoint.
    Make one with `Inpaint.of`, `Inpaint.random` or `deepred.io.kernels.read_mask`.

    Parameters
    ----------
    bits : the mask, one bit a pixel, packed by rows (numpy.packbits); 1 where a pixel is seen.
    shape : (C, H, W) of the mask, C = 1 for one that all channels share.

    Raises
    ------
    InputError
        If nothing is seen, or the mask does not fit an image that it is applied to.
    """

    task: ClassVar = "inpaint"
    keeps_range: ClassVar = True

    bits: bytes
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not isinstance(self.bits, bytes) or len(self.bits) != -(-int(np.prod(self.shape)) // 8):
            raise InputError("a mask's bits must be those of its shape: make one with Inpaint.of")
        if not any(self.bits):
            raise InputError("a mask must leave something to see: all of it is 0")

    @classmethod
    def of(cls, mask: np.ndarray | Tensor) -> Inpaint:
        """With the mask of an array (H, W) or (C, H, W), 1 or True where a pixel is seen.

        InputError if it has other shapes or values, or nothing is seen.
        """
        try:
            mask = np.asarray(mask.detach().cpu() if isinstance(mask, Tensor) else mask)
        except (ValueError, TypeError, RuntimeError):  # rows of several lengths, no values
            mask = np.zeros(0)
        if mask.ndim not in (2, 3) or not np.isin(mask, (0, 1)).all():
            raise InputError("a mask must be an array (H, W) or (C, H, W) of zeros and ones")
        mask = mask[None] if mask.ndim == 2 else mask
        return cls(np.packbits(mask.astype(bool)).tobytes(), tuple(mask.shape))

    @classmethod
    def random(cls, shape: tuple[int, ...], seen: float, seed: int = 0) -> Inpaint:
        """Each pixel seen with probability `seen` in (0, 1], drawn from `seed`.

        A shape (H, W) makes one draw for all channels, (C, H, W) one for each. InputError if
        `seen` is outside its range, or the shape or the seed are none.
        """
        share = real(seen)
        if not isinstance(shape, tuple | list):
            raise InputError(f"a mask's shape must be (H, W) or (C, H, W), got {shown(shape)}")
        if not 0 < share <= 1:
            raise InputError(f"the share of seen pixels must be in (0, 1], got {shown(seen)}")
        shape = tuple(whole("a side of the mask", side) for side in shape)
        return cls.of(np.random.default_rng(whole("seed", seed, 0)).random(shape) < share)

    @property
    def holes(self) -> Inpaint:
        return self

    @property
    def seen(self) -> float:
        """The share of pixels that are seen."""
        return float(_mask(self.bits, self.shape, torch.float64, torch.device("cpu")).mean())

    def doubt(self, y: Tensor) -> str | None:
        """A sentence if next to nothing is seen, as through an inverted mask."""
        if self.seen >= 0.05:
            return None
        return (
            f"the mask keeps {100 * self.seen:.2g} % of the pixels: invert it if it marks what is "
            "missing; 1 (white) is a pixel that is seen"
        )

    def mask(self, like: Tensor) -> Tensor:
        """The mask (1, C or 1, H, W) in the precision and on the device of an image."""
        check(like)
        channels, height, width = self.shape
        if like.shape[2:] != (height, width) or channels not in (1, like.shape[1]):
            raise InputError(
                f"a mask of {width}x{height} with {channels} channel(s) does not fit an image of "
                f"{like.shape[3]}x{like.shape[2]} with {like.shape[1]}"
            )
        return _mask(self.bits, self.shape, like.dtype, like.device)

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.mask(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)


@lru_cache(maxsize=16)  # each as large as an image
@torch.inference_mode(False)  # what is cached must serve a later fit
def _mask(bits: bytes, shape: tuple[int, int, int], dtype, device) -> Tensor:
    """The mask of `Inpaint`, (1, C, H, W)."""
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=int(np.prod(shape)))
    return torch.from_numpy(mask.reshape(1, *shape)).to(device, dtype)
