"""Rollback: a fit is checked now and then, and one that has collapsed returns to a good state."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from ..errors import DivergedError
from ..solver import ADMM, State

logger = logging.getLogger(__name__)

LOST = 1e3  # beyond any image or multiplier, as by steepest descent with too large a c


def trouble(solver: ADMM) -> str | None:
    """What went wrong since the last look, if anything; begins a new window of the fit.

    On a GPU it waits for the steps launched since then, and adds that time to the solver's.
    """
    started = time.perf_counter()
    try:
        return _trouble(solver)
    finally:
        solver.seconds += time.perf_counter() - started


def _trouble(solver: ADMM) -> str | None:
    since = (solver.k - 1) % solver.settings.check_every + 1  # iterations since the last look
    mean_square = solver.window.item() / since
    solver.window = torch.zeros_like(solver.window)
    images = (solver.x, solver.u, solver.fx, solver.estimate)
    if not math.isfinite(mean_square) or not all(t.isfinite().all() for t in images):
        return "the fit or f(x) is not finite"
    if max(solver.x.abs().max(), solver.u.abs().max()) > LOST:
        return f"x or u is beyond {LOST:g}, an image within 1"
    before, solver.settled = solver.settled, mean_square
    if before is not None and mean_square > before * 10 ** (solver.settings.collapse_db / 10):
        return f"the fit fell by more than {solver.settings.collapse_db:g} dB"
    return None


def fit(solver: ADMM) -> tuple[float | None, float | None]:
    """Residual of the iterations before the last look, and noise level; None if not known.

    Root mean squares over the seen part of y, in image units. Waits for the device.
    """
    settled = solver.settled
    return settled and math.sqrt(settled / solver.control.seen), solver.control.level()


def iterate(
    solver: ADMM, look: Callable[[ADMM], str | None] = trouble
) -> Iterator[tuple[State, dict]]:
    """Run a solver to settings.iterations; yields (state, last good snapshot) after each step.

    Every `check_every` iterations and at the end the fit is checked. If it is not finite, or its
    mean over the interval is worse than over the one before by more than `collapse_db`, the solver
    goes back to the last good snapshot, also in its iteration number, with half the learning rate
    and other noise, and logs a warning.

    Raises
    ------
    DivergedError
        After `max_rollbacks` such returns.
    """
    s = solver.settings
    good = solver.state_dict()
    while solver.k < s.iterations:
        state = solver.step()
        regular = solver.k % s.check_every == 0
        if regular or solver.k == s.iterations:
            wrong = look(solver)
            if wrong is None:
                state = replace(state, seconds=solver.seconds)
                # Not the state at the end: a run of more iterations has no look there, and is to
                # go on with the same result.
                good = solver.state_dict() if regular else good
            elif solver.rollbacks == s.max_rollbacks:
                c = "c or " if s.x_update == "steepest-descent" else ""
                also = ", or look at the denoiser" if "f(x)" in wrong else ""
                raise DivergedError(
                    f"at iteration {state.k} {wrong}, and going back {s.max_rollbacks} times did "
                    f"not help: use a smaller {c}learning_rate (now {s.learning_rate:g}){also}"
                )
            else:
                rollbacks = solver.rollbacks + 1
                kept = {"rollbacks": rollbacks, "seconds": solver.seconds}
                solver.load_state_dict({**good, **kept})
                exact = ", in float32" if getattr(solver.network, "exact", False) else ""
                told = f"back to iteration {solver.k} with half the learning rate{exact}"
                count = f"({rollbacks} of {s.max_rollbacks})"
                logger.warning("at iteration %d %s: %s %s", state.k, wrong, told, count)
                continue
        yield state, good
