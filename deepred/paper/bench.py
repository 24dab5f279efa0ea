"""What each way to compute an iteration is worth on this machine: `deepred bench`.

Every figure is a median in seconds, beside the ratio to a baseline timed in the same call. The
floor is what the arithmetic and the memory traffic that cannot be avoided would take at the rates
that a large matrix product and a large copy reach on the machine.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import psutil
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .. import denoisers, metrics
from ..compute import native
from ..compute.engine import Engine, has_bf16, pick
from ..denoise.bm3d import bm3d_package
from ..denoise.nlm import nlm_torch
from ..errors import InputError
from ..io import datasets
from ..networks import initialise, untrained
from ..operators import Blur, Downsample, Identity, degrade
from ..presets import SETTINGS, preset
from ..settings import Settings
from . import studies
from .provenance import provenance

SIDES = (128, 256, 512)
SECTIONS = (
    "kernels", "ceilings", "iterations", "loops", "batches", "denoisers", "presets", "economy",
)  # fmt: skip
SIGMA = 25 / 255
# The iteration by itself: DIP with the paper's network, no denoiser beside it.
_PLAIN = preset("paper", "denoise", "dip").replace(runs=1)
_NLM_PAPER = preset("paper")

Say = Callable[[str], None]


def run(
    device: str = "auto",
    sides: Sequence[int] = SIDES,
    *,
    only: Sequence[str] = SECTIONS,
    compiled: bool = False,
    budget: float = 1.0,
    say: Say = lambda line: None,
) -> dict:
    """Time everything; plain types, for JSON.

    Parameters
    ----------
    device : as for `deepred.compute.engine.pick`.
    sides : of the square images on which the iteration is timed.
    only : the sections to time, of `SECTIONS`; the others are left empty.
    compiled : time torch.compile, too, which takes minutes at first.
    budget : seconds spent on each figure, more where a single step takes longer.
    say : is told what is being timed.

    Returns
    -------
    dict with ``machine`` (provenance) and a list of rows for each section; see the functions that
    make them.

    Raises
    ------
    InputError
        If the machine has no such device, or nothing to compile with.
    """
    how = pick(device, compiled=compiled)
    clock = Clock(how.device, budget)
    needed = {"ceilings", "iterations"} & set(only)
    rates = list(ceilings(clock, how.device)) if needed else []
    small, large = (128, 64) if how.device == "cpu" else (512, 256)
    parts = {
        "kernels": lambda: kernels(how.device),
        "ceilings": lambda: rates,
        "iterations": lambda: iterations(clock, modes(how.device, compiled), sides, rates),
        "loops": lambda: loops(clock, how.device, small),
        "batches": lambda: batches(clock, how.device, large),
        "denoisers": lambda: denoiser_times(clock, how.device, small),
        "presets": lambda: presets(clock, how.device, 128),
        "economy": lambda: economy(clock, how.device, 64),
    }
    result: dict = {"machine": machine(how)}
    for name, part in parts.items():
        result[name] = []
        for row in part() if name in only else ():
            say(f"{name}: " + ", ".join(f"{k} {_short(v)}" for k, v in row.items()))
            result[name].append(row)
    return result


def machine(how: Engine) -> dict:
    """Provenance, and what the machine has."""
    told = provenance(how)
    told = {k: v for k, v in told.items() if k not in ("precision", "threads")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = round(psutil.virtual_memory().total / 2**30)
    return {**told, "cores": cores, "memory_gib": memory, "bf16": has_bf16()}


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


# The floor ---------------------------------------------------------------------------------------


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


# The iteration -----------------------------------------------------------------------------------


def modes(device: str, compiled: bool = False) -> list[Engine]:
    """The ways to compute that the machine offers; eager float32, the reference, first."""
    if device == "cpu":
        found = [Engine(), Engine(threads=1), Engine(channels_last=True)]
        if has_bf16():
            found += [Engine(precision="bf16"), Engine(precision="bf16", channels_last=True)]
    else:
        tf32 = Engine("cuda", "tf32", channels_last=True)
        bf16 = replace(tf32, precision="bf16")
        found = [
            Engine("cuda"), Engine("cuda", "tf32"), tf32, bf16, replace(tf32, graphs=True),
            replace(bf16, graphs=True),
        ]  # fmt: skip
    if compiled:
        best = [how for how in found if how.precision == found[-1].precision]
        found += [replace(how, compiled=True) for how in (found[0], best[-1])]
    return list(dict.fromkeys(found))


def iterations(
    clock: Clock, engines: Sequence[Engine], sides: Sequence[int], rates: Sequence[dict]
) -> Iterator[dict]:
    """Rows (``channels``, ``side``, ``mode``, ``seconds`` an iteration, ``ratio`` to the first
    mode, ``floor``), for the paper's network and for that of preset fast."""
    for channels in (_PLAIN.channels, preset("fast").channels):
        settings = _PLAIN.replace(channels=channels)
        for side in sides:
            reference = None
            for how in engines:
                with ExitStack() as stack:
                    step = _step(stack, how, settings, side, None)
                    seconds = clock.seconds(step)
                reference = reference or seconds
                yield {
                    "channels": channels,
                    "side": side,
                    "mode": _mode(how),
                    "seconds": seconds,
                    "ratio": reference / seconds,
                    "floor": floor(side, settings, how.precision, rates),
                }


