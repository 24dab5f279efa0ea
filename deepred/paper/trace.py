"""When each iteration and each call of the denoiser ran: the trace behind Figure 1."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor

from ..solver import State


class Trace:
    """Give `denoiser(f)` and the trace itself, as the callback, to `deepred.restore`.

    `steps` and `calls` are then lists of (start, end) in seconds of one clock.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self.calls: list[tuple[float, float]] = []

    def denoiser(self, f: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
        """f, with its calls timed in the thread they run in."""

        def timed(x: Tensor, sigma: float) -> Tensor:
            start = time.perf_counter()
            result = f(x, sigma)
            self.calls.append((start, time.perf_counter()))
            return result

        return timed

    def __call__(self, state: State) -> None:
        end = time.perf_counter()
        start = self.steps[-1][1] if self.steps else end - state.seconds
        self.steps.append((start, end))
