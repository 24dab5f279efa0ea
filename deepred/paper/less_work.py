"""Tables of the studies on less work: precision, economy and stopping, made of rows of runs.csv."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ..settings import Settings
from . import bench
from .runs import column
from .studies import CROPS, ECONOMY, MODES, RULES
from .tables import NAMES, not_run, noted, where

Curves = Callable[[str], pd.DataFrame]  # what was measured along the run of a key


def precisions(runs: pd.DataFrame) -> pd.DataFrame:
    """Study precision: every mode against eager float32, image by image and seed by seed.

    Columns: mode; device; runs, how many there are of both; mean and spread (standard deviation)
    of the PSNR's difference [dB]; largest, the largest of them without its sign.
    """
    found = where(runs, experiment="precision")
    psnr = found.pivot_table(index=["image", "seed", "device"], columns="variant", values="psnr")
    psnr, rows = psnr.reindex(columns=list(MODES)), []
    for mode in MODES[1:]:
        devices = where(found, variant=mode)["device"].unique()
        lost = (psnr[mode] - psnr["float32"]).dropna()
        numbers = (round(x, 3) for x in (lost.mean(), lost.std(), lost.abs().max()))
        rows.append((mode, ", ".join(devices) or None, len(lost), *numbers))
    columns = ["mode", "device", "runs", "mean", "spread", "largest"]
    return noted(pd.DataFrame(rows, columns=columns), not_run(runs, "precision"))


def economy(task: str, runs: pd.DataFrame, curves: Curves, timing: Sequence[dict]) -> pd.DataFrame:
    """Study economy: every variant that has all images beside preset paper, their means.

    Columns: variant; iterations, of all runs; ``PSNR`` of the result [dB] and its ``gain`` over
    preset paper's; ``one run``, the first alone; ``reaches paper at``, the iteration at which the
    first run is as good as preset paper's best, the mean of the images on which it is and their
    number; ``after [s]``, those iterations' time; ``total [s]`` and ``times faster``. Times are
    deepred.paper.bench's in one call. NaN or None where something has not been run.

    Parameters
    ----------
    curves : as `deepred.paper.store.read_curves`, of a folder.
    timing : the rows "economy" of `deepred.paper.bench.run`.
    """
    seconds = {row["preset"]: row for row in timing if row["task"] == task}
    paper, rows = _variant(runs, task, "paper", ""), []
    for way in ECONOMY[task]:
        found = _variant(runs, task, way.preset, way.variant)
        if found is None:
            continue
        first, timed = found.iloc[0], seconds.get(way.label, {})
        gain, reached, after = np.nan, None, None
        if paper is not None:
            gain = round((found["dB"] - paper["dB"]).mean(), 2)
            each = [_reaches(*(curves(t.loc[i, "key"]) for t in (found, paper))) for i in CROPS]
            there = [k for k in each if k is not None]
            mean = sum(there) / max(1, len(there))
            reached = f"{mean:.0f} ({len(there)} of {len(each)})" if there else "never"
            after = round(mean * timed["seconds"]) if there and timed else None
        total, ratio = timed.get("total"), timed.get("ratio")
        rows.append(
            {
                "variant": way.label,
                "iterations": f"{first['iterations']} × {len(first['run_means'].split())}",
                "PSNR [dB]": round(found["dB"].mean(), 2),
                "gain [dB]": gain,
                "one run [dB]": round(found["single_psnr"].mean(), 2),
                "reaches paper at": reached,
                "after [s]": after,
                "total [s]": None if total is None else round(total),
                "times faster": None if ratio is None else round(ratio, 1),
            }
        )
    table = pd.DataFrame(rows)
    table = table.astype({"after [s]": "Int64", "total [s]": "Int64"}) if rows else table
    return noted(table, not_run(runs, "economy", task=(task,)))


def economy_lines(
    task: str, ways: Sequence[tuple[str, str]], runs: pd.DataFrame, curves: Curves
) -> dict[str, tuple[pd.DataFrame, tuple[float, float]]]:
    """For `deepred.paper.plots.against_work`: of `ways`, (preset, variant), those with all images.

    The mean over the images of the first run's PSNR, and of the PSNR of the mean over the runs;
    work is that of `deepred.paper.bench.work`, without the denoiser's.
    """
    lines = {}
    for name, variant in ways:
        found = _variant(runs, task, name, variant)
        if found is None:
            continue
        settings = Settings(**json.loads(found.iloc[0]["settings"]))
        side = next(iter(CROPS.values()))[2]
        first = pd.concat(where(curves(key), run=0) for key in found["key"])
        mean = first.groupby("iteration", as_index=False)["psnr"].mean()
        operations = bench.work(side, settings)[0]
        total = operations * settings.iterations * settings.runs, found["dB"].mean()
        label = ", ".join(filter(None, (name, variant)))
        lines[label] = mean.assign(work=operations * mean["iteration"]), total
    return lines


def _variant(runs: pd.DataFrame, task: str, name: str, variant: str) -> pd.DataFrame | None:
    """The runs of a variant by image, with their PSNR ``dB``; None if an image is not there."""
    found = where(runs, experiment="economy", task=task, preset=name, variant=variant)
    found = found.assign(dB=found[column(task)]).set_index("image")
    return found if set(found.index) >= set(CROPS) else None


def _reaches(curve: pd.DataFrame, reference: pd.DataFrame) -> int | None:
    """The first iteration of the first run at which its PSNR is the reference's best."""
    first, level = where(curve, run=0), where(reference, run=0)["psnr"].max()
    there = first.loc[first["psnr"] >= level, "iteration"]
    return int(there.iloc[0]) if len(there) else None


def stops(runs: pd.DataFrame) -> pd.DataFrame:
    """Study stopping: where each rule would stop, and what that costs; means over images.

    Columns: task, method, rule; ``images``, on how many of all it would stop; ``stops at`` and
    ``takes``, the iterations at which it would and whose image it takes, ``PSNR [dB]`` of that,
    and ``lost [dB]`` against the best of the run: means over those images. A last row for each
    method, rule "none", is its last iteration.
    """
    rows = []
    for (task, method), group in where(runs, experiment="stopping").groupby(
        ["task", "method"], sort=False
    ):
        ended = group["stops"].map(json.loads)
        ends = {rule: [each[rule] for each in ended] for rule in RULES}
        ends["none"] = group[["iterations", "iterations", "single_psnr"]].to_numpy().tolist()
        for rule, each in ends.items():
            at = pd.DataFrame(each, group.index, ["at", "takes", "psnr"], dtype=float)
            at = at.assign(lost=group["best_psnr"] - at["psnr"])[at["at"].notna()]
            mean, images = at.mean(), f"{len(at)} of {len(group)}"
            numbers = *mean[["at", "takes"]].round(), *mean[["psnr", "lost"]].round(2)
            rows.append((task, NAMES[method], rule, images, *numbers))
    columns = ["task", "method", "rule", "images", "stops at", "takes", "PSNR [dB]", "lost [dB]"]
    table = pd.DataFrame(rows, columns=columns).astype({"stops at": "Int64", "takes": "Int64"})
    return noted(table, not_run(runs, "stopping"))
