"""The paper's experiments as data: which image, degradation, method and settings make which run.

`TABLES` holds one definition for each of the paper's tables and Section 4.1; what is printed there
is in data/paper.csv. An experiment is a function from a profile to a list of runs;
`deepred.execution` computes them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from torch import Tensor

from . import datasets, metrics, resize
from .engine import Engine, pick
from .errors import InputError
from .operators import Blur, Downsample, Identity, degrade
from .settings import SETTINGS, Settings, preset
from .solver import VERSION

PROFILES = ("smoke", "quick", "paper")

CSET9 = ("house", "peppers", "lena", "baboon", "f16", "kodim01", "kodim02", "kodim03", "kodim12")
SET5 = ("baby", "bird", "butterfly", "head", "woman")
SET14 = (
    "baboon", "barbara", "coastguard", "comic", "face", "flowers", "foreman", "lenna", "monarch",
    "pepper", "ppt3", "zebra",
)  # fmt: skip
NCSR = ("butterfly", "leaves", "parrots", "starfish")

# Crops (top, left, side) of scikit-image's photographs for the quick profile.
CROPS = {"astronaut": (226, 126, 96), "chelsea": (76, 166, 96), "coffee": (96, 250, 96)}

# What is measured in each task (Section 4), beside which all else is recorded, too.
METRICS = {"denoise": metrics.psnr, "sr": metrics.psnr_y, "deblur": metrics.psnr_y}

# Methods without a solver: the measurement itself, and what is computed from it directly.
DIRECT = ("noisy", "blurred", "bicubic", "nlm", "cbm3d")


@dataclass(frozen=True)
class Table:
    """One table of the paper, or Section 4.1: all that makes its runs, and what is printed."""

    source: str
    task: str
    dataset: str
    label: str  # what the paper calls the data set beside the setting
    settings: tuple[str, ...]
    images: tuple[str, ...]
    metric: str
    frame: str  # the part of an image that is used and measured
    methods: tuple[tuple[str, str], ...]  # (method, preset), ours
    quoted: tuple[str, ...] = ()  # rows that the paper has from elsewhere, and we do not compute
    names: tuple[tuple[str, str], ...] = ()  # our method -> the paper's name of its row

    def printed(self, setting: str, method: str, image: str = "average") -> float:
        """The paper's number in dB, NaN where it prints none; `method` is ours or a quoted row."""
        row = dict(self.names).get(method, method)
        return printed(self.source, f"{self.label} {setting}".strip(), row, image)

    def runs(self, profile: str, experiment: str, seeds: tuple[int, ...]) -> list[Run]:
        """Every image with every setting, method and seed; in small where the profile is."""
        if profile == "paper":
            images = [(self.dataset, name, None) for name in self.images]
            settings, methods, changes = self.settings, self.methods, {}
        else:
            if self.task not in _QUICK or experiment == "table3":
                return []
            settings, methods, changes = _QUICK[self.task]
            images = [("builtin", name, crop) for name, crop in CROPS.items()]
        if profile == "smoke":
            images = [("builtin", "astronaut", (226, 126, 64))]
            changes = dict(channels=8, scales=3, iterations=40, runs=1)
        return [
            _run(experiment, profile, self.task, setting, *image, method, name, changes, seed)
            for seed in seeds
            for setting in settings
            for image in images
            for method, name in methods
        ]


_SOLVERS = (
    ("red", "paper"), ("dip", "paper"), ("dip", "authors"), ("dip-tv", "authors"),
    ("deepred", "paper"), ("deepred", "authors"),
)  # fmt: skip
_NAMES = (("dip", "DIP"), ("deepred", "DeepRED"))
_SR = dict(
    task="sr", settings=("x4", "x8"), metric="PSNR-Y [dB]",
    frame="centre crop to multiples of the factor", methods=(("bicubic", ""), *_SOLVERS),
    names=(*_NAMES, ("red", "RED (FP-BM3D)")),
)  # fmt: skip

