"""The paper's tables with ours beside the printed numbers, from stored runs.

What was not run has no row, or is NaN or None in one, which `markdown` shows as a dash; nothing is
filled in, and `left_out` says what that is. A mean over images is there only where all of them were
run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from ..errors import InputError
from ..io.files import replacing
from ..presets import SETTINGS, preset
from ..settings import Settings
from . import bench
from .experiments import TABLE_4_QUOTED, TABLES, Table, plan, printed
from .runs import TASKS, Run
from .runs import column as metric_column
from .store import read_runs
from .studies import ECONOMY, ECONOMY_CROPS, PRECISIONS, STOPPING

NAMES = {
    "noisy": "noisy", "blurred": "blurred", "bicubic": "bicubic", "nlm": "NLM", "cbm3d": "CBM3D",
    "masked": "masked", "fbp": "FBP", "tv": "TV",
    "red": "RED", "dip": "DIP", "dip-tv": "DIP-TV", "deepred": "DeepRED",
}  # fmt: skip
_TITLES = {
    "psnr": "PSNR [dB]",
    "psnr_y": "PSNR-Y [dB]",
    "ssim": "SSIM",
    "best_psnr": "at its best [dB]",
    "best_iteration": "best iteration",
}
_ORDER = {name: i for i, name in enumerate(NAMES)}
DENOISER_NAMES = {
    "nlm": "NLM", "bm3d": "BM3D", "tv": "TV", "wavelet": "wavelet", "bilateral": "bilateral",
    "median": "median",
}  # fmt: skip


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, with a dash for what is not there; one sentence for an empty one."""
    if table.empty:
        return "Not run yet: `deepred run` computes it."
    text = table.astype(object).where(table.notna(), "–").astype(str)
    lines = ["| " + " | ".join(str(c) for c in text.columns) + " |"]
    lines += ["|" + "|".join("---" for _ in text.columns) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in text.itertuples(index=False)]
    return "\n".join(lines)


def titled(table: pd.DataFrame) -> pd.DataFrame:
    """A table of columns of runs.csv as a reader wants it: titles with units, names of methods."""
    return table.replace({"method": NAMES}).rename(columns=_TITLES)


