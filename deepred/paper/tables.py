"""The paper's tables with ours beside the printed numbers, from stored runs.

What was not run has no row, or is NaN or None in one, which `markdown` shows as a dash; nothing is
filled in, and the sentence `attrs["left_out"]` of a table says what that is and what computes it. A
mean over images is there only where all of them were run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from ..errors import InputError
from ..io.files import replacing
from ..presets import SETTINGS, preset
from .experiments import TABLE_4_QUOTED, TABLES, Table, plan, printed
from .files import make_folder
from .runs import TASKS, Run, column
from .store import read_runs

NAMES = {
    **{name: name for name in ("noisy", "blurred", "bicubic", "masked")},
    **{"nlm": "NLM", "cbm3d": "CBM3D", "fbp": "FBP", "tv": "TV"},
    **{"red": "RED", "dip": "DIP", "dip-tv": "DIP-TV", "deepred": "DeepRED"},
}
DENOISER_NAMES = {"nlm": "NLM", "bm3d": "BM3D", "tv": "TV"} | {
    name: name for name in ("wavelet", "bilateral", "median")
}


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, with a dash for what is not there and a sentence on that under it."""
    note = table.attrs.get("left_out", "")
    if table.empty:
        return note or "Not run yet: `deepred run` computes it."
    text = table.astype(object).where(table.notna(), "–").astype(str)
    rows = [list(map(str, text.columns)), ["---"] * text.shape[1], *text.to_numpy().tolist()]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join(lines) + (f"\n\n{note}" if note else "")


