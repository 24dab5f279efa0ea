"""Computes the runs of a plan with local worker processes, each run into the store once.

This process gives each worker a unit of runs at a time over a pipe of its own, so that the death of
one, however it comes, concerns its unit alone. The store's claims keep other processes off.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

import torch

from ..compute import engine
from ..compute.memory import memory_needed
from ..io.files import WriteError, replacing
from ..paper import execution, experiments
from ..paper.runs import Run, column
from ..paper.store import Claimed, Store
from .progress import Progress

BATCH = 4  # runs of one size at once on a GPU, unless asked otherwise
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class Outcome:
    """What became of the runs of a plan."""

    done: list[tuple[Run, dict]] = field(default_factory=list)
    # Not computed: the image is not on this machine.
    absent: list[tuple[Run, str]] = field(default_factory=list)
    failed: list[tuple[Run, str]] = field(default_factory=list)  # with the traceback
    left: list[Run] = field(default_factory=list)  # time was up

    def finish(self, run: Run, record: dict, count: int, progress: Progress) -> None:
        """A run is done, of `count`."""
        self.done.append((run, record))
        name = column(run.task)  # as in the tables
        metric = f"{name.upper().replace('_', '-'):6s} {record['metrics'][name]:5.2f} dB"
        progress.line(
            f"{len(self.done):3d}/{count}  {run.title:36s} {metric} {record['seconds']:7.1f} s"
        )

    def fail(self, run: Run, error: str, progress: Progress) -> None:
        self.failed.append((run, error))
        progress.line(f"failed: {run.title}: {error.strip().splitlines()[-1]}")

    def failures(self, store: Store) -> list[str]:
        """What failed, why, and where its log is, which is written into the store's folder."""
        lines = []
        for run, error in self.failed:
            log = store.part("logs") / f"failed-{run.experiment}-{run.title.replace(' ', '-')}.log"
            with replacing(log) as temporary:
                temporary.write_text(error, encoding="utf-8")
            reason = error.strip().splitlines()[-1]
            lines.append(f"{run.experiment} {run.title}: {reason}; see {log}")
        return lines


def compute(
    runs: list[Run],
    store: Store,
    *,
    device: str = "auto",
    workers: int | None = None,
    budget: float | None = None,
    batch: int | None = None,
) -> Outcome:
    """Compute what the store does not have yet.

    Parameters
    ----------
    workers : processes that share the cores, one a core unless given: two runs of a narrow network
        beside each other take little more time than one on both cores. One worker on a GPU.
    budget : seconds after which all stops; what is under way is saved, and continues next time.
    batch : runs of one size that take turns in a worker; on a GPU `BATCH` or as many as fit,
        elsewhere one, unless given.

    Raises
    ------
    WriteError
        If the store cannot be written to, or its disk is full. What was finished before is there.
    """
    deadline = None if budget is None else time.monotonic() + budget - min(15.0, budget / 5)
    device = engine.pick(device).device
    store.check()
    outcome = Outcome()
    wanted = sift(runs, outcome)
    units = list(_units(wanted, device, batch or (BATCH if device == "cuda" else 1)))
    workers = workers or (1 if device == "cuda" else os.cpu_count() or 1)
    workers = max(1, min(workers, len(units)))
    with Progress(sum(run.iterations for run in wanted), "runs") as progress:
        if wanted:
            progress.line(f"{len(wanted)} runs on {device}, {workers} at once")
        crew = _Crew(units, workers, store, device, progress, outcome)
        try:
            crew.follow(deadline)
        finally:
            crew.stop()
        outcome.left.extend(crew.left())
        if outcome.left:
            progress.line(f"time is up: {len(outcome.left)} runs are left, and continue next time")
    return outcome


def sift(runs: list[Run], outcome: Outcome) -> list[Run]:
    """The runs that this machine can compute; the others go to `outcome`.

    Longest first, so that no worker sits idle at the end.
    """
    wanted = []
    for run in runs:
        reason = experiments.missing(run)
        outcome.absent.append((run, reason)) if reason else wanted.append(run)
    return sorted(wanted, key=lambda run: -run.iterations)


