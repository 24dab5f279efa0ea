"""What the denoisers share: checks, and arrays of tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, at_least, first_line, is_memory


def mirrored(x: Tensor, dim: int, before: int, after: int | None = None) -> Tensor:
    """x with more at both ends of a dimension, mirrored as often as it takes; `after` as `before`
    unless given."""
    size = x.shape[dim]
    end = size + (before if after is None else after)
    index = torch.arange(-before, end, device=x.device) % max(2 * size - 2, 1)
    return x.index_select(dim, torch.minimum(index, (2 * size - 2 - index).abs()))


def called(f: Callable[[Tensor, float], Tensor], x: Tensor, sigma: float, name: str) -> Tensor:
    """f(x, sigma) in x's precision, of a callable that may work in place.

    Raises
    ------
    InputError
        If f does not take the arguments, or does not return an image of x's shape.
    """
    try:
        fx = f(x.clone(), sigma)
    except Exception as error:
        if isinstance(error, InputError) or is_memory(error):
            raise
        what = f"{name} does not take (x, sigma) with x {tuple(x.shape)} of {x.dtype}"
        raise InputError(f"{what}: {first_line(error)}") from error
    if not isinstance(fx, Tensor) or fx.shape != x.shape or fx.layout != x.layout or fx.is_meta:
        made = tuple(fx.shape) if isinstance(fx, Tensor) else f"a {type(fx).__name__}"
        raise InputError(f"{name} makes {made} of an image {tuple(x.shape)}")
    return fx.to(x)


def check(x: Tensor, sigma: float) -> float:
    """sigma as a float; InputError if it is no noise level, or x no image."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4 or not x.numel():
        told = f"{tuple(x.shape)}, {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"a denoiser is of float images (N, C, H, W), not of {told}")
    return at_least("sigma, in image units,", sigma)


def each(x: Tensor, denoise: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Apply a denoiser of one plane (H, W) to each image and channel."""
    planes = array(x)
    return tensor(np.stack([np.stack([denoise(c) for c in image]) for image in planes]), x)


def array(x: Tensor) -> np.ndarray:
    """The numbers of a tensor, on the CPU."""
    return x.detach().cpu().numpy()


def tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """An array as a tensor like another."""
    return torch.from_numpy(array).to(like)
