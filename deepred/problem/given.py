"""What `restore` takes as y, as a tensor, and the way back: arrays, image files, tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

SCALES = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}  # white


def taken(y: object) -> tuple[object, Callable[[Tensor], object]]:
    """y as a tensor (1, C, H, W), and what makes of an image the kind of thing that y was.

    An array (H, W), (H, W, 1) or (H, W, 3) of 8 or 16 bits or of floats, white at the largest
    integer or at 1; the file of an image, which stands for its array. Anything else is returned as
    it is.

    Raises
    ------
    InputError
        If an array has another shape or type, or a file cannot be read.
    """
    share = 1.0  # of the integers' range that is white: 12 bits may be kept in 16
    if isinstance(y, str | Path):
        from ..io import images  # the one place where the solver's side reads image files

        picture = images.read(y)
        y, share = images.to_array(picture.image, picture.bits, picture.white), picture.white
        y = y[..., 0] if y.shape[2] == 1 else y
    if not isinstance(y, np.ndarray):
        return y, lambda image: image
    white = SCALES.get(y.dtype.name)
    channels = y.shape[2] if y.ndim == 3 else 1
    if white is None or y.ndim not in (2, 3) or channels not in (1, 3) or not y.size:
        raise InputError(
            "an array y must be (H, W) or (H, W, 3), uint8, uint16 or floats in [0, 1], got "
            f"{y.dtype} {y.shape}"
        )
    shape, kind, white = y.shape, y.dtype, white * share
    planes = y.reshape(*shape[:2], channels).transpose(2, 0, 1)
    tensor = torch.from_numpy(
        planes / np.float32(white)
        if white > 1
        else planes.astype(kind.newbyteorder("="), order="C")
    )

    def back(image: Tensor) -> np.ndarray:
        array = image.detach().cpu()[0].permute(1, 2, 0).double().numpy()
        if white > 1:
            array = np.round(white * array.clip(0, 1))
        array = array.astype(kind)
        return array[..., 0] if len(shape) == 2 else array

    return tensor[None], back
