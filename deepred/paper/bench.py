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
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import psutil
import torch
from torch import Tensor

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
from .timing import Clock, ceilings, floor
from .timing import work as work  # for notebooks

SIDES = (128, 256, 512)
SECTIONS = tuple("kernels ceilings iterations loops batches denoisers presets economy".split())
SIGMA = 25 / 255
# The iteration by itself: DIP with the paper's network, no denoiser beside it.
_PLAIN = preset("paper", "denoise", "dip").replace(runs=1)

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
    say : is called with each row as a line.

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
    made = {k: v for k, v in provenance(how).items() if k not in ("precision", "threads")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = round(psutil.virtual_memory().total / 2**30)
    return {**made, "cores": cores, "memory_gib": memory, "bf16": has_bf16()}


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
        recorded = [replace(how, graphs=True) for how in (tf32, bf16)]
        found = [Engine("cuda"), Engine("cuda", "tf32"), tf32, bf16, *recorded]
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
                row = {"channels": channels, "side": side, "mode": _mode(how), "seconds": seconds}
                least = floor(side, settings, how.precision, rates)
                yield {**row, "ratio": reference / seconds, "floor": least}


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
        medians = [[statistics.median(turn) for turn in zip(*each)] for each in zip(*rounds)]
        (spent, wall), (spent_native, wall_native) = medians
        where = {"channels": channels, "height": height, "width": width, "threads": threads}
        ratios = {"ratio": spent / spent_native, "wall ratio": wall / wall_native}
        yield {**where, "torch": spent, "native": spent_native, **ratios}


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

    settings = preset("paper")
    ours = pick(device, work=settings.channels * side**2)
    candidates = [(Engine(device), on_the_cpu), (ours, denoisers.nlm)]
    if device == "cuda":
        candidates.append((replace(ours, precision="bf16", graphs=True), denoisers.nlm))
    reference = None
    for how, denoise in candidates:
        with ExitStack() as stack:
            interval = _interval(stack, how, settings, side, denoise)
            seconds = clock.seconds(interval, warm_up=2) / settings.denoise_every
        reference = reference or seconds
        yield {"side": side, "mode": _mode(how), "seconds": seconds, "ratio": reference / seconds}


def batches(clock: Clock, device: str, side: int) -> Iterator[dict]:
    """Several solvers in turns: rows (``side``, ``mode``, ``batch``, ``seconds`` of an iteration
    of one of them, ``ratio`` to one alone)."""
    settings = _PLAIN if device == "cuda" else _PLAIN.replace(channels=16)
    alone = None
    for count in (1, 2, 4, 8):
        how = pick(device, work=settings.channels * side**2, graphs=device == "cuda", batch=count)
        with ExitStack() as stack:
            steps = [_step(stack, how, settings, side, None) for _ in range(count)]
            seconds = clock.seconds(lambda steps=steps: [step() for step in steps]) / count
        alone = alone or seconds
        row = {"side": side, "mode": _mode(replace(how, batch=1)), "batch": count}
        yield {**row, "seconds": seconds, "ratio": alone / seconds}


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
        seconds, reference, difference = clock.seconds(partial(ours, there, SIGMA)), None, None
        with suppress(InputError):  # bm3d is an extra
            reference = on_cpu.seconds(partial(package, y, SIGMA))
            a, b = package(y, SIGMA), ours(there, SIGMA).cpu()
            levels = metrics.psnr(b, truth) - metrics.psnr(a, truth)
            difference = (a - b).abs().max().item() if name == "NLM" else levels
        row = {"side": side, "denoiser": name, "reference": reference, "seconds": seconds}
        yield {**row, "ratio": reference and reference / seconds, "difference": difference}


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
        total = each * count
        reference = reference or total
        row = {"side": side, "task": task, "preset": name, "seconds": each, "iterations": count}
        yield {**row, "total": total, "ratio": reference / total}


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
            *(y, H, net, z, denoise, settings),
            **dict(sigma=SIGMA, seed=0, executor=executor, noise=how.noise),
        )

    def step() -> None:
        with how.session(), lane():
            torch.set_num_threads(threads)
            solver.step()

    return step


def _mode(how: Engine) -> str:
    return str(how).partition(", ")[2]


# Tables -----------------------------------------------------------------------------------------

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
    **{"side": "side [px]", "seconds": "time [ms]", "floor": "floor [ms]", "total": "total [s]"},
    **{"torch": "torch [ms]", "native": "kernels [ms]", "reference": "reference [ms]"},
    **{"flops": "10⁹ operations/s", "bytes": "GB/s"},
}


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


_FORMATS = {"total": ".0f", "ratio": ".2f", "wall ratio": ".2f", "difference": ".2g"}
_SCALES = dict.fromkeys(("seconds", "reference", "floor", "torch", "native"), 1e3)
_SCALES |= dict.fromkeys(("flops", "bytes"), 1e-9)


def _shown(name: str, value: object) -> str:
    if value is None:
        return "–"
    if name in _SCALES:
        value *= _SCALES[name]
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return f"{value:{_FORMATS[name]}}" if name in _FORMATS else str(value)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
