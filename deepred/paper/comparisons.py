"""Tables of our own studies (`deepred.paper.studies`), made of the rows of runs.csv.

NaN is what has not been run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from ..presets import preset
from .experiments import TABLES
from .runs import column
from .studies import (
    ARCHITECTURES,
    CHOICES,
    DENOISERS,
    DEVIATIONS,
    NOISES,
    SENSITIVITY,
    STUDIES,
    TERMS,
    WEIGHTS,
)
from .tables import DENOISER_NAMES, NAMES, not_run, noted, where


def of(runs: pd.DataFrame, experiment: str, task: str | None = None) -> pd.DataFrame:
    """The runs of a study, with a column ``dB``: the PSNR by which its task is measured."""
    found = where(runs, experiment=experiment)
    found = found if task is None else where(found, task=task)
    by_task = [row[column(row["task"])] for _, row in found.iterrows()]
    return found.assign(dB=np.array(by_task, float))


def against(
    runs: pd.DataFrame, reference: tuple[str, str], others: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """The PSNR of several ways less that of a reference, on the same image with the same seed.

    Parameters
    ----------
    runs : of `of`.
    reference, others : presets and variants.

    Returns
    -------
    One row for each of the others: ``pairs``, how many runs both have; ``PSNR [dB]``, their mean;
    ``mean``, of the differences in dB; ``standard error`` of that mean over ``images``, each with
    the mean of its seeds: two seeds on one picture are not two pictures.
    """
    rows = []
    for way in others:
        own, base = (
            where(runs, preset=name, variant=variant).set_index(["image", "seed"])["dB"]
            for name, variant in (way, reference)
        )
        difference = (own - base).dropna()
        each = difference.groupby("image").mean()
        error = each.std() / np.sqrt(len(each)) if len(each) > 1 else np.nan
        level, gain = own[difference.index].mean(), difference.mean()
        rows.append((len(difference), len(each), level, gain, error))
    return pd.DataFrame(rows, columns=["pairs", "images", "PSNR [dB]", "mean", "standard error"])


def choices(runs: pd.DataFrame) -> pd.DataFrame:
    """Study choices: every variant beside preset fast, on one whole image of each task.

    Columns: image; variant; ``PSNR [dB]`` of the task and its difference ``to fast``; iterations,
    which may be fewer than the budget; processor minutes, of one thread.
    """
    # Preset fast itself the study shares with the paper's tables.
    shared = runs["experiment"].isin(TABLES) & (runs["method"] == "deepred")
    shared &= runs["preset"] == "fast"
    runs = runs.assign(experiment=runs["experiment"].mask(shared, "choices"))
    rows = []
    for (task, setting, dataset, image, _), variants in CHOICES.items():
        mine = where(of(runs, "choices", task), setting=setting, image=image).groupby("variant")
        mean = mine[["dB", "iterations", "processor_seconds"]].mean()
        for name in (name for name in variants if name in mean.index):
            row, fast = mean.loc[name], mean["dB"].get("", np.nan)
            gain = f"{row['dB'] - fast:+.2f}" if name and not np.isnan(fast) else ""
            label = ", ".join(filter(None, ("fast", name)))
            ends = f"{row['dB']:.2f}", gain, f"{row['iterations']:.0f}"
            minutes = f"{row['processor_seconds'] / 60:.1f}"
            rows.append((f"{dataset}/{image}, {setting}", label, *ends, minutes))
    columns = ["image", "variant", "PSNR [dB]", "to fast", "iterations", "processor minutes"]
    return noted(pd.DataFrame(rows, columns=columns), not_run(runs, "choices"))


def deviations(runs: pd.DataFrame, task: str) -> pd.DataFrame:
    """Study deviations: what each departure from the paper's text changes, in dB.

    Columns: ``departure``, ``PSNR [dB]``, ``mean`` of the differences to preset paper, ``standard
    error`` of that mean over ``images``, ``pairs``; the last row is preset authors.
    """
    names = [name for name in DEVIATIONS[task] if name]
    others = [*(("paper", name) for name in names), ("authors", "")]
    table = against(of(runs, "deviations", task), ("paper", ""), others)
    table = table.assign(departure=[*names, "all of them"], mean=table["mean"].round(2) + 0.0)
    columns = ["departure", "PSNR [dB]", "mean", "standard error", "images", "pairs"]
    return noted(table[columns].round(2), not_run(runs, "deviations", task=(task,)))


def noise(runs: pd.DataFrame) -> pd.DataFrame:
    """Study noise: the squares and the noise's own likelihood as the data term.

    Columns: noise, method, ``measured`` (the PSNR of y), ``squares``, ``likelihood``, ``gain``, in
    dB, means over images and seeds; ``standard error`` of the mean gain.
    """
    rows = []
    for setting, method in product(NOISES, ("dip", "deepred")):
        found = where(of(runs, "noise"), setting=setting)
        y, mine = where(found, method="noisy")["dB"].mean(), where(found, method=method)
        ends = (where(mine, variant=term)["dB"].mean() for term in TERMS)
        gain = against(mine, ("fast", TERMS[0]), [("fast", TERMS[1])]).iloc[0]
        rows.append((setting, NAMES[method], y, *ends, gain["mean"], gain["standard error"]))
    columns = ["noise", "method", "measured", "squares", "likelihood", "gain", "standard error"]
    return noted(pd.DataFrame(rows, columns=columns).round(2), not_run(runs, "noise"))


def architectures(runs: pd.DataFrame) -> pd.DataFrame:
    """Study architectures: a row a network, with the PSNR of DIP and DeepRED in dB.

    Means over images and seeds, at the last iteration and (``best``) at each run's best.
    """
    found = of(runs, "architectures")
    rows = [
        (
            name,
            *(
                where(found, variant=name, method=method)[end].mean()
                for end, method in product(("dB", "best_psnr"), ("dip", "deepred"))
            ),
        )
        for name in ARCHITECTURES
    ]
    columns = ["network", "DIP", "DeepRED", "DIP, best", "DeepRED, best"]
    return noted(pd.DataFrame(rows, columns=columns).round(2), not_run(runs, "architectures"))


def denoisers(runs: pd.DataFrame) -> pd.DataFrame:
    """Study denoisers: what each denoiser in DeepRED brings over DIP.

    Columns: ``denoiser``, ``σ_f`` of 255 (none for the median), and for each task the mean gain in
    dB over images and seeds with its ``standard error``.
    """
    names = [name.partition(" ")[::2] for name in DENOISERS]
    table = {
        "denoiser": [DENOISER_NAMES[name] for name, _ in names],
        "σ_f": [level for _, level in names],
    }
    others = [("fast", name) for name in DENOISERS]
    for task, title in (("denoise", "denoising"), ("sr", "super-resolution")):
        gains = against(of(runs, "denoisers", task), ("fast", "none"), others).round(2)
        table[f"{title} [dB]"] = gains["mean"]
        table[f"standard error, {title}"] = gains["standard error"]
    return noted(pd.DataFrame(table), not_run(runs, "denoisers"))


def methods(runs: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Studies inpainting and tomography: a row an image and method.

    Columns: ``image``, ``method``, ``runs``, ``PSNR [dB]`` (the mean over seeds), ``SSIM``,
    ``seconds``.
    """
    (study,), rows = STUDIES[experiment], []
    for case, way in product(study.cases, study.ways):
        mine = where(of(runs, experiment), image=case.image, method=way.method)
        seconds = f"{mine['seconds'].mean():.0f}" if len(mine) else np.nan
        psnr, ssim = round(mine["dB"].mean(), 2), round(mine["ssim"].mean(), 3)
        rows.append((case.image, NAMES[way.method], len(mine), psnr, ssim, seconds))
    columns = ["image", "method", "runs", "PSNR [dB]", "SSIM", "seconds"]
    return noted(pd.DataFrame(rows, columns=columns), not_run(runs, experiment))


