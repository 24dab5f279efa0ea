"""The paper's experiments as data: which image, degradation, method and settings make which run.

An experiment is a function from a profile to a list of runs; `execute` computes one run and returns
its record. What is printed in the paper is in `PRINTED`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from . import datasets, denoisers, metrics
from .errors import InputError
from .operators import Identity, degrade
from .restoration import pick_device, restore
from .settings import Settings, preset
from .solver import VERSION, State
from .store import Store, provenance

PROFILES = ("smoke", "quick", "paper")

# Section 4.1, mean PSNR in dB over the nine images.
PRINTED = {"nlm": 29.13, "red": 29.3, "dip": 30.53, "deepred": 31.06}

CSET9 = ("house", "peppers", "lena", "baboon", "f16", "kodim01", "kodim02", "kodim03", "kodim12")

# Crops (top, left, side) of scikit-image's photographs for the quick profile.
CROPS = {"astronaut": (226, 126, 96), "chelsea": (76, 166, 96), "coffee": (96, 250, 96)}


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
    method: str  # "noisy" and "nlm" need no settings
    preset: str
    settings: Settings | None
    seed: int

    def truth(self) -> Tensor:
        """The ground truth, (1, C, H, W)."""
        image = datasets.load(self.dataset, self.image).image
        if self.crop is None:
            return image
        top, left, side = self.crop
        return image[..., top : top + side, left : left + side]

    def measurement(self, truth: Tensor) -> Tensor:
        """The degraded image; the noise depends on the seed alone."""
        return degrade(truth, Identity(), self.sigma, self.seed)

    def key(self, truth: Tensor) -> str:
        """A hash of everything that determines the result."""
        told = [
            VERSION, self.task, self.setting, self.sigma, self.method, self.seed,
            self.settings and self.settings.as_dict(),
        ]  # fmt: skip
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        digest.update(truth.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def iterations(self) -> int:
        """Iterations of all its runs together, 0 where there is no solver."""
        return self.settings.iterations * self.settings.runs if self.settings else 0

    @property
    def title(self) -> str:
        which = f"{self.method} ({self.preset})" if self.preset else self.method
        return f"{self.image} {which}"


def denoising(profile: str, seeds: tuple[int, ...] = (0,)) -> list[Run]:
    """Section 4.1: sigma = 25, noisy, NLM, DIP and DeepRED."""
    if profile == "paper":
        images = [("cset9", name, None) for name in CSET9]
        presets, changes = ("paper", "authors"), {}
    elif profile == "quick":
        images = [("builtin", name, crop) for name, crop in CROPS.items()]
        presets, changes = ("fast",), dict(runs=1)
    else:
        images = [("builtin", "astronaut", (226, 126, 64))]
        presets, changes = ("fast",), dict(channels=8, scales=3, iterations=40, runs=1)
    methods: list[tuple[str, str, Settings | None]] = [("noisy", "", None), ("nlm", "", None)]
    methods += [
        (method, name, preset(name, "denoise", method).replace(**changes))
        for method in ("dip", "deepred")
        for name in presets
    ]
    if profile == "paper":
        methods.append(("red", "paper", preset("paper", "denoise", "red")))
    return [
        _denoising_run("denoising", profile, *image, *method, seed)
        for seed in seeds
        for image in images
        for method in methods
    ]


def overfitting(profile: str, seeds: tuple[int, ...] = (0,)) -> list[Run]:
    """Our own study behind Section 3.2's claim that DeepRED need not be stopped early.

    House, a 32-channel network, one run of 1800 iterations each: DIP and DeepRED, by the paper's
    text (Gaussian input, constant weights) and by the released codes (uniform input, weights that
    grow). Only the profile paper has it.
    """
    if profile != "paper":
        return []
    return _house("overfitting", ("paper", "authors"), 1800, seeds)


def endurance(profile: str, seeds: tuple[int, ...] = (0,)) -> list[Run]:
    """The released codes of `overfitting` for twice as long: DIP turns late there, if it does."""
    return _house("endurance", ("authors",), 3600, seeds) if profile == "paper" else []


EXPERIMENTS: dict[str, Callable[..., list[Run]]] = {
    "denoising": denoising,
    "overfitting": overfitting,
    "endurance": endurance,
}


def _house(experiment: str, presets: tuple[str, ...], iterations: int, seeds) -> list[Run]:
    changes = dict(channels=32, iterations=iterations, runs=1)
    return [
        _denoising_run(
            experiment, "paper", "cset9", "house", None, method, name,
            preset(name, "denoise", method).replace(**changes), seed,
        )
        for seed in seeds
        for method in ("dip", "deepred")
        for name in presets
    ]  # fmt: skip


def _denoising_run(experiment, profile, dataset, image, crop, method, preset_name, settings, seed):
    return Run(
        profile=profile, experiment=experiment, task="denoise", setting="sigma 25",
        dataset=dataset, image=image, crop=crop, sigma=25 / 255, method=method,
        preset=preset_name, settings=settings, seed=seed,
    )  # fmt: skip


def plan(profile: str, only: list[str] | None = None, seeds: tuple[int, ...] = (0,)) -> list[Run]:
    """The runs of a profile, of all experiments or of those named in `only`.

    Raises
    ------
    InputError
        If there is no such profile or experiment.
    """
    if profile not in PROFILES:
        raise InputError(f"unknown profile {profile!r}; known are {', '.join(PROFILES)}")
    for name in only or ():
        if name not in EXPERIMENTS:
            raise InputError(f"unknown experiment {name!r}; known are {', '.join(EXPERIMENTS)}")
    names = dict.fromkeys(only or EXPERIMENTS)  # each once, lest two workers share a run
    seeds = tuple(dict.fromkeys(seeds))
    return [run for name in names for run in EXPERIMENTS[name](profile, seeds)]


def execute(
    run: Run,
    store: Store,
    *,
    device: str = "auto",
    progress: Callable[[int, float], None] | None = None,
) -> dict:
    """Compute a run unless the store has it, and return its record.

    `progress` is told the iterations done so far, over all of the run's restarts, and the PSNR.
    """
    truth = run.truth()
    key = run.key(truth)
    if (record := store.get(key)) is not None:
        return record
    y = run.measurement(truth)
    device = pick_device(device)
    curve, best = None, {}
    if run.method == "noisy":
        image, seconds = y, 0.0
    elif run.method == "nlm":
        image, seconds = _timed(lambda: denoisers.nlm(y, run.sigma))
    else:
        every = max(1, run.settings.iterations // 200)

        track = metrics.tracker(truth, every, last=run.settings.iterations)

        def measure(state: State) -> dict[str, float] | None:
            measured = track(state)
            if measured is not None and progress is not None:
                progress(state.run * run.settings.iterations + state.k, measured["psnr"])
            return measured

        result = restore(
            y, method=run.method, settings=run.settings, sigma=run.sigma, seed=run.seed,
            device=device, callback=measure, checkpoint=store.checkpoint(key),
        )  # fmt: skip
        image, seconds = result.image.cpu(), result.seconds
        curve = pd.DataFrame(result.history).dropna(subset="psnr")
        top = curve.loc[curve["psnr"].idxmax()]
        best = {"best_psnr": top["psnr"], "best_iteration": int(top["iteration"])}
    record = {
        "key": key,
        "profile": run.profile,
        "experiment": run.experiment,
        "task": run.task,
        "setting": run.setting,
        "image": run.image,
        "method": run.method,
        "preset": run.preset,
        "seed": run.seed,
        "iterations": run.settings.iterations if run.settings else 0,
        "metrics": {"psnr": metrics.psnr(image, truth), "ssim": metrics.ssim(image, truth), **best},
        "seconds": seconds,
        "settings": run.settings.as_dict() if run.settings else {},
        "provenance": provenance(device),
    }
    store.put(record, curve, image)
    return record


def missing(run: Run) -> str | None:
    """Why a run cannot be computed on this machine, None if it can: its image is not here."""
    try:
        datasets.load(run.dataset, run.image)
    except InputError as error:
        return str(error)
    return None


def _timed(compute: Callable[[], Tensor]) -> tuple[Tensor, float]:
    started = time.perf_counter()
    return compute(), time.perf_counter() - started
