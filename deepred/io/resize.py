"""Resizing as the paper's super-resolution experiments did it, with Pillow.

The low-resolution image is made by Pillow's LANCZOS filter and kept in 8 bits, as DIP's code does:
not quite the operator that the solver assumes (`operators.Downsample`), which is the paper's own
mismatch. Pillow's BICUBIC is the baseline of Figure 2.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from .images import to_array, to_tensor


def centre_crop(image: Tensor, factor: int) -> Tensor:
    """The largest middle part of an image (1, C, H, W) whose sides `factor` divides."""
    height, width = (side - side % factor for side in image.shape[2:])
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[..., top : top + height, left : left + width]


def shrink(image: Tensor, factor: int) -> Tensor:
    """An image (1, C, H, W) made `factor` times smaller by Pillow's LANCZOS, in 8 bits."""
    return _resized(image, image.shape[3] // factor, image.shape[2] // factor, Image.LANCZOS)


def bicubic(image: Tensor, factor: int) -> Tensor:
    """An image (1, C, H, W) made `factor` times larger by Pillow's BICUBIC, in 8 bits."""
    return _resized(image, image.shape[3] * factor, image.shape[2] * factor, Image.BICUBIC)


def _resized(image: Tensor, width: int, height: int, how: int) -> Tensor:
    array = to_array(image)
    planes = [
        Image.fromarray(plane).resize((width, height), how) for plane in array.transpose(2, 0, 1)
    ]
    return to_tensor(np.stack([np.asarray(plane) for plane in planes], axis=2)).to(image)
