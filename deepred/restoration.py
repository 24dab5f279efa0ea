"""`restore`: from a measurement to an image, with everything around Algorithm 1.

Builds the network, runs the solver (several times where the settings ask for a mean over runs),
keeps the history and checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from . import __version__, denoisers, red
from .engine import Engine, pick
from .errors import DivergedError, InputError
from .files import Checkpoint
from .history import History
from .networks import SkipNetwork, padded
from .noise import noise_level
from .operators import Blur, Downsample, Framed, Identity
from .settings import METHODS, Settings, preset
from .solver import ADMM, VERSION, State, iterate

logger = logging.getLogger(__name__)

Callback = Callable[[State], Mapping[str, float] | None]


@dataclass(frozen=True)
class Result:
    """What `restore` returns.

    `image` (1, C, H, W) is the mean of `images`, one for each run. `history` has one row an
    iteration, the runs one after the other: ``run``, ``iteration``, ``seconds``, the terms of
    `deepred.solver.State` and whatever the callback returned (NaN where it returned nothing).
    """

    image: Tensor
    images: list[Tensor]
    history: dict[str, np.ndarray]
    settings: Settings
    method: str
    sigma: float | None
    seed: int
    seconds: float
    engine: Engine

    def curve(self, name: str, run: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Iterations and values of a column of the history, where it has one."""
        rows = (self.history["run"] == run) & ~np.isnan(self.history[name])
        return self.history["iteration"][rows], self.history[name][rows]


