"""The runs of one problem, with their checkpoint and their history."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import red
from ..controller import Settled
from ..errors import DivergedError, InputError, plain, shown
from ..fidelity import checked
from ..networks import initialise, untrained
from ..operators import holes
from ..solver import State
from .checkpoint import Checkpoint, fingerprint
from .engine import Engine
from .history import History
from .memory import Need, need, trim
from .rollback import fit, iterate

if TYPE_CHECKING:
    from ..problem import Resolved

logger = logging.getLogger(__name__)


class Job:
    """A problem being solved."""

    def __init__(self, problem: Resolved) -> None:
        self.problem, self.settings, self.runs = problem, problem.settings, problem.runs
        self.H, self.shape, self.denoise = problem.H, problem.shape, problem.denoise
        self._latest: nn.Module | None = None  # what problem.network has made last
        self.store: Checkpoint | None = None
        self.failure: DivergedError | None = None

    def memory(self, engine: Engine) -> list[Need]:
        """What each run needs, for `check_memory`; nothing for a network that is not ours."""
        if self.problem.network is not None:
            return []
        return [need(self.shape, self.settings, self.problem.method, engine)] * self.runs

    def prepare(self, engine: Engine, version: str) -> None:
        """Move y to the engine's device, and load the checkpoint if there is one."""
        p, s = self.problem, self.settings
        self.engine, self.y = engine, p.y.to(engine.device)
        identity = ""
        if p.checkpoint is not None:
            with torch.random.fork_rng(devices=[]):
                made = "" if p.network is None else repr(p.network())
            identity = fingerprint(p, self.y, engine, made, version)
        store = Checkpoint(p.checkpoint, identity, p.checkpoint_seconds)
        store.lock()
        self.store = store
        saved = store.load(engine.device) or {}
        self.images: dict[int, Tensor] = saved.get("images", {})  # of the runs that are done
        self.iterations: dict[int, int] = saved.get("iterations", {})  # theirs
        self.fits: dict[int, tuple] = saved.get("fits", {})  # their finished, residual and noise
        self.good: dict[int, dict] = saved.get("solvers", {})  # last good snapshots of the others
        self.histories = {r: History(saved.get("rows", {}).get(r)) for r in range(self.runs)}
        for r, snapshot in self.good.items():
            if self.iterations.get(r, s.iterations) < s.iterations:  # there is more to do now
                del self.images[r]
            if r not in self.images:
                told = "continuing from the checkpoint: run %d of %d, iteration %d"
                logger.warning(told, r + 1, self.runs, snapshot["k"])

    def close(self) -> None:
        """Release the checkpoint; remove that of a failure, after which one begins anew."""
        if self.store is not None:
            if self.failure is not None:
                self.store.remove()
            self.store.close()

    def start(self) -> Iterator[Iterator[None]]:
        """The runs that are still to be done, each an iterator over its steps."""
        steps = self._red if self.problem.method == "red" else self._run
        return (self._guarded(steps(r)) for r in range(self.runs) if r not in self.images)

    def _guarded(self, steps: Iterator[None]) -> Iterator[None]:
        try:
            while self.failure is None:  # without one of the runs the others are of no use
                yield next(steps)
        except StopIteration:
            self.save()
        except DivergedError as error:
            self.failure = error

    def _run(self, r: int) -> Iterator[None]:
        """One run to its end."""
        p, s = self.problem, self.settings
        seed = 1000 * p.seed + r
        z, net = initialise(self._network, s, seed, self.y)
        net, z = self.engine.prepare(net, z)
        with ThreadPoolExecutor(max_workers=1) as executor:
            options = dict(sigma=p.sigma, seed=seed, executor=executor, likelihood=p.likelihood)
            solver = self.engine.solver(
                self.y, self.H, net, z, self.denoise, s, noise=self.engine.noise, **options
            )
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
                if good is not latest:  # after its row: a callback may be interrupted
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
        checked(H, y.new_zeros(1, *self.shape), y)
        hole = holes(H)
        x0 = self.denoise(y, self.problem.sigma) if s.x_start == "denoised" else None
        options = dict(method=s.x_update, c=s.c, clip=s.clip_x, x0=x0)
        iterates = red.solve(y, H, lambda x: self.denoise(x, s.sigma_f), s.lam, **options)
        for k, (x, fx) in zip(range(1, s.iterations + 1), iterates):
            if not torch.isfinite(x).all():
                raise DivergedError(
                    f"RED is not finite at iteration {k}: use a smaller lam or c, or look at the "
                    "denoiser"
                )
            residual = H(x) - y
            data, rho = 0.5 * residual.square().sum(), red.rho(x, fx)
            zero = torch.zeros_like(data)
            terms = {"data": data, "rho": rho, "objective": data + s.lam * rho, "augmented": data}
            terms |= {"gap": zero, "lam": zero + s.lam, "mu": zero}
            terms["residual"] = (residual.square().mean() / (hole.seen if hole else 1)).sqrt()
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
        if not any(p.requires_grad for p in net.parameters()):
            raise InputError("the network has no parameters to fit")
        return net

    def _tell(self, state: State) -> None:
        callback, told = self.problem.callback, {}
        if callback:  # with clones: what it writes into them does not enter the run
            names = ("estimate", "x", "u", "fx", "output")
            told = callback(replace(state, **{n: getattr(state, n).clone() for n in names}))
            told = {} if told is None else told
        try:
            numbers = {name: float(plain(value)) for name, value in told.items()}
        except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError):
            wanted = "callback must return a dictionary of numbers, or None"
            raise InputError(f"{wanted}; got {shown(told)}") from None
        self.histories[state.run].add(state, numbers)

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
        # RED takes seconds, and has no state to go on from.
        if self.problem.method != "red" and self.store.path is not None:
            if self.engine.device == "cuda":
                torch.cuda.synchronize()  # the other runs are on streams of their own
            self.store.save(self._state())
