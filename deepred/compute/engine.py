"""How an iteration is computed, not what: device, precision, threads, CUDA graphs.

The solver reads the same with each engine. The reference is eager float32. `pick` takes the kernels
in C++ on a CPU; without a compiler torch, in bf16 for wide networks where the processor multiplies
in it; on a GPU torch's usual tf32. Compilation, graphs and batches are there to be asked for;
`deepred bench` tells what each is worth on a machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from operator import attrgetter
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..solver import ADMM, Noise
from . import native

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "tf32", "bf16")


@dataclass(frozen=True)
class Engine:
    """Where and how the iterations run; made by `pick`.

    `precision` is that of the network's products: float32, tf32 (10 bits of mantissa, on NVIDIA
    GPUs) or bf16 (7 bits, autocast). Sums, batch statistics, theta, the images and Adam stay in
    the measurement's precision always. `compiled` has torch.compile fuse the network's operations,
    `graphs` records the iteration as CUDA graphs, `batch` is how many solvers take turns (each on
    a stream of its own on a GPU), `threads` is for the CPU, where 0 leaves torch's number. `native`
    takes the kernels of `compute.native` on a CPU, for networks that they can compute.
    """

    device: str = "cpu"
    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False
    graphs: bool = False
    batch: int = 1
    threads: int = 0
    native: bool = False

    def __str__(self) -> str:
        extra = [f"{self.threads} thread{'s' * (self.threads > 1)}"] if self.threads else []
        for name in ("native", "channels_last", "compiled", "graphs"):
            extra += [name.replace("_", " ")] * getattr(self, name)
        extra += [f"{self.batch} at once"] * (self.batch > 1)
        return ", ".join([self.device, self.precision, *extra])

    @contextmanager
    def session(self) -> Iterator[None]:
        """torch's switches for the runs, as they were again afterwards, when all is computed."""
        with ExitStack() as stack:
            if self.device == "cpu":
                stack.callback(torch.set_num_threads, torch.get_num_threads())
                if self.threads:
                    torch.set_num_threads(self.threads)
            else:
                # One by one: torch.backends.cudnn.flags() would switch cuDNN off.
                cudnn, tf32 = torch.backends.cudnn, self.precision != "float32"
                for owner, name, value in [
                    (cudnn, "benchmark", True),
                    (cudnn, "allow_tf32", tf32),
                    # H of super-resolution is made of these, and is to be exact.
                    (torch.backends.cuda.matmul, "allow_tf32", False),
                ]:
                    stack.callback(setattr, owner, name, getattr(owner, name))
                    setattr(owner, name, value)
                stack.callback(torch.cuda.synchronize)
            yield

    def lane(self) -> Callable[[], AbstractContextManager]:
        """Makes the contexts in which one solver is built and takes its steps.

        On a GPU each has its own stream: steps of several solvers run beside each other, graphs
        are captured off the default stream, and autograd stays where the forward pass was.
        """
        if self.device == "cpu":
            return nullcontext
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())  # y is there
        return lambda: torch.cuda.stream(stream)

    def prepare(self, network: nn.Module, z: Tensor) -> tuple[nn.Module, Tensor]:
        """The network and its input as this engine wants them."""
        if self.native and native.takes(network, z):
            if self.threads:
                # Torch has one thread until the session ends: its others turn on the spot after
                # each operation, however small, in the way of the kernels' own.
                torch.set_num_threads(1)
            network = native.Hourglass(network, self.threads)
            return network, z.contiguous(memory_format=torch.channels_last)
        if self.channels_last and z.ndim == 4:
            network = network.to(memory_format=torch.channels_last)
            z = z.contiguous(memory_format=torch.channels_last)
        if self.compiled:
            network.compile(dynamic=False)
        return (Mixed(network) if self.precision == "bf16" else network), z

    @property
    def noise(self) -> Noise | None:
        """What adds the noise to z, for `ADMM`."""
        return native.perturbed if self.native else None

    @property
    def solver(self) -> type[ADMM]:
        return Graphed if self.graphs else ADMM


@contextmanager
def plain_torch() -> Iterator[None]:
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


