"""Kernels and masks from files, as operators."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..operators import Blur, Inpaint
from .files import regular
from .images import read

logger = logging.getLogger(__name__)

KERNELS = ("uniform9", "gauss25")
LARGEST = 10_000_000  # bytes of a kernel's file


def read_kernel(name: str | Path) -> Blur:
    """The blur of a name in `KERNELS`, or of a file: an image, .npy, .txt or .csv.

    A kernel from a file is scaled to sum 1, so that it leaves the brightness as it is. One whose
    centre of gravity is not at its origin (h // 2, w // 2) shifts the picture: a warning says so.

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
    try:
        path = regular(name)
    except InputError as error:
        raise InputError(f"kernel {error}, and known are {', '.join(KERNELS)}") from None
    try:
        suffix = path.suffix.lower()
        if suffix in (".npy", ".txt", ".csv") and path.stat().st_size > LARGEST:
            raise ValueError("too large")
        if suffix == ".npy":
            array = np.load(path, allow_pickle=False, mmap_mode="r")
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
                raise ValueError("not real numbers")
        elif suffix in (".txt", ".csv"):
            comma = "," if suffix == ".csv" else None
            text = path.read_text(encoding="utf-8-sig")  # Excel begins with a mark
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            array = np.array([line.split(comma) for line in lines if not line.startswith("#")])
        else:
            array = read(path, smallest=1).image[0].mean(0).double().numpy()
        array = np.asarray(array, dtype=float)
    except InputError as error:
        raise InputError(f"kernel {error}") from None
    except (OSError, ValueError, TypeError, EOFError):
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
    array = array / total
    off = [
        float(array.sum(1 - axis) @ np.arange(side)) - side // 2
        for axis, side in enumerate(array.shape)
    ]
    if max(map(abs, off)) > 0.25:
        logger.warning(
            "kernel %s: its centre of gravity is %+.1f rows and %+.1f columns off its middle: the "
            "result is shifted by as much the other way; odd sides and a centred kernel avoid it",
            name, *off,
        )  # fmt: skip
    return Blur.of(array)


def read_mask(path: str | Path) -> Inpaint:
    """The mask of a file: an image, white where a pixel is seen, or a .npy of zeros and ones.

    An image is cut at half its range. One whose channels differ is a mask of each channel, as is an
    array (C, H, W) or (H, W, 3). A warning tells of greys, and of a mask that may be inverted.

    Raises
    ------
    InputError
        If there is no such file, or it holds no mask.
    """
    if Path(path).suffix.lower() == ".npy":
        try:
            mask = np.load(regular(path), allow_pickle=False, mmap_mode="r")
            if mask.ndim == 3 and mask.shape[2] in (1, 3) and mask.shape[0] not in (1, 3):
                mask = mask.transpose(2, 0, 1)
            operator = Inpaint.of(np.asarray(mask))
        except InputError as error:
            reason = str(error).removeprefix("mask ").removeprefix(f"{path}: ")
            raise InputError(f"mask {path}: {reason}") from None
        except (OSError, ValueError, EOFError, AttributeError, TypeError):
            raise InputError(f"mask {path}: holds no array of zeros and ones") from None
    else:
        try:
            image = read(path, smallest=1).image[0]
        except InputError as error:
            raise InputError(f"mask {error}") from None
        grey = float(((image > 0.02) & (image < 0.98)).float().mean())
        if grey > 0.001:
            logger.warning(
                "mask %s: %.1f %% of it is neither black nor white, as in a JPEG, and is cut at "
                "half; a PNG keeps what was painted", path, 100 * grey,
            )  # fmt: skip
        mask = image > 0.5
        if (mask == mask[:1]).all():
            mask = mask[0]
        if not mask.any():
            raise InputError(
                f"mask {path}: must leave something to see, and nothing is above half its range: "
                "paint white what is seen"
            )
        operator = Inpaint.of(mask.numpy())
    if operator.seen < 0.05:
        logger.warning(
            "mask %s: keeps %.1f %% of the picture; if that is the damage it is inverted: white is "
            "what stays", path, 100 * operator.seen,
        )  # fmt: skip
    return operator