def kernels(device: str) -> Iterator[dict]:
    """The kernels in C++ against eager torch, in turns, on a CPU: rows (``channels``, ``height``,
    ``width``, ``threads``, processor seconds of an iteration with ``torch`` and ``native``,
    ``ratio``, and the same of the wall clock).

    The iteration is that of DIP: noise on z, both passes, Adam, terms and averages. Processor time
    hardly depends on what else the machine does; the wall clock is what a user waits.
    """
    if device != "cpu" or native.library() is None:
        return
    for channels, (height, width), threads in product((16, 32), ((256, 256), (512, 768)), (1, 2)):
        settings = preset("fast").as_dip().replace(channels=channels, runs=1)
        with ExitStack() as stack:
            steps = [
                _step(stack, Engine(threads=threads, native=here), settings, (height, width), None)
                for here in (False, True)
            ]
            rounds = [[_cost(step) for step in steps] for _ in range(9)][2:]
        spent, wall = (
            [statistics.median(pair[i][clock] for pair in rounds) for i in (0, 1)]
            for clock in (0, 1)
        )
        yield {
            "channels": channels, "height": height, "width": width, "threads": threads,
            "torch": spent[0], "native": spent[1], "ratio": spent[0] / spent[1],
            "wall ratio": wall[0] / wall[1],
        }  # fmt: skip