def tables(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Those above by file name, but `choices`."""
    found = {name: methods(runs, name) for name in ("inpainting", "tomography")}
    found |= {each.__name__: each(runs) for each in (noise, architectures, denoisers)}
    return found | {f"deviations-{task}": deviations(runs, task) for task in DEVIATIONS}


def _deepred(runs: pd.DataFrame, x_update: str, moved: Sequence[str]) -> pd.DataFrame:
    """DeepRED's runs of study sensitivity, with a column for each parameter that it moves.

    Those alone that have preset paper's value of all parameters but `moved`.
    """
    found = where(of(runs, "sensitivity"), method="deepred")
    names, usual = ("lam", "mu", "x_update", *SENSITIVITY), preset("paper")
    settings = found["settings"].map(json.loads)
    found = found.assign(**{name: [s[name] for s in settings] for name in names})
    for name in names:
        if name not in (*moved, "c", "x_update"):
            found = found[np.isclose(found[name].astype(float), getattr(usual, name))]
    return where(found, x_update=x_update)


def sensitivity_map(runs: pd.DataFrame, value: str = "dB") -> pd.DataFrame:
    """Mean over the images for each lambda (rows) and mu (columns).

    `value` is "dB", at the end, or "best_psnr", at each run's best iteration.
    """
    found = _deepred(runs, "fixed-point", ("lam", "mu"))
    table = found.pivot_table(index="lam", columns="mu", values=value, aggfunc="mean")
    return table.reindex(index=WEIGHTS, columns=WEIGHTS)


def sensitivity_line(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The study's values of one parameter, with the mean PSNR at the end and at the best.

    Columns: ``value``, ``end``, ``best``, dB over the images; the usual value is among them.
    """
    found = _deepred(runs, "steepest-descent" if name == "c" else "fixed-point", (name,))
    means = found.groupby(found[name].astype(float))[["dB", "best_psnr"]].mean()
    means = means.reindex(list(map(float, SENSITIVITY[name]))).reset_index()
    return means.set_axis(["value", "end", "best"], axis=1)
