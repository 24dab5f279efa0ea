"""Linear degradations H of Section 2.1, each with its exact adjoint.

An operator is any callable from an image tensor (N, C, H, W) to a measurement tensor that torch
can differentiate; the solver needs nothing else. The classes here are plain values: equal if they
do the same, hashable, pickleable. They work in the precision and on the device of their input, and
have more, each of it optional in an operator of one's own:

- `adjoint(y)`, which RED alone needs.
- `task`, whose presets suit the operator.
- `image_shape(shape)`, the image's (C, H, W) of the measurement's, if they differ.
- `keeps_range`: an image in [0, 1] measures as about [0, 1].
- `whitener(eps)`, for the preconditioned data term (settings.precondition).
- `holes`, an `Inpaint`, if a part of the measurement is missing.
- `doubt(y)`, a sentence that `restore` logs if operator or measurement look wrong, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError, real, shown, whole
from ..presets import TASKS
from .blur import Blur
from .common import check
from .downsample import Downsample
from .inpaint import Inpaint

__all__ = ["Blur", "Downsample", "Identity", "Inpaint", "Physics", "adapted", "degrade"]
__all__ += ["holes", "image_shape", "seen", "task_of"]


@dataclass(frozen=True)
class Identity:
    """H = I: denoising (Section 2.1)."""

    task: ClassVar = "denoise"
    keeps_range: ClassVar = True  # an image in [0, 1] measures as about [0, 1]

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y


@dataclass(frozen=True)
class Physics:
    """The noiseless map x -> A(x) of a deepinv physics object, linear or not.

    Calling such an object would add its noise. `adapted` wraps it in this.
    """

    physics: object

    def __call__(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the image: `img_size`, or the shape of A^T y, or the measurement's.

        Many of deepinv's objects have no `img_size` (Downsampling, Tomography, Decolorize).
        """
        told = getattr(self.physics, "img_size", None)
        if told is not None and len(told) == 3:
            return tuple(told)
        if not hasattr(self.physics, "A_adjoint"):
            return tuple(shape)
        buffers = getattr(self.physics, "buffers", tuple)()  # for its precision and device
        like = next((b for b in buffers if b.is_floating_point()), torch.zeros(()))
        return tuple(self.adjoint(like.new_zeros((1, *shape))).shape[1:])

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y.

        Raises
        ------
        InputError
            If the physics is not linear.
        """
        if not hasattr(self.physics, "A_adjoint"):
            raise InputError(f"{type(self.physics).__name__} is not linear: it has no adjoint")
        return self.physics.A_adjoint(y)


def adapted(H: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    """An operator from what may be given as H: None is the identity, a physics object of deepinv
    becomes a `Physics`, and any other callable is an operator already.

    Raises
    ------
    InputError
        If H is not callable.
    """
    if H is None:
        return Identity()
    if not callable(H):
        raise InputError(f"H must be a callable, image -> measurement, got {type(H).__name__}")
    physics = callable(getattr(H, "A", None)) and hasattr(H, "noise_model")
    return Physics(H) if physics else H


def task_of(H: Callable[[Tensor], Tensor]) -> str:
    """The task whose presets suit an operator; "denoise" if it names none of `TASKS`."""
    told = getattr(H, "task", None)
    return told if isinstance(told, str) and told in TASKS else "denoise"


def holes(H: Callable[[Tensor], Tensor]) -> Inpaint | None:
    """The `Inpaint` by which a part of the measurement is missing, or None."""
    told = getattr(H, "holes", None)
    return told if isinstance(told, Inpaint) else None


def seen(y: Tensor, H: Callable[[Tensor], Tensor]) -> Tensor:
    """y with 0 where an `Inpaint` sees nothing, whatever a damaged photograph has there."""
    hole = holes(H)
    return y if hole is None else torch.where(hole.mask(y) > 0, y, 0)


def image_shape(H: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) of the image whose measurement has a shape (C, h, w)."""
    tell = getattr(H, "image_shape", None)
    return tuple(shape if tell is None else tell(tuple(shape)))


def degrade(
    x: Tensor, H: Callable[[Tensor], Tensor], sigma: float, seed: int, *, clip: bool = True
) -> Tensor:
    """y = H x + v with white Gaussian noise v of level sigma, clipped to [0, 1].

    The paper does not mention clipping, but its tables' rows for the measured images include it.

    Parameters
    ----------
    x : image (N, C, H, W) in [0, 1].
    H : operator, image -> measurement.
    sigma : in image units: 25 / 255, say; at most 1 where y is clipped.
    seed : the noise is drawn on the CPU in float32 from it alone. Missing pixels (see `holes`) have
        none.
    clip : whether y is cut to [0, 1].

    Raises
    ------
    InputError
        If sigma is no number of at least 0, or above 1 where y is clipped; if x is no image of
        floats, or the seed no whole number of at least 0.
    """
    level, seed, H = real(sigma), whole("seed", seed, 0), adapted(H)
    if not 0 <= level < math.inf or (clip and level > 1):
        raise InputError(
            f"sigma must be in [0, 1], image units, got {shown(sigma)}: 25 is 25 / 255"
        )
    check(x)
    y = H(x)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    y = seen(y + level * noise.to(y), H)
    return y.clamp(0, 1) if clip else y
