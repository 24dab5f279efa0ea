"""One run: an image degraded one way and restored by one method, and the key of its result."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from .. import metrics, solver
from ..beyond import likelihoods
from ..beyond.radon import Radon
from ..compute.engine import PRECISIONS, Engine, pick
from ..errors import InputError
from ..io import datasets, resize
from ..operators import Blur, Downsample, Identity, Inpaint, degrade
from ..settings import Settings


class Task(NamedTuple):
    """What the runs of a task have in common."""

    title: str
    metric: Callable[[Tensor, Tensor], float]  # beside which all else is recorded, too
    start: str  # the method, of `DIRECT`, that shows the measurement as an image
    sigma: float  # of Gaussian noise, in image units; 0 for none


# Section 4's, then those of Section 2.1 that the paper has no experiment of. In "noise" nothing is
# degraded, and the setting names a model of `likelihoods` and its parameter: "poisson 10".
TASKS = {
    "denoise": Task("denoising", metrics.psnr, "noisy", 25 / 255),
    "sr": Task("super-resolution", metrics.psnr_y, "bicubic", 0.0),
    "deblur": Task("deblurring", metrics.psnr_y, "blurred", math.sqrt(2) / 255),
    "inpaint": Task("inpainting", metrics.psnr, "masked", 0.0),
    "tomography": Task("tomography", metrics.psnr, "fbp", 0.0025),
    "noise": Task("denoising", metrics.psnr, "noisy", 0.0),
}
# Methods without a solver: the measurement itself, and what is computed from it directly.
DIRECT = ("noisy", "blurred", "bicubic", "nlm", "cbm3d", "masked", "fbp", "tv")

_MODELS = {
    "poisson": likelihoods.Poisson,
    "laplace": likelihoods.Laplace,
    "gamma": likelihoods.Gamma,
}


def column(task: str) -> str:
    """The column of a record with the PSNR by which a task is measured, "psnr" or "psnr_y"."""
    return "psnr_y" if TASKS[task].metric is metrics.psnr_y else "psnr"


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
    method: str  # those of DIRECT need no settings
    preset: str
    settings: Settings | None
    seed: int
    variant: str = ""  # a study's name for what it changes of the preset
    precision: str = "auto"  # of deepred.compute.engine.pick; the machine's own unless named
    term: str = "l2"  # the data term; "likelihood" for that of the noise's model

    def truth(self) -> Tensor:
        """The ground truth, (1, C, H, W); not to be written to."""
        where = os.environ.get("DEEPRED_DATA")
        return _truth(self.dataset, self.image, self.crop, self.factor, where)

    @property
    def sigma(self) -> float:
        """Of the noise, in image units; 0 for none, or where it is of another model."""
        return TASKS[self.task].sigma

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
        if self.task == "inpaint":
            return _mask(self.dataset, self.image, os.environ.get("DEEPRED_DATA"))
        if self.task == "tomography":
            return Radon.views(self.truth().shape[2], int(self.setting.split()[0]))
        return Identity()

    @property
    def model(self) -> likelihoods.Model | None:
        """The model of the noise of task "noise", None in the others."""
        if self.task != "noise":
            return None
        name, value = self.setting.split()
        return _MODELS[name](float(value))

    def level(self, y: Tensor) -> float | None:
        """The noise level that the solver is given; of a model, that which y has on average."""
        if self.model is None:
            return self.sigma or None
        return float(self.model.deviation(y).square().mean().sqrt())

    def start(self, y: Tensor) -> Tensor:
        """The measurement as an image of the truth's size, to look at and to compare with."""
        if self.task == "sr":
            return resize.bicubic(y, self.factor)
        if self.task == "tomography":
            return self.H.fbp(y).clamp(0, 1)
        return y

    def finished(self, image: Tensor, y: Tensor) -> Tensor:
        """What is kept of a restored image: in inpainting the holes, as the rest is known."""
        if self.task != "inpaint":
            return image
        return image.where(self.H.mask(image) == 0, y.to(image))

    def measurement(self, truth: Tensor) -> Tensor:
        """The degraded image; the noise depends on the seed alone.

        Made by one thread: more of them add up a blur in another order, and what differs in the
        last bit at the start is a tenth of a decibel in the end.
        """
        if self.task == "sr":
            return resize.shrink(truth, self.factor)
        if self.model is not None:
            return self.model.sample(truth, self.seed)
        with Engine(threads=1).session():
            if self.task == "tomography":  # a sinogram has no range to be clipped to
                return degrade(truth, self.H, self.sigma, self.seed, clip=False)
            return degrade(truth, self.H, self.sigma, self.seed)

    def key(self, truth: Tensor, precision: str = "float32") -> str:
        """A hash of everything that determines the result.

        `precision` is the engine's, where the run names none: a run in tf32 is another than one in
        float32.
        """
        s, name = self.settings, self.precision if self.precision != "auto" else precision
        parts = [version(s), self.task, self.setting, self.sigma, self.method, self.seed]
        parts.append(s and s.told())
        if self.precision != "auto" or precision != "float32":
            parts.append(name)
        if self.term != "l2":
            parts.append(self.term)
        if self.variant:  # its row must not be another study's
            parts.append(f"{self.experiment}: {self.label}")
        denoiser = "bm3d" if self.method == "cbm3d" else s and s.denoiser
        parts += _DENOISER_VERSIONS.get(denoiser, [])
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        digest.update(truth.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def keys(self, truth: Tensor) -> list[str]:
        """The keys that its result may have: of every precision where the run names none."""
        return list(dict.fromkeys(self.key(truth, precision) for precision in PRECISIONS[1:]))

    @property
    def iterations(self) -> int:
        """Iterations of all its runs together, 0 where there is no solver."""
        return self.settings.iterations * self.settings.runs if self.settings else 0

    @property
    def label(self) -> str:
        """The preset and the variant, for people to read."""
        return ", ".join(filter(None, (self.preset, self.variant)))

    @property
    def title(self) -> str:
        which = f"{self.method} ({self.label})" if self.preset else self.method
        what = "" if self.task == "denoise" else f" {self.setting}"
        return f"{self.image}{what} {which}" + (f" seed {self.seed}" if self.seed else "")


@lru_cache(maxsize=8)  # a plan asks for the same image many times in a row
def _truth(dataset: str, image: str, crop, factor: int, where: str | None) -> Tensor:
    picture = datasets.load(dataset, image).image
    if crop is not None:
        top, left, side = crop
        picture = picture[..., top : top + side, left : left + side]
    return resize.centre_crop(picture, factor)


@lru_cache
def _mask(dataset: str, image: str, where: str | None) -> Inpaint:
    return Inpaint.of(datasets.load(dataset, f"{image}_mask").image[0, 0] > 0.5)


def version(settings: Settings | None) -> int:
    """The solver's version that enters a run's key, for these settings.

    1 where the results of version 1 stand: without a mean (or without a solver, None) nothing
    changed; after 500 iterations the first image's weight in theirs is .99^500, which changes the
    result by less than 0.01 dB; and other random numbers make another sample, as another seed does.
    """
    short = settings is not None and settings.smoothing > 0 and settings.iterations < 500
    return solver.VERSION if short else 1


def missing(run: Run) -> str | None:
    """Why a run cannot be computed on this machine, None if it can: its image or its precision."""
    try:
        run.truth()
        pick(precision=run.precision)
    except InputError as error:
        return str(error)
    return None
