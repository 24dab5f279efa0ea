"""Computes the runs of a plan with local worker processes, each run into the store once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from queue import Empty

import torch

from . import engine, experiments
from .experiments import Run
from .progress import Progress
from .store import Store


@dataclass(frozen=True)
class Outcome:
    """What became of the runs of a plan."""

    done: list[tuple[Run, dict]]
    absent: list[tuple[Run, str]]  # not computed: the image is not on this machine
    failed: list[tuple[Run, str]]  # with the traceback


def compute(
    runs: list[Run], store: Store, *, device: str = "auto", workers: int | None = None
) -> Outcome:
    """Compute what the store does not have yet.

    `workers` processes share the cores: two runs of a narrow network beside each other take little
    more time than one on both cores. One worker on a GPU.
    """
    device = engine.pick(device).device
    outcome = Outcome([], [], [])
    wanted = []
    for run in runs:
        reason = experiments.missing(run)
        outcome.absent.append((run, reason)) if reason else wanted.append(run)
    cores = os.cpu_count() or 1
    workers = workers or (1 if device == "cuda" else cores)
    workers = max(1, min(workers, len(wanted)))
    # Longest first, so that no worker sits idle at the end.
    wanted.sort(key=lambda run: -run.iterations)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    threads = max(1, cores // workers)
    pool = ProcessPoolExecutor(workers, context, initializer=_prepare, initargs=(threads, queue))
    with Progress(sum(run.iterations for run in wanted), "runs") as progress:
        if wanted:
            progress.line(f"{len(wanted)} runs on {device}, {workers} at once")
        futures = {
            pool.submit(_work, number, run, str(store.folder), device): run
            for number, run in enumerate(wanted)
        }
        try:
            _follow(futures, wanted, queue, progress, outcome)
            pool.shutdown()
        except KeyboardInterrupt:
            # Ctrl-C reaches the workers, a scheduler's SIGTERM does not: pass it on, so that
            # each saves its run.
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGINT)
            pool.shutdown(cancel_futures=True)
            raise
    return outcome


def _follow(futures, wanted, queue, progress: Progress, outcome: Outcome) -> None:
    """Tell what the workers say until all are done."""
    counts = [0] * len(wanted)
    open_futures = set(futures)
    while open_futures:
        try:
            number, count, psnr = queue.get(timeout=0.2)
            counts[number] = max(counts[number], count)
            run = wanted[number]
            note = f"{run.title} {psnr:.2f} dB"
            progress.update(sum(counts), f"{len(wanted) - len(open_futures)}/{len(wanted)}  {note}")
            continue
        except Empty:
            pass
        for future in [f for f in open_futures if f.done()]:
            open_futures.remove(future)
            run = futures[future]
            counts[wanted.index(run)] = run.iterations
            try:
                record, error = future.result()
            except BrokenProcessPool:
                record, error = None, "its worker was killed, perhaps for want of memory\n"
            if error:
                outcome.failed.append((run, error))
                progress.line(f"failed: {run.title}: {error.strip().splitlines()[-1]}")
                continue
            outcome.done.append((run, record))
            progress.line(
                f"{len(outcome.done):3d}/{len(wanted)}  {run.title:28s} "
                f"{record['metrics']['psnr']:6.2f} dB  {record['seconds']:7.1f} s"
            )


# Set by `_prepare` once in each worker process: where it tells its progress.
_queue = None


def _prepare(threads: int, queue) -> None:
    global _queue
    _queue = queue
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # A scheduler's polite end is taken as Ctrl-C: the run saves itself and can continue. A shell
    # has its background jobs ignore Ctrl-C, and that is inherited; the parent says it so, though.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_with_the_parent() -> None:
    """If the parent is killed nobody waits for this worker: save the run, as on Ctrl-C, and end."""
    multiprocessing.parent_process().join()
    # To the main thread: taken by this one, the signal would not wake it from waiting for work.
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(60)
    os._exit(130)


def _work(number: int, run: Run, folder: str, device: str) -> tuple[dict | None, str]:
    """One run in a worker: its record, or the traceback of what stopped it."""

    def progress(done: int, psnr: float) -> None:
        _queue.put((number, done, psnr))

    try:
        return experiments.execute(run, Store(folder), device=device, progress=progress), ""
    except KeyboardInterrupt:
        os._exit(130)  # the run has saved itself; a pool's worker would take the next one
    except Exception:
        return None, traceback.format_exc()
