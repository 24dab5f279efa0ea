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
    """Curves with their names written at their ends, where there is room, else in a legend.

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
