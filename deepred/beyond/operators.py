"""Operators beyond the paper's: a blur without wrapping around, compositions, multiples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, real, shown
from ..operators import Blur, Identity, Inpaint, adapted, holes, image_shape, task_of


@dataclass(frozen=True)
class Framed:
    """A blur of which the border is not seen: a photograph's scene continues beyond its border.

    The unknown image is larger than the measurement by `top` + `bottom` rows and `left` + `right`
    columns, as many as the kernel reaches, so that nothing wraps around into what is seen.
    """

    task: ClassVar = "deblur"
    keeps_range: ClassVar = True

    blur: Blur
    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, blur: Blur) -> Framed:
        """The frame that a kernel needs."""
        h, w = len(blur.kernel), len(blur.kernel[0])
        return cls(blur, h - 1 - h // 2, h // 2, w - 1 - w // 2, w // 2)

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the image, of a measurement's."""
        channels, height, width = shape
        return channels, height + self.top + self.bottom, width + self.left + self.right

    def crop(self, x: Tensor) -> Tensor:
        """The part of an image that is seen; InputError if the frame leaves nothing of it."""
        bottom, right = x.shape[2] - self.bottom, x.shape[3] - self.right
        if bottom <= self.top or right <= self.left:
            raise InputError(
                f"an image of {x.shape[3]}x{x.shape[2]} is all frame: it must be larger than "
                f"{self.left + self.right}x{self.top + self.bottom}"
            )
        return x[..., self.top : bottom, self.left : right]

    def doubt(self, y: Tensor) -> str | None:
        return self.blur.doubt(y)

    def __call__(self, x: Tensor) -> Tensor:
        return self.crop(self.blur(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.blur.adjoint(self._padded(y))

    def whitener(self, eps: float) -> Callable[[Tensor], Tensor]:
        """`Blur.whitener`, of the residual with zeros around it."""
        whiten = self.blur.whitener(eps)
        return lambda residual: whiten(self._padded(residual))

    def _padded(self, y: Tensor) -> Tensor:
        return F.pad(y, (self.left, self.right, self.top, self.bottom))


@dataclass(frozen=True)
class Composed:
    """y = outer(inner(x)): first one degradation, then another.

    Each is an operator, any callable, or a physics object of deepinv. There is an `adjoint` if both
    have one (that of a physics which is not linear raises InputError).
    """

    outer: Callable[[Tensor], Tensor]
    inner: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "outer", adapted(self.outer))
        object.__setattr__(self, "inner", adapted(self.inner))

    @property
    def task(self) -> str:
        return task_of(self.outer)

    @property
    def holes(self) -> Inpaint | None:
        return holes(self.inner if isinstance(self.outer, Identity) else self.outer)

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the image, of a measurement's."""
        return image_shape(self.inner, image_shape(self.outer, shape))

    def __call__(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    @property
    def adjoint(self) -> Callable[[Tensor], Tensor]:
        first, then = self.outer.adjoint, self.inner.adjoint
        return lambda y: then(first(y))


@dataclass(frozen=True)
class Scaled:
    """y = factor * operator(x): another unit, or ||H|| of about 1.

    The operator is one of ours, any callable, or a physics object of deepinv; there is an `adjoint`
    and a `whitener` if it has one.

    Raises
    ------
    InputError
        If the factor is 0 or not finite.
    """

    operator: Callable[[Tensor], Tensor]
    factor: float

    def __post_init__(self) -> None:
        factor = real(self.factor)
        if not math.isfinite(factor) or not factor:
            raise InputError(
                f"factor must be a finite number other than 0, got {shown(self.factor)}"
            )
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "operator", adapted(self.operator))

    @property
    def task(self) -> str:
        return task_of(self.operator)

    @property
    def holes(self) -> Inpaint | None:
        return holes(self.operator)

    @property
    def whitener(self) -> Callable[[float], Callable[[Tensor], Tensor]]:
        """The operator's: as its mean is 1, it does not depend on the unit."""
        return self.operator.whitener

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the image, of a measurement's."""
        return image_shape(self.operator, shape)

    def doubt(self, y: Tensor) -> str | None:
        doubt = getattr(self.operator, "doubt", lambda y: None)
        return doubt(y / self.factor)

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor * self.operator(x)

    @property
    def adjoint(self) -> Callable[[Tensor], Tensor]:
        back = self.operator.adjoint
        return lambda y: self.factor * back(y)
