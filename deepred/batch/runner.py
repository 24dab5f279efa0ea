"""Computes the runs of a plan with local worker processes, each run into the store once."""

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
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty

import torch

from ..compute import engine
from ..compute.memory import memory_needed
from ..io.files import WriteError, replacing
from ..paper import execution, experiments
from ..paper.runs import Run, column
from ..paper.store import Claimed, Store
from .progress import Progress

BATCH = 4  # runs of one size at once on a GPU, unless told otherwise


@dataclass(frozen=True)
class Outcome:
    """What became of the runs of a plan."""

    done: list[tuple[Run, dict]] = field(default_factory=list)
    # Not computed: the image is not on this machine.
    absent: list[tuple[Run, str]] = field(default_factory=list)
    failed: list[tuple[Run, str]] = field(default_factory=list)  # with the traceback
    left: list[Run] = field(default_factory=list)  # time was up

    def tell(self, run: Run, record: dict, count: int, progress: Progress) -> None:
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
        told = []
        for run, error in self.failed:
            name = f"failed-{run.experiment}-{run.title.replace(' ', '-')}.log"
            with replacing(store.part("logs") / name) as log:
                log.write_text(error, encoding="utf-8")
            log = store.part("logs") / name
            reason = error.strip().splitlines()[-1]
            told.append(f"{run.experiment} {run.title}: {reason}; see {log}")
        return told


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
        If the store's disk is full. What was finished before is there.
    """
    deadline = None if budget is None else time.monotonic() + budget - min(15.0, budget / 5)
    device = engine.pick(device).device
    outcome = Outcome()
    wanted = sift(runs, outcome)
    units = list(_units(wanted, device, batch or (BATCH if device == "cuda" else 1)))
    cores = os.cpu_count() or 1
    workers = workers or (1 if device == "cuda" else cores)
    workers = max(1, min(workers, len(units)))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    threads = max(1, cores // workers)
    pool = ProcessPoolExecutor(workers, context, initializer=_prepare, initargs=(threads, queue))
    with Progress(sum(run.iterations for run in wanted), "runs") as progress:
        if wanted:
            progress.line(f"{len(wanted)} runs on {device}, {workers} at once")
        follow = _Following(pool, units, store, device, queue, progress, outcome, len(wanted))
        try:
            in_time = follow.until(deadline)
        except BaseException:
            # Ctrl-C reaches the workers, a scheduler's SIGTERM does not: it is passed on.
            _stop(pool)
            raise
        if not in_time:
            _stop(pool)
            outcome.left.extend(follow.left())
            progress.line(f"time is up: {len(outcome.left)} runs are left, and continue next time")
    pool.shutdown()
    return outcome


def sift(runs: list[Run], outcome: Outcome) -> list[Run]:
    """The runs that this machine can compute, longest first; the others go to `outcome`."""
    wanted = []
    for run in runs:
        reason = experiments.missing(run)
        outcome.absent.append((run, reason)) if reason else wanted.append(run)
    # Longest first, so that no worker sits idle at the end.
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


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers; each saves its run.

    They are told until they have ended: a signal that comes while a worker hands over what stopped
    its run is taken for a part of that.
    """
    workers = multiprocessing.active_children()
    pool.shutdown(wait=False, cancel_futures=True)
    while alive := [worker for worker in workers if worker.is_alive()]:
        for worker in alive:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGINT)
        alive[0].join(1)
    pool.shutdown()


