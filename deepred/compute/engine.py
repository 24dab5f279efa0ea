"""How an iteration is computed: device, precision, threads, CUDA graphs.

The algorithm is the same with each engine. The reference is eager float32. `pick` takes the kernels
in C++ on a CPU; without a compiler torch, in bf16 for wide networks if the processor supports it;
on a GPU torch's usual tf32. Compilation, graphs and batches are optional; `deepred bench` measures
what each is worth on a machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from ..errors import InputError, choice, whole
from ..solver import ADMM, Noise
from . import native
from .graphs import Graphed

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "tf32", "bf16")


@dataclass(frozen=True)
class Engine:
    """Where and how the iterations run; made by `pick`.

    precision : of the network's products: float32, tf32 (10 bits of mantissa, on NVIDIA GPUs) or
        bf16 (7 bits, autocast). Sums, batch statistics, theta, the images and Adam always have the
        measurement's precision.
    compiled : torch.compile fuses the network's operations.
    graphs : the iteration is recorded as CUDA graphs.
    batch : how many solvers take turns, on a GPU each on its own stream.
    threads : on a CPU; 0 leaves torch's number.
    native : the kernels of `compute.native` on a CPU, for networks that they can compute.
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
        """Set torch's switches for the runs; at the end wait for the device and restore them."""
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
                    # The H of super-resolution uses these, and is to be exact.
                    (torch.backends.cuda.matmul, "allow_tf32", False),
                ]:
                    stack.callback(setattr, owner, name, getattr(owner, name))
                    setattr(owner, name, value)
                stack.callback(torch.cuda.synchronize)
            yield

    def lane(self) -> Callable[[], AbstractContextManager]:
        """Makes the contexts in which one solver is built and takes its steps.

        On a GPU each solver has its own stream: steps of several solvers overlap, graphs are
        captured off the default stream, and autograd runs on the stream of the forward pass.
        """
        if self.device == "cpu":
            return nullcontext
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())  # until y has been copied
        return lambda: torch.cuda.stream(stream)

    def prepare(self, network: nn.Module, z: Tensor) -> tuple[nn.Module, Tensor]:
        """The network and its input as this engine wants them."""
        if self.native and native.takes(network, z):
            if self.threads:
                # Torch has one thread until the session ends: its others would spin after each
                # operation and slow the kernels' own threads down.
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
    """torch's own defaults: gradients, float32, device "cpu", no autocast.

    What the caller has switched on must neither change a result nor end in a traceback.
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
    choice("device", device, DEVICES)
    choice("precision", precision, PRECISIONS)
    whole("batch", batch)
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


# Channels times pixels up to which one thread serves best on a CPU: a second one gains a tenth to a
# quarter there, which the denoiser beside the network needs, and on a busy machine threads that
# wait for each other are many times slower. In torch bf16 halves an iteration of 128 channels at
# 256 x 256 on a processor that supports it; the kernels in float32 are 2.5 times as fast as that at
# 32. Channels last was slower than torch's own layout on a CPU, for 128 channels at 256 x 256.
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

    Everything but the products stays in z's precision if the network takes care of it, as those of
    `networks` do. With `exact` set it is the network itself; the solver sets it after a rollback.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.exact = False

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, torch.bfloat16, enabled=not self.exact):
            return self.network(z).to(z.dtype)
