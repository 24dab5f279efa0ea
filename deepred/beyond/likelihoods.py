"""Noise models: samples, and minus log-likelihoods to stand where Eq. (1) and Eq. (7) have L2.

Section 2.1: for other noise ||Hx - y||^2 is to be replaced "by the minus log-likelihood of the
appropriate distribution". Calling a model gives the terms of its pixels, up to a constant in y
and times a factor, chosen so that their curvature is about 1 at a grey of 1/2 whatever the noise's
level: that of 1/2 (Hx - y)^2. (Laplace has no curvature, and another choice.) So lambda and mu mean
what they mean with L2.

Images and measurements are tensors of any shape, in image units (white is 1); samples, terms and
deviations have the shape of what they are given. A seed is a whole number of at least 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import positive, whole

# A network's output is above 0, but what an operator makes of it may touch 0 or, by rounding, lie
# below. From here down Poisson's logarithm goes on as its tangent, so that the pull towards y > 0
# stays; Gamma's term is constant with gradient 0, as its tangent would pull without measure.
FLOOR = 1e-4


@dataclass(frozen=True)
class Gaussian:
    """White Gaussian noise of standard deviation `sigma`: the term 1/2 (Hx - y)^2.

    Raises
    ------
    InputError
        If sigma is not above 0.
    """

    sigma: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", positive("sigma", self.sigma))

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
class Poisson:
    """Photon counts, `peak` of them where the image is 1, divided by `peak`.

    Raises
    ------
    InputError
        If the peak is not above 0.
    """

    peak: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "peak", positive("peak", self.peak))

    def sample(self, x: Tensor, seed: int) -> Tensor:
        """y = counts / peak, which may exceed 1; negative x counts as 0."""
        rate = self.peak * x.detach().cpu().float().clamp(min=0)
        counts = torch.poisson(rate, generator=_generator(seed))
        return (counts.double() / self.peak).to(x)

    def __call__(self, measured: Tensor, y: Tensor) -> Tensor:
        """1/2 (Hx - y log Hx): 1 / (2 peak) times the minus log-likelihood.

        Below `FLOOR` the logarithm is its tangent there, and below 0 Hx counts as |Hx|: the term is
        convex, bounded from below, and leads back to Hx >= 0 from anywhere, for y = 0, too. There
        are no negative counts: y below 0, as of a camera that subtracts its offset, counts as 0.
        """
        y = y.clamp(min=0)
        log = measured.clamp(min=FLOOR).log()
        tangent = math.log(FLOOR) + measured / FLOOR - 1
        return 0.5 * (measured.abs() - y * torch.where(measured > FLOOR, log, tangent))

    def deviation(self, x: Tensor) -> Tensor:
        """Standard deviation of y at each pixel."""
        return (x.clamp(min=0) / self.peak).sqrt()


@dataclass(frozen=True)
class Laplace:
    """Additive noise of density exp(-|v| / scale) / (2 scale): heavy tails, outliers.

    Raises
    ------
    InputError
        If the scale is not above 0.
    """

    scale: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", positive("scale", self.scale))

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
class Gamma:
    """Speckle: y = x n with n of mean 1 and variance 1 / looks, Gamma distributed (radar, laser).

    Raises
    ------
    InputError
        If the number of looks is not above 0.
    """

    looks: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", positive("looks", self.looks))

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