TABLES = {
    "denoising": Table(
        source="Section 4.1", task="denoise", dataset="cset9", label="CSet9",
        settings=("sigma 25",), images=CSET9, metric="PSNR [dB]", frame="full",
        methods=(("noisy", ""), ("nlm", ""), ("cbm3d", ""), *_SOLVERS),
        names=(*_NAMES, ("nlm", "NLM"), ("red", "RED (NLM)")),
    ),
    "table2": Table(source="Table 2", dataset="set5", label="Set5", images=SET5, **_SR),
    "table3": Table(source="Table 3", dataset="set14", label="Set14", images=SET14, **_SR),
    "table5": Table(
        source="Table 5", task="deblur", dataset="ncsr", label="", settings=("uniform", "gaussian"),
        images=NCSR, metric="PSNR-Y [dB]", frame="full", methods=(("blurred", ""), *_SOLVERS),
        quoted=("NCSR", "RED (FP-TNRD)"), names=(*_NAMES, ("blurred", "Blurred")),
    ),
}  # fmt: skip
TABLE_4_QUOTED = ("Lap", "SRR")

# The quick profile, by task: settings, methods, and what is smaller than in preset fast.
_FAST = (("red", "fast"), ("dip", "fast"), ("deepred", "fast"))
_QUICK = {
    "denoise": (
        ("sigma 25",),
        (("noisy", ""), ("nlm", ""), *_FAST, ("dip-tv", "fast")),
        dict(runs=1, iterations=1000),
    ),
    "sr": (
        ("x4",),
        (("bicubic", ""), *_FAST),
        dict(channels=16, input_channels=32, runs=1, iterations=700),
    ),
    "deblur": (
        ("uniform", "gaussian"), (("blurred", ""), *_FAST), dict(runs=1, iterations=500)
    ),
}  # fmt: skip


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


def overfitting(profile: str, seeds: tuple[int, ...]) -> list[Run]:
    """Our own study behind Section 3.2's claim that DeepRED need not be stopped early.

    House, a 32-channel network, one run of 1800 iterations each: DIP and DeepRED, by the paper's
    text (Gaussian input, constant weights) and by the released codes (uniform input, weights that
    grow). Only the profile paper has it.
    """
    return _house("overfitting", ("paper", "authors"), 1800, seeds) if profile == "paper" else []


def endurance(profile: str, seeds: tuple[int, ...]) -> list[Run]:
    """The released codes of `overfitting` for twice as long: DIP turns late there, if it does."""
    return _house("endurance", ("authors",), 3600, seeds) if profile == "paper" else []


def narrow(profile: str, seeds: tuple[int, ...]) -> list[Run]:
    """One full-size image of each of Tables 2 and 5 as far as a CPU reaches.

    DIP and DeepRED for equally many iterations, preset fast with 16 channels and one run, on
    set5/woman x4 and ncsr/butterfly with the uniform kernel; and set5/head x4 for Figure 3.
    Deblurring a whole image takes more iterations than the preset's, which is made for smaller
    ones.
    """
    if profile != "paper":
        return []
    changes = {
        "sr": dict(channels=16, input_channels=32, iterations=1200),
        "deblur": dict(runs=1, iterations=3000),
    }
    wanted = [
        ("sr", "x4", "set5", "woman", "dip"), ("sr", "x4", "set5", "woman", "deepred"),
        ("deblur", "uniform", "ncsr", "butterfly", "dip"),
        ("deblur", "uniform", "ncsr", "butterfly", "deepred"),
        ("sr", "x4", "set5", "head", "deepred"),
    ]  # fmt: skip
    return [
        _run("narrow", profile, task, *what, None, method, "fast", changes[task], seed)
        for seed in seeds
        for task, *what, method in wanted
    ]


