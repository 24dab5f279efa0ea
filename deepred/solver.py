"""Algorithm 1: one ADMM loop for DeepRED, for DIP (lam = mu = 0) and for every task.

`ADMM` is the mathematics, one pass of the loop a call of `step`. `iterate` is the driver: it
yields a state after each step and goes back to the last good one when the fit collapses. Neither
sees the ground truth; metrics are the caller's.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from . import red
from .controller import clipped_variance
from .errors import DivergedError, InputError
from .networks import perturbed
from .operators import holes, seen
from .settings import Settings

logger = logging.getLogger(__name__)

# Goes up when a change makes the same settings give another result. 2: the exponential mean without
# the weight of the first image, and other random numbers on z in some engines.
VERSION = 2


def version(settings: Settings | None) -> int:
    """The version that the key of a stored result tells, for these settings.

    1 where the results of version 1 stand: without a mean (or without a solver, None) nothing
    changed; after 500 iterations the first image's weight in theirs is .99^500, which changes the
    result by less than 0.01 dB; and other random numbers make another sample, as another seed does.
    """
    short = settings is not None and settings.smoothing > 0 and settings.iterations < 500
    return VERSION if short else 1


Denoiser = Callable[[Tensor, float], Tensor]
Likelihood = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor, float, torch.Generator], Tensor]

LOST = 1e3  # no image or multiplier is as large: steepest descent with too large a c

TERMS = ("data", "rho", "objective", "augmented", "gap", "residual", "lam", "mu")


@dataclass(frozen=True)
class State:
    """What one iteration leaves behind. Images are (1, C, H, W), detached; terms are scalars.

    `terms` holds, by name: ``data`` = 1/2 ||H T(z) - y||^2, or what a likelihood has in its place,
    and ``rho`` of Eq. (3) with the f(x) at hand, which is of an x some iterations old, both sums
    over pixels; ``objective`` = data + lam rho, Eq. (4), lam times the number of y's values by x's
    where the settings have means (and without the whitener, where there is one); ``augmented``, the
    value of Eq. (7) that the next Theta-step descends (in sums or means, as the settings have it);
    ``gap`` = ||x - T(z)||, the constraint of Eq. (4); ``residual``, the root mean square of
    H T(z) - y, where y is seen; ``lam``, ``mu``.
    They stay tensors on the device: reading one waits for it. With an engine's graphs the images
    are overwritten by the next step: clone what is to last.
    """

    k: int
    estimate: Tensor  # the result if one stopped here: settings.result, smoothed
    x: Tensor
    u: Tensor
    fx: Tensor
    output: Tensor  # T_theta(z)
    terms: dict[str, Tensor]
    seconds: float
    run: int = 0  # which of several runs with different z, where a caller makes several


class ADMM:
    """Algorithm 1 and its variables.

    Parameters
    ----------
    y : measurement.
    H : callable, image -> measurement, differentiable by torch.
    network : module, z -> image (1, C, H, W).
    z : the fixed random input of the network.
    denoiser : callable f(x, sigma), image and noise level -> image; not differentiated.
        None where settings.denoiser is.
    settings : see `Settings`.
    sigma : noise level of y, in image units; only the controller (settings.growth) needs it.
    seed : of the noise added to z; what step k draws depends on seed and k alone.
    executor : where f(x) is computed beside the Theta-update (Figure 1); in line if None. The
        result is the same.
    likelihood : the data term of Eq. (7), a callable (Hx, y) -> its terms a pixel, which are summed
        or averaged as `settings.data_term` has it, or one number, which is taken as it is; 1/2 of
        the squares if None. See `deepred.beyond.likelihoods`. Where it tells `deviation(Hx)` the
        controller takes the noise level from there, not from `sigma`, and `settings.clipped` has no
        part: these models do not clip.
    noise : makes z + scale N(0, 1) of (z, scale, generator), from the generator's seed alone;
        torch's random numbers if None.

    Raises
    ------
    InputError
        If the shapes do not fit, or the settings need what is not there.
    DivergedError
        If the data term is not finite at the first output.
    """

    ADAM: ClassVar = {"fused": True}  # options of torch's

    def __init__(
        self,
        y: Tensor,
        H: Callable[[Tensor], Tensor],
        network: nn.Module,
        z: Tensor,
        denoiser: Denoiser | None,
        settings: Settings,
        *,
        sigma: float | None = None,
        seed: int = 0,
        executor: Executor | None = None,
        likelihood: Likelihood | None = None,
        noise: Noise | None = None,
    ) -> None:
        self.likelihood, self._deviation = likelihood, getattr(likelihood, "deviation", None)
        if settings.growth and (sigma is None or sigma <= 0) and self._deviation is None:
            raise InputError("settings.growth needs the noise level: give sigma above 0")
        if settings.x_start == "denoised" and not (sigma and denoiser):
            raise InputError("x_start='denoised' needs a denoiser and the noise level sigma")
        if settings.denoiser is not None and denoiser is None:
            raise InputError("these settings need a denoiser f(x, sigma)")
        if settings.precondition and not hasattr(H, "whitener"):
            raise InputError(
                "settings.precondition needs an operator with a whitener: "
                "Blur, Framed, Downsample, Radon"
            )
        if settings.strengthen and not hasattr(H, "adjoint"):
            raise InputError("settings.strengthen needs an operator with an adjoint")
        if settings.precondition and likelihood is not None:
            raise InputError(
                "settings.precondition is for the L2 term: set it to 0 with a likelihood"
            )
        self.y, self.H, self.network, self.denoiser = seen(y, H), H, network, denoiser
        self.settings, self.seed, self.executor = settings, seed, executor
        self._sigma = sigma
        self.k = self.draws = self.rollbacks = 0
        self._whiten = H.whitener(settings.precondition) if settings.precondition else None
        self._z, self._generator = z, torch.Generator(z.device)
        self._perturbed = noise or perturbed
        parameters = [p for p in network.parameters() if p.requires_grad]
        if not parameters:
            raise InputError("the network has no parameters to fit")
        if settings.optimizer == "adam":
            self.optimizer = torch.optim.Adam(parameters, settings.learning_rate, **self.ADAM)
        else:
            self.optimizer = torch.optim.SGD(parameters, settings.learning_rate)

        self._forward()
        if not torch.isfinite(self._data):
            raise DivergedError("the data term is not finite at the start: look at H, network, y")
        self.x = self._start()
        self.u = torch.zeros_like(self.x)  # u_0 = 0
        self.fx = self.x  # until the first f(x) arrives
        self._pending: deque[Future | Tensor] = deque([self.x] * settings.lag)
        self.estimate: Tensor | None = None
        self.share = y.new_ones(())  # of the newest image in the estimate
        # lam of Eq. (4), in sums over pixels, where the settings have means: data is one of y's.
        means = settings.data_term == "mean"
        self._scale = y.numel() / self.output.numel() if means else 1.0
        self.lam = y.new_tensor(settings.lam)
        self.mu = y.new_tensor(settings.mu)
        # The noise's mean square over all of y, of which an Inpaint leaves some without any.
        hole = holes(H)
        self._seen, self._mask = (1.0, 1.0) if hole is None else (hole.seen, hole.mask(y))
        self.noise = y.new_tensor((sigma or 0.0) ** 2) * self._seen
        known = settings.growth and self._deviation is None
        self._clipped = clipped_variance(sigma, y) if known and settings.clipped else None
        # The fit at which the controller acts, in dB above that of the noise alone.
        self.threshold = y.new_tensor(-20 * math.log10(settings.residual_target))
        # Mean squares since the last look, for the driver, and how the last window stood.
        self.window = y.new_zeros(())
        self.settled: float | None = None
        self.seconds = 0.0

    # One pass of Algorithm 1 ---------------------------------------------------------------------

    def step(self) -> State:
        """Theta-update, x-update, u-update: one iteration of Algorithm 1."""
        started = time.perf_counter()
        self.k += 1
        begins_interval = self.k == 1 or self.k % self.settings.denoise_every == 0
        if begins_interval and self.denoiser is not None:
            self._pending.append(self._denoise(self.x))  # runs beside the Theta-update, Figure 1
        T = self.theta_update()
        if begins_interval and self.denoiser is not None:
            self.fx = result_of(self._pending.popleft())  # of the x of `lag` intervals ago
        terms = self._update(T, begins_interval)
        self.seconds += time.perf_counter() - started
        output = self.output.detach()
        return State(self.k, self.estimate, self.x, self.u, self.fx, output, terms, self.seconds)

    def theta_update(self) -> Tensor:
        """Eq. (7): gradient steps on 1/2 ||H T(z) - y||^2 + mu/2 ||x - T(z) - u||^2.

        Returns the T(z) that the x- and u-updates use. Each step descends from the output that
        the step before has left, so that Algorithm 1 costs one forward pass an iteration.
        """
        s = self.settings
        decay = s.lr_decay ** ((self.k - 1) // s.lr_decay_every)
        self._set_rate(s.learning_rate * decay * 0.5**self.rollbacks)
        before = self.output.detach()
        for _ in range(s.theta_steps):
            self._descend()
            self._forward()
        return self.output.detach() if s.x_sees == "after" else before

    def _update(self, T: Tensor, begins_interval: bool) -> dict[str, Tensor]:
        """The x- and u-updates, and all that follows from them; returns the terms of `State`."""
        self.x_update(T + self.u, repeat_denoiser=begins_interval)
        self.u = self.u - self.x + T  # u_{k+1} = u_k - x_{k+1} + T_theta_{k+1}(z)
        self._control(begins_interval)
        self._average(T)
        self.window = self.window + self._residual.detach().square().mean()
        return self._terms()

    def x_update(self, v: Tensor, repeat_denoiser: bool) -> None:
        """Eq. (8) for v = T(z) + u by J steps of Eq. (11) or (12)."""
        s = self.settings
        if s.lam == s.mu == 0:  # DIP: nothing ties x to f(x); Eq. (11) as mu -> 0 is x = v
            self.x = v
            return
        for j in range(s.inner_steps):
            if j > 0 and repeat_denoiser and s.lag == 0 and self.denoiser is not None:
                self.fx = self._call_denoiser(self.x)
            if s.x_update == "fixed-point":
                self.x = red.fixed_point(self.fx, v, self.lam, self.mu)
            else:
                c = s.c if s.c is not None else 1 / (self.lam + self.mu)
                self.x = red.steepest_descent(self.x, self.fx, v, self.lam, self.mu, c)
        if s.clip_x:
            self.x = self.x.clamp(0, 1)

    # What the steps are made of ------------------------------------------------------------------

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _descend(self) -> None:
        """One gradient step on Eq. (7) at the present output."""
        self.optimizer.zero_grad()
        self._augmented().backward()
        self.optimizer.step()

    def _forward(self) -> None:
        """T_theta(z) at the present theta with fresh noise on z, and its data term, with graph."""
        # The noise is a function of (seed, rollbacks, draw), so that a resumed run draws the same.
        key = (self.seed * 1_000_003 + self.rollbacks) * 1_000_003 + self.draws
        self._generator.manual_seed(key % 2**63)
        self._evaluate()
        self.draws += 1

    def _evaluate(self) -> None:
        s, z = self.settings, self._z
        if s.input_noise:
            z = self._perturbed(z, s.input_noise, self._generator)
        self.output = self.network(z)
        measured = self.H(self.output)
        self._check(measured)
        self._residual = measured - self.y
        if self.likelihood is None:
            weighed = self._residual if self._whiten is None else self._whiten(self._residual)
            self._data = 0.5 * self._reduce(weighed.square())
            self._fit = 0.5 * self._residual.detach().square().sum()
        else:
            terms = self.likelihood(measured, self.y)
            if not isinstance(terms, Tensor) or (
                measured.requires_grad and not terms.requires_grad
            ):
                raise InputError("the likelihood must return a tensor that torch can differentiate")
            self._data = self._reduce(terms) if terms.ndim else terms
            self._fit = terms.detach().sum()
        if s.tv:
            self._data = self._data + s.tv * self._reduce(red.total_variation(self.output))

    def _check(self, measured: Tensor) -> None:
        """That H makes of the network's image what y can be compared with."""
        y = self.y
        if not isinstance(measured, Tensor):
            raise InputError(f"H must return a tensor, got {type(measured).__name__}")
        if measured.shape != y.shape:
            raise InputError(
                f"H maps the network's image to shape {tuple(measured.shape)}, "
                f"but y has shape {tuple(y.shape)}"
            )
        if measured.dtype != y.dtype:
            raise InputError(f"H makes {measured.dtype} of {y.dtype}: it must keep the precision")
        if self.output.requires_grad and not measured.requires_grad:
            raise InputError(
                "H must be differentiable by torch: what it returns has no gradient, as after "
                "numpy() or detach()"
            )

    def _augmented(self) -> Tensor:
        """The objective of Eq. (7) at the present output, x and u."""
        if self.settings.mu == 0:
            return self._data
        return self._data + 0.5 * self.mu * self._reduce((self.x - self.output - self.u).square())

    def _reduce(self, squares: Tensor) -> Tensor:
        return squares.sum() if self.settings.data_term == "sum" else squares.mean()

    def _start(self) -> Tensor:
        """x_0: y as in Algorithm 1, zeros, or f(y)."""
        if self.settings.x_start == "zeros":
            return torch.zeros_like(self.output.detach())
        if self.y.shape != self.output.shape:
            raise InputError(
                f"x_start={self.settings.x_start!r} needs y of the image's shape "
                f"{tuple(self.output.shape)}, y has {tuple(self.y.shape)}: use x_start='zeros'"
            )
        if self.settings.x_start == "denoised":
            with torch.no_grad():
                return self.denoiser(self.y, self._sigma)
        return self.y.clone()

    @torch.no_grad()
    def _call_denoiser(self, x: Tensor) -> Tensor:
        """f(x), or f(x + a H^T(y - Hx)) with settings.strengthen = a.

        The latter is the boosting of Romano and Elad (SIIMS 2015): what x has lost is given back,
        with a share a of the noise, and f takes the noise out again.
        """
        s = self.settings
        if s.strengthen:
            x = x + s.strengthen * self.H.adjoint(self.y - self.H(x))
        return self.denoiser(x, s.sigma_f)

    def final(self, estimate: Tensor) -> Tensor:
        """What a run returns for its estimate: f of it with settings.result "denoised"."""
        return self._call_denoiser(estimate) if self.settings.result == "denoised" else estimate

    def _denoise(self, x: Tensor) -> Future | Tensor:
        """f(x), or the promise of it where it is computed beside the Theta-update.

        On a GPU a thread pays only where f(x) may come later: what is launched there is waited for
        by nobody anyway, and a denoiser of the CPU has little to run beside within one iteration.
        """
        if self.executor is None or (x.is_cuda and self.settings.lag == 0):
            return self._call_denoiser(x)
        if not x.is_cuda:
            return self.executor.submit(self._call_denoiser, x)
        here = torch.cuda.current_stream()
        # Of the pool that no lane is from: a stream that records takes in nothing of others.
        ready, beside = here.record_event(), torch.cuda.Stream(priority=-1)

        def call() -> Tensor:
            with torch.cuda.stream(beside):
                beside.wait_event(ready)
                fx = self._call_denoiser(x)
                fx.record_stream(here)  # its memory is not given away while `here` reads it
                beside.synchronize()
                return fx

        return self.executor.submit(call)

    def _control(self, begins_interval: bool) -> None:
        """Let lam and mu grow once the fit reaches the noise: the authors' rule, any sigma and H.

        The noise alone leaves a residual of mean square sigma^2, or less where clipping cut it.
        Theirs tests PSNR of T(z) against y, 20 dB at first, which is a residual of 1.02 sigma at
        sigma = 25. Without branches, so that the device need not be waited for.
        """
        s = self.settings
        if not s.growth:
            return
        residual = self._residual.detach()
        if self._deviation is not None:
            self.noise = (self._deviation(self.y + residual).square() * self._mask).mean()
        elif self._clipped is not None and begins_interval:  # it changes slowly
            self.noise = (self._clipped(self.y + residual) * self._mask).mean()
        fit = 10 * torch.log10(self.noise / residual.square().mean())
        reached = (fit > self.threshold).to(fit.dtype)
        self.lam = self.lam + reached * (s.growth * s.lam)
        self.mu = self.mu + reached * (s.growth * s.mu)
        self.threshold = self.threshold + reached * s.growth_db

    def _average(self, T: Tensor) -> None:
        """The mean of the images so far with weights smoothing^age: short runs keep no start."""
        s = self.settings
        now = {"x": self.x, "x-u": self.x - self.u}.get(s.result, T)
        if self.estimate is None or not s.smoothing:
            self.estimate = now
        else:
            self.share = self.share / (self.share + s.smoothing)  # (1 - s) / (1 - s^k)
            self.estimate = torch.lerp(self.estimate, now, self.share)

    @torch.no_grad()
    def _terms(self) -> dict[str, Tensor]:
        data = self._fit
        rho = red.rho(self.x, self.fx) if self.denoiser is not None else torch.zeros_like(data)
        return {
            "data": data,
            "rho": rho,
            "objective": data + self._scale * self.lam * rho,
            "augmented": self._augmented(),
            "gap": torch.linalg.vector_norm(self.x - self.output),
            "residual": (self._residual.square().mean() / self._seen).sqrt(),
            "lam": self.lam,
            "mu": self.mu,
        }

    # Saving and going back -----------------------------------------------------------------------

    _CARRIED = (
        "k", "draws", "rollbacks", "x", "u", "fx", "estimate", "share", "lam", "mu", "threshold",
        "noise", "window", "settled", "seconds",
    )  # fmt: skip

    def state_dict(self) -> dict:
        """All that the next step depends on, copied: tensors and plain types only."""
        self._pending = deque(result_of(p) for p in self._pending)
        return _copied(
            {
                **{name: getattr(self, name) for name in self._CARRIED},
                "pending": list(self._pending),
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
        )

    def load_state_dict(self, saved: dict) -> None:
        """Continue from `saved` as if nothing had been between."""
        saved = _copied(saved)
        for name in self._CARRIED:
            setattr(self, name, saved[name])
        self._pending = deque(saved["pending"])
        if hasattr(self.network, "exact"):  # engine.Mixed: what failed goes on in float32
            self.network.exact = self.rollbacks > 0
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.draws -= 1  # the same output again, with its graph
        self._forward()

    def fit(self) -> tuple[float | None, float | None]:
        """Residual of the iterations up to the last look, and noise level, where they are known.

        Root mean squares over what is seen of y, in image units. Waits for the device.
        """
        known = self._sigma or (self.settings.growth and self._deviation is not None)
        noise = math.sqrt(self.noise.item() / self._seen) if known else None
        return self.settled and math.sqrt(self.settled / self._seen), noise

    def trouble(self) -> str | None:
        """What went wrong since the last look, if anything: called by the driver.

        On a GPU it waits for the steps launched since, so their time is told here.
        """
        started = time.perf_counter()
        try:
            return self._trouble()
        finally:
            self.seconds += time.perf_counter() - started

    def _trouble(self) -> str | None:
        since = (self.k - 1) % self.settings.check_every + 1  # iterations since the last look
        mean_square = self.window.item() / since
        self.window = torch.zeros_like(self.window)
        images = (self.x, self.u, self.fx, self.estimate)
        if not math.isfinite(mean_square) or not all(t.isfinite().all() for t in images):
            return "the fit or f(x) is not finite"
        if max(self.x.abs().max(), self.u.abs().max()) > LOST:
            return f"x or u is beyond {LOST:g}, an image within 1"
        before, self.settled = self.settled, mean_square
        if before is not None and mean_square > before * 10 ** (self.settings.collapse_db / 10):
            return f"the fit fell by more than {self.settings.collapse_db:g} dB"
        return None


def iterate(solver: ADMM) -> Iterator[tuple[State, dict]]:
    """Run a solver to settings.iterations; yields (state, last good snapshot) after each step.

    Every `check_every` iterations and at the end the fit is looked at. Where it is non-finite, or
    its mean over the interval worse than the interval's before by more than `collapse_db`, the
    solver goes back to the last good snapshot, of the former looks, with half the learning rate and
    other noise, and says so. The iteration number goes back, too.

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
            trouble = solver.trouble()
            if trouble is None:
                state = replace(state, seconds=solver.seconds)
                # A run of more iterations has no look at the end of this one: it goes on from here.
                good = solver.state_dict() if regular else good
            elif solver.rollbacks == s.max_rollbacks:
                c = "c or " if s.x_update == "steepest-descent" else ""
                also = ", or look at the denoiser" if "f(x)" in trouble else ""
                raise DivergedError(
                    f"at iteration {state.k} {trouble}, and going back {s.max_rollbacks} times did "
                    f"not help: use a smaller {c}learning_rate (now {s.learning_rate:g}){also}"
                )
            else:
                rollbacks = solver.rollbacks + 1
                kept = {"rollbacks": rollbacks, "seconds": solver.seconds}
                solver.load_state_dict({**good, **kept})
                exact = ", in float32" if getattr(solver.network, "exact", False) else ""
                logger.warning(
                    "at iteration %d %s: back to iteration %d "
                    "with half the learning rate%s (%d of %d)",
                    state.k, trouble, solver.k, exact, rollbacks, s.max_rollbacks,
                )  # fmt: skip
                continue
        yield state, good


def result_of(pending: Future | Tensor) -> Tensor:
    """f(x), waited for where it is computed beside."""
    return pending.result() if isinstance(pending, Future) else pending


def _copied(value):
    """A deep copy of a nest of dicts, lists and tensors, detached."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(v) for v in value]
    return value