def save(table: pd.DataFrame, folder: str | Path, name: str) -> None:
    """Write a table as folder/name.md and folder/name.csv; an empty folder name writes nothing."""
    if not folder:
        return
    make_folder(Path(folder))
    with replacing(Path(folder) / f"{name}.md") as temporary:
        temporary.write_text(markdown(table) + "\n", encoding="utf-8")
    with replacing(Path(folder) / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def title(method: str, denoiser: str | None = None) -> str:
    """A method's name; of RED with its denoiser, as its settings are ours and not the paper's."""
    shown = method == "red" and denoiser
    return NAMES[method] + (f" ({DENOISER_NAMES[denoiser]})" if shown else "")


def where(runs: pd.DataFrame, **fields: object) -> pd.DataFrame:
    """The runs that have these values in these columns."""
    for name, value in fields.items():
        runs = runs[runs[name] == value]
    return runs


# What has not been run -------------------------------------------------------------------------


def noted(table: pd.DataFrame, sentence: str) -> pd.DataFrame:
    """The table, with a sentence on what has not been run for `markdown` to put under it."""
    table.attrs["left_out"] = sentence
    return table


def not_run(runs: pd.DataFrame, *experiments: str, **fields: Iterable[str]) -> str:
    """One sentence on how many runs of experiments are not among `runs`; "" if all are.

    `fields` restrict the question to runs with one of these values in a field.
    """
    names = ["experiment", "task", "setting", "image", "method", "preset", "variant", "seed"]
    stored = set(runs[names].itertuples(index=False, name=None))
    planned = [
        tuple(getattr(run, name) for name in names)
        for run in plan("paper", list(experiments))
        if all(getattr(run, name) in values for name, values in fields.items())
    ]
    count = sum(run not in stored for run in planned)
    if not count:
        return ""
    return f"Not run yet: {count} of {len(planned)} runs. {_command(*experiments)} computes them."


def _command(*experiments: str) -> str:
    return f"`deepred run --profile paper --only {' '.join(experiments)}`"


def left_out(table: Table, setting: str, runs: pd.DataFrame) -> str:
    """One sentence on which rows of a table have not been run; "" if all have."""
    long = where(beside(table, setting, runs), quoted=False)
    rows = []
    for (method, name), group in long[long["image"] != "average"].groupby(
        ["method", "preset"], sort=False
    ):
        count = group["ours"].notna().sum()
        if count < len(group):
            some = f" ({len(group) - count} of {len(group)} images)" if count else ""
            rows.append(_row_name(table, setting, method, name) + some)
    if not rows:
        return ""
    only = next(name for name, each in TABLES.items() if each is table)
    return f"Not run yet: {'; '.join(rows)}. {_command(only)} computes what is left."


# The paper's tables ----------------------------------------------------------------------------


def table_1(name: str = "paper") -> pd.DataFrame:
    """Table 1, generated from a preset; noise levels of 255."""
    rows = []
    for task, setting in ((t, s) for t, settings in SETTINGS.items() for s in settings):
        s = preset(name, task, "deepred", setting)
        what = {"denoise": "denoising", "sr": f"SISR {setting}"}
        numbers = (s.input_noise, s.learning_rate, 255 * s.sigma_f, s.lam, s.mu)
        noise, rate, level, lam, mu = (f"{number:g}" for number in numbers)
        where = what.get(task, f"deblurring, {setting}"), noise, rate
        rows.append((*where, DENOISER_NAMES[s.denoiser], level, lam, mu, s.iterations))
    columns = ["task", "σ noise", "LR", "denoiser", "σ_f", "λ", "μ", "iterations"]
    return pd.DataFrame(rows, columns=columns)


def beside(table: Table, setting: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Ours beside the paper's, one row a method, preset and image, and one for the average.

    Columns: method, preset, image; ``ours`` [dB], mean over the seeds, NaN where it was not run;
    ``spread``, the standard deviation over the seeds, NaN for one; ``seeds``; ``paper`` [dB], NaN
    where it prints none; ``difference``; ``quoted``, whether the paper has the row from elsewhere,
    so that it has no preset and nothing of ours.
    """
    runs = where(runs, task=table.task, setting=setting, variant="")
    runs = runs[runs["image"].isin(table.images)]
    rows = []
    for method, name in (*table.methods, *((quoted, "") for quoted in table.quoted)):
        found = where(runs, method=method, preset=name)
        each = found.pivot_table(index="seed", columns="image", values=column(table.task))
        each = each.reindex(columns=list(table.images))
        each["average"] = each.mean(axis=1, skipna=False)
        for image in each.columns:
            values, paper = each[image].dropna(), table.printed(setting, method, image)
            ours = values.mean(), values.std(), len(values)
            rows.append((method, name, image, *ours, paper, method in table.quoted))
    columns = ["method", "preset", "image", "ours", "spread", "seeds", "paper", "quoted"]
    result = pd.DataFrame(rows, columns=columns)
    return result.assign(difference=result["ours"] - result["paper"])


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
            rows.append({"method": NAMES[method], "": "paper"} | _texts(numbers["paper"], none="–"))
        seen.add(method)
        rows += _ours(_row_name(table, setting, method, name), numbers)
    return noted(pd.DataFrame(rows), left_out(table, setting, runs))


def shown(table: Table, setting: str, runs: pd.DataFrame) -> str:
    """`compared` as Markdown."""
    return markdown(compared(table, setting, runs))


def _ours(name: str, numbers: pd.DataFrame) -> list[dict]:
    """The row of ours and that of the differences; none where nothing was run."""
    if numbers["ours"].isna().all():
        return []
    rows = [{"method": name, "": "ours", **_texts(numbers["ours"], numbers["spread"])}]
    if numbers["difference"].notna().any():
        signed = {k: "" if np.isnan(v) else f"{v:+.2f}" for k, v in numbers["difference"].items()}
        rows.append({"method": "", "": "difference", **signed})
    return rows


def _row_name(table: Table, setting: str, method: str, name: str) -> str:
    """A method's name with its preset, "" for none."""
    if method == "red":  # its settings are in no preset of the paper
        used = preset(name, table.task, "red", setting)
        return f"{title(method, used.denoiser)}, our settings"
    return NAMES[method] + (f", preset {name}" if name else "")


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
    if unknown := set(mine) - set(table.images):
        raise InputError(
            f"{name} has no {', '.join(sorted(unknown))}; it has {', '.join(table.images)}"
        )
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
    pairs = [(s, TABLES[name]) for s in ("x4", "x8") for name in ("table2", "table3")]
    found, columns = {}, [f"{table.label} {setting}" for setting, table in pairs]
    for heading, (setting, table) in zip(columns, pairs):
        long = beside(table, setting, where(runs, dataset=table.dataset))
        found[heading] = where(long, image="average").set_index(["method", "preset"])

    def of_paper(name: str) -> dict:
        return _texts(pd.Series({c: printed("Table 4", c, name) for c in columns}), none="–")

    rows = []
    for method in ("dip", "deepred"):
        rows.append({"method": NAMES[method], "": "paper", **of_paper(NAMES[method])})
        for name in ("fast", "paper", "authors"):
            mine = pd.DataFrame({c: each.loc[(method, name)] for c, each in found.items()}).T
            rows += _ours(f"{NAMES[method]}, preset {name}", mine)
    rows += [{"method": name, "": "quoted", **of_paper(name)} for name in TABLE_4_QUOTED]
    presets = dict(method=("dip", "deepred"), preset=("fast", "paper", "authors"))
    return noted(pd.DataFrame(rows), not_run(runs, "table2", "table3", **presets))


def section_41(runs: pd.DataFrame) -> pd.DataFrame:
    """The numbers of Section 4.1: mean PSNR over the nine images beside the paper's, and the SNR.

    The column ``images`` says how many of them were run.
    """
    table = TABLES["denoising"]
    long, rows = beside(table, "sigma 25", runs), []
    for method, name in table.methods:
        mine = where(long, method=method, preset=name).set_index("image")
        average, count = mine.loc["average"], mine["ours"].drop("average").notna().sum()
        if not count:
            continue
        each = where(runs, method=method, preset=name).groupby("image")["snr"].mean()
        unprinted, difference = np.isnan(average["paper"]), average["difference"]
        rows.append(
            {
                "method": _row_name(table, "sigma 25", method, name),
                "images": f"{count} of {len(table.images)}",
                "ours [dB]": _text(average["ours"], average["spread"]),
                "paper [dB]": "not given" if unprinted else f"{average['paper']:.2f}",
                "difference": "" if unprinted else _text(difference, sign="+"),
                "SNR, ours [dB]": _text(each.reindex(table.images).mean(skipna=False)),
            }
        )
    return noted(pd.DataFrame(rows), left_out(table, "sigma 25", runs))


def averages(runs: pd.DataFrame, name: str = "fast") -> pd.DataFrame:
    """The averages of Section 4.1 and Tables 2, 3 and 5: ours, of a preset, beside the printed.

    PSNR, of the luminance but in Section 4.1, with the difference in brackets where there are both;
    and the processor minutes that DeepRED takes an image. RED has settings of our own. A row is
    there where one of the three methods has been run on all images.
    """
    methods, rows = ("red", "dip", "deepred"), []
    for experiment, table, setting in ((k, t, s) for k, t in TABLES.items() for s in t.settings):
        mine = where(runs, experiment=experiment, setting=setting)
        long = where(beside(table, setting, mine), image="average", preset=name)
        long = long.set_index("method")
        row = {"mean over the images [dB]": _heading(table, setting)}
        for method in methods:
            ours = long.loc[method]
            row[f"{NAMES[method]}, ours"] = _text(ours["ours"], ours["spread"])
            if not np.isnan(ours["difference"]):
                row[f"{NAMES[method]}, ours"] += f" ({ours['difference']:+.2f})"
            row[f"{NAMES[method]}, paper"] = _text(ours["paper"])
        seconds = where(mine, method="deepred", preset=name)["processor_seconds"]
        whole = not np.isnan(long.loc["deepred", "ours"])
        minutes = seconds.mean(skipna=False) / 60 if whole else np.nan
        row["processor minutes an image"] = _text(minutes, digits=1)
        if not long.loc[list(methods), "ours"].isna().all():
            rows.append(row)
    return noted(pd.DataFrame(rows), not_run(runs, *TABLES, method=methods, preset=(name,)))


def _heading(table: Table, setting: str) -> str:
    """Where the table stands, what is done, and on how many images."""
    what = {"denoise": "denoising, σ = 25", "sr": f"super-resolution {setting.replace('x', '×')}"}
    task = what.get(table.task, f"deblurring, {setting} kernel")
    return f"{table.source}: {task}, {len(table.images)} images"


# Tables of any runs ----------------------------------------------------------------------------


def averaging(runs: pd.DataFrame) -> pd.DataFrame:
    """What averaging gives DIP and DeepRED: last output, average over iterations, mean of runs.

    One row a method and preset, means over the images that were run.
    """
    runs = runs[runs["plain_psnr"].notna() & runs["method"].isin(["dip", "dip-tv", "deepred"])]
    rows = []
    for (method, name), group in runs.groupby(["method", "preset"]):
        ends = "plain_psnr", "single_psnr", column(group["task"].iloc[0])
        means = (_text(group[end].mean()) for end in ends)
        rows.append((f"{NAMES[method]}, {name}", group["image"].nunique(), *means))
    ends = ["last output [dB]", "result of one run [dB]", "mean of the runs [dB]"]
    return pd.DataFrame(rows, columns=["method", "images", *ends])


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """PSNR, SSIM and time of each method, mean over images and seeds, for any stored runs.

    One row a setting, method and preset. PSNR is that of the task.
    """
    luminance = set(map(column, runs["task"])) == {"psnr_y"}
    known = len(runs) and runs["processor_seconds"].notna().all()  # on a CPU, and not long ago
    time = "processor_seconds" if known else "seconds"
    pairs = [(task, setting) for task, settings in SETTINGS.items() for setting in settings]
    rows = []
    for (task, setting, method, name), group in runs.groupby(
        ["task", "setting", "method", "preset"]
    ):
        psnr = column(task)
        each = group.groupby("image")[[psnr, "snr", "ssim", time]].mean().mean()
        seeds = group.pivot_table(index="seed", columns="image", values=psnr)
        spread = seeds.mean(axis=1, skipna=False).std()  # of the mean over the images
        rows.append(
            {
                "setting": setting,
                "method": NAMES[method] + (f" ({name})" if name else ""),
                "images": group["image"].nunique(),
                "PSNR-Y [dB]" if luminance else "PSNR [dB]": _text(each[psnr], spread),
                **({} if luminance else {"SNR [dB]": _text(each["snr"])}),
                "SSIM": _text(each["ssim"], digits=3),
                f"{time.replace('_', ' ')} an image": _text(each[time], digits=1),
                "order": (pairs.index((task, setting)), list(NAMES).index(method)),
            }
        )
    rows.sort(key=lambda row: row.pop("order"))
    return pd.DataFrame(rows)


def by_method(runs: pd.DataFrame, methods: Sequence[str]) -> dict[str, float]:
    """Mean PSNR of the task over the images, for assertions: method -> dB."""
    psnr = runs[column(runs["task"].iloc[0])] if len(runs) else runs["psnr"]
    return {m: float(psnr[runs["method"] == m].mean()) for m in methods}


def _text(value: float, spread: float = np.nan, digits: int = 2, sign: str = "") -> str | None:
    if np.isnan(value):
        return None
    return f"{value:{sign}.{digits}f}" + ("" if np.isnan(spread) else f" ± {spread:.2f}")


def _texts(values: pd.Series, spreads: pd.Series | None = None, none: str | None = None) -> dict:
    spreads = pd.Series(np.nan, values.index) if spreads is None else spreads
    return {name: _text(values[name], spreads[name]) or none for name in values.index}
