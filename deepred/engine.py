"""How an iteration is computed, not what: device, precision, threads, CUDA graphs.

The solver reads the same with each engine. The reference is eager float32; `pick` takes it on a
CPU, and on a GPU torch's usual tf32. bf16, graphs and strict order are there to be asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .errors import InputError
from .solver import ADMM, result_of

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "tf32", "bf16")


@dataclass(frozen=True)
class Engine:
    """Where and how the iterations run; made by `pick`.

    `precision` is that of the network's products: float32, tf32 (10 bits of mantissa, on NVIDIA
    GPUs) or bf16 (7 bits, autocast). Sums, batch statistics, theta, the images and Adam stay in
    the measurement's precision always. `threads` is for the CPU, 0 leaves torch's number.
    """

    device: str = "cpu"
    precision: str = "float32"
    channels_last: bool = False
    graphs: bool = False
    strict: bool = False
    threads: int = 0

    def __str__(self) -> str:
        extra = [f"{self.threads} thread{'s' * (self.threads > 1)}"] if self.threads else []
        for name in ("channels_last", "graphs", "strict"):
            extra += [name.replace("_", " ")] * getattr(self, name)
        return ", ".join([self.device, self.precision, *extra])

    @contextmanager
    def session(self) -> Iterator[None]:
        """torch's switches for a run, as they were again afterwards."""
        with ExitStack() as stack:
            if self.device == "cpu":
                if self.threads:
                    stack.callback(torch.set_num_threads, torch.get_num_threads())
                    torch.set_num_threads(self.threads)
            else:
                flags = dict(benchmark=not self.strict, deterministic=self.strict)
                tf32 = self.precision != "float32"
                stack.enter_context(torch.backends.cudnn.flags(allow_tf32=tf32, **flags))
                matmul = torch.backends.cuda.matmul
                stack.callback(setattr, matmul, "allow_tf32", matmul.allow_tf32)
                matmul.allow_tf32 = tf32
                # Graphs are captured off the default stream, and autograd stays where it began.
                stack.enter_context(torch.cuda.stream(torch.cuda.Stream()))
            yield

    def prepare(self, network: nn.Module, z: Tensor) -> tuple[nn.Module, Tensor]:
        """The network and its input as this engine wants them."""
        if self.channels_last and z.ndim == 4:
            network = network.to(memory_format=torch.channels_last)
            z = z.contiguous(memory_format=torch.channels_last)
        if self.strict:
            for module in network.modules():
                if hasattr(module, "sliced"):  # of networks: padding and upsampling
                    module.sliced = True
        return (Mixed(network) if self.precision == "bf16" else network), z

    @property
    def solver(self) -> type[ADMM]:
        return Graphed if self.graphs else ADMM


def pick(
    device: str = "auto",
    precision: str = "auto",
    *,
    work: int | None = None,
    graphs: bool = False,
    strict: bool = False,
) -> Engine:
    """An engine for this machine.

    Parameters
    ----------
    device : "auto" (CUDA where there is one), "cpu" or "cuda".
    precision : "auto", "float32", "tf32" or "bf16".
    work : channels times pixels of the network's finest scale; decides the threads on a CPU.
    graphs : record the iteration once and replay it, on a GPU.
    strict : results reproducible to the bit on one machine, where that costs something (on a GPU).

    Raises
    ------
    InputError
        If the machine has no such device or precision.
    """
    for what, value, known in [
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
    ]:
        if value not in known:
            raise InputError(f"{what} must be {', '.join(known)}, got {value!r}")
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise InputError("device cuda: torch sees no CUDA device here; use cpu or auto")
    device = "cuda" if cuda and device != "cpu" else "cpu"
    if device == "cpu":
        if precision == "tf32":
            raise InputError("precision tf32 is of NVIDIA GPUs: use float32 or bf16 on a CPU")
        if graphs:
            raise InputError("graphs are of CUDA: leave them out on a CPU")
        precision = "float32" if precision == "auto" else precision
        return Engine("cpu", precision, strict=strict, threads=1 if _small(work) else 0)
    precision = "tf32" if precision == "auto" else precision
    return Engine("cuda", precision, precision != "float32", graphs, strict)


def _small(work: int | None) -> bool:
    """Whether one thread serves best on a CPU.

    Up to 16 channels at 256 x 256 a second thread gains a tenth to a quarter, which the denoiser
    beside it needs; on a busy machine threads that wait for each other are many times slower.
    """
    return work is not None and work <= 16 * 256**2


