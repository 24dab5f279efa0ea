"""Noise models: samples, and negative log-likelihoods to replace L2 in Eq. (1) and Eq. (7).

Section 2.1: for other noise ||Hx - y||^2 is to be replaced "by the minus log-likelihood of the
appropriate distribution". Calling a model gives a term per pixel, up to a constant in y and times a
factor that makes its curvature about 1 at a grey of 1/2 for any noise level, as 1/2 (Hx - y)^2 has
it. (Laplace has no curvature; its factor is explained there.) So lambda and mu have the same
meaning as with L2.

Images and measurements are tensors of any shape, in image units (white is 1); samples, terms and
deviations have the same shape. A parameter must be above 0, a seed a whole number of at least 0,
else InputError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import positive, whole

# A network's output is above 0, but an operator's may be 0 or, by rounding, below. From here down
# Poisson's logarithm is continued by its tangent, which keeps the pull towards y > 0; Gamma's term
# is constant with gradient 0, as the slope of its tangent would be huge.
FLOOR = 1e-4


class _Model:
    """A model of one parameter, which must be above 0: else InputError."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, positive(name, value))


@dataclass(frozen=True)
class Gaussian(_Model):
    """White Gaussian noise of standard deviation `sigma`: the term 1/2 (Hx - y)^2."""

    sigma: float

    def sample(self, x: Tensor, seed: int) -> Tensor:
        """y = x + sigma n, not clipped; drawn on the CPU from the seed alone."""
        n = torch.randn(x.shape, generator=_generator(seed))
        return x + self.sigma * n.to(x)

    def __call__(self, measured: Tensor, y: Tensor) -> Tensor:
        """1/2 (Hx - y)^2: sigma^2 times the minus log-likelihood."""
        return 0.5 * (measured - y).square()

    def deviation(self, x: Tensor) -> Tensor:
        """Standard deviation of y at each pixel."""
        return torch.full_like(x, self.sigma)


@dataclass(frozen=True)
class Poisson(_Model):
    """Photon counts, `peak` of them where the image is 1, divided by `peak`."""

    peak: float

    def sample(self, x: Tensor, seed: int) -> Tensor:
        """y = counts / peak, which may exceed 1; negative x counts as 0."""
        rate = self.peak * x.detach().cpu().float().clamp(min=0)
        counts = torch.poisson(rate, generator=_generator(seed))
        return (counts.double() / self.peak).to(x)

    def __call__(self, measured: Tensor, y: Tensor) -> Tensor:
        """1/2 (Hx - y log Hx): 1 / (2 peak) times the minus log-likelihood.

        Below `FLOOR` the logarithm is continued by its tangent, and below 0 Hx counts as |Hx|: the
        term is convex and bounded from below, and its gradient leads back to Hx >= 0, also for
        y = 0. y below 0, as of a camera that subtracts its offset, counts as 0.
        """
        y = y.clamp(min=0)
        log = measured.clamp(min=FLOOR).log()
        tangent = math.log(FLOOR) + measured / FLOOR - 1
        return 0.5 * (measured.abs() - y * torch.where(measured > FLOOR, log, tangent))

    def deviation(self, x: Tensor) -> Tensor:
        """Standard deviation of y at each pixel."""
        return (x.clamp(min=0) / self.peak).sqrt()


@dataclass(frozen=True)
class Laplace(_Model):
    """Additive noise of density exp(-|v| / scale) / (2 scale): heavy tails, outliers."""

    scale: float

    def sample(self, x: Tensor, seed: int) -> Tensor:
        """y = x + v, not clipped; drawn on the CPU from the seed alone."""
        u = torch.rand(x.shape, generator=_generator(seed)) - 0.5
        # The inverse of the distribution; u = -1/2, of probability 2^-24, would be infinite.
        v = -torch.sign(u) * torch.log1p(-2 * u.abs().clamp(max=0.5 - 2**-25))
        return x + self.scale * v.to(x)

    def __call__(self, measured: Tensor, y: Tensor) -> Tensor:
        """scale |Hx - y|: scale^2 times the minus log-likelihood.

        The gradient at the kink is 0. Without curvature the factor is chosen so that at a distance
        of `scale` the pull is that of L2.
        """
        return self.scale * (measured - y).abs()

    def deviation(self, x: Tensor) -> Tensor:
        """Standard deviation of y at each pixel."""
        return torch.full_like(x, math.sqrt(2) * self.scale)


@dataclass(frozen=True)
class Gamma(_Model):
    """Speckle (radar, laser): y = x n, n Gamma distributed with mean 1 and variance 1 / looks."""

    looks: float

    def sample(self, x: Tensor, seed: int) -> Tensor:
        """y = x n, which may exceed 1; drawn on the CPU from the seed alone."""
        n = np.random.default_rng(whole("seed", seed, 0)).gamma(
            self.looks, 1 / self.looks, tuple(x.shape)
        )
        return x * torch.from_numpy(n).to(x)

    def __call__(self, measured: Tensor, y: Tensor) -> Tensor:
        """1/4 (log Hx + y / Hx): 1 / (4 looks) times the minus log-likelihood.

        Hx below `FLOOR` counts as `FLOOR`, with gradient 0: begin above it. y below 0 counts as 0.
        """
        y = y.clamp(min=0)
        measured = measured.clamp(min=FLOOR)
        return 0.25 * (measured.log() + y / measured)

    def deviation(self, x: Tensor) -> Tensor:
        """Standard deviation of y at each pixel."""
        return x.abs() / math.sqrt(self.looks)


Model = Gaussian | Poisson | Laplace | Gamma


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(whole("seed", seed, 0))
