"""What changes when the fit reaches the noise level: larger lam and mu, and the end of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .operators import holes
from .settings import Settings


class Controller:
    """lam and mu over the iterations, for any noise level and H.

    At the true image the residual has mean square sigma^2, or less where y was clipped. Whenever
    the fit gets there, lam and mu grow (settings.growth), by the authors' rule: theirs tests the
    PSNR of T(z) against y, 20 dB at first, which is a residual of 1.02 sigma at sigma = 25.
    """

    CARRIED = ("lam", "mu", "threshold", "noise")

    def __init__(self, settings: Settings, y: Tensor, H, sigma: float | None, likelihood) -> None:
        self.settings, self.y, self._sigma = settings, y, sigma
        self._deviation = getattr(likelihood, "deviation", None)
        self.lam, self.mu = y.new_tensor(settings.lam), y.new_tensor(settings.mu)
        # The noise's mean square over all of y, of which an Inpaint leaves a part without noise.
        hole = holes(H)
        self.seen, self._mask = (1.0, 1.0) if hole is None else (hole.seen, hole.mask(y))
        self.noise = y.new_tensor((sigma or 0.0) ** 2) * self.seen
        known = settings.growth and self._deviation is None
        self._clipped = clipped_variance(sigma, y) if known and settings.clipped else None
        # The fit at which the weights grow, in dB above that of the true image.
        self.threshold = y.new_tensor(-20 * math.log10(settings.residual_target))

    def update(self, residual: Tensor, begins_interval: bool) -> None:
        """Let lam and mu grow if the residual H T(z) - y is down at the noise.

        Without branches, so that the host does not wait for the device.
        """
        s = self.settings
        if not s.growth:
            return
        if self._deviation is not None:
            self.noise = (self._deviation(self.y + residual).square() * self._mask).mean()
        elif self._clipped is not None and begins_interval:  # it changes slowly
            self.noise = (self._clipped(self.y + residual) * self._mask).mean()
        fit = 10 * torch.log10(self.noise / residual.square().mean())
        reached = (fit > self.threshold).to(fit.dtype)
        self.lam = self.lam + reached * (s.growth * s.lam)
        self.mu = self.mu + reached * (s.growth * s.mu)
        self.threshold = self.threshold + reached * s.growth_db

    def level(self) -> float | None:
        """The noise level of the seen part of y, if it is known. Waits for the device."""
        known = self._sigma or (self.settings.growth and self._deviation is not None)
        return math.sqrt(self.noise.item() / self.seen) if known else None


def clipped_variance(sigma: float, like: Tensor, points: int = 1025) -> Callable[[Tensor], Tensor]:
    """The variance of clip(x + sigma n, 0, 1), n standard normal, as a function of its mean.

    A network fitted to clipped measurements tends to their mean, not to x: near black the mean of
    clip(sigma n) is .4 sigma and the variance a third of sigma^2. Means beyond those of black and
    white count as black and white. The function interpolates a table of `points` values of x
    linearly, on the device of `like`.
    """
    x = torch.linspace(0, 1, points, dtype=torch.float64)
    a, b = -x / sigma, (1 - x) / sigma  # the noise is clipped to 0 where n < a, to 1 where n > b
    below, above = torch.special.ndtr(a), torch.special.ndtr(-b)
    density_a, density_b = (torch.exp(-0.5 * t * t) / math.sqrt(2 * math.pi) for t in (a, b))
    inside = 1 - below - above
    mean = x * inside + sigma * (density_a - density_b) + above
    square = (
        x**2 * inside
        + 2 * x * sigma * (density_a - density_b)
        + sigma**2 * (inside + a * density_a - b * density_b)
        + above
    )
    mean, variance = mean.to(like), (square - mean**2).to(like)

    def variance_at(m: Tensor) -> Tensor:
        right = torch.searchsorted(mean, m.contiguous()).clamp(1, points - 1)
        left = right - 1
        share = ((m - mean[left]) / (mean[right] - mean[left])).clamp(0, 1)
        return torch.lerp(variance[left], variance[right], share)

    return variance_at


class Settled:
    """Whether DeepRED is done: its fit is down at the noise, and its image no longer changes.

    Not for DIP, which goes on to fit the noise. It is enough that the residual reached its target
    once, as the controller keeps it near there. The change is the root mean square of the
    difference of two estimates (settings.smoothing), at least `SPAN` iterations apart.

    Parameters
    ----------
    settle : the largest change, in noise levels; 0 for never.
    target : of the residual, in noise levels.
    """

    SPAN = 100

    def __init__(self, settle: float, target: float) -> None:
        self.settle, self.target = settle, target
        self.reached = self.done = False
        self._k, self._before = 0, None  # iteration and estimate of the last decision

    def update(self, k: int, estimate: Tensor, residual: float, noise: float | None) -> None:
        """A look at iteration k: `estimate` (1, C, H, W), the mean residual since the last look."""
        self.reached |= noise is not None and residual <= self.target * noise
        if not self.settle or noise is None or k - self._k < self.SPAN:
            return
        before, self._before, self._k = self._before, estimate.clone(), k
        if before is not None and self.reached:
            self.done = (estimate - before).square().mean().sqrt().item() <= self.settle * noise

    def state_dict(self) -> dict:
        """Its state, for a checkpoint."""
        return dict(vars(self))

    def load_state_dict(self, saved: dict) -> None:
        vars(self).update(saved)
