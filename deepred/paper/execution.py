"""Computing the runs of `deepred.paper.experiments`, each into the store once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .. import denoisers, metrics
from ..beyond import baselines
from ..beyond import stopping as rules
from ..compute.engine import Engine, pick
from ..errors import CheckpointError, DivergedError
from ..restoration import Problem, Result, restore_all
from ..solver import State
from .files import set_aside
from .provenance import provenance
from .runs import DIRECT, TASKS, Run
from .store import Store
from .studies import RULES

TV_WEIGHT = 3e-5  # of tomography's baseline, the best of 1e-5, 3e-5, 1e-4 on the phantom


def find(run: Run, store: Store) -> dict | None:
    """A run's record, of whatever precision where the run names none; None if it is not there."""
    found = (store.get(key) for key in run.keys(run.truth()))
    return next((record for record in found if record is not None), None)


def execute(run: Run, store: Store, *, device: str = "auto") -> dict:
    """Compute a run unless the store has it, and return its record."""
    return execute_all([run], store, device=device)[0]


def execute_all(
    runs: Sequence[Run],
    store: Store,
    *,
    device: str = "auto",
    progress: Callable[[int, int, float], None] | None = None,
    truths: Sequence[Tensor] | None = None,
    wait: bool = True,
) -> list[dict]:
    """Compute runs beside each other (`deepred.restoration.restore_all`), unless the store has
    them, and return their records.

    Each is claimed meanwhile: another process on the same store waits for it.

    Parameters
    ----------
    progress : is called with the number of a run, its iterations so far, and the PSNR.
    truths : the runs' ground truths, where they are not to be read from disk.
    wait : for runs that another process has; else they raise.

    Raises
    ------
    Claimed
        If another process has one, and `wait` is false.
    DivergedError
        Of a run that failed, when the others are in the store.
    """
    records: list[dict | None] = [find(run, store) if truths is None else None for run in runs]
    todo = [i for i, record in enumerate(records) if record is None]
    tell = progress or (lambda *_: None)
    with ExitStack() as stack:
        under_way = []
        batch = sum(runs[i].settings.runs for i in todo if runs[i].method not in DIRECT)
        for i in todo:
            truth = runs[i].truth() if truths is None else truths[i]
            job = _Execution(runs[i], truth, store, device, max(1, batch), partial(tell, i))
            stack.enter_context(store.claim(*runs[i].keys(truth), wait=wait))
            records[i] = store.get(job.key)  # it may have come while we waited
            if records[i] is None:
                under_way.append((i, job))
        for i, job in under_way:
            if job.run.method in DIRECT:
                records[i] = job.direct()
        solved = [(i, job) for i, job in under_way if job.run.method not in DIRECT]
        failures = []
        for engine in dict.fromkeys(job.engine for _, job in solved):
            alike = [(i, job) for i, job in solved if job.engine == engine]
            results = _restored([job for _, job in alike], engine)
            for (i, job), result in zip(alike, results, strict=True):
                if isinstance(result, DivergedError):
                    failures.append(result)
                else:
                    records[i] = job.put(result)
        if failures:
            raise failures[0]
    return records


def _restored(jobs: list[_Execution], engine: Engine) -> list[Result | DivergedError]:
    """`restore_all` of what the jobs ask for.

    A checkpoint that cannot be continued from, damaged or of an older torch, is set aside: a store
    is to be started again without a person.
    """
    while True:
        try:
            return restore_all([job.problem() for job in jobs], engine=engine)
        except CheckpointError as error:
            set_aside(error.path, error.why, "the run begins anew")


