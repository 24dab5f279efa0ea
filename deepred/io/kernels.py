"""Kernels and masks from files, as operators."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..errors import InputError
from ..operators import Blur, Inpaint
from .images import read

KERNELS = ("uniform9", "gauss25")


def read_kernel(name: str | Path) -> Blur:
    """The blur of a name in `KERNELS`, or of a file: an image, .npy, .npz, .txt or .csv.

    A kernel from a file is scaled to sum 1, so that it leaves the brightness as it is.

    Raises
    ------
    InputError
        If there is no such name or file, or the file holds no kernel (h, w) of numbers with a sum
        above 0.
    """
    if name == "uniform9":
        return Blur.uniform()
    if name == "gauss25":
        return Blur.gaussian()
    path = Path(name)
    try:
        exists = bool(str(name)) and path.exists()
    except OSError:  # a name too long, a folder that may not be read
        exists = False
    if not exists:
        raise InputError(f"kernel {name}: no such file, and known are {', '.join(KERNELS)}")
    try:
        suffix = path.suffix.lower()
        if suffix in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=False)
            array = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
            if np.iscomplexobj(array):
                raise ValueError("complex")
        elif suffix in (".txt", ".csv"):
            comma = "," if suffix == ".csv" else None
            text = path.read_text(encoding="utf-8-sig")  # Excel begins with a mark
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            array = np.array([line.split(comma) for line in lines if not line.startswith("#")])
        else:
            array = read(path, smallest=1).image[0].mean(0).double().numpy()
        array = np.asarray(array, dtype=float)
    except (OSError, ValueError, TypeError, IndexError, EOFError, BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"kernel {name}: not a table of numbers; give an image, .npy, .txt or .csv"
        ) from None
    with np.errstate(over="ignore"):
        total = array.sum()
    if array.ndim != 2 or not np.isfinite(array).all() or not 1e-12 < total < np.inf:
        raise InputError(
            f"kernel {name}: needs a table (h, w) of finite numbers with a sum above 0, "
            f"got shape {array.shape} with sum {total:.3g}"
        )
    return Blur.of(array / total)


def read_mask(path: str | Path) -> Inpaint:
    """The mask of a file: an image, white where a pixel is seen, or a .npy of zeros and ones.

    An image is cut at half its range. One whose channels differ is a mask of each channel, as is an
    array (C, H, W) or (H, W, 3).

    Raises
    ------
    InputError
        If there is no such file, or it holds no mask.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        try:
            mask = np.load(path, allow_pickle=False)
            if mask.ndim == 3 and mask.shape[2] in (1, 3) and mask.shape[0] not in (1, 3):
                mask = mask.transpose(2, 0, 1)
            return Inpaint.of(mask)
        except (OSError, ValueError, EOFError, AttributeError) as error:
            told = (
                str(error) if isinstance(error, InputError) else "holds no array of zeros and ones"
            )
            raise InputError(f"mask {path}: {told}") from None
    mask = read(path, smallest=1).image[0] > 0.5
    if (mask == mask[:1]).all():
        mask = mask[0]
    if not mask.any():
        raise InputError(
            f"mask {path}: must leave something to see, and nothing is above half its range: "
            "paint white what is seen"
        )
    return Inpaint.of(mask.numpy())