def restore(
    y: Tensor,
    H: Callable[[Tensor], Tensor] | None = None,
    *,
    method: str = "deepred",
    denoiser: str | Callable[[Tensor, float], Tensor] | None = None,
    settings: Settings | None = None,
    sigma: float | None = None,
    seed: int = 0,
    device: str = "auto",
    engine: Engine | None = None,
    shape: tuple[int, int, int] | None = None,
    network: Callable[[], nn.Module] | None = None,
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
) -> Result:
    """Restore an image from a measurement y = H x + noise.

    Parameters
    ----------
    y : measurement; for denoising the noisy image, (1, C, H, W) in [0, 1].
    H : operator, image -> measurement; None is the identity (denoising).
    method : "deepred", "dip" (the same loop with lam = mu = 0), "dip-tv" (DIP with the total
        variation of its output) or "red" (no network).
    denoiser : a name ("nlm", "bm3d", "tv") or a callable f(x, sigma); the settings' unless given.
    settings : preset `fast` of the task unless given: super-resolution for a `Downsample`,
        deblurring for a `Blur` or `Framed`, else denoising.
    sigma : noise level of y in image units. Where the settings need it (the controller, and RED
        alone for denoising) and it is not given, it is estimated with scikit-image.
    seed : run r uses 1000 seed + r for theta, z and the noise on z.
    device : "auto" (CUDA where there is one), "cpu" or "cuda".
    engine : how it is computed, from `deepred.engine.pick`; instead of `device`.
    shape : (C, H, W) of the image; unless given y's, larger for a `Downsample` and a `Framed`.
    network : makes a fresh module z -> image with an attribute `input_shape`; DIP's unless given.
    callback : called with every state; what it returns is added to the history.
    checkpoint : file to save to now and then and on Ctrl-C, and to continue from. One that
        belongs to other input or settings is refused. Removed at the end.
    checkpoint_seconds : least time between two saves.

    Raises
    ------
    InputError
        If something does not fit; see the message.
    DivergedError
        If the fit collapses again and again.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    H = Identity() if H is None else H
    check_measurement(y)
    if sigma is not None:
        sigma = float(sigma)
        if not 0 < sigma < 1:
            raise InputError(f"sigma must be in (0, 1), image units, got {sigma:g}: 25 is 25 / 255")
    if not 0 <= seed < 2**40:
        raise InputError(f"seed must be at least 0 and below 2**40, got {seed}")
    if settings is not None and method in ("dip", "dip-tv"):
        settings = settings.as_dip()
        if method == "dip-tv" and not settings.tv:
            raise InputError("method 'dip-tv' needs settings.tv above 0")
    denoising = settings is None and task_of(H) == "denoise"
    told = settings and (settings.growth or settings.x_start == "denoised")
    if sigma is None and (told if settings else denoising and method[:3] != "dip"):
        sigma = noise_level(y)
        logger.warning("noise level not given; estimated: sigma = %.1f of 255", 255 * sigma)
    if settings is None:
        settings = preset("fast", task_of(H), method, sigma=sigma or 0.0)
    shape = tuple(image_shape(H, y) if shape is None else shape)
    if engine is None:
        network_work = settings.channels * shape[1] * shape[2]
        engine = pick(device, work=None if method == "red" else network_work)
    y = y.to(engine.device)
    name = denoiser if denoiser is not None else settings.denoiser
    denoise = denoisers.named(name) if isinstance(name, str) else name

    if network is None:
        check_memory(shape, settings, method, engine.device)

    def make_network() -> nn.Module:
        return network() if network is not None else dip_network(shape, settings)

    if method == "red":
        return _red(y, H, denoise, settings, sigma, seed, callback, engine)

    identity = ""
    if checkpoint is not None:
        with torch.random.fork_rng(devices=[]):
            made = "" if network is None else repr(network())
        identity = fingerprint(y, H, method, name, settings, sigma, seed, shape, engine, made)
    store = Checkpoint(checkpoint, identity, checkpoint_seconds)
    saved = store.load(engine.device) or {"images": [], "rows": [], "solver": None}
    images, history = saved["images"], History(saved["rows"])
    if saved["rows"]:
        last = saved["rows"][-1]
        logger.warning(
            "continuing from the checkpoint: run %d of %d, iteration %d",
            last["run"] + 1, settings.runs, last["iteration"],
        )  # fmt: skip

    for run in range(len(images), settings.runs):
        run_seed = 1000 * seed + run
        z, net = initialise(make_network, settings, run_seed, y)
        net, z = engine.prepare(net, z)
        with engine.session(), ThreadPoolExecutor(max_workers=1) as executor:
            solver = engine.solver(
                y, H, net, z, denoise, settings, sigma=sigma, seed=run_seed, executor=executor
            )
            if saved["solver"] is not None:
                solver.load_state_dict(saved["solver"])
                saved["solver"] = None
            _drive(solver, run, images, history, callback, store)
        images.append(solver.estimate)
        store.save({"images": images, "rows": history.rows(), "solver": None})
    store.remove()
    return _finish(images, history, settings, method, sigma, seed, engine)


def _drive(solver: ADMM, run: int, images, history: History, callback, store: Checkpoint) -> None:
    """One run to its end; what is saved is the last snapshot found good, never a half step."""
    good = solver.state_dict()

    def save() -> None:
        rows = history.rows(run, good["k"])
        store.save({"images": images, "rows": rows, "solver": good})

    try:
        for state, good in iterate(solver):
            state = replace(state, run=run)
            history.add(state, callback(state) if callback else None)
            if store.due():
                save()
    except KeyboardInterrupt:
        save()
        raise


def _red(y, H, denoise, settings, sigma, seed, callback, engine) -> Result:
    """RED alone (deepred.red.solve), told in the states of Algorithm 1 with T(z) = x and u = 0."""
    if denoise is None:
        raise InputError("method 'red' needs a denoiser")
    history, started = History(), time.perf_counter()
    x0 = None
    if settings.x_start == "denoised":
        if sigma is None:
            raise InputError("x_start='denoised' needs the noise level: give sigma")
        x0 = denoise(y, sigma)
    iterates = red.solve(
        y, H, lambda x: denoise(x, settings.sigma_f), settings.lam,
        method=settings.x_update, c=settings.c, clip=settings.clip_x, x0=x0,
    )  # fmt: skip
    for k, (x, fx) in zip(range(1, settings.iterations + 1), iterates):
        if not torch.isfinite(x).all():
            raise DivergedError(f"RED is not finite at iteration {k}: use a smaller lam or c")
        residual = H(x) - y
        data, rho = 0.5 * residual.square().sum(), red.rho(x, fx)
        zero = torch.zeros_like(data)
        terms = {
            "data": data, "rho": rho, "objective": data + settings.lam * rho,
            "augmented": data, "gap": zero, "residual": residual.square().mean().sqrt(),
            "lam": zero + settings.lam, "mu": zero,
        }  # fmt: skip
        seconds = time.perf_counter() - started
        state = State(k, x, x, torch.zeros_like(x), fx, x, terms, seconds)
        history.add(state, callback(state) if callback else None)
    return _finish([x], history, settings, "red", sigma, seed, engine)


def _finish(images, history, settings, method, sigma, seed, engine) -> Result:
    columns = history.columns()
    each = [columns["seconds"][columns["run"] == run].max() for run in range(len(images))]
    image = torch.stack(images).mean(0)
    seconds = float(sum(each))
    return Result(image, images, columns, settings, method, sigma, seed, seconds, engine)


def initialise(
    make_network: Callable[[], nn.Module], settings: Settings, seed: int, y: Tensor
) -> tuple[Tensor, nn.Module]:
    """z and a network with random theta, both from `seed`, on y's device and in its precision.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make_network()
        z = torch.empty(net.input_shape)
        if settings.input_distribution == "gaussian":
            z.normal_(0, settings.input_scale)
        else:
            z.uniform_(0, settings.input_scale)
    return z.to(y), net.to(y)