# Less work for the same image: small crops, on which a CPU gets to the end of preset paper, too.
ECONOMY_CROPS = {
    "astronaut": (226, 126, 64), "chelsea": (76, 166, 64), "coffee": (150, 180, 64),
    "rocket": (300, 280, 64),
}  # fmt: skip
# By task: what is compared, by a preset's name and what is changed of it.
_WIDER, _FLATTER = dict(channels=32, runs=2), dict(scales=3, runs=2)
_FALLING = dict(learning_rate=0.02, lr_decay=0.5)  # twice the rate, halved every quarter
_PAIR = dict(channels=16, input_channels=32, iterations=1200, runs=2)
ECONOMY = {
    "denoise": {
        "paper": dict(iterations=1800),  # of the run-time paragraph
        "paper, 16 channels": dict(iterations=1800, channels=16),
        "fast": {},
        "fast, 4 runs": dict(runs=4),
        "fast, 32 channels": _WIDER,
        "fast, 3 scales": _FLATTER,
        "fast, falling rate": dict(_FALLING, lr_decay_every=375, runs=2),
        "best": {},
        "best, 8 × 32 channels": dict(channels=32, runs=8),
    },
    "sr": {
        "paper": {},
        "paper, 16 channels": dict(channels=16),
        "fast": {},
        "fast, 4 × 16 channels": dict(_PAIR, runs=4),
        "fast, 2 × 32 channels": dict(_PAIR, channels=32),
        "fast, 2 × 16 channels, 3 scales": dict(_PAIR, scales=3),
        "fast, 2 × 16 channels, falling rate": dict(_PAIR, **_FALLING, lr_decay_every=300),
        "fast, 2 × 16 channels, preconditioned": dict(_PAIR, precondition=0.01),
        "best": {},
    },
    "deblur": {
        "paper": dict(iterations=3000),  # a fifth of Table 1's: as far as a CPU got
        "paper, 16 channels": dict(iterations=3000, channels=16),
        "fast": {},
        "fast, 4 runs": dict(runs=4),
        "fast, 32 channels": _WIDER,
        "fast, 3 scales": _FLATTER,
        "fast, falling rate": dict(_FALLING, lr_decay_every=250, runs=2),
        "fast, plain data term": dict(precondition=0.0, runs=2),
        "best": {},
    },
}


