"""The hourglass, the noise on z and non-local means, by kernels in C++.

They are compiled for this processor at first use, which takes some ten seconds, and kept in the
user's cache. Without a compiler torch computes the same, two to four times slower, and one line
says so. A JIT such as numba would need pip alone, but reaches 45 GFLOP/s in the convolution where
C++ has 67 with everything around it included, compiles again for each width, and cannot block
registers in the backward pass.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import networks
from ..networks import SkipNetwork

logger = logging.getLogger(__name__)

NAMES = ("common.h", "rows.h", "hourglass.cpp", "pointwise.cpp")
SOURCES = [Path(__file__).with_name(name) for name in NAMES]
FLAGS = "-O3 -std=c++17 -shared -fPIC -pthread -fno-math-errno -fno-trapping-math".split()
_pointer = ctypes.c_void_p


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, compiled at first use on a machine; None, with a warning, without them."""
    if os.environ.get("DEEPRED_NATIVE", "1") == "0":
        return None
    slower = "the network is computed by torch, two to four times slower"
    compiler = _compiler()
    if compiler is None:
        advice = "install g++ or clang, or pip install ziglang"
        logger.warning("no C++ compiler here: %s; %s", slower, advice)
        return None
    try:
        lib = ctypes.CDLL(str(_built(compiler)))
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        logger.warning(
            "the kernels could not be compiled (%s): %s", why[0] if why else error, slower
        )
        return None
    for kind in ("float32", "float64"):
        getattr(lib, f"hourglass_new_{kind}").restype = _pointer
    return lib


def _compiler() -> list[str] | None:
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    for name in wanted:
        if shutil.which(name):
            return [name]
    return [sys.executable, "-m", "ziglang", "c++"] if find_spec("ziglang") else None


def _built(compiler: list[str]) -> Path:
    """The shared library for this compiler and processor; compiled if missing."""
    told = hashlib.sha256(f"{compiler} {FLAGS} {_processor()}".encode())
    for source in SOURCES:
        told.update(source.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    target = Path(base) / "deepred" / f"kernels-{told.hexdigest()[:16]}.so"
    if not target.exists():
        logger.info("compiling the kernels for this processor, once: some ten seconds")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "kernels.so"
            units = [str(source) for source in SOURCES if source.suffix == ".cpp"]
            tune = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
            command = [*compiler, *FLAGS, tune, *units, "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            os.replace(made, target)  # atomic: another process may do the same
    return target


def _processor() -> str:
    """A description that differs between processors that share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor() + platform.machine()


def knows(channels: int | tuple[int, ...], skip: int, outputs: int) -> bool:
    """Whether the kernels have such a network: multiples of 4 channels, at most 4 of the image."""
    widths = channels if isinstance(channels, tuple) else (channels,)
    return outputs <= 4 and all(c % 4 == 0 for c in (*widths, skip))


def takes(network: nn.Module, y: Tensor) -> bool:
    """Whether `Hourglass` can compute a network for a measurement: DIP's, on a CPU."""
    return (
        isinstance(network, SkipNetwork)
        and y.device.type == "cpu"
        and y.dtype in (torch.float32, torch.float64)
        and knows(network.channels, network.skip, network.outputs)
        and library() is not None
    )


class Hourglass(nn.Module):
    """A `SkipNetwork` computed by the kernels: the same parameters and results, to rounding.

    The forward pass keeps what the backward pass needs in the kernels' own memory, so there is one
    graph at a time. The gradient of a bias before a normalisation is exactly 0; torch's is rounding
    noise. The results are the same to the bit with any number of `threads` (0 for torch's number).
    """

    def __init__(self, network: SkipNetwork, threads: int = 0) -> None:
        super().__init__()
        self.threads = threads
        self.network, self.input_shape = network, network.input_shape
        self._all = tuple(network.parameters())
        self._kind = str(self._all[0].dtype).removeprefix("torch.")
        _, inputs, height, width = network.input_shape
        widths = (ctypes.c_int * len(network.channels))(*network.channels)
        sizes = height, width, inputs, network.skip, network.outputs, *network.size, len(widths)
        self._net = _pointer(self._call("new", *sizes, widths))
        if not self._net:
            raise MemoryError("of the network's kernels")
        self._gradients = [torch.zeros_like(p) for p in self._all]
        self._g = _pointers(self._gradients)
        self._passes = 0

    def forward(self, z: Tensor) -> Tensor:  # (1, inputs, padded h, padded w) -> (1, outputs, h, w)
        return torch.sigmoid(_Pass.apply(z, self, *self._all))

    def _many(self) -> int:
        return self.threads or torch.get_num_threads()

    def state_dict(self, *arguments, **options) -> dict:
        return self.network.state_dict(*arguments, **options)

    def load_state_dict(self, *arguments, **options):
        return self.network.load_state_dict(*arguments, **options)

    def _call(self, what: str, *arguments):
        return getattr(library(), f"hourglass_{what}_{self._kind}")(*arguments)

    def __del__(self) -> None:
        if getattr(self, "_net", None) and library is not None:
            try:
                self._call("free", self._net)
            except KeyboardInterrupt:  # cannot be raised from here
                pass


def perturbed(z: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """`networks.perturbed` in a tenth of the time, with other random numbers: xoshiro128++ and the
    Box-Muller transform.

    Depends on the generator's seed alone, and leaves its state unchanged. Only for float32 on a
    CPU; for the rest `networks.perturbed` is called.
    """
    if z.dtype != torch.float32:
        return networks.perturbed(z, scale, generator)
    out = torch.empty_like(z)  # same layout: the kernel goes through both in memory order
    seed = ctypes.c_uint64(generator.initial_seed())
    count, scale = ctypes.c_long(z.numel()), ctypes.c_float(scale)
    library().add_noise(_at(z), _at(out), count, scale, seed, torch.get_num_threads())
    return out


def nlm(x: Tensor, sigma: float, distance: int, h: float) -> Tensor:
    """`nlm_torch` with patches of 5 x 5, in a tenth of scikit-image's time, float32."""
    x = x.detach().contiguous()
    out = torch.empty_like(x)
    for image, result in zip(x.flatten(0, 1), out.flatten(0, 1)):
        options = ctypes.c_float(sigma), distance, ctypes.c_float(h), torch.get_num_threads()
        library().nlm(_at(image), _at(result), *image.shape, *options)
    return out


class _Pass(torch.autograd.Function):
    """Everything but the sigmoid, forward and backward."""

    @staticmethod
    def forward(ctx, z: Tensor, net: Hourglass, *parameters: Tensor) -> Tensor:
        z = z.contiguous(memory_format=torch.channels_last)
        out = z.new_empty(1, net.network.outputs, *net.network.size)
        ctx.net, ctx.z, ctx.p = net, z, _pointers(parameters)
        net._passes += 1
        ctx.turn = net._passes
        net._call("forward", net._net, _at(z), ctx.p, net._g, _at(out), net._many())
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor):
        net = ctx.net
        if net._passes != ctx.turn:
            raise RuntimeError("the network has been evaluated again since: its graph is gone")
        gradient = gradient.contiguous()
        net._call("backward", net._net, _at(gradient), ctx.p, net._g, net._many())
        return (None, None, *(g.clone() for g in net._gradients))


def _pointers(tensors) -> ctypes.Array:
    return (_pointer * len(tensors))(*[t.data_ptr() for t in tensors])


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return _pointer(tensor.data_ptr())
