"""When to stop the deep image prior, and what to average, without the ground truth.

DIP fits the image before the noise, so that its error falls and rises again. `WindowedVariance`
and `ExponentialVariance` look for the minimum of the variance of successive outputs, which tends to
lie near that of the error (H. Wang, T. Li, Z. Zhuang, T. Chen, H. Liang and J. Sun, "Early Stopping
for Deep Image Prior", TMLR 2023, arXiv:2112.06074). `Discrepancy` is Morozov's principle.

Each run has a rule of its own. `update` only queues work on the images' device; every `every` steps
it reads one number back, which waits for the device. So a stop is noticed up to every - 1
iterations late; the result does not depend on that, since the best image is kept on the device and
no longer changes after the iteration at which the rule stops.

A rule returns the mean of the outputs T(z) in its memory up to the iteration that it chose, which
is mostly .5 to 1 dB better than that output alone.

`deepred.restore(..., stop=WindowedVariance)` ends each run by such a rule; a rule that is updated
from a callback only observes.
"""

from __future__ import annotations

import inspect
import math
from collections import deque

import torch
from torch import Tensor

from ..errors import InputError, choice, positive, real, shown, whole
from ..solver import State

NAMES = ("windowed-variance", "exponential-variance", "discrepancy")


def named(name: str, sigma: float | None = None, **options) -> Rule:
    """The rule of a name in `NAMES`.

    Parameters
    ----------
    sigma : noise level of the measurement, in image units; only "discrepancy" needs it.
    options : of the rule's class, such as `patience` and `every`.

    Raises
    ------
    InputError
        If there is no such rule or option, or a value is outside its range.
    """
    choice("the stopping rule", name, NAMES)
    kind = dict(zip(NAMES, (WindowedVariance, ExponentialVariance, Discrepancy)))[name]
    known = [p for p in inspect.signature(kind).parameters if p != "sigma"]
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; known are {', '.join(known)}")
    return kind(sigma, **options) if kind is Discrepancy else kind(**options)


class Rule:
    """What the rules share: the least score so far, and the image of its iteration.

    The score of an iteration is a scalar on the device, inf or nan if it does not count. An
    iteration with a non-finite output is never the best.
    """

    def __init__(self, patience: int, every: int) -> None:
        self.patience, self.every = patience, whole("every", every)
        self._last = -1  # the iteration seen last
        self._stopped = False
        # On the device: the least score, its iteration (-1 for none) and its image.
        self._least: Tensor | None = None
        self._k: Tensor | None = None
        self._image: Tensor | None = None

    @torch.no_grad()
    def update(self, state: State) -> bool:
        """Take in the next iteration; True once one should stop, as of the latest look.

        `state` follows the one before, or is of an iteration at or before it after a rollback of
        the solver (`compute.rollback.iterate`); what followed that iteration is forgotten.
        """
        k, output = state.k, state.output
        if self._least is None:
            self._least = torch.full((), math.inf, dtype=torch.float64, device=output.device)
            self._k = torch.full((), -1, dtype=torch.int64, device=output.device)
            self._image = output
        elif k <= self._last:
            self._go_back(k)
        self._last = k
        finite = output.isfinite().all()
        score, image = self._score(state, finite)
        # Past its patience a rule has stopped, even before the next look.
        going = (self._k < 0) | (self._k >= k - self.patience)
        better = going & finite & (score < self._least)
        # A new tensor each time: the solver may write into its own again.
        self._image = torch.where(better, image.to(output), self._image)
        self._least = torch.where(better, score.to(self._least), self._least)
        self._k = torch.where(better, k, self._k)
        if k % self.every == 0:
            self._stopped = 0 <= int(self._k) <= k - self.patience
        return self._stopped

    def state_dict(self) -> dict:
        """Its state, for a checkpoint; `update` writes into none of these tensors."""
        return {k: list(v) if isinstance(v, list) else v for k, v in vars(self).items()}

    def load_state_dict(self, saved: dict) -> None:
        """Go on from a `state_dict` of a rule of the same kind and options."""
        vars(self).update({k: list(v) if isinstance(v, list) else v for k, v in saved.items()})

    @property
    def best(self) -> tuple[int, Tensor] | None:
        """Iteration and image (1, C, H, W) of the least score so far, None if there is none.

        Once the rule has stopped they no longer change. Reading them waits for the device.
        """
        k = -1 if self._k is None else int(self._k)
        return None if k < 0 else (k, self._image)

    def _go_back(self, k: int) -> None:
        kept = self._k <= k
        self._least = torch.where(kept, self._least, math.inf)
        self._k = torch.where(kept, self._k, -1)
        self._stopped = False
        self._restart()

    def _score(self, state: State, finite: Tensor) -> tuple[Tensor, Tensor]:
        """The score of an iteration, and the image that the rule would return for it."""
        raise NotImplementedError

    def _restart(self) -> None:
        """Forget the outputs so far."""
        raise NotImplementedError