def economy(profile: str, seeds: tuple[int, ...]) -> list[Run]:
    """Less work for the same image (Section 5 asks for speed first): DeepRED by other settings.

    Every variant is told by its preset's name and what is changed of it, "fast, 3 scales".
    """
    if profile != "paper":
        return []
    return [
        replace(
            _run(
                "economy", profile, task, SETTINGS[task][0], "builtin", image, crop, "deepred",
                label.partition(",")[0], changes, seed,
            ),
            preset=label,
        )
        for seed in seeds
        for task, variants in ECONOMY.items()
        for label, changes in variants.items()
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


PRECISIONS = ("float32", "tf32", "bf16")


def precision(profile: str, seeds: tuple[int, ...]) -> list[Run]:
    """What the network's products may lose: equal iterations in every precision, three seeds.

    The crops of `economy`, preset fast, one run of 600 iterations: about as far as 64 x 64 pixels
    take. A mode that the machine does not have is not run there; a CPU emulates bf16.
    """
    if profile != "paper":
        return []
    changes = dict(runs=1, iterations=600)
    return [
        replace(
            _run(
                "precision", profile, "denoise", "sigma 25", "builtin", image, crop, "deepred",
                "fast", changes, seed,
            ),
            preset=f"fast, {mode}", precision=mode,
        )
        for seed in dict.fromkeys((*seeds, 0, 1, 2))
        for mode in PRECISIONS
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


# What experiment stopping gives the rules: short memories, as its networks are quick to turn.
STOPPING = {
    "windowed-variance": dict(window=50, patience=300),
    "exponential-variance": dict(weight=0.05, patience=300),
    "discrepancy": {},
}


def stopping(profile: str, seeds: tuple[int, ...]) -> list[Run]:
    """When rules without the truth would stop (deepred.stopping): they look on and stop nothing.

    The crops of `economy`, DIP and DeepRED by preset fast, one run of 2000 iterations, in the two
    tasks in which DIP turns.
    """
    if profile != "paper":
        return []
    changes = dict(runs=1, iterations=2000)
    return [
        _run(
            "stopping", profile, task, SETTINGS[task][0], "builtin", image, crop, method, "fast",
            changes, seed,
        )
        for seed in seeds
        for task in ("denoise", "deblur")
        for method in ("dip", "deepred")
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


EXPERIMENTS: dict[str, Callable[[str, tuple[int, ...]], list[Run]]] = {
    name: partial(lambda name, profile, seeds: TABLES[name].runs(profile, name, seeds), name)
    for name in TABLES
} | {"overfitting": overfitting, "endurance": endurance, "narrow": narrow, "economy": economy,
    "precision": precision, "stopping": stopping,
}  # fmt: skip


# Parts of the paper by name: the experiments that they show. Of a figure that shows some of an
# experiment's runs only, the words of their titles; smaller profiles have other images, and all
# runs of the experiment stand in for it.
PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "section41": (("denoising",),),
    "super-resolution": (("table2",), ("table3",), ("narrow", "x4")),
    "deblurring": (("table5",), ("narrow", "uniform")),
    "table1": (),  # the preset's settings
    "table4": (("table2",), ("table3",)),
    "figure1": (),  # drawn from a short run of the notebook's own
    "figure2": (
        ("table3", "flowers", "x4", "(paper)"), ("table3", "flowers", "x4", "bicubic"),
        ("table3", "zebra", "x4", "(paper)"), ("table3", "zebra", "x4", "bicubic"),
    ),
    "figure3": (
        ("table2", "head", "x4", "deepred", "(paper)"), ("table2", "head", "x4", "bicubic")
    ),
    "figure4": (
        ("table5", "butterfly", "uniform", "(paper)"), ("table5", "butterfly", "uniform", "blurred")
    ),
    "figure5": (
        ("table5", "parrots", "uniform", "(paper)"), ("table5", "parrots", "uniform", "blurred")
    ),
    "figure6": (
        ("table5", "leaves", "uniform", "(paper)"), ("table5", "leaves", "uniform", "blurred")
    ),
}  # fmt: skip


def _selected(name: str, profile: str, seeds: tuple[int, ...]) -> list[Run]:
    """The runs of an experiment, or of a part of the paper."""
    if name in EXPERIMENTS:
        return EXPERIMENTS[name](profile, seeds)
    return [
        run
        for experiment, *words in PARTS[name]
        for run in EXPERIMENTS[experiment](profile, seeds)
        if profile != "paper" or set(words) <= set(run.title.split())
    ]


def _house(experiment: str, presets: tuple[str, ...], iterations: int, seeds) -> list[Run]:
    changes = dict(channels=32, iterations=iterations, runs=1)
    return [
        _run(
            experiment, "paper", "denoise", "sigma 25", "cset9", "house", None, method, name,
            changes, seed,
        )
        for seed in seeds
        for method in ("dip", "deepred")
        for name in presets
    ]  # fmt: skip


def _run(experiment, profile, task, setting, dataset, image, crop, method, name, changes, seed):
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


@lru_cache
def _paper() -> dict[tuple[str, str, str, str], float]:
    here = Path(__file__).parent
    inside = here / "paper.csv"  # in an installed package
    path = inside if inside.exists() else here.parent / "data" / "paper.csv"
    with open(path, newline="", encoding="utf-8") as file:
        return {
            (row["source"], row["setting"], row["method"], row["image"]): float(row["psnr_db"])
            for row in csv.DictReader(file)
        }


def printed(source: str, setting: str, method: str, image: str = "average") -> float:
    """A number of the paper in dB, by its table and its names there; NaN where it prints none."""
    return _paper().get((source, setting, method, image), math.nan)


def plan(profile: str, only: list[str] | None = None, seeds: tuple[int, ...] = (0,)) -> list[Run]:
    """The runs of a profile, of all experiments or of those and the `PARTS` in `only`; each once.

    Raises
    ------
    InputError
        If there is no such profile, experiment or part.
    """
    if profile not in PROFILES:
        raise InputError(f"unknown profile {profile!r}; known are {', '.join(PROFILES)}")
    for name in only or ():
        if name not in EXPERIMENTS and name not in PARTS:
            known = ", ".join((*EXPERIMENTS, *PARTS))
            raise InputError(f"unknown experiment {name!r}; known are {known}")
    seeds = tuple(dict.fromkeys(seeds))
    runs = [run for name in only or EXPERIMENTS for run in _selected(name, profile, seeds)]
    # Two experiments may share a run, which two workers must not: the first named has it.
    return list({replace(run, experiment=""): run for run in reversed(runs)}.values())[::-1]


def missing(run: Run) -> str | None:
    """Why a run cannot be computed on this machine, None if it can: its image or its precision."""
    try:
        run.truth()
        pick(precision=run.precision)
    except InputError as error:
        return str(error)
    return None
