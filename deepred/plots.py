"""Every figure and table: one style, and functions from data to matplotlib figures or Markdown.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; methods keep theirs in all
figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .images import to_array

COLOURS = {
    "noisy": "#999999",
    "nlm": "#56B4E9",
    "dip": "#D55E00",
    "dip-2": "#E69F00",
    "deepred": "#0072B2",
    "deepred-2": "#009E73",
    "red": "#CC79A7",
    "highlight": "#F0E442",
}
NAMES = {"noisy": "noisy", "nlm": "NLM", "dip": "DIP", "deepred": "DeepRED", "red": "RED"}

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Set the shared style for all figures made afterwards."""
    mpl.rcParams.update(STYLE)


def save(figure: Figure, folder: str | Path, name: str) -> None:
    """Save a figure as folder/name.png; an empty folder name saves nothing."""
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(folder) / f"{name}.png", metadata={"Software": None})


def compare(
    panels: Mapping[str, Tensor],
    inset: tuple[int, int, int] | None = None,
    *,
    columns: int | None = None,
    width: float = 10.0,
) -> Figure:
    """Images side by side under their titles, the same region of each enlarged below it.

    Parameters
    ----------
    panels : title -> image (1, C, H, W).
    inset : top, left and side of the enlarged square, in pixels.
    columns : panels a row, all in one row unless given.
    width : of the figure in inches.
    """
    count = len(panels)
    columns = columns or count
    rows = -(-count // columns)
    first = to_array(next(iter(panels.values())))
    aspect = first.shape[0] / first.shape[1]
    per_panel = aspect + (0.62 if inset else 0)
    figure, axes = plt.subplots(
        rows * (2 if inset else 1),
        columns,
        figsize=(width, width / columns * per_panel * rows + 0.35 * rows),
        squeeze=False,
        gridspec_kw={"height_ratios": [aspect, 0.62] * rows if inset else None},
    )
    for axis in axes.flat:
        axis.axis("off")
    for i, (title, image) in enumerate(panels.items()):
        row, column = divmod(i, columns)
        array = to_array(image)
        axis = axes[row * (2 if inset else 1), column]
        _show(axis, array)
        axis.set_title(title)
        if inset:
            top, left, side = inset
            frame = dict(fill=False, edgecolor=COLOURS["highlight"], linewidth=1.2)
            axis.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, **frame))
            height = max(2, round(side * 0.62))
            down = top + (side - height) // 2
            below = axes[row * 2 + 1, column]
            _show(below, array[down : down + height, left : left + side])
    return figure


def _show(axis: Axes, array: np.ndarray) -> None:
    grey = array.shape[-1] == 1
    axis.imshow(array[..., 0] if grey else array, cmap="gray" if grey else None, vmin=0, vmax=255)


def curves(
    axis: Axes,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    ylabel: str,
    *,
    colours: Mapping[str, str] | None = None,
    mark_best: bool = False,
    xlabel: str = "iteration",
) -> Axes:
    """Curves with a legend, told apart by colour and by dashes.

    `lines` maps a name to (x, y); `mark_best` puts a dot on each maximum.
    """
    styles = ["-", "--", "-.", ":"]
    for i, (name, (x, y)) in enumerate(lines.items()):
        colour = (colours or {}).get(name)
        (line,) = axis.plot(x, y, styles[i % 4], color=colour, label=name)
        if mark_best:
            best = int(np.nanargmax(np.asarray(y)))
            axis.plot(np.asarray(x)[best], np.asarray(y)[best], "o", ms=5, color=line.get_color())
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.legend()
    return axis


def markdown(table: pd.DataFrame, missing: str = "missing") -> str:
    """A table as Markdown; what is not there says so."""
    text = table.astype(object).where(table.notna(), missing).astype(str)
    lines = ["| " + " | ".join(str(c) for c in text.columns) + " |"]
    lines += ["|" + "|".join("---" for _ in text.columns) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in text.itertuples(index=False)]
    return "\n".join(lines)


def denoising_table(runs: pd.DataFrame) -> pd.DataFrame:
    """PSNR, SSIM and seconds of each method, mean over the images that all of `runs` have.

    One row a method and preset, in the order noisy, NLM, RED, DIP, DeepRED; the mean over seeds
    enters each image's number.
    """
    order = {name: i for i, name in enumerate(["noisy", "nlm", "cbm3d", "red", "dip", "deepred"])}
    runs = runs.assign(preset=runs["preset"].fillna(""))
    each = runs.groupby(["method", "preset", "image"])[["psnr", "ssim", "seconds"]].mean()
    rows = []
    for (method, preset), group in each.groupby(level=[0, 1]):
        name = NAMES.get(method, method) + (f" ({preset})" if preset else "")
        rows.append(
            {
                "method": name,
                "images": len(group),
                "PSNR [dB]": f"{group['psnr'].mean():.2f}",
                "SSIM": f"{group['ssim'].mean():.3f}",
                "seconds an image": f"{group['seconds'].mean():.1f}",
                "order": order[method],
            }
        )
    table = pd.DataFrame(rows, columns=[*_TABLE, "order"])
    return table.sort_values(["order", "method"]).drop(columns="order").reset_index(drop=True)


