"""Algorithm 1 recorded as CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import attrgetter
from typing import ClassVar

import torch
from torch import Tensor

from ..solver import ADMM, State

# Attributes of the solver.
FIXED = "x u fx estimate share window".split()
FIXED += [f"control.{name}" for name in ("lam", "mu", "threshold", "noise")]


class Graphed(ADMM):
    """`ADMM` whose steps are recorded as CUDA graphs and replayed: one launch instead of hundreds.

    Three pieces are recorded after a few plain steps: the network with its data term, the gradient
    step, and everything after the Theta-update. A replay reads and writes the memory that was
    recorded; the tensors of `FIXED` are therefore copied to and never replaced. What changes from
    step to step on the host (learning rate, seed of the noise, when the denoiser runs) stays
    outside. On a CPU, where nothing can be recorded, the pieces are called.
    """

    ADAM: ClassVar = {"fused": True, "capturable": True}
    WARM_UP = 3

    def __init__(self, *arguments, **options) -> None:
        self._plain_steps = 0
        self._replays: dict[object, Callable[[], object]] = {}
        super().__init__(*arguments, **options)

    def step(self) -> State:
        if not self._replays:
            if self._plain_steps == self.WARM_UP:
                self._record_all()
            self._plain_steps += 1
        if not self._replays:
            return super().step()
        started = time.perf_counter()
        self.k += 1
        begins = self.k == 1 or self.k % self.settings.denoise_every == 0
        if begins and self.f:
            self.beside.ask(self.x.clone())  # the next step overwrites its memory
        T = self.theta_update()
        if begins and self.f:
            self.fx = self.beside.take()
        self._bind()
        if T is not self._T:
            self._T.copy_(T)
        repeats = begins and self._repeats
        terms = self._updates(True) if repeats else self._replays[begins]()
        self.seconds += time.perf_counter() - started
        output = self.output.detach()
        return State(self.k, self.estimate, self.x, self.u, self.fx, output, terms, self.seconds)

    def load_state_dict(self, saved: dict) -> None:
        self._replays, self._plain_steps = {}, 0  # the optimiser has other memory after this
        super().load_state_dict(saved)

    def _record_all(self) -> None:
        self.beside.settle()  # nothing else may run on the device now
        self._fixed = {name: attrgetter(name)(self).clone() for name in FIXED}
        self._T = torch.empty_like(self.output.detach())
        self._bind()
        self._pool = torch.cuda.graph_pool_handle() if self.y.is_cuda else None
        self.optimizer.zero_grad()  # the gradients are made anew, in the graph's memory
        replays = {"forward": self._record(super()._evaluate)}
        replays["descend"] = self._record(self._descend_and_keep)
        for begins in (False,) if self._repeats else (False, True):
            replays[begins] = self._record(lambda begins=begins: self._updates(begins))
        self._replays = replays
        if self.y.is_cuda:  # recording computes nothing: the same output again
            self.draws -= 1
            self._forward()

    def _record(self, piece: Callable[[], object]) -> Callable[[], object]:
        if not self.y.is_cuda:
            return piece
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        # Not "global": denoisers of other solvers may be at work in their threads meanwhile.
        options = dict(pool=self._pool, capture_error_mode="thread_local")
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), **options):
            result = piece()

        def replay() -> object:
            graph.replay()
            return result

        return replay

    def _bind(self) -> None:
        """Copy values that were replaced since, by the denoiser or the driver, to fixed memory."""
        for name, fixed in self._fixed.items():
            value = attrgetter(name)(self)
            if value is not fixed:
                fixed.copy_(value)
                owner, _, last = name.rpartition(".")
                setattr(attrgetter(owner)(self) if owner else self, last, fixed)

    def _descend_and_keep(self) -> None:
        self._augmented().backward(retain_graph=self.y.is_cuda)  # replayed on the same memory
        self.optimizer.step()

    def _updates(self, begins_interval: bool) -> dict[str, Tensor]:
        """The updates of x and u as in `ADMM.step`, and what follows."""
        self.x = self.x_update(self._T + self.u, begins_interval)
        self.u = self.u - self.x + self._T
        terms = self.follow(self._T, begins_interval)
        self._bind()
        return terms

    # The pieces of `ADMM`, replayed.

    def _evaluate(self) -> None:
        if self._replays:
            self._replays["forward"]()
        else:
            super()._evaluate()

    def _descend(self) -> None:
        if not self._replays:
            return super()._descend()
        self._bind()
        if not self.y.is_cuda:
            self.optimizer.zero_grad()
        self._replays["descend"]()

    def theta_update(self) -> Tensor:
        if self._replays and self.settings.x_sees == "before":
            self._T.copy_(self.output.detach())  # the forward pass overwrites it
            super().theta_update()
            return self._T
        return super().theta_update()

    @property
    def _repeats(self) -> bool:
        """Whether the denoiser is called between x-updates, J > 1: that cannot be recorded."""
        s = self.settings
        return s.inner_steps > 1 and not s.lag and self.f is not None

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if not isinstance(group["lr"], Tensor):
                # Adam's kernel for GPUs reads a float32, whatever the parameters are.
                kind = torch.float32 if self.y.is_cuda else self.y.dtype
                group["lr"] = torch.tensor(rate, dtype=kind, device=self.y.device)
            elif group.get("told") != rate:
                group["lr"].fill_(rate)
            group["told"] = rate