class Mixed(nn.Module):
    """A network that multiplies in bfloat16 and returns z's precision (torch.autocast).

    With `exact` set it is the network itself: the solver sets it when it has to go back.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.exact = False

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, torch.bfloat16, enabled=not self.exact):
            return self.network(z).to(z.dtype)


class Graphed(ADMM):
    """`ADMM` whose steps are recorded as CUDA graphs and replayed: one launch instead of hundreds.

    Three pieces are recorded after a few plain steps: the network with its data term, the gradient
    step, and all that follows the Theta-update. A replay reads and writes the memory that the
    recording saw, hence the `_FIXED` tensors, which are copied to and never replaced. What changes
    from step to step on the host (the learning rate, the noise's seed, when the denoiser runs)
    stays outside. On a CPU, where nothing can be recorded, the same path calls the pieces.
    """

    ADAM: ClassVar = {"fused": True, "capturable": True}
    WARM_UP = 3
    _FIXED = ("x", "u", "fx", "estimate", "lam", "mu", "threshold", "noise", "window")

    def __init__(self, *arguments, **options) -> None:
        self._plain_steps = 0
        self._replays: dict[object, Callable[[], object]] = {}
        super().__init__(*arguments, **options)

    def step(self):
        if not self._replays:
            if self._plain_steps == self.WARM_UP:
                self._record_all()
            self._plain_steps += 1
        return super().step()

    def load_state_dict(self, saved: dict) -> None:
        self._replays, self._plain_steps = {}, 0  # the optimiser's memory is another after this
        super().load_state_dict(saved)

    def _record_all(self) -> None:
        self._pending = deque(result_of(p) for p in self._pending)  # nobody else on the device now
        self._fixed = {name: getattr(self, name).clone() for name in self._FIXED}
        self._T = torch.empty_like(self.output.detach())
        self._bind()
        self._pool = torch.cuda.graph_pool_handle() if self.y.is_cuda else None
        self.optimizer.zero_grad()  # the gradients are made anew, in the graph's memory
        forward = self._record(super()._evaluate)
        descend = self._record(self._descend_and_keep)
        follow = {flag: self._record(lambda flag=flag: self._follow(flag)) for flag in (0, 1)}
        self._replays = {"forward": forward, "descend": descend, **follow}
        if self.y.is_cuda:  # recording computes nothing: the same output again
            self.draws -= 1
            self._forward()

    def _record(self, piece: Callable[[], object]) -> Callable[[], object]:
        if not self.y.is_cuda:
            return piece
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, pool=self._pool, stream=torch.cuda.current_stream()):
            result = piece()

        def replay() -> object:
            graph.replay()
            return result

        return replay

    def _bind(self) -> None:
        """Values that were replaced since, by the denoiser or the driver, into the fixed memory."""
        for name, fixed in self._fixed.items():
            value = getattr(self, name)
            if value is not fixed:
                fixed.copy_(value)
                setattr(self, name, fixed)

    def _descend_and_keep(self) -> None:
        self._augmented().backward(retain_graph=self.y.is_cuda)  # replayed on the same memory
        self.optimizer.step()

    def _follow(self, begins_interval: int) -> dict[str, Tensor]:
        terms = super()._update(self._T, bool(begins_interval))
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

    def _update(self, T: Tensor, begins_interval: bool) -> dict[str, Tensor]:
        if not self._replays:
            return super()._update(T, begins_interval)
        self._bind()
        if T is not self._T:
            self._T.copy_(T)
        repeats = begins_interval and self.settings.inner_steps > 1 and not self.settings.lag
        if repeats and self.denoiser is not None:  # J > 1: the denoiser is called between
            return self._follow(1)
        return self._replays[int(begins_interval)]()

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if not isinstance(group["lr"], Tensor):
                group["lr"] = self.y.new_tensor(rate)
            elif group.get("told") != rate:
                group["lr"].fill_(rate)
            group["told"] = rate

    def _denoise(self, x: Tensor) -> Future | Tensor:
        x = x.clone()  # its memory is written again by the next step
        if self.executor is None or not x.is_cuda:
            return super()._denoise(x)
        ready = torch.cuda.Event()
        ready.record()

        def call() -> Tensor:
            ready.synchronize()
            return self._call_denoiser(x)

        return self.executor.submit(call)
