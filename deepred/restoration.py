"""`restore`: from a measurement to an image, with everything around Algorithm 1.

Builds the network, runs the solver (several times where the settings ask for a mean over runs),
keeps the history and checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from . import __version__, denoisers, red
from .compute import native
from .compute.checkpoint import Checkpoint, fingerprint
from .compute.engine import Engine, pick
from .compute.history import History, joined
from .compute.memory import check_memory, memory_needed, trim
from .compute.rollback import fit, iterate
from .controller import Settled
from .errors import DivergedError, InputError, real, whole
from .networks import initialise, untrained
from .noise import estimate
from .operators import (
    adapted,
    holes,
    image_shape,
    seen,
    task_of,
)
from .presets import METHODS, preset
from .settings import Settings
from .solver import Likelihood, State

logger = logging.getLogger(__name__)

Callback = Callable[[State], Mapping[str, float] | None]


@runtime_checkable
class Rule(Protocol):
    """When a run is to end, without the truth; `deepred.beyond.stopping` has some."""

    @property
    def best(self) -> tuple[int, Tensor] | None: ...
    def update(self, state: State) -> bool: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, saved: dict) -> None: ...


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


@dataclass(frozen=True)
class Problem:
    """The arguments of `restore` but for how it is computed; see there."""

    y: Tensor
    H: Callable[[Tensor], Tensor] | None = None
    method: str = "deepred"
    denoiser: str | Callable[[Tensor, float], Tensor] | None = None
    settings: Settings | None = None
    sigma: float | None = None
    seed: int = 0
    shape: tuple[int, int, int] | None = None
    network: Callable[[], nn.Module] | None = None
    callback: Callback | None = None
    checkpoint: str | Path | None = None
    checkpoint_seconds: float = 30.0
    likelihood: Likelihood | None = None
    stop: Callable[[], Rule] | None = None


@contextmanager
def _plain_torch() -> Iterator[None]:
    """torch as it comes: gradients, float32, the CPU unless told otherwise, no autocast.

    What the caller has switched on is not to change a result, or to end in a traceback.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            yield
    finally:
        torch.set_default_dtype(dtype)


@_plain_torch()
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

    jobs = [_Job(problem, denoiser) for problem in problems]
    if engine is None:
        engine = pick(device, work=max((job.work for job in jobs if job.work), default=None))
    check_memory([n for job in jobs for n in job.memory(engine)], engine)
    for job in jobs:
        job.prepare(engine)
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
    return [job.finish() for job in jobs]


def _step(lane: Callable, steps: Iterator[None]) -> bool:
    """One step in its lane; whether there are more."""
    with lane():
        return next(steps, StopIteration) is not StopIteration