class _Execution:
    """One run being computed: what it measures on the way, and the record of its end."""

    def __init__(self, run: Run, truth: Tensor, store: Store, device: str, batch: int, tell):
        self.run, self.truth, self.store, self.tell = run, truth, store, tell
        self.y, metric = run.measurement(truth), TASKS[run.task].metric
        self.metric = lambda image, truth: metric(run.finished(image, self.y), truth)
        work = run.settings and run.settings.channels * truth.shape[2] * truth.shape[3]
        work = None if run.method == "red" else work
        self.engine = pick(device, run.precision, work=work)
        if self.engine.device == "cuda":
            self.engine = replace(self.engine, batch=batch)
        self.key = run.key(truth, self.engine.precision)

    def direct(self) -> dict:
        started, spent = time.perf_counter(), time.process_time()
        image = direct(self.run, self.y)
        spent = time.process_time() - spent
        return self._put(image, time.perf_counter() - started, spent, None, {})

    def problem(self) -> Problem:
        run = self.run
        every = max(1, run.settings.iterations // 200)
        last = run.settings.iterations
        track = metrics.tracker(self.truth, every, last=last, metric=self.metric)
        self._observers = _Rules(run)
        before = time.process_time()

        def measure(state: State) -> dict[str, float] | None:
            nonlocal before
            self._observers.update(state)
            measured = track(state)
            if measured is not None:
                now = time.process_time()
                measured["processor_seconds"] = now - before
                before = now
                self.tell(state.run * last + state.k, measured["psnr"])
            return measured

        return Problem(
            self.y, run.H, run.method, settings=run.settings, sigma=run.level(self.y),
            seed=run.seed, callback=measure, checkpoint=self.store.checkpoint(self.key),
            likelihood=run.model if run.term == "likelihood" else None,
        )  # fmt: skip

    def put(self, result: Result) -> dict:
        there = ~np.isnan(result.history["psnr"])
        curve = {name: values[there] for name, values in result.history.items()}
        top, last = np.argmax(curve["psnr"]), np.flatnonzero(curve["run"] == 0)[-1]
        more = {
            # Of the mean that f makes the result from, where it does.
            "best_psnr": float(curve["psnr"][top]),
            "best_iteration": int(curve["iteration"][top]),
            "single_psnr": self.metric(result.images[0].cpu(), self.truth),  # the first run alone
            "plain_psnr": float(curve["psnr_output"][last]),  # and its last output alone
            "run_means": _run_means(result.images, self.truth, self.metric),
            "iterations": max(result.iterations),  # fewer than the budget where it has settled
            "stops": self._observers.summary(lambda image: self.metric(image.cpu(), self.truth)),
        }
        spent = float(curve.pop("processor_seconds").sum())
        image = self.run.finished(result.image.cpu(), self.y)
        spent = spent if self.engine.device == "cpu" else None
        return self._put(image, result.seconds, spent, curve, more)

    def _put(
        self, image: Tensor, seconds: float, spent: float | None, curve: dict | None, more: dict
    ) -> dict:
        run = self.run
        fields = "profile experiment task setting dataset image method preset variant seed".split()
        record = self.store.put(
            {
                "key": self.key,
                **{name: getattr(run, name) for name in fields},
                "crop": "" if run.crop is None else " ".join(map(str, run.crop)),
                "iterations": run.settings.iterations if run.settings else 0,
                "metrics": {**metrics.all_of(image, self.truth), **more},
                "seconds": seconds,
                "processor_seconds": spent,  # of this process; None where a GPU computes
                "settings": run.settings.as_dict() if run.settings else {},
                "provenance": provenance(self.engine),
            },
            curve,
            image,
        )
        begun = self.store.folder / "checkpoints" / f"{self.key}.pt"
        begun.unlink(missing_ok=True)  # the record is what is kept
        return record


class _Rules:
    """The `RULES`, which watch a run of study stopping and stop nothing; none at any other."""

    def __init__(self, run: Run) -> None:
        wanted = RULES if run.experiment == "stopping" else {}
        self._rules = {n: rules.named(n, run.sigma, every=1, **o) for n, o in wanted.items()}
        self._stopped: dict[str, int] = {}

    def update(self, state: State) -> None:
        for name, rule in self._rules.items():
            if rule.update(state):
                self._stopped.setdefault(name, state.k)

    def summary(self, metric: Callable[[Tensor], float]) -> str:
        """By rule [iteration at which it would stop, that of its image, PSNR], JSON; null if it
        would not. "" without rules."""
        found = {}
        for name, rule in self._rules.items():
            k, image = rule.best or (None, None)
            psnr = None if image is None else round(metric(image), 3)
            found[name] = [self._stopped.get(name), k, psnr]
        return json.dumps(found) if found else ""


def _run_means(images: list[Tensor], truth: Tensor, metric) -> str:
    """PSNR of the mean of the first one, two, ... runs, in dB with blanks between."""
    total, found = torch.zeros_like(truth), []
    for count, image in enumerate(images, 1):
        total = total + image.cpu()
        found.append(f"{metric(total / count, truth):.3f}")
    return " ".join(found)


def direct(run: Run, y: Tensor) -> Tensor:
    """What the methods without a solver make of a measurement."""
    if run.method == "tv":
        return baselines.total_variation(y, run.H, TV_WEIGHT).clamp(0, 1)
    if run.method == "nlm":
        return denoisers.nlm(y, run.sigma)
    if run.method == "cbm3d":
        return denoisers.named("bm3d")(y, run.sigma)
    return run.start(y)
