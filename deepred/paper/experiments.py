"""The paper's experiments as data: which image, degradation, method and settings make which run.

`TABLES` holds one definition for each of the paper's tables and Section 4.1; what is printed there
is in data/paper.csv. An experiment is a function from a profile to a list of runs;
`deepred.paper.execution` computes them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from ..errors import InputError
from ..io.files import data_file
from .runs import DIRECT, METRICS, Run, make, missing
from .studies import STUDIES

__all__ = [
    "DIRECT", "EXPERIMENTS", "METRICS", "PARTS", "PROFILES", "TABLES", "Run", "missing", "plan",
]  # fmt: skip

PROFILES = ("smoke", "quick", "paper")

CSET9 = ("house", "peppers", "lena", "baboon", "f16", "kodim01", "kodim02", "kodim03", "kodim12")
SET5 = ("baby", "bird", "butterfly", "head", "woman")
SET14 = (
    "baboon", "barbara", "coastguard", "comic", "face", "flowers", "foreman", "lenna", "monarch",
    "pepper", "ppt3", "zebra",
)  # fmt: skip
NCSR = ("butterfly", "leaves", "parrots", "starfish")

# Crops (top, left, side) of scikit-image's photographs for the quick profile: a face, a cat's eyes
# and a cup, which one recognises.
CROPS = {"astronaut": (20, 160, 128), "chelsea": (70, 130, 128), "coffee": (100, 200, 128)}


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
            images = [("builtin", "astronaut", (52, 192, 64))]
            changes = dict(channels=8, scales=3, iterations=40, runs=1)
        return [
            make(
                experiment,
                profile,
                self.task,
                setting,
                *image,
                method,
                name,
                changes,
                seed,
                small=False,
            )
            for seed in seeds
            for setting in settings
            for image in images
            for method, name in methods
        ]


_FAST = (("red", "fast"), ("dip", "fast"), ("deepred", "fast"))
# RED alone is in no preset of the paper: its settings are ours, with BM3D under "paper" in
# super-resolution, with NLM under "fast".
_SOLVERS = (
    ("red", "fast"), ("dip", "fast"), ("dip", "paper"), ("dip", "authors"),
    ("dip-tv", "authors"), ("deepred", "fast"), ("deepred", "paper"), ("deepred", "authors"),
)  # fmt: skip
_NAMES = (("dip", "DIP"), ("deepred", "DeepRED"))
_SR = dict(
    task="sr",
    settings=("x4", "x8"),
    metric="PSNR-Y [dB]",
    frame="centre crop to multiples of the factor",
    methods=(("bicubic", ""), ("red", "paper"), *_SOLVERS),
    names=(*_NAMES, ("red", "RED (FP-BM3D)")),
)

TABLES = {
    "denoising": Table(
        source="Section 4.1", task="denoise", dataset="cset9", label="CSet9",
        settings=("sigma 25",), images=CSET9, metric="PSNR [dB]", frame="full",
        methods=(
            ("noisy", ""), ("nlm", ""), ("cbm3d", ""), *_SOLVERS[:4], ("dip-tv", "fast"),
            *_SOLVERS[4:],
        ),
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
_QUICK = {
    "denoise": (
        ("sigma 25",),
        (("noisy", ""), ("nlm", ""), ("cbm3d", ""), *_FAST, ("dip-tv", "fast")),
        dict(iterations=1000),
    ),
    "sr": (
        ("x4",),
        (("bicubic", ""), *_FAST),
        dict(iterations=1000),
    ),
    "deblur": (("uniform", "gaussian"), (("blurred", ""), *_FAST), dict(iterations=1000)),
}

EXPERIMENTS: dict[str, Callable[[str, tuple[int, ...]], list[Run]]] = {
    name: partial(lambda name, profile, seeds: TABLES[name].runs(profile, name, seeds), name)
    for name in TABLES
} | {
    name: partial(lambda study, profile, seeds: study(seeds) if profile == "paper" else [], study)
    for name, study in STUDIES.items()
}


# Parts of the paper by name: the experiments that they show. Of a figure that shows some of an
# experiment's runs only, the words of their titles; smaller profiles have other images, and all
# runs of the experiment stand in for it.
PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "section41": (("denoising",),),
    "super-resolution": (("table2",), ("table3",)),
    "deblurring": (("table5",),),
    "table1": (),  # the preset's settings
    "table4": (("table2",), ("table3",)),
    "figure1": (),  # drawn from a short run of the notebook's own
    "figure2": (
        ("table3", "flowers", "x4", "(fast)"),
        ("table3", "flowers", "x4", "bicubic"),
        ("table3", "zebra", "x4", "(fast)"),
        ("table3", "zebra", "x4", "bicubic"),
    ),
    "figure3": (("table2", "head", "x4", "deepred", "(fast)"), ("table2", "head", "x4", "bicubic")),
    "figure4": (
        ("table5", "butterfly", "uniform", "(fast)"),
        ("table5", "butterfly", "uniform", "blurred"),
    ),
    "figure5": (
        ("table5", "parrots", "uniform", "(fast)"),
        ("table5", "parrots", "uniform", "blurred"),
    ),
    "figure6": (
        ("table5", "leaves", "uniform", "(fast)"),
        ("table5", "leaves", "uniform", "blurred"),
    ),
}


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


@lru_cache
def _paper() -> dict[tuple[str, str, str, str], float]:
    with open(data_file("paper.csv"), newline="", encoding="utf-8") as file:
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
