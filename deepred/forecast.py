"""How long runs will take, from figures of `deepred bench --json`; nothing where there are none.

An iteration is taken to cost its operations (`deepred.bench.work`) at the rate that the bench
measured for the network and image nearest to it, plus its share of a call of the denoiser (one in
`denoise_every` iterations), as if the two did not overlap, which on busy cores they do not. That is
right within a factor of two or so.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from . import bench
from .engine import Engine, pick
from .runs import Run
from .settings import Settings
from .store import processor


@lru_cache(maxsize=256)
def _operations(side: int, settings: Settings) -> int:
    return bench.work(side, settings)[0]


def _side(run: Run) -> int:
    """Of the square image with as many pixels, in whole steps of the network's scales."""
    height, width = run.shape
    step = 2**run.settings.scales
    return max(1, round(math.sqrt(height * width) / step)) * step


def operations(run: Run) -> int:
    """Floating-point operations of a run's network, whatever the machine."""
    if not _networks(run):
        return 0
    return run.iterations * _operations(_side(run), _shape_of(run.settings))


def _networks(run: Run) -> bool:
    return run.settings is not None and run.method != "red"


def _shape_of(settings: Settings) -> Settings:
    """Settings with nothing but what the work depends on, so that it is counted once."""
    names = ("network", "channels", "input_channels", "skip", "scales")
    return Settings(**{name: getattr(settings, name) for name in names})


@dataclass(frozen=True)
class Machine:
    """What the bench measured on one machine.

    Parameters
    ----------
    name : of its GPU or its CPU.
    iterations : rows (operations, seconds) of an iteration of DIP.
    denoisers : by name ("nlm", "bm3d") seconds of one call for a pixel of three channels.
    workers : runs at once.
    """

    name: str
    iterations: tuple[tuple[float, float], ...]
    denoisers: dict[str, float]
    workers: int

    @classmethod
    def of(cls, results: Sequence[dict], device: str, workers: int | None = None) -> Machine | None:
        """This machine as the results of `deepred bench --json` know it; None if they do not.

        `results` may be of any machines. Several of this one complete each other.
        """
        how = pick(device)
        gpu, cpu = _names(how)
        mine = [
            each for each in results
            if each["machine"]["device"] == how.device
            and (each["machine"]["gpu"] == gpu if how.device == "cuda"
                 else each["machine"]["cpu"] == cpu)
        ]  # fmt: skip
        return cls.told(mine, workers)

    @classmethod
    def told(cls, results: Sequence[dict], workers: int | None = None) -> Machine | None:
        """The machine that the results are of, None if they have no iterations."""
        rows = [row for each in results for row in each.get("iterations", ())]
        if not rows:
            return None
        machine = results[0]["machine"]
        cuda = machine["device"] == "cuda"
        workers = workers or (1 if cuda else machine["cores"])
        wanted = "tf32, channels last" if cuda else "float32"
        if not cuda and workers > 1:
            wanted += ", 1 thread"  # a core for each
        measured = [
            (_operations(row["side"], Settings(channels=row["channels"])), row["seconds"])
            for row in rows
            if row["mode"] == wanted
        ]
        # On a CPU the kernels compute the network; their processor time is shared by the threads.
        threads = 1 if workers > 1 else machine["cores"]
        kernels = [
            (_operations(round((row["height"] * row["width"]) ** 0.5),
                         Settings(channels=row["channels"])), row["native"] / threads)
            for each in results for row in each.get("kernels", ())
            if not cuda and row["threads"] == threads
        ]  # fmt: skip
        measured = kernels or measured
        calls = [row for each in results for row in each.get("denoisers", ())]
        seconds = {
            {"NLM": "nlm", "CBM3D": "bm3d"}[row["denoiser"]]: row["seconds"] / row["side"] ** 2
            for row in calls
        }
        name = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
        return cls(name, tuple(sorted(measured)), seconds, workers) if measured else None

    def seconds(self, run: Run) -> float | None:
        """Of a run alone; None where the bench has no such denoiser."""
        s, pixels = run.settings, run.shape[0] * run.shape[1]
        if s is None:
            if run.method in ("nlm", "cbm3d"):
                each = self.denoisers.get({"cbm3d": "bm3d"}.get(run.method, run.method))
                return None if each is None else each * pixels
            return 0.0
        total = 0.0
        if run.method != "dip":
            each = self.denoisers.get(s.denoiser)
            if run.method != "dip-tv":
                if each is None:
                    return None
                every = 1 if run.method == "red" else s.denoise_every
                total += run.iterations / every * each * pixels
        if _networks(run):
            total += run.iterations * self._iteration(operations(run) / run.iterations)
        return total

    def _iteration(self, flops: float) -> float:
        """Seconds at the rate of the measured iteration whose operations are nearest."""
        known, seconds = min(self.iterations, key=lambda row: abs(math.log(row[0] / flops)))
        return flops * seconds / known

    def all_of(self, runs: Sequence[Run]) -> float:
        """Seconds of all runs, `workers` at once; those it knows."""
        return sum(self.seconds(run) or 0.0 for run in runs) / self.workers


def _names(how: Engine) -> tuple[str, str]:
    import torch

    return torch.cuda.get_device_name() if how.device == "cuda" else "", processor()


def makespan(count: int, workers: int, seconds: float, overhead: float) -> float:
    """Seconds until `count` equal runs are done on a cluster, by simulation.

    Each takes `seconds` of a worker, and `overhead` of the one process that sends the runs and
    stores the results, half of it before and half after; that process serves who came first, and a
    worker waits for it. So beyond seconds / overhead workers none is of use.
    """
    free = [(0.0, worker) for worker in range(min(workers, count))]  # a heap
    sent, busy_until, last = 0, 0.0, 0.0
    while free:
        ready, worker = heapq.heappop(free)
        if ready > 0:  # with a result, which is stored first
            busy_until = last = max(busy_until, ready) + overhead / 2
        if sent < count:
            busy_until = max(busy_until, ready) + overhead / 2
            heapq.heappush(free, (busy_until + seconds, worker))
            sent += 1
    return last


def told(seconds: float | None) -> str:
    """A duration as one says it: 40 s, 12 min, 7.5 h, 3.2 days."""
    if seconds is None:
        return "unknown"
    for unit, size, most in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 48 * 3600)):
        if seconds < most:
            value = seconds / size
            return f"{value:.0f} {unit}" if unit != "h" or value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"
