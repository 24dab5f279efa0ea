"""How much memory this process can take before something refuses or ends it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from ..errors import InputError
from ..networks import padded
from ..settings import Settings
from .engine import Engine

# Of cgroups 2 and 1, by the controller in /proc/self/cgroup: where they are mounted, limit and use,
# and what of the use is a cache of files, which gives way.
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

    What the machine has free (its swap not counted), what the process's own limits leave
    (RLIMIT_AS, RLIMIT_DATA), and what those of its containers do (cgroups of Linux). `root` is the
    folder that proc and sys are in.
    """
    root = Path(root)
    return max(0, min([_machine(root), *_process(root), *_containers(root)]))


def _machine(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return psutil.virtual_memory().available


def _process(root: Path) -> Iterator[int]:
    pages = [int(count) for count in _text(root / "proc/self/statm").split()]
    if not pages:
        return
    import resource  # not on Windows

    for limit, taken in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            yield most - taken * resource.getpagesize()


def _containers(root: Path) -> Iterator[int]:
    """Of this process's group and all above it: each may have a limit of its own."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controller, path = line.split(":", 2)
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
    """Give the system back what is free: glibc keeps it, in pieces for each thread.

    Between two calls of BM3D in its own thread these pieces grew by a tenth over 3000 iterations.
    """
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another libc, which sees to it itself
        pass


def memory_needed(
    shape: tuple[int, int, int], settings: Settings, method: str = "deepred", native: bool = False
) -> int:
    """About how many bytes a run takes at its peak, for an image (C, H, W).

    What the backward pass keeps of each scale, theta with Adam's moments and the solver's copies,
    the images, and BM3D's blocks; measured to be within a third of the truth from 64 to 1024
    pixels a side, for the Deep Decoder from 256 pixels. `native` is for the kernels in C++, which
    keep less.
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
    # A run of some length takes .4 more than its tensors, and torch's own buffers come on top.
    return int(1.4 * 4 * (images + activations + 6 * theta) + 110e6 + denoising)


def check_memory(runs: list[tuple[int, str]], engine: Engine) -> None:
    """Say before the first step that the runs cannot fit, as many at once as the engine takes.

    Parameters
    ----------
    runs : bytes (of `memory_needed`) and a description of each.

    Raises
    ------
    InputError
        If they are more than the device has free.
    """
    if engine.device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = memory_available()
    largest = sorted(runs, reverse=True)[: engine.batch]
    needed = sum(count for count, _ in largest)
    if needed > free:
        many = f", {len(largest)} at once," if len(largest) > 1 else ""
        fewer = "a smaller batch, " if many else ""
        raise InputError(
            f"{largest[0][1]}{many} needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            f"free: use {fewer}--preset fast (fewer channels), or a smaller image"
        )
