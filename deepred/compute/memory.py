"""How much memory a run takes, and how much this process may take."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from ..errors import InputError
from ..networks import padded
from ..settings import Settings
from . import native
from .engine import Engine

# Of cgroups 2 and 1, by the controller in /proc/self/cgroup: mount point, files of limit and use,
# and in memory.stat the cache of files, which counts as used and can be taken back.
_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def memory_available(root: str | Path = "/") -> int:
    """Bytes that are free to use, at least 0: the least of three.

    What the machine has free (without its swap), what the process's own limits leave (RLIMIT_AS,
    RLIMIT_DATA), and what those of its containers do (cgroups of Linux, version 1 or 2). `root` is
    the folder that proc and sys are in.
    """
    free = psutil.virtual_memory().available
    return max(0, min([free, *_process(), *_containers(Path(root))]))


def _process() -> Iterator[int]:
    try:
        import resource  # not on Windows
    except ImportError:
        return
    taken = psutil.Process().memory_info()
    limits = {resource.RLIMIT_AS: taken.vms, resource.RLIMIT_DATA: getattr(taken, "data", 0)}
    for limit, used in limits.items():
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            yield most - used


def _containers(root: Path) -> Iterator[int]:
    """Of this process's group and all above it: each may have a limit of its own."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controller, path = line.split(":", 2)
        if "memory" in controller.split(","):
            controller = "memory"
        if controller not in _GROUPS:
            continue
        mount, limit, use, cache = _GROUPS[controller]
        group = Path(path.lstrip("/"))
        for folder in (root / mount / part for part in (group, *group.parents)):
            most, used = _text(folder / limit).strip(), _text(folder / use).strip()
            if most.isdigit() and used:  # else "max", or no such file
                stat = dict(entry.split() for entry in _text(folder / "memory.stat").splitlines())
                yield int(most) - int(used) + int(stat.get(cache, 0))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def trim() -> None:
    """Return free memory to the system: glibc keeps it, in an arena for each thread.

    Without this, memory grew by a tenth over 3000 iterations with BM3D in its own thread.
    """
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another libc
        pass


class Need(NamedTuple):
    """What a run takes: bytes, a description, and what would take less."""

    bytes: int
    what: str
    less: str


def need(shape: tuple[int, int, int], settings: Settings, method: str, engine: Engine) -> Need:
    """What a run of an image (C, H, W) takes on an engine."""
    fast = engine.native and native.knows(settings.channels, settings.skip, shape[0])
    what, less = f"an image of {shape[2]}x{shape[1]}", "a smaller image"
    if method != "red":
        what += f" with {settings.channels} channels"
        if settings.channels > 32:
            less = f"fewer channels (preset fast), or {less}"
        elif settings.denoiser == "bm3d":
            less = f"another denoiser than bm3d, or {less}"
    return Need(memory_needed(shape, settings, method, native=fast), what, less)


def memory_needed(
    shape: tuple[int, int, int], settings: Settings, method: str = "deepred", native: bool = False
) -> int:
    """About how many bytes a run takes at its peak, for an image (C, H, W).

    The sum of what the backward pass keeps of each scale, theta with Adam's moments and the
    solver's copies, the images, and BM3D's blocks. Within a third of the measured peak from 64 to
    1024 pixels a side, for the Deep Decoder from 256 pixels. `native` is for the kernels in C++,
    which keep less.
    """
    pixels = padded(shape[1], settings.scales) * padded(shape[2], settings.scales)
    images = 30 * pixels * shape[0]
    if method == "red":
        return 4 * images
    denoising = 320e6 + 450 * pixels if settings.denoiser == "bm3d" else 0
    if settings.network == "decoder":  # three maps of the largest layer, and their gradients
        return int(4 * (images + 5.5 * pixels * settings.channels) + 150e6 + denoising)
    theta = 9 * (2 * settings.scales + 1) * settings.channels**2
    if native:
        maps = pixels * (3 * settings.input_channels + 4 * settings.skip + 9 * settings.channels)
        return int(1.2 * 4 * (images + maps) + 4 * 16 * theta + 95e6 + denoising)
    full_scale = 3 * settings.input_channels + 4 * settings.skip + 17 * settings.channels
    activations = pixels * (full_scale + 17 * settings.channels / 3)
    # Measured on long runs: .4 more than the tensors, and torch's own buffers.
    return int(1.4 * 4 * (images + activations + 6 * theta) + 110e6 + denoising)


def check_memory(needs: list[Need], engine: Engine) -> None:
    """InputError if the runs, as many at once as the engine takes, need more than is free."""
    free = torch.cuda.mem_get_info()[0] if engine.device == "cuda" else memory_available()
    largest = sorted(needs, reverse=True)[: engine.batch]
    needed = sum(need.bytes for need in largest)
    if needed > free:
        many = f", {len(largest)} at once," if len(largest) > 1 else ""
        raise InputError(
            f"{largest[0].what}{many} needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            f"free: use {advice(largest)}"
        )


def advice(needs: list[Need]) -> str:
    """What would take less memory."""
    less = max(needs).less if needs else "a smaller image or network"
    return f"a smaller batch, {less}" if len(needs) > 1 else less