def dip_network(shape: tuple[int, int, int], settings: Settings) -> SkipNetwork:
    """DIP's network for an image of `shape` (C, H, W), of the settings' sizes."""
    return SkipNetwork(
        shape[1:],
        inputs=settings.input_channels,
        outputs=shape[0],
        channels=settings.channels,
        scales=settings.scales,
        skip=settings.skip,
    )


def task_of(H: Callable[[Tensor], Tensor]) -> str:
    """The task whose presets suit an operator: "sr", "deblur", or "denoise" for any other."""
    tasks = {Downsample: "sr", Blur: "deblur", Framed: "deblur"}
    return tasks.get(type(H), "denoise")


def image_shape(H: Callable[[Tensor], Tensor], y: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of the image that an operator makes a measurement of; y's for one not known."""
    channels, height, width = y.shape[1:]
    if isinstance(H, Downsample):
        return channels, H.factor * height, H.factor * width
    if isinstance(H, Framed):
        return channels, height + H.top + H.bottom, width + H.left + H.right
    return channels, height, width


def check_measurement(y: Tensor) -> None:
    """Refuse what is no measurement: not a floating tensor (1, C, ...), empty, or not finite."""
    if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 3:
        raise InputError("y must be a float tensor (1, C, H, W); see deepred.images.to_tensor")
    if y.shape[0] != 1:
        raise InputError(f"one image at a time: y must be (1, C, H, W), got {tuple(y.shape)}")
    if y.numel() == 0:
        raise InputError(f"y is empty: shape {tuple(y.shape)}")
    if y.dtype not in (torch.float32, torch.float64):
        raise InputError(f"y must be float32 or float64, got {y.dtype}")
    if not torch.isfinite(y).all():
        raise InputError("y contains NaN or infinity: replace those values, or mask them")


def memory_needed(shape: tuple[int, int, int], settings: Settings, method: str = "deepred") -> int:
    """About how many bytes a run takes at its peak, for an image (C, H, W).

    What the backward pass keeps of each scale, theta with Adam's moments and the solver's copies,
    and the images; measured to be within a third of the truth from 64 to 1024 pixels a side.
    """
    pixels = padded(shape[1], settings.scales) * padded(shape[2], settings.scales)
    images = 30 * pixels * shape[0]
    if method == "red":
        return 4 * images
    full_scale = 3 * settings.input_channels + 4 * settings.skip + 17 * settings.channels
    activations = pixels * (full_scale + 17 * settings.channels / 3)
    theta = 9 * (2 * settings.scales * settings.channels**2 + settings.channels**2)
    # A run of some length takes .4 more than its tensors, and torch's own buffers come on top.
    return int(1.4 * 4 * (images + activations + 6 * theta) + 110e6)


def check_memory(shape: tuple[int, int, int], settings: Settings, method: str, device: str) -> None:
    """Say before a run that it cannot fit.

    Raises
    ------
    InputError
        If `memory_needed` is more than the device has free.
    """
    needed = memory_needed(shape, settings, method)
    if device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"an image of {shape[2]}x{shape[1]} with {settings.channels} channels needs about "
            f"{needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: use --preset fast "
            "(fewer channels), or a smaller image"
        )


def fingerprint(
    y: Tensor, H, method: str, denoiser, settings: Settings, sigma, seed, shape, engine, made
) -> str:
    """A hash of what a run's result depends on. Callables enter by what they do to noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = torch.rand(1, *shape).to(y)
    name = denoiser if isinstance(denoiser, str | None) else getattr(denoiser, "__qualname__", "f")
    told = [method, name, settings.as_dict(), sigma, seed, shape, str(y.dtype)]
    told += [str(replace(engine, threads=0))]
    told += [torch.__version__, __version__, VERSION, made]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    tensors = [y, H(probe)]
    if callable(denoiser):  # two callables may share a name
        tensors.append(denoiser(probe, settings.sigma_f))
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