class _Following:
    """Submits units of runs to a pool, and tells what the workers say until all are done."""

    def __init__(self, pool, units, store, device, queue, progress, outcome, count) -> None:
        self.pool, self.units, self.store, self.device = pool, units, store, device
        self.queue, self.progress, self.outcome, self.count = queue, progress, outcome, count
        self.iterations: dict[tuple[int, int], int] = {}
        self.open: dict[Future, int] = {}
        self.claimed: list[int] = []  # by another process
        for number in range(len(units)):
            self._submit(number, wait=False)

    def _submit(self, number: int, wait: bool) -> None:
        task = (number, self.units[number], str(self.store.folder), self.device, wait)
        self.open[self.pool.submit(_work, *task)] = number

    def left(self) -> list[Run]:
        numbers = [*self.open.values(), *self.claimed]
        return [run for number in numbers for run in self.units[number]]

    def until(self, deadline: float | None) -> bool:
        """Whether all was done by then."""
        while self.open:
            if deadline is not None and time.monotonic() > deadline:
                return False
            try:
                number, place, done, psnr = self.queue.get(timeout=0.2)
            except Empty:
                self._take_finished()
                if not self.open:
                    self._wait_for_others()
                continue
            self._count(number, place, done)
            run = self.units[number][place]
            note = f"{run.title}, iteration {done} of {run.iterations}, {psnr:.2f} dB"
            ready = len(self.outcome.done) + len(self.outcome.failed)
            self.progress.reach(sum(self.iterations.values()), f"{ready}/{self.count}  {note}")
        return True

    def _wait_for_others(self) -> None:
        """Now for what others had: it is there, or left by them.

        One by one: who waits for a run while he has another may wait for one who waits for him.
        """
        runs = [run for number in self.claimed for run in self.units[number]]
        self.claimed = []
        for run in runs:
            self.units.append([run])
            self._submit(len(self.units) - 1, wait=True)

    def _count(self, number: int, place: int, done: int) -> None:
        self.iterations[number, place] = max(self.iterations.get((number, place), 0), done)

    def _take_finished(self) -> None:
        for future in [f for f in self.open if f.done()]:
            number = self.open[future]
            try:
                records, error = future.result()  # a WriteError ends it all
            except BrokenProcessPool:
                records, error = None, "its worker was killed, perhaps for want of memory\n"
            del self.open[future]
            if error == CLAIMED:
                self.claimed.append(number)
                continue
            for place, run in enumerate(self.units[number]):
                self._count(number, place, run.iterations)
                record = records[place] if records else execution.find(run, self.store)
                if record is not None:  # where one of a batch has failed the others may be there
                    self.outcome.tell(run, record, self.count, self.progress)
                else:
                    self.outcome.fail(run, error, self.progress)


CLAIMED = "claimed"


# In each worker process: where it tells its progress, set by `_prepare`, and whether it has a run.
_queue = None
_busy = False
_told = -math.inf  # when it was last told to end


def _prepare(threads: int, queue) -> None:
    global _queue
    _queue = queue
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # A scheduler's polite end is taken as Ctrl-C: the run saves itself and can continue. A shell
    # has its background jobs ignore Ctrl-C, and that is inherited; the parent says it so, though.
    signal.signal(signal.SIGTERM, _told_to_end)
    signal.signal(signal.SIGINT, _told_to_end)
    # A signal that arrives while Python finalises an object is only printed; the parent repeats it.
    sys.unraisablehook = _print_unless_interrupted


def _print_unless_interrupted(unraisable) -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _told_to_end(number: int, frame) -> None:
    global _told
    if not _busy:
        os._exit(130)  # nothing to save, and nobody wants to know where it waited for work
    if time.monotonic() - _told > 5:  # not while the run is being saved
        _told = time.monotonic()
        signal.default_int_handler(number, frame)


def _end_with_the_parent() -> None:
    """If the parent is killed nobody waits for this worker: save the run, as on Ctrl-C, and end."""
    multiprocessing.parent_process().join()
    # To the main thread: taken by this one, the signal would not wake it from waiting for work.
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(60)
    os._exit(130)


def _work(number: int, runs: list[Run], folder: str, device: str, wait: bool):
    """Runs in a worker: their records, or the traceback of what stopped them."""
    global _busy

    def progress(place: int, done: int, psnr: float) -> None:
        _queue.put((number, place, done, psnr))

    try:
        _busy = True
        store = Store(folder)
        return execution.execute_all(runs, store, device=device, progress=progress, wait=wait), ""
    except KeyboardInterrupt:
        os._exit(130)  # the run has saved itself; a pool's worker would take the next one
    except Claimed:
        return None, CLAIMED
    except WriteError:
        raise
    except Exception:
        return None, traceback.format_exc()
    finally:
        _busy = False
