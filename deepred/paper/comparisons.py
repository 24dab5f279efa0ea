"""Tables of our own studies (`deepred.paper.studies`), made of the rows of runs.csv."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from ..presets import preset
from .runs import column
from .studies import (
    ARCHITECTURES,
    CHOICES,
    DENOISERS,
    DEVIATIONS,
    NOISES,
    SENSITIVITY,
    STUDIES,
    WEIGHTS,
)
from .tables import DENOISER_NAMES, NAMES


def of(runs: pd.DataFrame, experiment: str, task: str | None = None) -> pd.DataFrame:
    """The runs of a study, with a column ``dB``: the PSNR by which its task is measured."""
    found = runs[runs["experiment"] == experiment]
    if task is not None:
        found = found[found["task"] == task]
    by_task = [row[column(row["task"])] for _, row in found.iterrows()]
    return found.assign(dB=np.array(by_task, float))


def against(runs: pd.DataFrame, reference: str, labels: list[str] | None = None) -> pd.DataFrame:
    """Every variant's PSNR less that of a reference, on the same image with the same seed.

    Parameters
    ----------
    runs : of `of`; a variant is named by its column ``preset``.
    reference : name of the variant that the others are compared with.
    labels : the variants wanted, in order; all that are there unless given.

    Returns
    -------
    One row a variant: ``variant``; ``pairs``, how many runs both have; ``PSNR [dB]``, their mean;
    ``mean``, of the differences in dB; ``standard error`` of that mean over ``images``, each with
    the mean of its seeds: two seeds on one picture are not two pictures. NaN for what was not run.
    """
    place = ["image", "seed"]
    base = runs[runs["preset"] == reference].set_index(place)["dB"]
    rows = []
    for label in labels if labels is not None else dict.fromkeys(runs["preset"]):
        own = runs[runs["preset"] == label].set_index(place)["dB"]
        difference = (own - base).dropna()
        each = difference.groupby("image").mean()
        error = each.std() / np.sqrt(len(each)) if len(each) > 1 else np.nan
        level, gain = own[difference.index].mean(), difference.mean()
        rows.append((label, len(difference), len(each), level, gain, error))
    columns = ["variant", "pairs", "images", "PSNR [dB]", "mean", "standard error"]
    return pd.DataFrame(rows, columns=columns)


def choices(runs: pd.DataFrame) -> pd.DataFrame:
    """Study choices: every variant beside preset fast, on one whole image of each task.

    Columns: image; variant; ``PSNR [dB]`` of the task and its difference ``to fast``; iterations,
    which may be fewer than the budget; processor minutes, of one thread.
    """
    found, rows = of(runs, "choices"), []
    for (task, setting, dataset, image), variants in CHOICES.items():
        mine = found[found["task"] == task].groupby("preset")
        mean = mine[["dB", "iterations", "processor_seconds"]].mean()
        for label in (label for label in variants if label in mean.index):
            row, fast = mean.loc[label], mean["dB"].get("fast", np.nan)
            gain = "" if label == "fast" or np.isnan(fast) else f"{row['dB'] - fast:+.2f}"
            told = f"{dataset}/{image}, {setting}"
            rows.append((told, label, f"{row['dB']:.2f}", gain, f"{row['iterations']:.0f}",
                         f"{row['processor_seconds'] / 60:.1f}"))  # fmt: skip
    columns = ["image", "variant", "PSNR [dB]", "to fast", "iterations", "processor minutes"]
    return pd.DataFrame(rows, columns=columns)


def deviations(runs: pd.DataFrame, task: str) -> pd.DataFrame:
    """Study `deviations`: what each departure from the paper's text changes, in dB.

    Columns: ``departure``, ``PSNR [dB]``, ``mean`` of the differences to preset paper, ``standard
    error`` of that mean over ``images``, ``pairs``; the last row is preset authors. NaN for what is
    missing.
    """
    labels = [f"paper, {name}" for name in DEVIATIONS[task] if name] + ["authors"]
    table = against(of(runs, "deviations", task), "paper", labels)
    names = table["variant"].str.removeprefix("paper, ").replace("authors", "all of them")
    table = table.assign(departure=names, mean=table["mean"].round(2) + 0.0)  # no -0.0
    columns = ["departure", "PSNR [dB]", "mean", "standard error", "images", "pairs"]
    return table[columns].round(2)


def noise(runs: pd.DataFrame) -> pd.DataFrame:
    """Study `noise`: the squares and the noise's own likelihood as the data term.

    Columns: noise, method, ``measured`` (the PSNR of y), ``squares``, ``likelihood``, ``gain``, in
    dB, means over images and seeds; ``standard error`` of the mean gain. NaN for what was not run.
    """
    rows = []
    for setting in NOISES:
        found = runs[runs["setting"] == setting]
        y = found[found["method"] == "noisy"]["dB"].mean()
        for method in ("dip", "deepred"):
            mine = found[found["method"] == method]
            squares, own = (mine[mine["preset"] == f"fast, {t}"] for t in ("l2", "likelihood"))
            gain = against(mine, "fast, l2", ["fast, likelihood"]).iloc[0]
            ends = squares["dB"].mean(), own["dB"].mean()
            rows.append((setting, NAMES[method], y, *ends, gain["mean"], gain["standard error"]))
    columns = ["noise", "method", "measured", "squares", "likelihood", "gain", "standard error"]
    return pd.DataFrame(rows, columns=columns).round(2)


def architectures(runs: pd.DataFrame) -> pd.DataFrame:
    """Study `architectures`: a row a network, with the PSNR of DIP and DeepRED in dB.

    Means over images and seeds, at the last iteration and (``best``) at each run's best.
    """
    rows = []
    for name in ARCHITECTURES:
        mine = runs[runs["preset"] == f"fast, {name}"]
        found = [mine[mine["method"] == m][["dB", "best_psnr"]].mean() for m in ("dip", "deepred")]
        ends = [row["dB"] for row in found]
        rows.append((name, *ends, *(row["best_psnr"] for row in found)))
    columns = ["network", "DIP", "DeepRED", "DIP, best", "DeepRED, best"]
    return pd.DataFrame(rows, columns=columns).round(2)


def denoisers(runs: pd.DataFrame) -> pd.DataFrame:
    """Study `denoisers`: what each denoiser in DeepRED brings over DIP.

    Columns: ``denoiser``, ``σ_f`` of 255 (none for the median), and for each task the mean gain in
    dB over images and seeds with its ``standard error``; NaN for what has not been run.
    """
    names = [name.partition(" ")[::2] for name in DENOISERS]
    table = {
        "denoiser": [DENOISER_NAMES[name] for name, _ in names],
        "σ_f": [level for _, level in names],
    }
    labels = [f"fast, {name}" for name in DENOISERS]
    for task, title in (("denoise", "denoising"), ("sr", "super-resolution")):
        gains = against(of(runs, "denoisers", task), "fast, none", labels).round(2)
        table[f"{title} [dB]"] = gains["mean"]
        table[f"standard error, {title}"] = gains["standard error"]
    return pd.DataFrame(table)


def methods(runs: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Studies `inpainting` and `tomography`: a row an image and method.

    Columns: ``image``, ``method``, ``runs``, ``PSNR [dB]`` (the mean over seeds), ``SSIM``,
    ``seconds``; NaN for what has not been run.
    """
    found = of(runs, experiment)
    rows = []
    for run in dict.fromkeys((run.image, run.method) for run in STUDIES[experiment]((0,))):
        mine = found[(found["image"] == run[0]) & (found["method"] == run[1])]
        seconds = f"{mine['seconds'].mean():.0f}" if len(mine) else np.nan
        psnr, ssim = round(mine["dB"].mean(), 2), round(mine["ssim"].mean(), 3)
        rows.append((run[0], NAMES[run[1]], len(mine), psnr, ssim, seconds))
    columns = ["image", "method", "runs", "PSNR [dB]", "SSIM", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def tables(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All of the above by file name, from the runs of runs.csv."""
    found = {name: methods(runs, name) for name in ("inpainting", "tomography")}
    found["noise"] = noise(of(runs, "noise"))
    found["architectures"] = architectures(of(runs, "architectures"))
    found["denoisers"] = denoisers(runs)
    return found | {f"deviations-{task}": deviations(runs, task) for task in DEVIATIONS}


def _setting(runs: pd.DataFrame) -> pd.DataFrame:
    """The study `sensitivity` with a column for each parameter that it moves."""
    found = of(runs, "sensitivity")
    settings = found["settings"].map(json.loads)
    names = ["lam", "mu", "x_update", *SENSITIVITY]
    return found.assign(**{name: [s[name] for s in settings] for name in names})


def sensitivity_map(runs: pd.DataFrame, value: str = "dB") -> pd.DataFrame:
    """Mean over the images for each lambda (rows) and mu (columns); NaN where it has not been run.

    `value` is "dB", at the end, or "best_psnr", at each run's best iteration.
    """
    found = _setting(runs)
    usual = preset("paper")
    for name in SENSITIVITY:
        if name != "c":
            found = found[np.isclose(found[name].astype(float), getattr(usual, name))]
    found = found[(found["x_update"] == "fixed-point") & (found["method"] == "deepred")]
    table = found.pivot_table(index="lam", columns="mu", values=value, aggfunc="mean")
    return table.reindex(index=WEIGHTS, columns=WEIGHTS)


def sensitivity_line(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The study's values of one parameter, with the mean PSNR at the end and at the best.

    Columns: ``value``, ``end``, ``best``, dB over the images; the usual value is among them.
    """
    found, usual = _setting(runs), preset("paper")
    found = found[found["method"] == "deepred"]
    kind = "steepest-descent" if name == "c" else "fixed-point"
    found = found[found["x_update"] == kind]
    for other in ("lam", "mu", *SENSITIVITY):
        if other not in (name, "c"):
            found = found[np.isclose(found[other].astype(float), getattr(usual, other))]
    groups = found.groupby(found[name].astype(float))
    rows = [
        (value, *(groups.get_group(value)[c].mean() for c in ("dB", "best_psnr")))
        if value in groups.groups
        else (value, np.nan, np.nan)
        for value in map(float, SENSITIVITY[name])
    ]
    return pd.DataFrame(rows, columns=["value", "end", "best"])
