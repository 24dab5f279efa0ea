"""`restore`: from a measurement to an image.

The arguments are resolved (`problem`), the runs of each problem take their steps (`compute.job`),
and what came of them is the result.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import __version__, denoisers
from .compute.engine import Engine, pick, plain_torch
from .compute.history import joined
from .compute.job import Job
from .compute.memory import advice, check_memory
from .errors import DivergedError, InputError, first_line, is_memory, shown
from .fidelity import Likelihood
from .problem import Callback, Problem, Rule, resolve
from .problem.result import Result
from .settings import Settings

logger = logging.getLogger(__name__)


def restore(
    y: Tensor | np.ndarray | str | Path,
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
    y : measurement; for denoising the noisy image, a tensor (1, C, H, W) in [0, 1]. Or an array
        (H, W) or (H, W, 3), uint8, uint16 or floats in [0, 1], or the path of an image file. The
        result's image is of the same kind; for a file it is an array. What y holds where an
        `Inpaint` sees nothing has no effect.
    H : operator, image -> measurement; None is the identity (denoising). One of
        `deepred.operators` or `deepred.beyond.radon`, any callable that torch can differentiate, or
        a physics object of deepinv, which is taken without its noise.
    method : "deepred", "dip" (the same loop with lam = mu = 0), "dip-tv" (DIP with the total
        variation of its output) or "red" (no network).
    denoiser : a name of `deepred.denoisers.NAMES`, a callable f(x, sigma) or a torch module called
        as f(x, sigma); the settings' unless given. It is not differentiated; a module is copied and
        put in evaluation mode.
    settings : preset `fast` of the task unless given: that of H (`H.task`), else denoising.
    sigma : noise level of y in image units, in (0, 1); 25 of 255 is 25 / 255. If the settings need
        it (the controller, and RED alone for denoising) and it is not given, it is estimated
        (`deepred.problem.noise`), with a warning that says how large it is.
    seed : whole, from 0 to 2^40; run r uses 1000 seed + r for theta, z and the noise on z.
    device : "auto" (CUDA if there is one), "cpu" or "cuda".
    engine : how it is computed, from `deepred.compute.engine.pick`; instead of `device`.
    shape : (C, H, W) of the image; by default what H says (`H.image_shape`), else y's.
    network : makes a fresh module z -> image with an attribute `input_shape`; the settings' network
        unless given.
    callback : called with a `deepred.solver.State` after every iteration; the dictionary of numbers
        that it returns, or None, is added to the history.
    checkpoint : file to save to now and then, on Ctrl-C and at the end, and to continue from.
        Called again with more `settings.iterations`, a run that had used up its iterations goes on,
        with the same result as one that had more from the start; with as many or fewer the result
        is the same again. A file of other input or settings is refused, unless its run has ended:
        then it is replaced. A file that another run is using is refused. It is not deleted.
    checkpoint_seconds : least time between two saves.
    likelihood : of the noise, for Eq. (7), in place of 1/2 ||Hx - y||^2: one of
        `deepred.beyond.likelihoods`, or a callable (Hx, y) -> terms (see `deepred.solver.ADMM`).
    stop : makes a stopping rule of `deepred.beyond.stopping` for each run: `WindowedVariance`, say,
        or `lambda: Discrepancy(sigma)`. A run ends when its rule says so, with the rule's image, a
        mean of the last outputs; otherwise after settings.iterations, with its last.

    Raises
    ------
    InputError
        If something does not fit, or there is not enough memory; see the message.
    DivergedError
        If the fit collapses again and again.
    """
    arguments = dict(locals())
    del arguments["device"], arguments["engine"]
    (result,) = restore_all([Problem(**arguments)], device=device, engine=engine)
    if isinstance(result, DivergedError):
        raise result
    if checkpoint is not None and result.finished is False:
        logger.warning("%s", result.ending)
    return result


@plain_torch()
def restore_all(
    problems: Iterable[Problem], *, device: str = "auto", engine: Engine | None = None
) -> list[Result | DivergedError]:
    """Restore several images, or one with several seeds or settings, side by side.

    Each problem has its own weights, z and random numbers, and its result is that of `restore`
    alone. `engine.batch` solvers take turns at any time, also the runs of one problem; on a GPU
    each has a stream of its own, so that small images fill the device together.

    Parameters
    ----------
    problems : what to restore; they may differ in everything.
    device : "auto" (CUDA if there is one), "cpu" or "cuda".
    engine : how it is computed, from `deepred.compute.engine.pick`; instead of `device`.

    Returns
    -------
    list of Result, in order; for a problem whose fit collapses again and again, the error.

    Raises
    ------
    InputError
        If something of one does not fit, or there is not enough memory. Most is seen before
        anything is computed; what only the first step shows, such as an H that does not fit y, when
        the problem's turn has come.
    """
    problems = list(problems) if isinstance(problems, Iterable) else [problems]
    if not all(isinstance(problem, Problem) for problem in problems):
        raise InputError("problems must be a list of deepred.Problem")
    if not isinstance(engine, Engine | None):
        raise InputError(f"engine must be made by compute.engine.pick, got {shown(engine)}")
    jobs = _jobs(problems)
    if engine is None:
        works = [job.problem.work for job in jobs if job.problem.work]
        engine = pick(device, work=max(works, default=None))
    needs = [need for job in jobs for need in job.memory(engine)]
    check_memory(needs, engine)
    try:
        for job in jobs:
            job.prepare(engine, __version__)
        _run(jobs, engine)
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
        told = f"not enough memory ({first_line(error)}): use {advice(needs[: engine.batch])}"
        raise InputError(told) from error
    finally:
        for job in jobs:
            job.close()
    return [_result(job) for job in jobs]


def _jobs(problems: list[Problem]) -> list[Job]:
    """The problems resolved; those with the same denoiser share one copy of it."""
    made: dict[int, Callable] = {}

    def denoiser(f) -> Callable:
        if id(f) not in made:
            made[id(f)] = denoisers.adapted(f)
        return made[id(f)]

    return [Job(resolve(problem, denoiser)) for problem in problems]


def _run(jobs: list[Job], engine: Engine) -> None:
    """All runs to their end, `engine.batch` at a time taking turns."""
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


def _step(lane: Callable, steps: Iterator[None]) -> bool:
    """One step in its lane; whether there are more."""
    with lane():
        return next(steps, StopIteration) is not StopIteration


def _result(job: Job) -> Result | DivergedError:
    """The mean of a job's runs and what is known of them."""
    p, runs = job.problem, range(job.runs)
    if job.failure is not None:
        return job.failure
    columns = joined([job.histories[r] for r in runs])
    seconds = sum(columns["seconds"][columns["run"] == r].max() for r in runs)
    images, fits = [job.images[r] for r in runs], [job.fits[r] for r in runs]
    known = [fit for fit in fits if None not in fit[1:]]
    _, residual, noise = max(known, key=lambda fit: fit[1] / fit[2], default=fits[0])
    finished = [fit[0] for fit in fits]
    return Result(
        image=p.back(torch.stack(images).mean(0)),
        images=images,
        history=columns,
        settings=p.settings,
        method=p.method,
        sigma=p.sigma,
        seed=p.seed,
        seconds=float(seconds),
        engine=job.engine,
        iterations=[job.iterations[r] for r in runs],
        finished=None if None in finished else all(finished),
        residual=residual,
        noise=noise,
        y=p.y,
        resumable=p.checkpoint is not None,
    )