_TABLE = ["method", "images", "PSNR [dB]", "SSIM", "seconds an image"]


def section_41(
    runs: pd.DataFrame, printed: Mapping[str, float], images: Sequence[str]
) -> pd.DataFrame:
    """The numbers of Section 4.1 beside the paper's: mean PSNR over the nine images.

    An average is shown only where all of `images` were run; the column ``images`` says how many
    were. What was not run is NaN, which `markdown` shows as missing.
    """
    rows = []
    for method, preset in [
        ("noisy", ""), ("nlm", ""), ("red", "paper"), ("dip", "paper"), ("dip", "authors"),
        ("deepred", "paper"), ("deepred", "authors"),
    ]:  # fmt: skip
        there = runs[(runs["method"] == method) & (runs["preset"].fillna("") == preset)]
        each = there[there["image"].isin(images)].groupby("image")["psnr"].mean()
        ours = each.mean() if len(each) == len(images) else np.nan
        paper = printed.get(method, np.nan)
        rows.append(
            {
                "method": NAMES[method] + (f", preset {preset}" if preset else ""),
                "images": f"{len(each)} of {len(images)}",
                "ours [dB]": None if np.isnan(ours) else f"{ours:.2f}",
                "paper [dB]": "not given" if np.isnan(paper) else f"{paper:.2f}",
                "difference": None if np.isnan(ours) else f"{ours - paper:+.2f}",
            }
        )
    table = pd.DataFrame(rows)
    table["difference"] = table["difference"].replace("+nan", "")
    return table


def pairs_of_curves(curves_of: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """DIP and DeepRED over the iterations, one panel an image, with a dot at each maximum.

    `curves_of` maps an image to method -> curve with iteration and psnr.
    """
    figure, axes = plt.subplots(1, len(curves_of), figsize=(11, 3.2), squeeze=False)
    for axis, (image, both) in zip(axes[0], curves_of.items()):
        lines = {NAMES[method]: (c["iteration"], c["psnr"]) for method, c in both.items()}
        colours = {NAMES[method]: COLOURS[method] for method in both}
        curves(axis, lines, "PSNR of the result [dB]", colours=colours, mark_best=True)
        best = max(c["psnr"].max() for c in both.values())
        axis.set_ylim(best - 5, best + 0.5)
        axis.set_title(image)
        if axis is not axes[0, -1]:
            axis.get_legend().remove()
    return figure


def overfitting(runs: Mapping[str, pd.DataFrame], sigma: float) -> Figure:
    """Why DeepRED need not be stopped: quality, fit and lambda over the iterations of several runs.

    `runs` maps a name to a curve with iteration, psnr, residual and lam; `sigma` is the noise
    level in image units.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.8))
    palette = ["dip", "dip-2", "deepred", "deepred-2"]
    colours = {name: COLOURS[colour] for name, colour in zip(runs, palette)}
    panels = [
        ("psnr", 1.0, "PSNR of the result [dB]", "(a) quality"),
        ("residual", 255.0, "residual ‖T(z) − y‖, RMS of 255", "(b) fit"),
        ("lam", 1.0, "λ", "(c) weight of the prior"),
    ]
    for axis, (column, scale, label, title) in zip(axes, panels):
        lines = {n: (c["iteration"], scale * c[column]) for n, c in runs.items()}
        curves(axis, lines, label, colours=colours, mark_best=column == "psnr")
        axis.set_title(title)
        axis.get_legend().remove()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    best = max(c["psnr"].max() for c in runs.values())
    axes[0].set_ylim(best - 6, best + 0.5)
    noise = 255 * sigma
    axes[1].set_ylim(noise - 5, noise + 7)
    axes[1].axhline(noise, color="black", lw=0.8, ls=(0, (1, 2)))
    axes[1].annotate("σ of the noise", (0.02, noise - 0.1), xycoords=("axes fraction", "data"),
                     ha="left", va="top", fontsize=9)  # fmt: skip
    axes[2].set_ylim(0, None)
    return figure
