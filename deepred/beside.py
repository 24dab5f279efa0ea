"""The denoiser beside the Theta-update: Figure 1, and the authors' thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future

import torch
from torch import Tensor


class Beside:
    """A queue of f(x): what is asked for now is taken `lag` intervals later.

    Parameters
    ----------
    f : image -> image, not differentiated.
    x : what is taken before the first f(x) arrives.
    lag : intervals; 0 waits for the f(x) just asked for.
    executor : where f runs meanwhile; without one it runs when asked for. The result is the same.
    """

    def __init__(
        self, f: Callable[[Tensor], Tensor], x: Tensor, lag: int, executor: Executor | None = None
    ) -> None:
        self._f, self._lag, self._executor = f, lag, executor
        self._pending: deque[Future | Tensor] = deque([x] * lag)

    def ask(self, x: Tensor) -> None:
        """Begin with f(x)."""
        self._pending.append(self._begun(x))

    def take(self) -> Tensor:
        """The f(x) whose turn it is, waited for."""
        return _result(self._pending.popleft())

    def settle(self) -> list[Tensor]:
        """Wait for all that is under way, and return it; it is still to be taken."""
        self._pending = deque(_result(pending) for pending in self._pending)
        return list(self._pending)

    def resume(self, settled: list[Tensor]) -> None:
        """Go on from what `settle` returned."""
        self._pending = deque(settled)

    def _begun(self, x: Tensor) -> Future | Tensor:
        """f(x), or the future of it.

        On a GPU a thread pays only with a lag: launching kernels does not block anyway, and a
        denoiser on the CPU has little to run beside within one iteration.
        """
        if self._executor is None or (x.is_cuda and self._lag == 0):
            return self._f(x)
        if not x.is_cuda:
            return self._executor.submit(self._f, x)
        here = torch.cuda.current_stream()
        # High-priority streams come from another pool than the lanes', so this stream is never
        # captured in their graphs.
        ready, beside = here.record_event(), torch.cuda.Stream(priority=-1)

        def call() -> Tensor:
            with torch.cuda.stream(beside):
                beside.wait_event(ready)
                fx = self._f(x)
                fx.record_stream(here)  # its memory is not reused while `here` reads it
                beside.synchronize()
                return fx

        return self._executor.submit(call)


def _result(pending: Future | Tensor) -> Tensor:
    return pending.result() if isinstance(pending, Future) else pending
