"""`restore`: from a measurement to an image.

The arguments are resolved (`problem`), the runs of each problem take their steps (`compute.job`),
and what came of them is the result.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import __version__, denoisers
from .checks import Rule
from .compute.engine import Engine, pick, plain_torch
from .compute.history import joined
from .compute.job import Job
from .compute.memory import check_memory
from .errors import DivergedError, InputError
from .fidelity import Likelihood
from .problem import Callback, Problem, resolve
from .settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Result:
    """What `restore` returns.

    `image` (1, C, H, W) is the mean of `images`, one for each run. `history` has one row an
    iteration, the runs one after the other: ``run``, ``iteration``, ``seconds``, the terms of
    `deepred.solver.State` and whatever the callback returned (NaN where it returned nothing).
    `iterations` are those of `images`: each run's last, or the one that its stopping rule chose.

    `finished` tells of DeepRED whether the fit has come down to the noise in every run, and, where
    settings.settle is above 0, the image has settled; None where that is no question: the noise
    level is not known, or another method or a stopping rule ended the run. `residual` and `noise`
    are the root mean squares of H T(z) - y, over the last `check_every` iterations, and of the
    noise, in image units, of the run that is furthest from its target; None where not known.
    """

    image: Tensor
    images: list[Tensor]
    history: dict[str, np.ndarray]
    settings: Settings
    method: str
    sigma: float | None
    seed: int
    seconds: float
    engine: Engine
    iterations: list[int]
    finished: bool | None = None
    residual: float | None = None
    noise: float | None = None

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image.shape[:0:-1]))  # width x height x channels
        runs = f"{len(self.images)} runs, " if len(self.images) > 1 else ""
        return f"<Result of {self.method}: {size}, {runs}{self.seconds:.0f} s, {self.ending}>"

    @property
    def ending(self) -> str:
        """One sentence on how the runs ended; levels of 255.

        `--iterations` is settings.iterations; where there is a checkpoint, the run goes on from it.
        """
        if self.finished is None:
            return f"ended after {_listed(self.iterations)} iterations"
        levels = f"residual {255 * self.residual:.3g}, noise {255 * self.noise:.3g}"
        if self.finished:
            return f"fit finished: {levels}"
        if self.residual <= self.settings.residual_target * self.noise:
            levels += ", image still changing"
        more = int(float(f"{2 * max(self.iterations):.2g}"))
        return f"fit not finished: {levels}; --iterations {more} would go on"

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each pixel over the runs (1, C, H, W), with n - 1.

        Where the prior and the measurement leave the image open the runs differ; an error that
        all share does not show.

        Raises
        ------
        InputError
            If there was one run only.
        """
        if self.method == "red":
            raise InputError("the deviation is over runs, and method 'red' has only one")
        if len(self.images) < 2:
            raise InputError("the deviation over runs needs settings.runs of at least 2")
        return torch.stack(self.images).std(0)

    def curve(self, name: str, run: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Iterations and values of a column of the history, where it has one."""
        rows = (self.history["run"] == run) & ~np.isnan(self.history[name])
        return self.history["iteration"][rows], self.history[name][rows]


def restore(
    y: Tensor,
    H: Callable[[Tensor], Tensor] | None = None,
    *,
    method: str = "deepred",
    denoiser: str | Callable[[Tensor, float], Tensor] | None = None,
    settings: Settings | None = None,
    sigma: float | None = None,
    seed: int = 0,
    device: str = "auto",
    engine: Engine | None = None,
    shape: tuple[int, int, int] | None = None,
    network: Callable[[], nn.Module] | None = None,
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    likelihood: Likelihood | None = None,
    stop: Callable[[], Rule] | None = None,
) -> Result:
    """Restore an image from a measurement y = H x + noise.

    Parameters
    ----------
    y : measurement; for denoising the noisy image, (1, C, H, W) in [0, 1]. What it holds where an
        `Inpaint` sees nothing has no part in it.
    H : operator, image -> measurement; None is the identity (denoising). One of
        `deepred.operators` or `deepred.beyond.radon`, any callable that torch can differentiate, or
        a physics object of deepinv, which is taken without its noise.
    method : "deepred", "dip" (the same loop with lam = mu = 0), "dip-tv" (DIP with the total
        variation of its output) or "red" (no network).
    denoiser : a name of `deepred.denoisers.NAMES`, a callable f(x, sigma) or a torch module called
        so; the settings' unless given. It is not differentiated; a module is copied, in evaluation
        mode.
    settings : preset `fast` of the task unless given: that which H names (`H.task`), else
        denoising.
    sigma : noise level of y in image units. Where the settings need it (the controller, and RED
        alone for denoising) and it is not given, it is estimated (`deepred.noise`).
    seed : run r uses 1000 seed + r for theta, z and the noise on z.
    device : "auto" (CUDA where there is one), "cpu" or "cuda".
    engine : how it is computed, from `deepred.compute.engine.pick`; instead of `device`.
    shape : (C, H, W) of the image; unless given what H tells (`H.image_shape`), else y's.
    network : makes a fresh module z -> image with an attribute `input_shape`; the settings' unless
        given.
    callback : called with every state; what it returns is added to the history.
    checkpoint : file to save to now and then, on Ctrl-C and at the end, and to continue from.
        Called again with more `settings.iterations`, a run that its budget has ended goes on, to
        the bits of one that had them from the start; with as many or fewer the result is the same
        again. A file of other input or settings is refused unless its run has ended, and then
        replaced. It is yours to delete.
    checkpoint_seconds : least time between two saves.
    likelihood : of the noise, for Eq. (7), in the place of 1/2 ||Hx - y||^2: one of
        `deepred.beyond.likelihoods`, or a callable (Hx, y) -> terms (see `deepred.solver.ADMM`).
    stop : makes a stopping rule of `deepred.beyond.stopping` for each run: `WindowedVariance`, say,
        or `lambda: Discrepancy(sigma)`. A run ends when its rule says so, with the rule's image, a
        mean of the last outputs; at the settings' iterations, with its last, if it never does.

    Raises
    ------
    InputError
        If something does not fit; see the message.
    DivergedError
        If the fit collapses again and again.
    """
    problem = Problem(
        y, H, method, denoiser, settings, sigma, seed, shape, network, callback, checkpoint,
        checkpoint_seconds, likelihood, stop,
    )  # fmt: skip
    (result,) = restore_all([problem], device=device, engine=engine)
    if isinstance(result, DivergedError):
        raise result
    if checkpoint is not None and result.finished is False:
        logger.warning("%s", result.ending)
    return result


@plain_torch()
def restore_all(
    problems: Iterable[Problem], *, device: str = "auto", engine: Engine | None = None
) -> list[Result | DivergedError]:
    """Restore several images, or one with several seeds or settings, beside each other.

    Each problem has its own weights, z and random numbers, and its result is that of `restore`
    alone. `engine.batch` solvers take turns at any time, a problem's own runs among them; on a GPU
    each has a stream of its own, which fills a device that one small image leaves idle.

    Parameters
    ----------
    problems : what to restore; they may differ in everything.
    device : "auto" (CUDA where there is one), "cpu" or "cuda".
    engine : how it is computed, from `deepred.compute.engine.pick`; instead of `device`.

    Returns
    -------
    list of Result, in order; the error in place of a problem whose fit collapses again and again.

    Raises
    ------
    InputError
        If something of one does not fit. Most is seen before anything is computed; what only the
        first step shows, such as an H that does not fit y, when the problem's turn has come.
    """
    problems = list(problems) if isinstance(problems, Iterable) else [problems]
    if not all(isinstance(problem, Problem) for problem in problems):
        raise InputError("problems must be a list of deepred.Problem")
    made: dict[int, Callable] = {}

    def denoiser(f) -> Callable:
        """`denoisers.adapted`, once for all that share f: of a module it makes a copy."""
        if id(f) not in made:
            made[id(f)] = denoisers.adapted(f)
        return made[id(f)]

    jobs = [Job(resolve(problem, denoiser)) for problem in problems]
    if engine is None:
        engine = pick(
            device, work=max((job.problem.work for job in jobs if job.problem.work), default=None)
        )
    check_memory([n for job in jobs for n in job.memory(engine)], engine)
    for job in jobs:
        job.prepare(engine, __version__)
    waiting = deque(steps for job in jobs for steps in job.start())
    active: list[tuple[Callable, Iterator[None]]] = []
    try:
        with engine.session():
            while waiting or active:
                while waiting and len(active) < engine.batch:
                    active.append((engine.lane(), waiting.popleft()))
                active = [turn for turn in active if _step(*turn)]
    except KeyboardInterrupt:
        for job in jobs:
            job.save()
        raise
    return [_result(job) for job in jobs]


def _step(lane: Callable, steps: Iterator[None]) -> bool:
    """One step in its lane; whether there are more."""
    with lane():
        return next(steps, StopIteration) is not StopIteration


def _result(job: Job) -> Result | DivergedError:
    """What came of a job's runs."""
    p, runs = job.problem, range(job.runs)
    if job.failure is not None:  # other settings are to begin anew
        job.store.remove()
        return job.failure
    columns = joined([job.histories[r] for r in runs])
    each = [columns["seconds"][columns["run"] == r].max() for r in runs]
    images, fits = [job.images[r] for r in runs], [job.fits[r] for r in runs]
    known = [fit for fit in fits if None not in fit[1:]]
    worst = max(known, key=lambda fit: fit[1] / fit[2], default=fits[0])
    finished = [fit[0] for fit in fits]
    return Result(
        torch.stack(images).mean(0), images, columns, p.settings, p.method, p.sigma, p.seed,
        float(sum(each)), job.engine, [job.iterations[r] for r in runs],
        None if None in finished else all(finished), *worst[1:],
    )  # fmt: skip


def _listed(iterations: list[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(iterations)))
