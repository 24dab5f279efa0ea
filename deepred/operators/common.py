"""What the operators ask of an image."""

from __future__ import annotations

from torch import Tensor

from ..errors import InputError


def check(x: Tensor) -> None:
    """InputError if x is no float tensor (N, C, H, W)."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.is_sparse or x.is_meta:
        raise InputError("an image must be a float tensor in [0, 1], dense and with values")
    if x.ndim != 4:
        raise InputError(f"an image must be (N, C, H, W), got {tuple(x.shape)}")