def pick(
    device: str = "auto",
    precision: str = "auto",
    *,
    work: int | None = None,
    compiled: bool = False,
    graphs: bool = False,
    batch: int = 1,
) -> Engine:
    """An engine for this machine.

    Parameters
    ----------
    device : "auto" (CUDA where there is one), "cpu" or "cuda".
    precision : "auto", "float32", "tf32" or "bf16".
    work : channels times pixels of the network's finest scale; decides threads and precision on a
        CPU. None where there is no network.
    compiled : fuse the network's operations with torch.compile; takes a minute or two at first.
    graphs : record the iteration once and replay it, on a GPU.
    batch : how many solvers take turns, where there are several runs or problems.

    Raises
    ------
    InputError
        If the machine has no such device, precision or compiler, or batch is below 1.
    """
    for what, value, known in [
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
    ]:
        if value not in known:
            raise InputError(f"{what} must be {', '.join(known)}, got {value!r}")
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise InputError("device cuda: torch sees no CUDA device here; use cpu or auto")
    device = "cuda" if cuda and device != "cpu" else "cpu"
    if device == "cpu":
        if precision == "tf32":
            raise InputError("precision tf32 is of NVIDIA GPUs: use float32 or bf16 on a CPU")
        if graphs:
            raise InputError("graphs are of CUDA: leave them out on a CPU")
        narrow = work is None or work <= NARROW
        kernels = precision in ("auto", "float32") and not compiled
        kernels = kernels and native.library() is not None
        if precision == "auto":
            precision = "bf16" if has_bf16() and not narrow and not kernels else "float32"
        threads = 0 if work is None else 1 if narrow else torch.get_num_threads() if kernels else 0
        how = Engine("cpu", precision, threads=threads, native=kernels)
    else:
        precision = "tf32" if precision == "auto" else precision
        how = Engine("cuda", precision, channels_last=precision != "float32")
    if compiled and not _can_compile(device):
        raise InputError(
            "compiled needs a C++ compiler such as g++ on a CPU, the package triton on a GPU: "
            "install it, or leave compilation out"
        )
    return replace(how, compiled=compiled, graphs=graphs, batch=batch)


# Channels times pixels up to which one thread serves best on a CPU: there a second one gains a
# tenth to a quarter, which the denoiser beside it needs, and on a busy machine threads that wait
# for each other are many times slower. In torch bf16 halves an iteration of 128 channels at
# 256 x 256 on a processor that has it; the kernels in float32 are 2.5 times as fast as that at 32.
# Channels last was slower than torch's own layout on a CPU, 128 channels at 256 x 256.
NARROW = 16 * 256**2


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself (AVX-512 BF16 or AMX); others emulate it."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def _can_compile(device: str) -> bool:
    if device == "cuda":
        return find_spec("triton") is not None
    return any(shutil.which(name) for name in ("g++", "clang++", "cl"))


class Mixed(nn.Module):
    """A network that multiplies in bfloat16 and returns z's precision (torch.autocast).

    What is not a product stays in z's precision where the network sees to it, as `networks` does.
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
    # Of the solver, and of its controller.
    _FIXED = (
        "x", "u", "fx", "estimate", "share", "window",
        "control.lam", "control.mu", "control.threshold", "control.noise",
    )  # fmt: skip

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
        self.beside.settle()  # nobody else is on the device now
        self._fixed = {name: attrgetter(name)(self).clone() for name in self._FIXED}
        self._T = torch.empty_like(self.output.detach())
        self._bind()
        self._pool = torch.cuda.graph_pool_handle() if self.y.is_cuda else None
        self.optimizer.zero_grad()  # the gradients are made anew, in the graph's memory
        forward = self._record(super()._evaluate)
        descend = self._record(self._descend_and_keep)
        flags = (0,) if self._repeats else (0, 1)
        follow = {flag: self._record(lambda flag=flag: self._follow(flag)) for flag in flags}
        self._replays = {"forward": forward, "descend": descend, **follow}
        if self.y.is_cuda:  # recording computes nothing: the same output again
            self.draws -= 1
            self._forward()

    def _record(self, piece: Callable[[], object]) -> Callable[[], object]:
        if not self.y.is_cuda:
            return piece
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        # Not "global": other solvers' denoisers may be at work in their threads meanwhile.
        with torch.cuda.graph(
            graph,
            pool=self._pool,
            stream=torch.cuda.current_stream(),
            capture_error_mode="thread_local",
        ):
            result = piece()

        def replay() -> object:
            graph.replay()
            return result

        return replay

    def _bind(self) -> None:
        """Values that were replaced since, by the denoiser or the driver, into the fixed memory."""
        for name, fixed in self._fixed.items():
            value = attrgetter(name)(self)
            if value is not fixed:
                fixed.copy_(value)
                owner, _, last = name.rpartition(".")
                setattr(attrgetter(owner)(self) if owner else self, last, fixed)

    def _descend_and_keep(self) -> None:
        self._augmented().backward(retain_graph=self.y.is_cuda)  # replayed on the same memory
        self.optimizer.step()

    def _follow(self, begins_interval: int) -> dict[str, Tensor]:
        terms = super().x_and_u_update(self._T, bool(begins_interval))
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

    def x_and_u_update(self, T: Tensor, begins_interval: bool) -> dict[str, Tensor]:
        if not self._replays:
            return super().x_and_u_update(T, begins_interval)
        self._bind()
        if T is not self._T:
            self._T.copy_(T)
        if begins_interval and self._repeats:
            return self._follow(1)
        return self._replays[int(begins_interval)]()

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

    def _ask(self) -> None:
        self.beside.ask(self.x.clone())  # its memory is written again by the next step
