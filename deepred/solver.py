"""Algorithm 1: one ADMM loop for DeepRED, for DIP (lam = mu = 0) and for every task.

`ADMM.step` is one pass of the loop. Neither it nor what drives it (`compute.rollback.iterate`) sees
the ground truth: metrics belong to the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from . import red
from .beside import Beside
from .controller import Controller
from .errors import DivergedError
from .fidelity import DataTerm, Likelihood
from .networks import perturbed
from .operators import seen
from .settings import Settings

# Raised when a change makes the same settings give another result. 2: the exponential mean without
# the weight of the first image, and other random numbers on z in some engines.
VERSION = 2

Denoiser = Callable[[Tensor, float], Tensor]
Noise = Callable[[Tensor, float, torch.Generator], Tensor]

TERMS = ("data", "rho", "objective", "augmented", "gap", "residual", "lam", "mu")


@dataclass(frozen=True)
class State:
    """The result of one iteration. Images are (1, C, H, W), detached; terms are scalars.

    `terms` holds, by name:

    data : 1/2 ||H T(z) - y||^2, or what a likelihood has in its place, a sum over pixels.
    rho : Eq. (3) with the latest f(x), which belongs to an x some iterations old; also a sum.
    objective : data + lam rho, Eq. (4), without a whitener. Where the settings have means, lam is
        scaled by the number of values in y over that in x.
    augmented : Eq. (7) as the next Theta-step descends it, in sums or means.
    gap : ||x - T(z)||, the constraint of Eq. (4).
    residual : the root mean square of H T(z) - y over the seen part of y.
    lam, mu : the weights.

    All are tensors on the device, and reading one waits for it. With recorded CUDA graphs the next
    step overwrites the images: clone what is to last (a callback of `restore` gets clones).
    """

    k: int
    estimate: Tensor  # the result if one stopped here: settings.result, smoothed
    x: Tensor
    u: Tensor
    fx: Tensor
    output: Tensor  # T_theta(z)
    terms: dict[str, Tensor]
    seconds: float
    run: int = 0  # number of the run, where there are several with different z


class ADMM:
    """Algorithm 1 and its variables.

    `deepred.restore` checks that what is given fits together; here only H and y are compared.

    Parameters
    ----------
    y : measurement.
    H : callable, image -> measurement, differentiable by torch.
    network : module, z -> image (1, C, H, W).
    z : the fixed random input of the network.
    denoiser : callable f(x, sigma), image and noise level -> image, not differentiated; None for
        settings without one.
    settings : see `Settings`.
    sigma : noise level of y in image units, for the controller (settings.growth) and for
        x_start="denoised".
    seed : of the noise added to z; what step k draws depends on seed and k alone.
    executor : where f(x) is computed beside the Theta-update (Figure 1); without one it is computed
        before. The result is the same.
    likelihood : replaces 1/2 ||Hx - y||^2 in Eq. (7): a callable (Hx, y) -> terms per pixel, which
        are summed or averaged by `settings.data_term`, or one number, which is used as it is. See
        `deepred.beyond.likelihoods`. With a method `deviation(Hx)` it tells the controller the
        noise level, instead of `sigma` and `settings.clipped`.
    noise : makes z + scale N(0, 1) of (z, scale, generator), from the generator's seed alone;
        torch's random numbers if None.

    Raises
    ------
    InputError
        At the first evaluation, if H or the likelihood does not return what y can be compared with.
    DivergedError
        If the data term is not finite at the first output.
    """

    ADAM: ClassVar = {"fused": True}  # options of torch's
    CARRIED = "k draws rollbacks x u fx estimate share window settled seconds".split()

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
        s = settings
        self.y, self.H, self.network, self.z = seen(y, H), H, network, z
        self.settings, self.seed = s, seed
        self.data_term, self._perturbed = DataTerm(self.y, H, s, likelihood), noise or perturbed
        self._generator = torch.Generator(z.device)
        parameters = [p for p in network.parameters() if p.requires_grad]
        if s.optimizer == "adam":
            self.optimizer = torch.optim.Adam(parameters, s.learning_rate, **self.ADAM)
        else:
            self.optimizer = torch.optim.SGD(parameters, s.learning_rate)
        self.k = self.draws = self.rollbacks = 0

        self._forward()
        if not torch.isfinite(self._data):
            raise DivergedError("the data term is not finite at the start: look at H, network, y")
        self.x = self._start(denoiser, sigma)
        self.u = torch.zeros_like(self.x)  # u_0 = 0
        self.f = denoiser and red.boosted(denoiser, s.sigma_f, s.strengthen, H, self.y)
        self.fx = self.x  # until the first f(x) arrives
        self.beside = Beside(self.f, self.x, s.lag, executor)
        self.control = Controller(s, self.y, H, sigma, likelihood)
        self.estimate: Tensor | None = None
        self.share = y.new_ones(())  # weight of the newest image in the estimate
        # With means, lam of the settings is that of Eq. (4), in sums, times this factor.
        self._scale = y.numel() / self.output.numel() if s.data_term == "mean" else 1.0
        # Sum of the residual's mean squares since the driver's last look, and their mean then.
        self.window, self.settled = y.new_zeros(()), None
        self.seconds = 0.0

    def step(self) -> State:
        """One iteration of Algorithm 1: f(x) if it is due, and the updates of Theta, x and u."""
        started = time.perf_counter()
        self.k += 1
        begins = self.k == 1 or self.k % self.settings.denoise_every == 0
        if begins and self.f:
            self.beside.ask(self.x)  # f(x_k), beside the Theta-update: Figure 1
        T = self.theta_update()  # T_Theta(z) for Theta_{k+1} of Eq. (7)
        if begins and self.f:
            self.fx = self.beside.take()  # of the x of `lag` intervals ago
        self.x = self.x_update(T + self.u, begins)  # x_{k+1} of Eq. (8)
        self.u = self.u - self.x + T  # u_{k+1} = u_k - x_{k+1} + T_Theta(z)
        terms = self.follow(T, begins)
        self.seconds += time.perf_counter() - started
        output = self.output.detach()
        return State(self.k, self.estimate, self.x, self.u, self.fx, output, terms, self.seconds)

    def theta_update(self) -> Tensor:
        """Eq. (7): gradient steps on 1/2 ||H T(z) - y||^2 + mu/2 ||x - T(z) - u||^2.

        Returns the T(z) that the x- and u-updates use. Each step descends from the output that
        the step before has left, so that Algorithm 1 costs one forward pass per iteration.
        """
        s = self.settings
        decay = s.lr_decay ** ((self.k - 1) // s.lr_decay_every)
        self._set_rate(s.learning_rate * decay * 0.5**self.rollbacks)
        before = self.output.detach()
        for _ in range(s.theta_steps):
            self._descend()
            self._forward()
        return self.output.detach() if s.x_sees == "after" else before

    def x_update(self, v: Tensor, begins_interval: bool) -> Tensor:
        """Eq. (8) for v = T(z) + u, by J steps of Eq. (11) or (12)."""
        s, lam, mu, x = self.settings, self.control.lam, self.control.mu, self.x
        if s.lam == s.mu == 0:  # DIP: nothing ties x to f(x); Eq. (11) as mu -> 0 is x = v
            return v
        for j in range(s.inner_steps):
            if j > 0 and begins_interval and s.lag == 0 and self.f:
                self.fx = self.f(x)
            if s.x_update == "fixed-point":
                x = red.fixed_point(self.fx, v, lam, mu)
            else:
                x = red.steepest_descent(x, self.fx, v, lam, mu, s.c or 1 / (lam + mu))
        return x.clamp(0, 1) if s.clip_x else x

    def follow(self, T: Tensor, begins_interval: bool) -> dict[str, Tensor]:
        """Controller and averages after the updates; returns the terms of `State`."""
        self.control.update(self.residual, begins_interval)
        self._average(T)
        self.window = self.window + self.residual.square().mean()
        return self._terms()

    def final(self, estimate: Tensor) -> Tensor:
        """What a run returns for its estimate: f of it with settings.result "denoised"."""
        return self.f(estimate) if self.settings.result == "denoised" else estimate

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
        scale = self.settings.input_noise
        z = self._perturbed(self.z, scale, self._generator) if scale else self.z
        self.output = self.network(z)
        self._data, self._fit, self.residual = self.data_term(self.output)

    def _augmented(self) -> Tensor:
        """The objective of Eq. (7) at the present output, x and u."""
        if self.settings.mu == 0:
            return self._data
        gap = (self.x - self.output - self.u).square()
        return self._data + 0.5 * self.control.mu * self.data_term.reduce(gap)

    def _start(self, denoiser: Denoiser | None, sigma: float | None) -> Tensor:
        """x_0: y as in Algorithm 1, zeros, or f(y)."""
        if self.settings.x_start == "zeros":
            return torch.zeros_like(self.output.detach())
        if self.settings.x_start == "measurement":
            return self.y.clone()
        with torch.no_grad():
            return denoiser(self.y, sigma)

    def _average(self, T: Tensor) -> None:
        """The mean of the images so far, with weights smoothing^age that sum to 1."""
        s = self.settings
        now = {"x": self.x, "x-u": self.x - self.u}.get(s.result, T)
        if self.estimate is None or not s.smoothing:
            self.estimate = now
        else:
            self.share = self.share / (self.share + s.smoothing)  # (1 - s) / (1 - s^k)
            self.estimate = torch.lerp(self.estimate, now, self.share)

    @torch.no_grad()
    def _terms(self) -> dict[str, Tensor]:
        data, lam = self._fit, self.control.lam
        rho = red.rho(self.x, self.fx) if self.f else torch.zeros_like(data)
        return {
            "data": data,
            "rho": rho,
            "objective": data + self._scale * lam * rho,
            "augmented": self._augmented(),
            "gap": torch.linalg.vector_norm(self.x - self.output),
            "residual": (self.residual.square().mean() / self.control.seen).sqrt(),
            "lam": lam,
            "mu": self.control.mu,
        }

    def state_dict(self) -> dict:
        """All that the next step depends on, copied: tensors and plain types only."""
        saved = {name: getattr(self, name) for name in self.CARRIED}
        saved |= {name: getattr(self.control, name) for name in Controller.CARRIED}
        saved |= {"pending": self.beside.settle(), "network": self.network.state_dict()}
        return _copied({**saved, "optimizer": self.optimizer.state_dict()})

    def load_state_dict(self, saved: dict) -> None:
        """Continue from `saved`, with the same results as without the interruption."""
        saved = _copied(saved)
        for owner, names in ((self, self.CARRIED), (self.control, Controller.CARRIED)):
            for name in names:
                setattr(owner, name, saved[name])
        self.beside.resume(saved["pending"])
        if hasattr(self.network, "exact"):  # engine.Mixed: what failed goes on in float32
            self.network.exact = self.rollbacks > 0
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.draws -= 1  # the same output again, with its graph
        self._forward()


def _copied(value):
    """A deep copy of a nest of dicts, lists and tensors, detached."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(v) for v in value]
    return value