def save(table: pd.DataFrame, folder: str | Path, name: str) -> None:
    """Write a table as folder/name.md and folder/name.csv; an empty folder name writes nothing."""
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with replacing(Path(folder) / f"{name}.md") as temporary:
        temporary.write_text(markdown(table) + "\n", encoding="utf-8")
    with replacing(Path(folder) / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def title(method: str, denoiser: str | None = None) -> str:
    """A method's name; of RED with its denoiser, as its settings are ours and not the paper's."""
    told = method == "red" and denoiser
    return NAMES[method] + (f" ({DENOISER_NAMES[denoiser]})" if told else "")


def _named(table: Table, setting: str, method: str, name: str) -> str:
    """`title` with the preset, for one of a table's methods; "" for none."""
    if method == "red":  # its settings are in no preset of the paper
        used = preset(name, table.task, "red", setting)
        return f"{title(method, used.denoiser)}, our settings"
    return NAMES[method] + (f", preset {name}" if name else "")


def table_1(name: str = "paper") -> pd.DataFrame:
    """Table 1, generated from a preset; noise levels of 255."""
    rows = []
    for task, settings in SETTINGS.items():
        for setting in settings:
            s = preset(name, task, "deepred", setting)
            rows.append(
                {
                    "task": _title(task, setting),
                    "σ noise": f"{s.input_noise:g}",
                    "LR": f"{s.learning_rate:g}",
                    "denoiser": DENOISER_NAMES[s.denoiser],
                    "σ_f": f"{255 * s.sigma_f:g}",
                    "λ": f"{s.lam:g}",
                    "μ": f"{s.mu:g}",
                    "iterations": s.iterations,
                }
            )
    return pd.DataFrame(rows)


def beside(table: Table, setting: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Ours beside the paper's, one row a method, preset and image, and one for the average.

    Columns: method, preset, image; ``ours`` [dB], mean over the seeds, NaN where it was not run;
    ``spread``, the standard deviation over the seeds, NaN for one; ``seeds``; ``paper`` [dB], NaN
    where it prints none; ``difference``. Quoted rows have no preset and nothing of ours.
    """
    column = metric_column(table.task)
    runs = runs[(runs["task"] == table.task) & (runs["setting"] == setting)]
    runs = runs[runs["image"].isin(table.images)].assign(preset=runs["preset"].fillna(""))
    rows = []
    for method, name in (*table.methods, *((quoted, "") for quoted in table.quoted)):
        found = runs[(runs["method"] == method) & (runs["preset"] == name)]
        each = found.pivot_table(index="seed", columns="image", values=column)
        each = each.reindex(columns=list(table.images))
        each["average"] = each.mean(axis=1, skipna=False)
        for image in each.columns:
            values = each[image].dropna()
            rows.append(
                {
                    "method": method,
                    "preset": name,
                    "image": image,
                    "ours": values.mean(),
                    "spread": values.std(),
                    "seeds": len(values),
                    "paper": table.printed(setting, method, image),
                }
            )
    result = pd.DataFrame(rows)
    result["difference"] = result["ours"] - result["paper"]
    return result


def compared(table: Table, setting: str, runs: pd.DataFrame) -> pd.DataFrame:
    """`beside` as one reads it: images as columns; the paper's, ours and the difference as rows."""
    rows, seen = [], set()
    for (method, name), group in beside(table, setting, runs).groupby(
        ["method", "preset"], sort=False
    ):
        numbers = group.set_index("image")
        if method in table.quoted:
            rows.append({"method": method, "": "quoted", **_texts(numbers["paper"])})
            continue
        if method not in seen and numbers["paper"].notna().any():
            told = {"method": NAMES[method], "": "paper"}
            rows.append({**told, **_texts(numbers["paper"], none="–")})
        seen.add(method)
        if numbers["ours"].isna().all():
            continue
        told = {"method": _named(table, setting, method, name), "": "ours"}
        rows.append({**told, **_texts(numbers["ours"], numbers["spread"])})
        if numbers["difference"].notna().any():
            rows.append({"method": "", "": "difference", **_signed(numbers["difference"])})
    return pd.DataFrame(rows)


def shown(table: Table, setting: str, runs: pd.DataFrame) -> str:
    """`compared` as Markdown, and `left_out` under it."""
    return f"{markdown(compared(table, setting, runs))}\n\n{left_out(table, setting, runs)}"


def left_out(table: Table, setting: str, runs: pd.DataFrame) -> str:
    """One sentence on what of a table has not been run, and the command for it; "" for nothing."""
    long = beside(table, setting, runs)
    long = long[(long["image"] != "average") & ~long["method"].isin(table.quoted)]
    told = []
    for (method, name), group in long.groupby(["method", "preset"], sort=False):
        count = group["ours"].notna().sum()
        if count < len(group):
            some = f" ({len(group) - count} of {len(group)} images)" if count else ""
            told.append(_named(table, setting, method, name) + some)
    if not told:
        return ""
    only = next(name for name, each in TABLES.items() if each is table)
    return (
        f"Not run yet: {'; '.join(told)}. `deepred run --profile paper --only {only}` computes "
        "what is left."
    )


def leaderboard(
    mine: Callable[[Tensor, Callable, float], Tensor] | Mapping[str, float],
    name: str = "denoising",
    setting: str | None = None,
    called: str = "yours",
) -> pd.DataFrame:
    """A table of the paper with a row of your own, the best average first.

    Parameters
    ----------
    mine : your method, ``(y, H, sigma) -> image``, from a measurement (1, C, h, w) in [0, 1] to the
        image (1, C, H, W), with the noise level in the same unit (0 in super-resolution); or what
        you have measured, PSNR in dB by image.
    name : "denoising" (Section 4.1), "table2", "table3" or "table5".
    setting : "x4" or "x8", "uniform" or "gaussian"; the table's first unless given.
    called : the name of your row.

    Returns
    -------
    One row a method: ``method``, whose numbers they are (paper, ours, quoted, yours), ``average``
    and the images, PSNR in dB of the task. Ours are the committed results. An average is there if
    all images are.

    Raises
    ------
    InputError
        If the table is not known, or one of its images is not on this machine.
    """
    if name not in TABLES or (setting and setting not in TABLES[name].settings):
        known = "; ".join(f"{key}: {', '.join(each.settings)}" for key, each in TABLES.items())
        raise InputError(f"no table {name!r} with setting {setting!r}; known are {known}")
    table = TABLES[name]
    setting = setting or table.settings[0]
    if callable(mine):
        runs = {run.image: run for run in plan("paper", [name]) if run.setting == setting}
        mine = {image: _measured(mine, runs[image]) for image in table.images}
    stored = read_runs(Path(__file__).parents[2] / "data" / "results" / "paper")
    found = compared(table, setting, stored[stored["experiment"] == name])
    numbers = pd.Series(mine, dtype=float).reindex(list(table.images))
    numbers["average"] = numbers.mean(skipna=False)
    found.loc[len(found)] = {"method": called, "": "yours", **_texts(numbers)}
    found = found[found[""] != "difference"]
    order = found["average"].str.partition(" ")[0].astype(float).sort_values(ascending=False).index
    return found.loc[order, ["method", "", "average", *table.images]].reset_index(drop=True)


def _measured(method: Callable[[Tensor, Callable, float], Tensor], run: Run) -> float:
    truth = run.truth()
    return TASKS[run.task].metric(method(run.measurement(truth), run.H, run.sigma), truth)


def table_4(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 4: averages of Tables 2 and 3, and the supervised methods that the paper quotes."""
    columns = [
        (f"{t.label} {s}", t, s) for s in ("x4", "x8") for t in (TABLES["table2"], TABLES["table3"])
    ]
    averages = {}
    for title, table, setting in columns:
        long = beside(table, setting, runs[runs["dataset"] == table.dataset])
        averages[title] = long[long["image"] == "average"].set_index(["method", "preset"])
    rows = []
    for method in ("dip", "deepred"):
        numbers = {title: printed("Table 4", title, NAMES[method]) for title, *_ in columns}
        rows.append({"method": NAMES[method], "": "paper", **_texts(pd.Series(numbers))})
        for name in ("fast", "paper", "authors"):
            mine = pd.DataFrame({t: a.loc[(method, name)] for t, a in averages.items()}).T
            if mine["ours"].isna().all():
                continue
            told = {"method": f"{NAMES[method]}, preset {name}", "": "ours"}
            rows.append({**told, **_texts(mine["ours"], mine["spread"])})
            if mine["ours"].notna().any():
                rows.append({"method": "", "": "difference", **_signed(mine["difference"])})
    for method in TABLE_4_QUOTED:
        numbers = {title: printed("Table 4", title, method) for title, *_ in columns}
        rows.append({"method": method, "": "quoted", **_texts(pd.Series(numbers), none="–")})
    return pd.DataFrame(rows)


def section_41(runs: pd.DataFrame) -> pd.DataFrame:
    """The numbers of Section 4.1: mean PSNR over the nine images beside the paper's, and the SNR.

    The column ``images`` says how many of them were run.
    """
    table = TABLES["denoising"]
    long = beside(table, "sigma 25", runs)
    rows = []
    for method, name in table.methods:
        mine = long[(long["method"] == method) & (long["preset"] == name)]
        average = mine[mine["image"] == "average"].iloc[0]
        there = runs[(runs["method"] == method) & (runs["preset"].fillna("") == name)]
        images = mine[mine["image"] != "average"]["ours"].notna().sum()
        if not images:
            continue
        snr = there.groupby("image")["snr"].mean().reindex(table.images).mean(skipna=False)
        paper = average["paper"]
        rows.append(
            {
                "method": _named(table, "sigma 25", method, name),
                "images": f"{images} of {len(table.images)}",
                "ours [dB]": _text(average["ours"], average["spread"]),
                "paper [dB]": "not given" if np.isnan(paper) else f"{paper:.2f}",
                "difference": ""
                if np.isnan(paper)
                else None
                if np.isnan(average["ours"])
                else f"{average['difference']:+.2f}",
                "SNR, ours [dB]": _text(snr),
            }
        )
    return pd.DataFrame(rows)


def averages(runs: pd.DataFrame, name: str = "fast") -> pd.DataFrame:
    """The averages of Section 4.1 and Tables 2, 3 and 5: ours, of a preset, beside the printed.

    PSNR, of the luminance but in Section 4.1, with the difference in brackets where there are both;
    and the processor minutes that DeepRED takes an image. RED has settings of our own. A row is
    there where one of the three methods has been run on all images.
    """
    rows = []
    for table, setting in ((each, s) for each in TABLES.values() for s in each.settings):
        experiment = next(key for key, each in TABLES.items() if each is table)
        mine = runs[(runs["experiment"] == experiment) & (runs["setting"] == setting)]
        long = beside(table, setting, mine)
        long = long[long["image"] == "average"].set_index(["method", "preset"])
        row = {"mean over the images [dB]": _headed(table, setting)}
        for method in ("red", "dip", "deepred"):
            ours = long.loc[(method, name)]
            row[f"{NAMES[method]}, ours"] = _text(ours["ours"], ours["spread"])
            if not np.isnan(ours["difference"]):
                row[f"{NAMES[method]}, ours"] += f" ({ours['difference']:+.2f})"
            row[f"{NAMES[method]}, paper"] = _text(ours["paper"])
        solved = mine[(mine["method"] == "deepred") & (mine["preset"] == name)]
        minutes = solved["processor_seconds"].mean(skipna=False) / 60
        whole = not np.isnan(ours["ours"])  # DeepRED's
        row["processor minutes an image"] = _text(minutes if whole else np.nan, digits=1)
        if not long.loc[[(m, name) for m in ("red", "dip", "deepred")], "ours"].isna().all():
            rows.append(row)
    return pd.DataFrame(rows)


def _headed(table: Table, setting: str) -> str:
    """The heading of a table's row: where it stands, what is done, and on how many images."""
    what = {"denoise": "denoising, σ = 25", "sr": f"super-resolution {setting.replace('x', '×')}"}
    told = what.get(table.task, f"deblurring, {setting} kernel")
    return f"{table.source}: {told}, {len(table.images)} images"


def averaging(runs: pd.DataFrame) -> pd.DataFrame:
    """What averaging gives DIP and DeepRED: last output, average over iterations, mean of runs.

    One row a method and preset, means over the images that were run.
    """
    runs = runs[runs["plain_psnr"].notna()].assign(preset=runs["preset"].fillna(""))
    runs = runs[runs["method"].isin(["dip", "dip-tv", "deepred"])]
    rows = []
    for (method, name), group in runs.groupby(["method", "preset"]):
        column = metric_column(group["task"].iloc[0])
        rows.append(
            {
                "method": NAMES[method] + f", {name}",
                "images": group["image"].nunique(),
                "last output [dB]": _text(group["plain_psnr"].mean()),
                "result of one run [dB]": _text(group["single_psnr"].mean()),
                "mean of the runs [dB]": _text(group[column].mean()),
            }
        )
    return pd.DataFrame(rows)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """PSNR, SSIM and time of each method, mean over images and seeds, for any stored runs.

    One row a setting, method and preset. PSNR is that of the task: over all channels for denoising,
    of the luminance else.
    """
    luminance = len(runs) and not (runs["task"] == "denoise").any()
    told = len(runs) and runs["processor_seconds"].notna().all()  # on a CPU, and not long ago
    time = "processor_seconds" if told else "seconds"
    runs = runs.assign(preset=runs["preset"].fillna(""))
    pairs = [(task, setting) for task, settings in SETTINGS.items() for setting in settings]
    place = {pair: i for i, pair in enumerate(pairs)}
    rows = []
    for (task, setting, method, name), group in runs.groupby(
        ["task", "setting", "method", "preset"]
    ):
        column = metric_column(task)
        each = group.groupby("image")[[column, "snr", "ssim", time]].mean().mean()
        seeds = group.pivot_table(index="seed", columns="image", values=column)
        spread = seeds.mean(axis=1, skipna=False).std()  # of the mean over the images
        rows.append(
            {
                "setting": setting,
                "method": NAMES.get(method, method) + (f" ({name})" if name else ""),
                "images": group["image"].nunique(),
                "PSNR-Y [dB]" if luminance else "PSNR [dB]": _text(each[column], spread),
                **({} if luminance else {"SNR [dB]": _text(each["snr"])}),
                "SSIM": _text(each["ssim"], digits=3),
                f"{time.replace('_', ' ')} an image": _text(each[time], digits=1),
                "order": (place[task, setting], _ORDER[method]),
            }
        )
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    return table.sort_values("order", kind="stable").drop(columns="order").reset_index(drop=True)


def _title(task: str, setting: str) -> str:
    return {"denoise": "denoising", "sr": f"SISR {setting}", "deblur": f"deblurring, {setting}"}[
        task
    ]


def _text(value: float, spread: float = np.nan, digits: int = 2) -> str | None:
    if np.isnan(value):
        return None
    return f"{value:.{digits}f}" + ("" if np.isnan(spread) else f" ± {spread:.2f}")


def _texts(values: pd.Series, spreads: pd.Series | None = None, none: str | None = None) -> dict:
    spreads = pd.Series(np.nan, values.index) if spreads is None else spreads
    return {name: _text(values[name], spreads[name]) or none for name in values.index}


def _signed(values: pd.Series) -> dict:
    return {name: "" if np.isnan(v) else f"{v:+.2f}" for name, v in values.items()}


def by_method(runs: pd.DataFrame, methods: Sequence[str]) -> dict[str, float]:
    """Mean PSNR of the task over the images, for assertions: method -> dB."""
    psnr = runs[metric_column(runs["task"].iloc[0])] if len(runs) else runs["psnr"]
    return {m: float(psnr[runs["method"] == m].mean()) for m in methods}


def precisions(runs: pd.DataFrame) -> pd.DataFrame:
    """Experiment precision: every mode against eager float32, image by image and seed by seed.

    Columns: mode; device; runs, how many there are of both; mean and spread (standard deviation)
    of the PSNR's difference [dB]; largest, the largest of them without its sign.
    """
    runs = runs[runs["experiment"] == "precision"]
    each = runs.assign(mode=runs["preset"].str.removeprefix("fast, "))
    psnr = each.pivot_table(index=["image", "seed", "device"], columns="mode", values="psnr")
    psnr, rows = psnr.reindex(columns=list(PRECISIONS)), []
    for mode in PRECISIONS[1:]:
        found = each[each["mode"] == mode]
        both = (psnr[mode] - psnr["float32"]).dropna()
        rows.append(
            {
                "mode": mode,
                "device": ", ".join(found["device"].unique()) or None,
                "runs": len(both),
                "mean": round(both.mean(), 3),
                "spread": round(both.std(), 3),
                "largest": round(both.abs().max(), 3),
            }
        )
    return pd.DataFrame(rows)


def economy(
    task: str, runs: pd.DataFrame, curves: Callable[[str], pd.DataFrame], timing: Sequence[dict]
) -> pd.DataFrame:
    """Experiment economy: every variant that has all images beside preset paper, their means.

    Columns: variant; iterations, of all runs; ``PSNR`` of the result [dB] and its ``gain`` over
    preset paper's; ``one run``, the first alone; ``reaches paper at``, the iteration at which the
    first run is as good as preset paper's best, the mean of the images on which it is and their
    number; ``after [s]``, those iterations' time; ``total [s]`` and ``times faster``. Times are
    deepred.paper.bench's in one call. NaN or None where something is missing.

    Parameters
    ----------
    curves : what was measured along the run of a key, as `deepred.paper.store.read_curves`.
    timing : the rows "economy" of `deepred.paper.bench.run`.
    """
    variants, metric = ECONOMY[task], metric_column(task)
    runs = runs[(runs["experiment"] == "economy") & (runs["task"] == task)]
    seconds = {(row["task"], row["preset"]): row for row in timing}
    by_label = {label: runs[runs["preset"] == label].set_index("image") for label in variants}
    paper = by_label["paper"]
    rows = []
    for label in variants:
        found = by_label[label]
        if not set(found.index) >= set(ECONOMY_CROPS):
            continue
        first = found.iloc[0]
        count = len(str(first["run_means"]).split())
        row = {
            "variant": label,
            "iterations": f"{first['iterations']} × {count}",
            "PSNR [dB]": round(found[metric].mean(), 2),
            "gain [dB]": np.nan,
            "one run [dB]": round(found["single_psnr"].mean(), 2),
            "reaches paper at": None,
            "after [s]": None,
        }
        timed = seconds.get((task, label), {})
        if set(paper.index) >= set(ECONOMY_CROPS):
            row["gain [dB]"] = round((found[metric] - paper[metric]).mean(), 2)
            reached = [
                _reaches(curves(found.loc[image, "key"]), curves(paper.loc[image, "key"]))
                for image in ECONOMY_CROPS
            ]
            there = [k for k in reached if k is not None]
            row["reaches paper at"] = "never"
            if there:
                mean = sum(there) / len(there)
                row["reaches paper at"] = f"{mean:.0f} ({len(there)} of {len(reached)})"
                if timed:
                    row["after [s]"] = _rounded(mean * timed["seconds"], 0)
        row["total [s]"] = _rounded(timed.get("total"), 0)
        row["times faster"] = _rounded(timed.get("ratio"), 1)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({"after [s]": "Int64", "total [s]": "Int64"}) if rows else table


def economy_lines(
    task: str, labels: Sequence[str], runs: pd.DataFrame, curves: Callable[[str], pd.DataFrame]
) -> dict[str, tuple[pd.DataFrame, tuple[float, float]]]:
    """For `deepred.paper.plots.against_work`: the variants `labels` whose images are all there.

    The mean over the images of the first run's PSNR, and of the PSNR of the mean over the runs;
    work is that of `deepred.paper.bench.work`, without the denoiser's.
    """
    runs = runs[(runs["experiment"] == "economy") & (runs["task"] == task)]
    lines = {}
    for label in labels:
        found = runs[runs["preset"] == label]
        if not set(found["image"]) >= set(ECONOMY_CROPS):
            continue
        settings = Settings(**json.loads(found.iloc[0]["settings"]))
        side = next(iter(ECONOMY_CROPS.values()))[2]
        each = [curves(key) for key in found["key"]]
        first = pd.concat([curve[curve["run"] == 0] for curve in each])
        mean = first.groupby("iteration", as_index=False)["psnr"].mean()
        operations = bench.work(side, settings)[0]
        end = found[metric_column(task)].mean()
        total = operations * settings.iterations * settings.runs
        lines[label] = mean.assign(work=operations * mean["iteration"]), (total, end)
    return lines


def _reaches(curve: pd.DataFrame, reference: pd.DataFrame) -> int | None:
    """The first iteration of the first run at which its PSNR is the reference's best."""
    first, level = (each[each["run"] == 0] for each in (curve, reference))
    there = first.loc[first["psnr"] >= level["psnr"].max(), "iteration"]
    return int(there.iloc[0]) if len(there) else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits) if digits else round(value)


def stops(runs: pd.DataFrame) -> pd.DataFrame:
    """Experiment stopping: where each rule would stop, and what that costs; means over images.

    Columns: task, method, rule; ``images``, on how many of all it would stop; ``stops at`` and
    ``takes``, the iterations at which it would and whose image it takes, ``PSNR [dB]`` of that,
    and ``lost [dB]`` against the best of the run: means over those images. A last row for each
    method, rule "none", is its last iteration.
    """
    runs = runs[runs["experiment"] == "stopping"]
    rows = []
    for (task, method), group in runs.groupby(["task", "method"], sort=False):
        best = group["best_psnr"]
        each = group["stops"].map(json.loads)
        for rule in STOPPING:
            told = pd.DataFrame(each.map(lambda d, rule=rule: d[rule]).tolist(), group.index)
            there = told[0].notna()
            found = told[there].astype(float)
            lost = best[there] - found[2]
            rows.append((task, method, rule, there, found[0], found[1], found[2], lost))
        last = group["iterations"]
        final = group["single_psnr"]
        rows.append((task, method, "none", last > 0, last, last, final, best - final))
    columns = ["task", "method", "rule", "images", "stops at", "takes", "PSNR [dB]", "lost [dB]"]
    table = [
        (
            task, NAMES[method], rule, f"{there.sum()} of {len(there)}",
            _rounded(_mean(at), 0), _rounded(_mean(takes), 0),
            _rounded(_mean(psnr), 2), _rounded(_mean(lost), 2),
        )
        for task, method, rule, there, at, takes, psnr, lost in rows
    ]  # fmt: skip
    return pd.DataFrame(table, columns=columns).astype({"stops at": "Int64", "takes": "Int64"})


def _mean(values: pd.Series) -> float | None:
    return None if values.empty else values.mean()