class _Job:
    """A problem being solved: checked, completed with what it leaves open, and its runs."""

    def __init__(self, problem: Problem, adapted_denoiser=denoisers.adapted) -> None:
        _check_kinds(problem)
        self._latest: nn.Module | None = None  # what problem.network has made last
        settings, method, likelihood = problem.settings, problem.method, problem.likelihood
        self.H = H = adapted(problem.H)
        y = check_measurement(problem.y, H)
        ours = getattr(H, "keeps_range", False)
        if ours and likelihood is None and not -5 < y.min() <= y.max() < 10:
            raise InputError(
                f"y must be about in [0, 1], got values from {y.min():.3g} to {y.max():.3g}: "
                "divide it by the largest possible value (255)"
            )
        sigma = None if problem.sigma is None else real(problem.sigma)
        problem = replace(problem, y=y, seed=whole("seed", problem.seed, 0))  # numpy's overflow
        if problem.shape is None and y.ndim != 4:
            raise InputError(
                f"y must be (1, C, H, W), got {tuple(y.shape)}; for a measurement that is no image "
                "give shape, the image's (C, H, W)"
            )
        if settings is not None and method in ("dip", "dip-tv"):
            settings = settings.as_dip()
            if method == "dip-tv" and not settings.tv:
                raise InputError("method 'dip-tv' needs settings.tv above 0")
        shape = problem.shape if problem.shape is not None else image_shape(H, y.shape[1:])
        if not isinstance(shape, (tuple, list)) or len(shape) != 3:
            raise InputError(f"shape must be (C, H, W), the image's, got {shape!r}")
        self.shape = tuple(whole("a number of shape", side) for side in shape)
        if method == "red" and not hasattr(H, "adjoint"):
            raise InputError("method 'red' needs an H with an adjoint: H.adjoint(y)")
        if settings is not None:
            begins_at_y = settings.x_start == "denoised" or (
                settings.x_start == "measurement" and method != "red"
            )
            if begins_at_y and self.shape != tuple(y.shape[1:]):
                raise InputError(
                    f"x_start={settings.x_start!r} needs y of the image's shape {self.shape}, y "
                    f"has {tuple(y.shape[1:])}: use preset('fast', {task_of(H)!r}), say, or "
                    "x_start='zeros'"
                )
            growth = settings.growth and not hasattr(likelihood, "deviation")
            needs_sigma = growth or settings.x_start == "denoised"
        else:
            denoising = task_of(H) == "denoise" and likelihood is None
            needs_sigma = denoising and method in ("deepred", "red")
        strongest = sigma  # what f is told: of noise that is not white the upper bound
        if sigma is None and needs_sigma:
            level = estimate(y)
            sigma, strongest = level.sigma, level.high if method == "deepred" else level.sigma
            if ours and sigma >= 1:
                raise InputError(
                    f"y has noise of level {sigma:.3g}, and an image is in [0, 1]: divide it by "
                    "the largest possible value (255)"
                )
            logger.warning("noise level not given; estimated: %s", level.told())
        if settings is None:
            told = {"sigma": strongest} if strongest else {}
            named = isinstance(problem.denoiser, str) and problem.denoiser in denoisers.NAMES
            # With other noise than Gaussian no f is asked for much of it.
            f = problem.denoiser if named else None if likelihood is None else "nlm"
            settings = preset("fast", task_of(H), method, denoiser=f, **told)
            if self.shape != tuple(y.shape[1:]):
                settings = settings.replace(x_start="zeros")
            if not hasattr(H, "whitener"):  # a composed blur, say
                settings = settings.replace(precondition=0.0)
            if likelihood is not None:
                settings = settings.replace(precondition=0.0)
                if not hasattr(likelihood, "deviation"):
                    settings = settings.replace(growth=0.0)
        self.problem, self.settings, self.sigma = problem, settings, sigma
        name = problem.denoiser if problem.denoiser is not None else settings.denoiser
        self.denoise = None if name is None else adapted_denoiser(name)
        self.denoiser_name = name if isinstance(name, str | None) else self.denoise
        if method == "red" and self.denoise is None:
            raise InputError("method 'red' needs a denoiser")
        self.runs = 1 if method == "red" else settings.runs

    @property
    def work(self) -> int | None:
        """Of the network, for `engine.pick`."""
        if self.problem.method == "red":
            return None
        return self.settings.channels * self.shape[1] * self.shape[2]

    def memory(self, engine: Engine) -> list[tuple[int, str]]:
        """What `check_memory` asks for, for each run; nothing for a network that is not ours."""
        if self.problem.network is not None:
            return []
        width = f"an image of {self.shape[2]}x{self.shape[1]}"
        if self.problem.method != "red":
            width += f" with {self.settings.channels} channels"
        needed = memory_needed(
            self.shape,
            self.settings,
            self.problem.method,
            native=engine.native
            and native.knows(self.settings.channels, self.settings.skip, self.shape[0]),
        )
        return [(needed, width)] * self.runs

    def prepare(self, engine: Engine) -> None:
        """Go to the engine's device, and back to the checkpoint where there is one."""
        p, s = self.problem, self.settings
        self.engine, self.y = engine, p.y.to(engine.device)
        identity = ""
        if p.checkpoint is not None:
            with torch.random.fork_rng(devices=[]):
                made = "" if p.network is None else repr(p.network())
            identity = fingerprint(
                self.y, self.H, p.method, self.denoiser_name, s, self.sigma, p.seed, self.shape,
                engine, made, p.likelihood, p.stop and p.stop(), __version__,
            )  # fmt: skip
        self.store = Checkpoint(p.checkpoint, identity, p.checkpoint_seconds)
        saved = self.store.load(engine.device) or {}
        self.images: dict[int, Tensor] = saved.get("images", {})  # of the runs that are done
        self.iterations: dict[int, int] = saved.get("iterations", {})  # theirs
        self.fits: dict[int, tuple] = saved.get("fits", {})  # their finished, residual and noise
        self.good: dict[int, dict] = saved.get("solvers", {})  # last good snapshots of the others
        self.histories = {r: History(saved.get("rows", {}).get(r)) for r in range(self.runs)}
        self.failure: DivergedError | None = None
        for r, snapshot in self.good.items():
            if self.iterations.get(r, s.iterations) < s.iterations:  # there is more to do now
                del self.images[r]
            if r in self.images:
                continue
            logger.warning(
                "continuing from the checkpoint: run %d of %d, iteration %d",
                r + 1,
                self.runs,
                snapshot["k"],
            )

    def start(self) -> Iterator[Iterator[None]]:
        """The runs that are to be done, each an iterator over its steps."""
        steps = self._red if self.problem.method == "red" else self._run
        return (self._guarded(steps(r)) for r in range(self.runs) if r not in self.images)

    def _guarded(self, steps: Iterator[None]) -> Iterator[None]:
        try:
            while self.failure is None:  # after one of its runs has failed the others are in vain
                yield next(steps)
        except StopIteration:
            self.save()
        except DivergedError as error:
            self.failure = error

    def _run(self, r: int) -> Iterator[None]:
        """One run to its end."""
        p, s = self.problem, self.settings
        seed = 1000 * p.seed + r
        z, net = initialise(self._network, self.settings, seed, self.y)
        net, z = self.engine.prepare(net, z)
        with ThreadPoolExecutor(max_workers=1) as executor:
            solver = self.engine.solver(
                self.y, self.H, net, z, self.denoise, self.settings,
                sigma=self.sigma, seed=seed, executor=executor, likelihood=p.likelihood,
                noise=self.engine.noise,
            )  # fmt: skip
            rule, stopped, latest = p.stop and p.stop(), False, None
            end = Settled(s.settle, s.residual_target)
            if r in self.good:
                solver.load_state_dict(self.good[r])
                end.load_state_dict(self.good[r]["end"])
                if rule is not None:
                    rule.load_state_dict(self.good[r]["rule"])

            def watchers() -> dict:
                return {"rule": rule and rule.state_dict(), "end": end.state_dict()}

            self.good[r] = solver.state_dict() | watchers()
            for state, good in () if end.done else iterate(solver):
                self._tell(replace(state, run=r))
                stopped = rule is not None and rule.update(state)
                if state.k % s.check_every == 0:
                    end.update(state.k, state.estimate, *fit(solver))
                if state.k % 100 == 0:
                    trim()
                if good is not latest:  # now that its row is there: a callback may be interrupted
                    latest = good
                    self.good[r] = good | watchers()
                if self.store.due():
                    self.save()
                yield
                if stopped or end.done:
                    break
        k, image = rule.best if stopped else (solver.k, solver.estimate)
        residual, noise = fit(solver)
        finished = None
        if s.mu > 0 and None not in (residual, noise) and not stopped:
            reached = end.reached or residual <= s.residual_target * noise
            finished = end.done if s.settle else reached
        self.iterations[r], self.images[r] = k, solver.final(image)
        self.fits[r] = finished, residual, noise
        if stopped or end.done or self.store.path is None:  # nothing goes on from here
            del self.good[r]

    def _red(self, r: int) -> Iterator[None]:
        """RED alone (deepred.red.solve), in the states of Algorithm 1 with T(z) = x and u = 0."""
        y, H, s, started = self.y, self.H, self.settings, time.perf_counter()
        hole = holes(H)
        x0 = self.denoise(y, self.sigma) if s.x_start == "denoised" else None
        iterates = red.solve(
            y, H, lambda x: self.denoise(x, s.sigma_f), s.lam,
            method=s.x_update, c=s.c, clip=s.clip_x, x0=x0,
        )  # fmt: skip
        for k, (x, fx) in zip(range(1, s.iterations + 1), iterates):
            if not torch.isfinite(x).all():
                raise DivergedError(
                    f"RED is not finite at iteration {k}: use a smaller lam or c, or look at the "
                    "denoiser"
                )
            residual = H(x) - y
            data, rho = 0.5 * residual.square().sum(), red.rho(x, fx)
            zero = torch.zeros_like(data)
            terms = {
                "data": data, "rho": rho, "objective": data + s.lam * rho,
                "augmented": data, "gap": zero,
                "residual": (residual.square().mean() / (hole.seen if hole else 1)).sqrt(),
                "lam": zero + s.lam, "mu": zero,
            }  # fmt: skip
            seconds = time.perf_counter() - started
            self._tell(State(k, x, x, torch.zeros_like(x), fx, x, terms, seconds))
            yield
        self.iterations[r], self.images[r], self.fits[r] = k, x, (None, None, None)

    def _network(self) -> nn.Module:
        if self.problem.network is None:
            return untrained(self.shape, self.settings)
        net, before = self.problem.network(), self._latest
        self._latest = net
        if not isinstance(net, nn.Module) or net is before:
            raise InputError(
                "network must make a fresh torch module each time it is called, such as lambda: "
                f"MyNetwork(), or lambda: copy.deepcopy(net); it made {type(net).__name__}"
                + (" again" if net is before else "")
            )
        return net

    def _tell(self, state: State) -> None:
        callback = self.problem.callback
        self.histories[state.run].add(state, callback(state) if callback else None)

    def _state(self) -> dict:
        """What a checkpoint holds: good snapshots, never a half step, and the rows up to them."""
        rows = {
            r: history.rows(None if r in self.images else self.good[r]["k"])
            for r, history in self.histories.items()
            if r in self.images or r in self.good
        }
        done = {"images": self.images, "iterations": self.iterations, "fits": self.fits}
        ended = len(self.images) == self.runs
        return {**done, "rows": rows, "solvers": self.good, "ended": ended}

    def save(self) -> None:
        # RED is a matter of seconds, and has nothing to go on from.
        if self.problem.method != "red" and self.store.path is not None:
            if self.engine.device == "cuda":
                torch.cuda.synchronize()  # the other runs are on streams of their own
            self.store.save(self._state())

    def finish(self) -> Result | DivergedError:
        if self.failure is not None:  # other settings are to begin anew
            self.store.remove()
            return self.failure
        columns = joined([self.histories[r] for r in range(self.runs)])
        each = [columns["seconds"][columns["run"] == r].max() for r in range(self.runs)]
        images = [self.images[r] for r in range(self.runs)]
        fits = [self.fits[r] for r in range(self.runs)]
        known = [fit for fit in fits if None not in fit[1:]]
        worst = max(known, key=lambda fit: fit[1] / fit[2], default=fits[0])
        finished = [fit[0] for fit in fits]
        return Result(
            torch.stack(images).mean(0), images, columns, self.settings, self.problem.method,
            self.sigma, self.problem.seed, float(sum(each)), self.engine,
            [self.iterations[r] for r in range(self.runs)],
            None if None in finished else all(finished), *worst[1:],
        )  # fmt: skip


