"""The deterministic numbers of the paper, recomputed: `deepred verify`.

Degradations, baselines and metrics are right if the numbers that need no network agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from .. import denoisers, metrics
from ..denoise.nlm import nlm_torch
from ..errors import InputError
from ..io import datasets
from . import execution
from .experiments import SET5, SET14, TABLES, plan, printed
from .runs import Run

TOLERANCE = 0.05  # dB
SETS = tuple(dict.fromkeys(table.dataset for table in TABLES.values()))

# Means that the paper does not print: what its protocol gives (bicubic baseline, PSNR-Y in dB).
BICUBIC = {("set5", 4): 28.70, ("set5", 8): 24.57, ("set14", 4): 26.16, ("set14", 8): 23.14}
SEEDS = range(10)  # of the noise in blurred images


@dataclass(frozen=True)
class Line:
    """One quantity: the number it should have and ours, in dB."""

    quantity: str
    paper: float
    ours: float
    note: str = ""
    counts: bool = True  # whether it must agree

    @property
    def agrees(self) -> bool:
        return not self.counts or abs(self.ours - self.paper) <= TOLERANCE

    def __str__(self) -> str:
        numbers = f"{self.paper:6.2f} {self.ours:7.3f} {self.ours - self.paper:+7.3f}"
        verdict = "" if self.agrees else "  OFF"
        return f"{self.quantity:36s} {numbers}{verdict}{'  ' + self.note if self.note else ''}"


HEADER = f"{'quantity [dB]':36s} {'paper':>6s} {'ours':>7s} {'diff':>7s}"


def lines() -> Iterator[Line]:
    """All quantities whose images are here, one by one."""
    absent = missing()
    table = TABLES["table5"]
    for setting in table.settings if table.dataset not in absent else ():
        for image in table.images:
            found = []
            for seed in SEEDS:
                run = _run("table5", setting, image, "blurred", seed)
                truth = run.truth()
                found.append(metrics.psnr_y(run.measurement(truth), truth))
            paper = table.printed(setting, "blurred", image)
            yield Line(f"Table 5, blurred {setting}, {image}", paper, float(np.mean(found)))
    for image in ("flowers", "zebra") if "set14" not in absent else ():
        paper = printed("Figure 2", "Set14 x4", "Bicubic", image)
        yield Line(f"Figure 2, bicubic x4, {image}", paper, _bicubic("table3", 4, image))
    for (dataset, factor), expected in BICUBIC.items():
        if dataset in absent:
            continue
        name, images = ("table2", SET5) if dataset == "set5" else ("table3", SET14)
        mean = float(np.mean([_bicubic(name, factor, image) for image in images]))
        note = "(not printed in the paper: the value of its protocol)"
        yield Line(f"bicubic x{factor}, mean of {dataset}", expected, mean, note)
    if "cset9" not in absent:
        yield from _nlm()


def _nlm() -> Iterator[Line]:
    """NLM on the nine images, by scikit-image as it is and with the weights of its old versions."""
    table = TABLES["denoising"]
    new, old = [], []
    for image in table.images:
        run = _run("denoising", "sigma 25", image, "nlm", 0)
        truth = run.truth()
        y = run.measurement(truth)
        new.append(metrics.psnr(denoisers.nlm(y, run.sigma), truth))
        twice = nlm_torch(y, run.sigma, own_twice=True)
        old.append(metrics.psnr(twice, truth))
    paper = table.printed("sigma 25", "nlm")
    note = "(scikit-image >= 0.19; older ones, as the paper's, counted the centre pixel twice)"
    yield Line("Section 4.1, NLM", paper, float(np.mean(new)), note, counts=False)
    yield Line("Section 4.1, NLM, old weighting", paper, float(np.mean(old)))


def _bicubic(table: str, factor: int, image: str) -> float:
    run = _run(table, f"x{factor}", image, "bicubic", 0)
    truth = run.truth()
    return metrics.psnr_y(execution.direct(run, run.measurement(truth)), truth)


@cache
def _run(table: str, *which: object) -> Run:
    """Of setting, image, method and seed."""
    (run,) = (
        run
        for run in plan("paper", [table], (which[-1],))
        if (run.setting, run.image, run.method, run.seed) == which
    )
    return run


def missing() -> dict[str, str]:
    """The data sets of which an image is not here, each with what to do about it."""
    reasons: dict[str, str] = {}
    for table in TABLES.values():
        for image in table.images:
            try:
                datasets.load(table.dataset, image)
            except InputError as error:
                reasons.setdefault(table.dataset, str(error))
    return reasons
