"""What happens as the fit comes down to the noise: its level where y was clipped, and the end."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def clipped_variance(sigma: float, like: Tensor, points: int = 1025) -> Callable[[Tensor], Tensor]:
    """The variance of clip(x + sigma n, 0, 1), n standard normal, as a function of its mean.

    A network fitted to clipped measurements tends to their mean, not to x: near black the mean of
    clip(sigma n) is .4 sigma and the variance a third of sigma^2. Means beyond those of black and
    white count as black and white. By table, linear between `points` values of x; a plain
    interpolation on the device of `like`.
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
    """Whether DeepRED is done: its fit is down at the noise, and its image has ceased to change.

    Not for DIP, which goes on to fit the noise. Once the residual has come down to its target it
    counts as there: the controller holds it about there. The change is the root mean square of the
    difference of two estimates (settings.smoothing), `SPAN` iterations apart or a little more.

    Parameters
    ----------
    settle : the largest change, in noise levels; 0 to be never done.
    target : the residual to come down to, in noise levels.
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
        """All that it has seen, for a checkpoint."""
        return dict(vars(self))

    def load_state_dict(self, saved: dict) -> None:
        vars(self).update(saved)