class _Variance(Rule):
    """Stop once the least variance of the outputs was `patience` iterations ago.

    `variance` is that of the latest iteration, a float64 scalar on the device, summed over pixels;
    inf until there have been enough finite outputs in a row.
    """

    def __init__(self, enough: int, patience: int, every: int) -> None:
        super().__init__(whole("patience", patience), every)
        self.variance: Tensor | None = None
        self._enough = enough
        self._restart()

    def _restart(self) -> None:
        self._row: Tensor | None = None  # finite outputs in a row, on the device
        # float64: late outputs differ by little compared with their size, and their variance is
        # small compared with the first ones.
        self._mean: Tensor | None = None
        self._spread: Tensor | None = None

    def _score(self, state: State, finite: Tensor) -> tuple[Tensor, Tensor]:
        output = state.output
        if self._row is None:
            self._row = torch.zeros((), dtype=torch.int64, device=output.device)
            self._mean = torch.zeros_like(output, dtype=torch.float64)
            self._spread = torch.zeros_like(self._least)
        # The mean instead of what is not finite: NaN would stay in the sums for ever.
        output = torch.where(finite, output, self._mean.to(output))
        self._take_in(output)
        self._row = torch.where(finite, self._row + 1, 0)
        self.variance = torch.where(self._row >= self._enough, self._value(), math.inf)
        return self.variance, self._mean

    def _take_in(self, output: Tensor) -> None:
        raise NotImplementedError

    def _value(self) -> Tensor:
        return self._spread


class WindowedVariance(_Variance):
    """ES-WMV: the variance of the last `window` outputs, 1/W sum_i ||x_i - mean||^2.

    The image is their mean. A step costs a few operations on images, whatever the window, and the
    memory is that of `window` images: mean and sum of squares are updated for each output, and
    computed anew in two passes each time the window has been replaced, so that at most `window`
    roundings of float64 add up and the large variances of the start leave no error behind.

    Parameters
    ----------
    window : number of outputs W, at least 2.
    patience : iterations without a smaller variance after which to stop, at least 1.
    every : iterations from one look at the device to the next, at least 1.

    Raises
    ------
    InputError
        If one of them is outside its range.
    """

    def __init__(self, window: int = 100, patience: int = 1000, every: int = 10) -> None:
        self.window = whole("window", window, 2, 10**6)
        super().__init__(self.window, patience, every)

    def _restart(self) -> None:
        super()._restart()
        self._images: list[Tensor] = []  # the last `window` outputs; the oldest is at `_next`
        self._next = 0

    def _take_in(self, output: Tensor) -> None:
        W, i = self.window, self._next
        if len(self._images) < W:
            self._images.append(output)
        else:
            oldest, self._images[i] = self._images[i].double(), output
            new = output.double()
            mean = self._mean + (new - oldest) / W
            # sum (x - mean)^2 = sum x^2 - W mean^2, its change as a product of small differences.
            self._spread = (
                self._spread + ((new - oldest) * ((new - mean) + (oldest - self._mean))).sum()
            )
            self._mean = mean
        self._next = (i + 1) % W
        if self._next == 0:
            self._mean = sum(image.double() for image in self._images) / W
            self._spread = sum((image - self._mean).square().sum() for image in self._images)

    def _value(self) -> Tensor:
        # Rounding may leave less than 0 where the outputs stand still.
        return self._spread.clamp(min=0) / self.window