def _listed(iterations: list[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(iterations)))


def _check_kinds(problem: Problem) -> None:
    """Refuse arguments that are not what they are to be, each by itself."""
    p, red_alone = problem, problem.method == "red"
    if p.method not in METHODS:
        raise InputError(f"unknown method {p.method!r}; known are {', '.join(METHODS)}")
    if p.settings is not None and not isinstance(p.settings, Settings):
        raise InputError(
            f"settings must be Settings, such as preset('fast'), got {type(p.settings).__name__}"
        )
    if p.sigma is not None and not 0 < real(p.sigma) < 1:
        raise InputError(f"sigma must be in (0, 1), image units, got {p.sigma!r}: 25 is 25 / 255")
    if whole("seed", p.seed, 0) >= 2**40:
        raise InputError(f"seed must be below 2**40, got {p.seed}")
    if p.network is not None and not callable(p.network):
        raise InputError(
            "network must make a torch module when it is called, such as lambda: MyNetwork(); got "
            f"{p.network!r}"
        )
    if p.callback is not None and not callable(p.callback):
        raise InputError(f"callback must be a callable, got {p.callback!r}")
    if p.likelihood is not None and (isinstance(p.likelihood, type) or not callable(p.likelihood)):
        raise InputError(
            "likelihood must be a callable (Hx, y) -> terms, such as Poisson(10), got "
            f"{p.likelihood!r}"
        )
    if p.likelihood is not None and red_alone:
        raise InputError("method 'red' is for Gaussian noise: it takes no likelihood")
    if p.stop is not None and red_alone:
        raise InputError("method 'red' has no network that learns the noise: it takes no stop")
    if p.stop is not None and not isinstance(_made(p.stop), Rule):
        raise InputError(
            "stop must make a rule of deepred.beyond.stopping when called, such as "
            f"WindowedVariance or lambda: Discrepancy(sigma); got {p.stop!r}"
        )


def _made(make: object) -> object:
    """What it makes when called without arguments, None if it cannot be called so."""
    try:
        return make()
    except TypeError:
        return None


def check_measurement(y: Tensor, H: Callable[[Tensor], Tensor]) -> Tensor:
    """y without its graph, and 0 where H sees nothing.

    Raises
    ------
    InputError
        If y is no measurement: not a floating tensor (1, C, ...), empty, or not finite.
    """
    if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 3:
        told = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InputError(
            f"y must be a float tensor (1, C, H, W), got {told}; see deepred.io.images.to_tensor"
        )
    if y.shape[0] != 1:
        raise InputError(f"one image at a time: y must be (1, C, H, W), got {tuple(y.shape)}")
    if y.numel() == 0:
        raise InputError(f"y is empty: shape {tuple(y.shape)}")
    if y.dtype not in (torch.float32, torch.float64):
        raise InputError(f"y must be float32 or float64, got {y.dtype}")
    y = y.detach()
    y = seen(y.clone() if y.is_inference() else y, H)
    if not torch.isfinite(y).all():
        raise InputError("y contains NaN or infinity: replace those values, or mask them (Inpaint)")
    return y