def _cost(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the processor and of the wall clock."""
    spent, started = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - spent, time.perf_counter() - started


def loops(clock: Clock, device: str, side: int) -> Iterator[dict]:
    """DeepRED's loop with NLM every ten iterations: rows (``side``, ``mode``, ``seconds``,
    ``ratio``), the first with eager float32 and the denoiser on the CPU."""

    def on_the_cpu(x: Tensor, sigma: float) -> Tensor:
        return denoisers.nlm(x.cpu(), sigma).to(x)

    ours = pick(device, work=_PLAIN.channels * side**2)
    candidates = [(Engine(device), on_the_cpu), (ours, denoisers.nlm)]
    if device == "cuda":
        candidates.append((replace(ours, precision="bf16", graphs=True), denoisers.nlm))
    reference = None
    for how, denoise in candidates:
        with ExitStack() as stack:
            interval = _interval(stack, how, _NLM_PAPER, side, denoise)
            seconds = clock.seconds(interval, warm_up=2) / _NLM_PAPER.denoise_every
        reference = reference or seconds
        yield {"side": side, "mode": _mode(how), "seconds": seconds, "ratio": reference / seconds}


def batches(clock: Clock, device: str, side: int) -> Iterator[dict]:
    """Several solvers in turns: rows (``side``, ``mode``, ``batch``, ``seconds`` of an iteration
    of one of them, ``ratio`` to one alone)."""
    reference = None
    settings = _PLAIN if device == "cuda" else _PLAIN.replace(channels=16)
    for count in (1, 2, 4, 8):
        how = pick(device, work=settings.channels * side**2, graphs=device == "cuda", batch=count)
        with ExitStack() as stack:
            steps = [_step(stack, how, settings, side, None) for _ in range(count)]

            def turn(steps=steps) -> None:
                for step in steps:
                    step()

            seconds = clock.seconds(turn) / count
        reference = reference or seconds
        yield {
            "side": side,
            "mode": _mode(replace(how, batch=1)),
            "batch": count,
            "seconds": seconds,
            "ratio": reference / seconds,
        }


# Denoisers and presets ---------------------------------------------------------------------------


def denoiser_times(clock: Clock, device: str, side: int) -> Iterator[dict]:
    """Rows (``side``, ``denoiser``, ``reference`` seconds, ``seconds`` of ours in torch,
    ``ratio``, ``difference``: the largest of pixels for NLM, of PSNR in dB for BM3D)."""
    truth = datasets.load("builtin", "astronaut").image[..., :side, :side]
    y = degrade(truth, Identity(), SIGMA, 0)
    there, on_cpu = y.to(device), Clock("cpu", clock.budget)
    for name, package, ours in [
        ("NLM", denoisers.nlm, nlm_torch),
        ("CBM3D", bm3d_package, denoisers.bm3d_torch),
    ]:
        seconds = clock.seconds(partial(ours, there, SIGMA))
        row = {"side": side, "denoiser": name, "reference": None, "seconds": seconds}
        try:
            row["reference"] = on_cpu.seconds(partial(package, y, SIGMA))
        except InputError:  # bm3d is an extra
            yield {**row, "ratio": None, "difference": None}
            continue
        a, b = package(y, SIGMA), ours(there, SIGMA).cpu()
        if name == "NLM":
            difference = (a - b).abs().max().item()
        else:
            difference = metrics.psnr(b, truth) - metrics.psnr(a, truth)
        yield {**row, "ratio": row["reference"] / seconds, "difference": difference}


def presets(clock: Clock, device: str, side: int) -> Iterator[dict]:
    """What a whole restoration takes: rows (``side``, ``task``, ``preset``, ``seconds`` an
    iteration, ``iterations`` of all runs, ``total`` their product, ``ratio`` to preset paper).

    Iterations are timed over whole intervals of the denoiser, the presets taking turns.
    """
    for task in SETTINGS:
        whole = {name: preset(name, task) for name in ("paper", "fast", "best")}
        yield from _wholes(clock, device, side, task, whole)


def economy(clock: Clock, device: str, side: int) -> Iterator[dict]:
    """`presets` for the variants of experiment economy (`deepred.paper.studies`)."""
    for task, ways in studies.ECONOMY.items():
        whole = {
            way.label: preset(way.preset, task, small=True).replace(**way.changes) for way in ways
        }
        yield from _wholes(clock, device, side, task, whole)


def _wholes(clock, device, side, task, settings: dict[str, Settings]) -> Iterator[dict]:
    with ExitStack() as stack:
        intervals = []
        for s in settings.values():
            how = pick(device, work=s.channels * side**2)
            intervals.append(_interval(stack, how, s, side, denoisers.named(s.denoiser), task))
        seconds = clock.turns(intervals)
    reference = None
    for (name, s), each in zip(settings.items(), seconds, strict=True):
        each, count = each / s.denoise_every, s.iterations * s.runs
        reference = reference or each * count
        yield {
            "side": side, "task": task, "preset": name, "seconds": each, "iterations": count,
            "total": each * count, "ratio": reference / (each * count),
        }  # fmt: skip


def _interval(stack, how, settings, side, denoise, task="denoise") -> Callable[[], None]:
    """All iterations from one call of the denoiser to the next, of a solver as of `_step`."""
    step = _step(stack, how, settings, side, denoise, task)

    def interval() -> None:
        with how.session():  # again: others may have theirs in the same stack
            for _ in range(settings.denoise_every):
                step()

    return interval


def _step(stack: ExitStack, how: Engine, settings: Settings, size, denoise, task="denoise"):
    """A solver's `step` on a random image of `size`, a side or (height, width); what it needs is
    closed with the stack."""
    H = {"denoise": Identity(), "sr": Downsample(4), "deblur": Blur.uniform()}[task]
    shape = (3, size, size) if isinstance(size, int) else (3, *size)
    truth = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    y = H(truth).to(how.device)
    executor = stack.enter_context(ThreadPoolExecutor(max_workers=1))
    lane = how.lane()
    with how.session(), lane():
        z, net = initialise(lambda: untrained(shape, settings), settings, 0, y)
        net, z = how.prepare(net, z)
        threads = torch.get_num_threads()
        solver = how.solver(
            y, H, net, z, denoise, settings,
            sigma=SIGMA, seed=0, executor=executor, noise=how.noise,
        )  # fmt: skip

    def step() -> None:
        with how.session(), lane():
            torch.set_num_threads(threads)
            solver.step()

    return step


def _mode(how: Engine) -> str:
    return str(how).partition(", ")[2]


# Telling -----------------------------------------------------------------------------------------

_TITLES = {
    "kernels": "One iteration of DIP by the kernels in C++ and by eager torch: processor time",
    "ceilings": "What the machine reaches",
    "iterations": "One iteration of DIP",
    "loops": "One iteration of DeepRED, NLM every ten",
    "batches": "One iteration of one of several problems in turns",
    "denoisers": "One call of a denoiser, three channels",
    "presets": "A whole restoration",
    "economy": "A whole restoration, the variants of experiment economy",
}
_UNITS = {
    "side": "side [px]", "seconds": "time [ms]", "floor": "floor [ms]", "total": "total [s]",
    "torch": "torch [ms]", "native": "kernels [ms]",
    "reference": "reference [ms]", "flops": "10⁹ operations/s", "bytes": "GB/s",
}  # fmt: skip


def tables(result: dict) -> dict[str, pd.DataFrame]:
    """The sections of `run`'s result as tables with units, by their titles."""
    found = {}
    for name, title in _TITLES.items():
        if not result.get(name):  # it may be of an older version
            continue
        rows = [{_UNITS.get(k, k): _shown(k, v) for k, v in row.items()} for row in result[name]]
        found[title] = pd.DataFrame(rows)
    return found


def read(folder: str | Path) -> list[dict]:
    """The results of machines that are stored in a folder, by their files' names."""
    paths = sorted(Path(folder).glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _shown(name: str, value: object) -> str:
    if value is None:
        return "–"
    if name in ("seconds", "reference", "floor", "torch", "native"):
        return f"{1e3 * value:.3g}" if value < 1 else f"{1e3 * value:.0f}"
    if name in ("flops", "bytes"):
        return f"{value / 1e9:.3g}"
    if name == "total":
        return f"{value:.0f}"
    if name in ("ratio", "wall ratio"):
        return f"{value:.2f}"
    if name == "difference":
        return f"{value:.2g}"
    return str(value)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
