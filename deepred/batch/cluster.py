"""The runs of a plan on a dask.distributed cluster, one task each, the results into one store.

A worker needs this package and nothing else: the image travels with the run, the result comes back
as a packed store, and only this process writes. Dask hands the task of a lost worker to another.
"""

from __future__ import annotations

import tempfile
import traceback
from contextlib import ExitStack
from pathlib import Path

import torch

from ..compute import engine
from ..errors import InputError
from ..paper import execution
from ..paper.runs import Run
from ..paper.store import Claimed, Store
from . import results
from .progress import Progress
from .runner import Outcome, sift

TOPIC = "deepred"
AHEAD = 2  # tasks waiting for each running one: the scheduler never holds more images than that


def compute(
    runs: list[Run], store: Store, address: str, *, device: str = "auto", seconds: float = 30
) -> Outcome:
    """Compute what the store does not have yet on the workers of a scheduler.

    Workers started with ``--resources GPU=1`` or ``--resources run=1`` take one run at a time, on
    as many threads as they have; others must have a single thread. Runs that another process
    has claimed are left to it.

    Parameters
    ----------
    address : of the scheduler, tcp://host:8786, or the path of its --scheduler-file.
    device : for every worker, "auto", "cpu" or "cuda".
    seconds : to wait for the scheduler.

    Raises
    ------
    InputError
        If dask.distributed is missing, nobody answers, or the workers would mix runs.
    """
    distributed = _distributed()
    if device not in engine.DEVICES:
        raise InputError(f"device must be {', '.join(engine.DEVICES)}, got {device!r}")
    store.check()
    outcome = Outcome()
    wanted = sift(runs, outcome)
    where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = distributed.Client(**where, timeout=seconds, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--dask {address}: no scheduler answers ({error})") from None
    with client, ExitStack() as claims:
        needs, todo = _needs(client, device), {}
        for run in wanted:
            keys = run.keys(run.truth())
            try:
                claims.enter_context(store.claim(*keys, wait=False))
            except Claimed:
                outcome.left.append(run)
                continue
            record = execution.find(run, store)
            if record is not None:
                outcome.done.append((run, record))
            else:
                todo[keys[0]] = run
        with Progress(sum(run.iterations for run in todo.values()), "runs") as progress:
            _follow(distributed, client, todo, store, device, needs, outcome, progress)
    return outcome


def _distributed():
    try:
        import distributed
    except ImportError:
        raise InputError("--dask needs pip install 'deepred[dask]'") from None
    return distributed


def _needs(client, device: str) -> dict[str, float]:
    """The resource that one run takes, so that a worker has one at a time."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    for name in ("GPU", "run"):
        if any(worker["resources"].get(name) for worker in workers):
            if not (name == "GPU" and device == "cpu"):
                return {name: 1}
    if any(worker["nthreads"] > 1 for worker in workers):
        raise InputError(
            "--dask: the workers would compute several runs in one process; start them with "
            "--resources run=1 (or GPU=1), or --nthreads 1"
        )
    return {}


def _follow(distributed, client, todo, store, device, needs, outcome, progress) -> None:
    counts, waiting, running = dict.fromkeys(todo, 0), iter(todo), {}

    def heard(event) -> None:
        _, (key, done, psnr) = event
        if key in counts:
            counts[key] = max(counts[key], done)
            ready = len(outcome.done) + len(outcome.failed)
            note = f"{ready}/{len(todo)}  {todo[key].title} {psnr:.2f} dB"
            progress.reach(sum(counts.values()), note)

    def submit(key: str) -> object:
        image = todo[key].truth().numpy()
        future = client.submit(
            *(_remote, todo[key], image, device, key),
            **dict(key=f"deepred-{key}", resources=needs or None, retries=2, pure=False),
        )
        running[future] = key
        return future

    client.subscribe_topic(TOPIC, heard)
    threads = sum(client.nthreads().values())
    progress.line(f"{len(todo)} runs on {len(client.nthreads())} workers")
    first = [submit(key) for _, key in zip(range((1 + AHEAD) * max(1, threads)), waiting)]
    following = distributed.as_completed(first, loop=client.loop)
    try:
        for future in following:
            key = running.pop(future)
            run = todo[key]
            try:
                record = _take(store, future.result(), run)
                outcome.finish(run, record, len(todo), progress)
            except distributed.CancelledError:
                outcome.fail(run, "it was cancelled on the cluster\n", progress)
            except InputError:
                raise  # of our own disk, say
            except Exception:
                outcome.fail(run, traceback.format_exc(), progress)
            counts[key] = run.iterations
            future.release()
            for another in waiting:
                following.add(submit(another))
                break
    finally:
        client.unsubscribe_topic(TOPIC)
        client.cancel(list(running))


def _take(store: Store, packed: bytes, run: Run) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.zip"
        path.write_bytes(packed)
        results.merge(store, path)
    return execution.find(run, store)


def _remote(run: Run, truth, device: str, key: str) -> bytes:
    """On a worker: the run, as a packed store."""
    from distributed import get_worker

    worker = get_worker()
    torch.set_num_threads(max(1, worker.state.nthreads))

    def progress(_: int, done: int, psnr: float) -> None:
        worker.log_event(TOPIC, (key, done, psnr))

    try:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            execution.execute_all(
                [run], store, device=device, progress=progress, truths=[torch.from_numpy(truth)]
            )
            return results.zipped(store)
    except InputError as error:  # nothing that another try would mend, but a worker's disk
        raise RuntimeError(str(error)) from None
