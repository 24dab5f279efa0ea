"""Linear degradations H of Section 2.1, each with its exact adjoint.

An operator is any callable from an image tensor (N, C, H, W) to a measurement tensor that torch
can differentiate; the solver asks for nothing more. The classes here add `adjoint`, which RED alone
needs, and equality by value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Identity:
    """H = I: denoising (Section 2.1)."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y


def degrade(
    x: Tensor, H: Callable[[Tensor], Tensor], sigma: float, seed: int, *, clip: bool = True
) -> Tensor:
    """y = H x + v with white Gaussian noise v of level sigma, clipped to [0, 1] as in the paper.

    The noise is drawn on the CPU in float32 from `seed` alone.
    """
    y = H(x)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    y = y + sigma * noise.to(y)
    return y.clamp(0, 1) if clip else y