class ExponentialVariance(_Variance):
    """ES-EMV: an exponentially weighted variance of the outputs, in the memory of one image.

    EMV_k = (1 - a) (EMV_{k-1} + a ||x_k - EMA_{k-1}||^2), EMA_k = (1 - a) EMA_{k-1} + a x_k, from
    EMA_1 = x_1 and EMV_1 = 0 as in the authors' code. As that 0 is no variance, the first 2/a
    outputs do not count, about the length of a window with the same mean age. The image is EMA.

    Parameters
    ----------
    weight : a, of the newest output, in (0, 1).
    patience, every : see `WindowedVariance`.

    Raises
    ------
    InputError
        If one of them is outside its range.
    """

    def __init__(self, weight: float = 0.1, patience: int = 1000, every: int = 10) -> None:
        self.weight = real(weight)
        if not 0 < self.weight < 1:
            raise InputError(f"weight must be a number in (0, 1), got {shown(weight)}")
        super().__init__(math.ceil(2 / self.weight), patience, every)

    def _take_in(self, output: Tensor) -> None:
        a, first = self.weight, self._row == 0  # also after an output that was not finite
        difference = output - self._mean
        spread = (1 - a) * (self._spread + a * difference.square().sum())
        self._mean = torch.where(first, output.double(), self._mean + a * difference)
        self._spread = torch.where(first, 0.0, spread)


class Discrepancy(Rule):
    """Morozov's principle: stop at the first iteration whose residual is at the noise level.

    The residual is the root mean square of H T(z) - y, State.terms["residual"]. The image is an
    exponential mean of the outputs, of weight .1 for the newest.

    Parameters
    ----------
    sigma : noise level of the measurement, in image units, above 0.
    target : stop at target * sigma, above 0. If y was clipped to [0, 1] its noise is less than
        sigma, and a target below 1 allows for that.
    every : iterations from one look at the device to the next, at least 1.

    Raises
    ------
    InputError
        If one of them is missing or outside its range.
    """

    def __init__(self, sigma: float | None, target: float = 1.0, every: int = 10) -> None:
        super().__init__(0, every)
        self.level = positive("discrepancy's target", target) * positive(
            "discrepancy's sigma", sigma
        )
        self._restart()

    def _restart(self) -> None:
        self._mean: Tensor | None = None

    def _score(self, state: State, finite: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.zeros_like(state.output) if self._mean is None else self._mean
        output = torch.where(finite, state.output, before)
        self._mean = output if self._mean is None else torch.lerp(before, output, 0.1)
        # 0 from the crossing on: no later score is less, so that the first is the best.
        score = torch.where(state.terms["residual"] <= self.level, 0.0, math.inf)
        return score, self._mean


class SlidingMean:
    """The mean of the last `window` outputs T(z) of a run, fewer at its start.

    Unlike an exponential mean it gives older outputs no weight at all. It keeps `window` images;
    InputError if that is no whole number of at least 1.
    """

    def __init__(self, window: int = 100) -> None:
        self._images: deque[Tensor] = deque(maxlen=whole("window", window, 1, 10**6))
        self._total: Tensor | None = None  # float64: subtracting leaves no error behind
        self._last = -1

    @torch.no_grad()
    def update(self, state: State) -> Tensor:
        """Take in the next iteration and return the mean (1, C, H, W); begins anew after a
        rollback, with an iteration at or before the last."""
        if state.k <= self._last:
            self._images.clear()
        self._last = state.k
        oldest = self._images[0] if len(self._images) == self._images.maxlen else None
        self._images.append(state.output.clone())
        new = state.output.double()
        if len(self._images) == 1 and oldest is None:
            self._total = new
        else:
            self._total = self._total + (new if oldest is None else new - oldest)
        return (self._total / len(self._images)).to(state.output)


class ExponentialMean:
    """The mean of the outputs so far with weights (1 - a)^age, as settings.smoothing = 1 - a.

    InputError if `weight`, a, is outside (0, 1].
    """

    def __init__(self, weight: float = 0.01) -> None:
        self.weight = real(weight)
        if not 0 < self.weight <= 1:
            raise InputError(f"weight must be a number in (0, 1], got {shown(weight)}")
        self._mean: Tensor | None = None
        self._last = -1

    @torch.no_grad()
    def update(self, state: State) -> Tensor:
        """As `SlidingMean.update`."""
        if self._mean is None or state.k <= self._last:
            self._mean, self._share = state.output.clone(), 1.0
        else:
            self._share /= self._share + 1 - self.weight
            self._mean = torch.lerp(self._mean, state.output, self._share)
        self._last = state.k
        return self._mean
