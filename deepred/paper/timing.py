"""Timing calls on a device, and the least time that an iteration could take there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..compute.engine import Engine, has_bf16
from ..networks import untrained
from ..settings import Settings


class Clock:
    """Times calls on a device, whose work is asynchronous on a GPU."""

    def __init__(self, device: str, budget: float) -> None:
        self.device, self.budget = device, budget

    def _once(self, call: Callable[[], object], times: int = 1) -> float:
        self.wait()
        started = time.perf_counter()
        for _ in range(times):
            call()
        self.wait()
        return (time.perf_counter() - started) / times

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], *, warm_up: int = 5) -> float:
        """Of one call: the median of seven groups, after `warm_up` calls (one if it is slow)."""
        first = self._once(call)
        for _ in range(warm_up - 1 if first < self.budget else 0):
            call()
        one = self._once(call)
        if one > self.budget:  # slow: what was timed, and once more
            return statistics.median([one, self._once(call)])
        times = max(1, int(self.budget / 7 / one))
        return statistics.median(self._once(call, times) for _ in range(7))

    def turns(self, calls: Sequence[Callable[[], object]]) -> list[float]:
        """Of each of several calls: the median of seven rounds in which they take turns, three if
        that is slow. What else the machine does meets all of them."""
        for call in calls:
            call()
        rounds = [[self._once(call) for call in calls]]
        while len(rounds) < (7 if sum(rounds[0]) < 4 * self.budget * len(calls) else 3):
            rounds.append([self._once(call) for call in calls])
        return [statistics.median(of_one) for of_one in zip(*rounds, strict=True)]


def ceilings(clock: Clock, device: str) -> Iterator[dict]:
    """Rows (``precision``, ``flops``, ``bytes``): the rates of a large product and a large copy."""
    side, size = (8192, 2**28) if device == "cuda" else (2048, 2**25)
    source = torch.rand(size, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * 4 * size / clock.seconds(partial(target.copy_, source))
    found = [Engine(device)]
    found += [Engine(device, "tf32")] * (device == "cuda")
    found += [Engine(device, "bf16")] * (device == "cuda" or has_bf16())
    for how in found:
        kind = torch.bfloat16 if how.precision == "bf16" else torch.float32
        a, b = (torch.rand(side, side, device=device).to(kind) for _ in range(2))
        with how.session():
            seconds = clock.seconds(partial(torch.matmul, a, b))
        yield {"precision": how.precision, "flops": 2 * side**3 / seconds, "bytes": bandwidth}


def work(side: int, settings: Settings, bytes_each: int = 4) -> tuple[int, int]:
    """(floating-point operations, bytes) of one iteration at the least.

    Operations are those of the convolutions, forward and backward. Bytes: each convolution reads
    its input and writes its output, backward it reads both gradients' factors and writes the
    gradient of its input, as if all else were fused into it; Adam reads theta, its gradient and
    two moments and writes all but the gradient, in float32.
    """
    moved = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal moved
        (t,) = inputs
        back = output.numel() + t.numel() + t.numel() * t.requires_grad
        moved += t.numel() + output.numel() + back

    network = untrained((3, side, side), settings).to("meta")
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with FlopCounterMode(display=False) as counter:
        z = torch.empty(network.input_shape, device="meta")
        network(z).square().mean().backward()
    for hook in hooks:
        hook.remove()
    theta = sum(p.numel() for p in network.parameters())
    return counter.get_total_flops(), bytes_each * moved + 4 * 7 * theta


def floor(side: int, settings: Settings, precision: str, rates: Sequence[dict]) -> float | None:
    """Seconds that an iteration takes at the least at the machine's rates, None if not measured."""
    for rate in rates:
        if rate["precision"] == precision:
            flops, moved = work(side, settings, 2 if precision == "bf16" else 4)
            return max(flops / rate["flops"], moved / rate["bytes"])
    return None
