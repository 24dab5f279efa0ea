"""The paper's experiments as data: which image, degradation, method and settings make which run.

`TABLES` holds one definition for each of the paper's tables and Section 4.1; what is printed there
is in data/paper.csv. `EXPERIMENTS` has these and our own studies; `deepred.paper.execution`
computes their runs.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from functools import lru_cache

from ..errors import InputError
from ..io.files import data_file
from .runs import DIRECT as DIRECT
from .runs import Run
from .runs import missing as missing
from .studies import STUDIES
from .study import Case, Study, Way

PROFILES = ("smoke", "quick", "paper")

CSET9 = ("house", "peppers", "lena", "baboon", "f16", "kodim01", "kodim02", "kodim03", "kodim12")
SET5 = ("baby", "bird", "butterfly", "head", "woman")
SET14 = tuple(
    "baboon barbara coastguard comic face flowers foreman lenna monarch pepper ppt3 zebra".split()
)
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
    methods: tuple[tuple[str, str], ...]  # (method, preset), ours
    quoted: tuple[str, ...] = ()  # rows that the paper has from elsewhere, and we do not compute
    names: tuple[tuple[str, str], ...] = ()  # our method -> the paper's name of its row

    def printed(self, setting: str, method: str, image: str = "average") -> float:
        """The paper's number in dB, NaN where it prints none; `method` is ours or a quoted row."""
        row = dict(self.names).get(method, method)
        return printed(self.source, f"{self.label} {setting}".strip(), row, image)

    def study(self, profile: str) -> Study:
        """What is computed for it in a profile."""
        if profile == "paper":
            each = [(s, self.dataset, image, None) for s in self.settings for image in self.images]
            methods, changes = self.methods, {}
        else:
            crops = CROPS if profile == "quick" else {"astronaut": (52, 192, 64)}
            settings = self.settings if self.task == "deblur" else self.settings[:1]
            each = [(s, "builtin", image, crop) for s in settings for image, crop in crops.items()]
            methods = [way for way in self.methods if way[1] in ("", "fast")]
            changes = dict(iterations=1000)
        if profile == "smoke":
            changes = dict(channels=8, scales=3, iterations=40, runs=1)
        cases = tuple(Case(self.task, *one) for one in each)
        return Study(cases, tuple(Way(*way) for way in methods), changes, small=False)


# RED alone is in no preset of the paper: its settings are ours, with BM3D under "paper" in
# super-resolution, with NLM under "fast".
_SOLVERS = (
    ("red", "fast"),
    *(("dip", name) for name in ("fast", "paper", "authors")),
    ("dip-tv", "authors"),
    *(("deepred", name) for name in ("fast", "paper", "authors")),
)
_NAMES = (("dip", "DIP"), ("deepred", "DeepRED"))
_SR = dict(
    task="sr",
    settings=("x4", "x8"),
    methods=(("bicubic", ""), ("red", "paper"), *_SOLVERS),
    names=(*_NAMES, ("red", "RED (FP-BM3D)")),
)

TABLES = {
    "denoising": Table(
        source="Section 4.1",
        task="denoise",
        dataset="cset9",
        label="CSet9",
        settings=("sigma 25",),
        images=CSET9,
        methods=(
            *(("noisy", ""), ("nlm", ""), ("cbm3d", "")),
            *(*_SOLVERS[:4], ("dip-tv", "fast"), *_SOLVERS[4:]),
        ),
        names=(*_NAMES, ("nlm", "NLM"), ("red", "RED (NLM)")),
    ),
    "table2": Table(source="Table 2", dataset="set5", label="Set5", images=SET5, **_SR),
    "table3": Table(source="Table 3", dataset="set14", label="Set14", images=SET14, **_SR),
    "table5": Table(
        source="Table 5",
        task="deblur",
        dataset="ncsr",
        label="",
        settings=("uniform", "gaussian"),
        images=NCSR,
        methods=(("blurred", ""), *_SOLVERS),
        quoted=("NCSR", "RED (FP-TNRD)"),
        names=(*_NAMES, ("blurred", "Blurred")),
    ),
}
TABLE_4_QUOTED = ("Lap", "SRR")

EXPERIMENTS = (*TABLES, *STUDIES)

# Parts of the paper by name: the experiments that they show. Of a figure, which shows some of its
# runs only, what these have in their fields; smaller profiles have other images, and all runs of
# the experiment stand in for it.
PARTS: dict[str, tuple[str, ...]] = {
    "section41": ("denoising",),
    "super-resolution": ("table2", "table3"),
    "deblurring": ("table5",),
    "table1": (),  # the preset's settings
    "table4": ("table2", "table3"),
    "figure1": (),  # drawn from a short run of the notebook's own
    "figure2": ("table3",),
    "figure3": ("table2",),
    **dict.fromkeys(("figure4", "figure5", "figure6"), ("table5",)),
}
_FAST = dict(preset=("fast", ""))
_BLURRED = dict(_FAST, setting=("uniform",))
FIGURES: dict[str, dict[str, tuple[str, ...]]] = {
    "figure2": dict(_FAST, setting=("x4",), image=("flowers", "zebra")),
    "figure3": dict(_FAST, setting=("x4",), image=("head",), method=("bicubic", "deepred")),
    "figure4": dict(_BLURRED, image=("butterfly",)),
    "figure5": dict(_BLURRED, image=("parrots",)),
    "figure6": dict(_BLURRED, image=("leaves",)),
}


def _runs(name: str, profile: str, seeds: tuple[int, ...]) -> list[Run]:
    """The runs of an experiment, or of a part of the paper."""
    if name in PARTS:
        wanted = FIGURES.get(name, {}) if profile == "paper" else {}
        found = [run for part in PARTS[name] for run in _runs(part, profile, seeds)]
        return [r for r in found if all(getattr(r, f) in some for f, some in wanted.items())]
    if name in TABLES:  # in small one of Tables 2 and 3 is enough
        none = name == "table3" and profile != "paper"
        return [] if none else TABLES[name].study(profile).runs(profile, name, seeds)
    studies = STUDIES[name] if profile == "paper" else ()
    return [run for study in studies for run in study.runs(profile, name, seeds)]


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
    """The runs of a profile, of all experiments, or of the experiments and parts in `only`.

    Each is there once: of two experiments that share a run the first named has it.

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
    runs = [run for name in only or EXPERIMENTS for run in _runs(name, profile, tuple(seeds))]
    return list({replace(run, experiment=""): run for run in reversed(runs)}.values())[::-1]
