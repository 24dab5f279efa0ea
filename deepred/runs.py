"""One run: an image degraded one way and restored by one method, and the key of its result."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from . import datasets, metrics, resize
from .engine import Engine, pick
from .errors import InputError
from .operators import Blur, Downsample, Identity, degrade
from .settings import Settings, preset
from .solver import VERSION

# What is measured in each task (Section 4), beside which all else is recorded, too.
METRICS = {"denoise": metrics.psnr, "sr": metrics.psnr_y, "deblur": metrics.psnr_y}

# Methods without a solver: the measurement itself, and what is computed from it directly.
DIRECT = ("noisy", "blurred", "bicubic", "nlm", "cbm3d")


# In a run's key; grows when a denoiser begins to give other images.
_DENOISER_VERSIONS = {"bm3d": ["in torch"]}  # the package bm3d before


@dataclass(frozen=True)
class Run:
    """One image, degraded one way, restored by one method with one seed."""

    profile: str
    experiment: str
    task: str
    setting: str
    dataset: str
    image: str
    crop: tuple[int, int, int] | None  # top, left, side
    sigma: float  # of the noise, in image units
    method: str  # those of DIRECT need no settings
    preset: str
    settings: Settings | None
    seed: int
    precision: str = "auto"  # of deepred.engine.pick; the machine's own unless named

    def truth(self) -> Tensor:
        """The ground truth, (1, C, H, W); not to be written to."""
        where = os.environ.get("DEEPRED_DATA")
        return _truth(self.dataset, self.image, self.crop, self.factor, where)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the ground truth, which need not be on this machine."""
        if self.crop is not None:
            return self.crop[2], self.crop[2]
        (entry,) = datasets.select([f"{self.dataset}/{self.image}"])
        return entry.height - entry.height % self.factor, entry.width - entry.width % self.factor

    @property
    def factor(self) -> int:
        """Of super-resolution, 1 in the other tasks."""
        return int(self.setting.removeprefix("x")) if self.task == "sr" else 1

    @property
    def H(self) -> Callable[[Tensor], Tensor]:
        """The operator that the solver assumes."""
        if self.task == "sr":
            return Downsample(self.factor)
        if self.task == "deblur":
            return Blur.uniform() if self.setting == "uniform" else Blur.gaussian()
        return Identity()

    def measurement(self, truth: Tensor) -> Tensor:
        """The degraded image; the noise depends on the seed alone.

        Made by one thread: more of them add up a blur in another order, and what differs in the
        last bit at the start is a tenth of a decibel in the end.
        """
        if self.task == "sr":
            return resize.shrink(truth, self.factor)
        with Engine(threads=1).session():
            return degrade(truth, self.H, self.sigma, self.seed)

    def key(self, truth: Tensor, precision: str = "float32") -> str:
        """A hash of everything that determines the result.

        `precision` is the engine's, where the run names none: a run in tf32 is another than one in
        float32.
        """
        told = [
            VERSION, self.task, self.setting, self.sigma, self.method, self.seed,
            self.settings and self.settings.told(),
        ]  # fmt: skip
        if self.precision != "auto":
            told.append(self.precision)
        elif precision != "float32":
            told.append(precision)
        denoiser = "bm3d" if self.method == "cbm3d" else self.settings and self.settings.denoiser
        told += _DENOISER_VERSIONS.get(denoiser, [])
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        digest.update(truth.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def iterations(self) -> int:
        """Iterations of all its runs together, 0 where there is no solver."""
        return self.settings.iterations * self.settings.runs if self.settings else 0

    @property
    def title(self) -> str:
        which = f"{self.method} ({self.preset})" if self.preset else self.method
        what = "" if self.task == "denoise" else f" {self.setting}"
        return f"{self.image}{what} {which}"


@lru_cache(maxsize=8)  # a plan asks for the same image many times in a row
def _truth(dataset: str, image: str, crop, factor: int, where: str | None) -> Tensor:
    picture = datasets.load(dataset, image).image
    if crop is not None:
        top, left, side = crop
        picture = picture[..., top : top + side, left : left + side]
    return resize.centre_crop(picture, factor)


def make(experiment, profile, task, setting, dataset, image, crop, method, name, changes, seed):
    """A run by its preset's name, with `changes` of the settings."""
    settings = None
    if method not in DIRECT:
        settings = preset(name, task, method, setting)
        if method == "red":  # no network to make smaller, and few iterations as it is
            changes = {}
        settings = settings.replace(**changes)
    sigma = {"denoise": 25 / 255, "sr": 0.0, "deblur": math.sqrt(2) / 255}[task]
    return Run(
        profile=profile, experiment=experiment, task=task, setting=setting, dataset=dataset,
        image=image, crop=crop, sigma=sigma, method=method, preset=name, settings=settings,
        seed=seed,
    )  # fmt: skip


def missing(run: Run) -> str | None:
    """Why a run cannot be computed on this machine, None if it can: its image or its precision."""
    try:
        run.truth()
        pick(precision=run.precision)
    except InputError as error:
        return str(error)
    return None