def _units(runs: list[Run], device: str, batch: int) -> Iterator[list[Run]]:
    """Runs to be computed together: of one size, so that they end together, and what fits."""
    alike: dict[object, list[Run]] = {}
    for run in runs:
        kind, most = object(), 1  # alone
        if batch > 1 and run.settings is not None and run.method != "red":
            shape, s = tuple(run.truth().shape[1:]), run.settings
            kind = (shape, s.channels, s.iterations, s.runs, run.precision)
            most = batch
            if device == "cuda":
                fits = torch.cuda.mem_get_info()[0] // memory_needed(shape, s)
                most = max(1, min(batch, fits // s.runs))
        group = alike.setdefault(kind, [])
        group.append(run)
        if len(group) >= most:
            yield alike.pop(kind)
    yield from alike.values()


class _Crew:
    """The workers, what each is doing, and the units that are left."""

    def __init__(self, units, workers, store, device, progress, outcome) -> None:
        self.units, self.workers, self.store, self.device = units, workers, store, device
        self.progress, self.outcome = progress, outcome
        self.count = sum(map(len, units))
        self.waiting = deque((unit, False) for unit in units)  # and whether to wait for claims
        self.busy: dict[Connection, list[Run]] = {}
        self.claimed: list[Run] = []  # by another process
        self.processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self.iterations: dict[Run, int] = {}

    def left(self) -> list[Run]:
        units = [*self.busy.values(), *(unit for unit, _ in self.waiting), self.claimed]
        return [run for unit in units for run in unit]

    def follow(self, deadline: float | None) -> None:
        """Give out the units and take what comes back, until all is done or time is up."""
        while self.left() and (deadline is None or time.monotonic() < deadline):
            if not self.waiting and not self.busy:
                # Now for what others had: it is there, or left by them. One at a time: waiting
                # while holding claims could deadlock.
                self.waiting.extend(([run], True) for run in self.claimed)
                self.claimed.clear()
            while self.waiting and len(self.busy) < self.workers:
                self._give(self._idle())
            for pipe in wait(list(self.busy), timeout=0.2):
                try:
                    message = pipe.recv()
                except (EOFError, OSError):
                    self.processes.pop(pipe).join()
                    message = "ended", None, "its worker was killed, perhaps for want of memory\n"
                self._take(pipe, *message)

    def _idle(self) -> Connection:
        """The pipe to a worker that has nothing to do, started if there is none."""
        for pipe in self.processes:
            if pipe not in self.busy:
                return pipe
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        work = (theirs, str(self.store.folder), self.device, threads)
        process = context.Process(target=_work, args=work)
        with _signals_later():  # the worker inherits this, and hears of them when it can
            process.start()
        theirs.close()  # so that the end of the worker is the end of the pipe
        self.processes[ours] = process
        return ours

    def _give(self, pipe: Connection) -> None:
        try:
            pipe.send(self.waiting[0])
        except OSError:  # killed while it had nothing to do: another takes the unit
            self.processes.pop(pipe).join()
        else:
            self.busy[pipe], _ = self.waiting.popleft()

    def _take(self, pipe: Connection, kind: str, *content) -> None:
        """What a worker says: how far it is, or how its unit has ended."""
        unit = self.busy[pipe]
        if kind == "progress":
            place, done, psnr = content
            run = unit[place]
            self.iterations[run] = max(self.iterations.get(run, 0), done)
            note = f"{run.title}, iteration {done} of {run.iterations}, {psnr:.2f} dB"
            ready = len(self.outcome.done) + len(self.outcome.failed)
            self.progress.reach(sum(self.iterations.values()), f"{ready}/{self.count}  {note}")
        elif kind == "full":
            raise WriteError(*content)
        elif kind == "claimed":
            self.claimed += self.busy.pop(pipe)
        else:
            self._finish(pipe, *content)

    def _finish(self, pipe: Connection, records: list[dict] | None, error: str) -> None:
        for place, run in enumerate(self.busy.pop(pipe)):
            self.iterations[run] = run.iterations
            record = records[place] if records else execution.find(run, self.store)
            if record is not None:  # where one of a batch has failed the others may be there
                self.outcome.finish(run, record, self.count, self.progress)
            else:
                self.outcome.fail(run, error, self.progress)

    def stop(self) -> None:
        """End the workers; each saves its run.

        A scheduler's SIGTERM does not reach them as Ctrl-C does. The signal is repeated until they
        have ended, as Python loses one that comes while it finalises an object.
        """
        for pipe in self.processes:
            if pipe not in self.busy:
                pipe.close()
        while alive := [process for process in self.processes.values() if process.is_alive()]:
            alive[0].join(0.2)  # those with nothing to do end with their pipes
            for process in filter(lambda each: each.is_alive(), alive):
                os.kill(process.pid, signal.SIGINT)
            alive[0].join(0.8)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In a worker --------------------------------------------------------------------------------------


def _work(pipe: Connection, folder: str, device: str, threads: int) -> None:
    """Compute the units that come through the pipe, until it ends."""
    last = -math.inf

    def interrupt(number: int, frame) -> None:
        nonlocal last
        if time.monotonic() - last > 5:  # not while the run is being saved
            last = time.monotonic()
            raise KeyboardInterrupt

    def unraisable(error) -> None:
        """A signal that arrives while Python finalises an object is lost, and repeated."""
        if not issubclass(error.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(error)

    sys.unraisablehook = unraisable
    torch.set_num_threads(threads)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        for number in _SIGNALS:
            signal.signal(number, interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        while True:
            unit, claims = pipe.recv()
            pipe.send(_computed(unit, Store(folder), device, claims, pipe))
    except (KeyboardInterrupt, EOFError, OSError):
        os._exit(130)  # the run has saved itself; nobody wants to know where it was interrupted


def _computed(unit: list[Run], store: Store, device: str, claims: bool, pipe: Connection) -> tuple:
    """How a unit ends: with its records, or the traceback of what stopped it."""

    def progress(place: int, done: int, psnr: float) -> None:
        with suppress(OSError):  # without the parent the run is to be saved: _end_with_the_parent
            pipe.send(("progress", place, done, psnr))

    try:
        records = execution.execute_all(unit, store, device=device, progress=progress, wait=claims)
        return "ended", records, ""
    except Claimed:
        return ("claimed",)
    except WriteError as error:
        return "full", str(error)
    except Exception:
        return "ended", None, traceback.format_exc()


def _end_with_the_parent() -> None:
    """If the parent is killed nobody waits for this worker: save the run, as on Ctrl-C, and end."""
    multiprocessing.parent_process().join()
    # To the main thread: taken by this one, the signal would not wake it from waiting for work.
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(60)
    os._exit(130)
