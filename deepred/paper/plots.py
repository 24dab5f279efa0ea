"""Every figure and table: one style, and functions from data to matplotlib figures or Markdown.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; methods keep theirs in all
figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..io.images import to_array
from ..settings import Settings
from .tables import NAMES

COLOURS = {
    "noisy": "#999999",
    "nlm": "#56B4E9",
    "dip": "#D55E00",
    "dip-2": "#E69F00",
    "bicubic": "#999999",
    "blurred": "#999999",
    "deepred": "#0072B2",
    "deepred-2": "#009E73",
    "red": "#CC79A7",
    "highlight": "#F0E442",
}

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.prop_cycle": mpl.cycler(
        color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
    ),
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
            height = max(2, round(side * 0.62))
            down = top + (side - height) // 2
            frame = dict(fill=False, edgecolor=COLOURS["highlight"], linewidth=1.2)
            axis.add_patch(Rectangle((left - 0.5, down - 0.5), side, height, **frame))
            below = axes[row * 2 + 1, column]
            _show(below, array[down : down + height, left : left + side])
    return figure


def network(settings: Settings, side: int = 256, channels: int = 3) -> Figure:
    """DIP's hourglass as `networks.SkipNetwork` builds it: a box for each map, z left, T(z) right.

    A box's height is the map's side (on a scale of roots), its width goes with its channels.
    `side` is that of the image, `channels` its number.
    """
    figure, axis = plt.subplots(figsize=(10, 3.6))
    wide, scales = settings.channels, settings.scales
    sides = [side >> level for level in range(scales + 1)]
    maps = [(settings.input_channels, 0, "z")]
    maps += [(wide, level, "") for level in range(1, scales + 1)]
    maps += [(wide, level, "") for level in reversed(range(scales))]
    maps += [(channels, 0, "T(z)")]
    place, middle, spots = 0.0, side**0.5 / 2, []
    for count, level, name in maps:
        width, height = 0.25 + 0.06 * count**0.5, sides[level] ** 0.5
        colour = {"z": COLOURS["noisy"], "T(z)": COLOURS["dip"]}.get(name, COLOURS["nlm"])
        box = (place, middle - height / 2)
        axis.add_patch(Rectangle(box, width, height, facecolor=colour, edgecolor="black", lw=0.8))
        text = f"{count}\n{sides[level]}²"
        axis.text(place + width / 2, box[1] - 0.5, text, ha="center", va="top", fontsize=8)
        axis.text(place + width / 2, box[1] + height + 0.2, name, ha="center", va="bottom")
        spots.append((place, width, box[1] + height))
        place += width + 0.75
    for level in range(scales if settings.skip else 0):
        (left, wide_left, top), (right, wide_right, _) = spots[level], spots[2 * scales - level]
        start, end = left + 0.7 * wide_left, right + 0.3 * wide_right
        line = dict(color=COLOURS["dip"], lw=1.2)
        axis.plot([start, start, end], [top, top + 1, top + 1], **line)
        arrow = dict(arrowstyle="->", **line)
        axis.annotate("", (end, top - 0.2), (end, top + 1.15), arrowprops=arrow)
    axis.text(place / 2, side**0.5 + 2.2, f"skip connections, {settings.skip} channels each",
              ha="center", color=COLOURS["dip"])  # fmt: skip
    for (left, width, _), (right, _, _) in pairwise(spots):
        axis.annotate("", (right, middle), (left + width, middle), arrowprops=dict(arrowstyle="->"))
    axis.set(xlim=(-0.3, place), ylim=(-3.2, side**0.5 + 4))
    axis.axis("off")
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


def pairs_of_curves(
    curves_of: Mapping[str, Mapping[str, pd.DataFrame]],
    ylabel: str = "PSNR of the result [dB]",
    below: float = 5.0,
) -> Figure:
    """DIP and DeepRED over the iterations, one panel an image, with a dot at each maximum.

    `curves_of` maps an image to method -> curve with iteration and psnr (`ylabel`).
    """
    figure, axes = plt.subplots(1, len(curves_of), figsize=(11, 3.2), squeeze=False)
    for axis, (image, both) in zip(axes[0], curves_of.items()):
        lines = {NAMES[method]: (c["iteration"], c["psnr"]) for method, c in both.items()}
        colours = {NAMES[method]: COLOURS[method] for method in both}
        curves(axis, lines, ylabel if axis is axes[0, 0] else "", colours=colours, mark_best=True)
        best = max(c["psnr"].max() for c in both.values())
        axis.set_ylim(best - below, best + below / 10)
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


def behaviour(curve: pd.DataFrame, zoom: float = 0.9, values: int = 0) -> Figure:
    """Figure 3 of the paper: (a) the loss of Eq. (4), (b) its end enlarged, (c) PSNR, (d) the gap.

    `curve` has iteration, objective, psnr and gap; (b) begins at the share `zoom` of the
    iterations. `gap` is ||x - T(z)||, shown as a root mean square in grey levels where `values`,
    the number of values of the image, is given.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.6))
    k = curve["iteration"]
    gap = curve["gap"] * (255 / np.sqrt(values) if values else 1)
    late = k >= zoom * k.max()
    blue = COLOURS["deepred"]
    axes[0, 0].semilogy(k, curve["objective"], color=blue)
    axes[0, 0].set(title="(a) loss, Eq. (4)", ylabel="½‖HT(z) − y‖² + λρ(x)")
    axes[0, 0].axvspan(k[late].min(), k.max(), color=COLOURS["highlight"], alpha=0.35, lw=0)
    axes[0, 1].plot(k[late], curve["objective"][late], color=blue)
    axes[0, 1].set(title="(b) loss, the shaded part of (a)", ylabel="½‖HT(z) − y‖² + λρ(x)")
    axes[1, 0].plot(k, curve["psnr"], color=blue)
    top = curve["psnr"].max()
    axes[1, 0].set(
        title="(c) quality", ylabel="PSNR-Y of the result [dB]", ylim=(top - 6, top + 0.6)
    )
    axes[1, 1].semilogy(k, gap, color=blue)
    label = "RMS of x − T(z), of 255" if values else "‖x − T(z)‖"
    axes[1, 1].yaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
    axes[1, 1].yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    axes[1, 1].set_yticks([t for t in (1, 2, 5, 10, 20, 50, 100, 200) if gap.min() < t < gap.max()])
    axes[1, 1].set(title="(d) gap of the constraint x = T(z)", ylabel=label)
    for axis in axes.flat:
        axis.set_xlabel("iteration")
    return figure


def against_work(
    panels: Mapping[str, Mapping[str, tuple[pd.DataFrame, tuple[float, float]]]], ylabel: str
) -> Figure:
    """Quality over the work spent, one panel a task.

    `panels` maps a title to variant -> (curve of one run with work and psnr, (work, psnr) of the
    mean of its runs); work in floating-point operations. The end of the mean is a diamond.
    """
    panels = {title: lines for title, lines in panels.items() if lines}  # what has been run
    figure, axes = plt.subplots(1, max(1, len(panels)), figsize=(11, 3.6), squeeze=False)
    palette = ["dip", "dip-2", "deepred", "deepred-2", "red", "nlm"]
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: COLOURS[palette[i % len(palette)]] for i, name in enumerate(names)}
    for axis, (title, lines) in zip(axes[0], panels.items()):
        runs = {name: (curve["work"] / 1e12, curve["psnr"]) for name, (curve, _) in lines.items()}
        label = ylabel if axis is axes[0, 0] else ""
        curves(axis, runs, label, colours=colours, xlabel="work [10¹² operations]")
        for name, (_, (work, psnr)) in lines.items():
            axis.plot(work / 1e12, psnr, "D", ms=6, color=colours[name], mec="white", mew=0.6)
        ends = [psnr for _, (_, psnr) in lines.values()]
        bottom = min(ends) - 3
        seen = min(work[psnr > bottom].min() for work, psnr in runs.values())
        axis.set(xscale="log", title=title, ylim=(bottom, max(ends) + 0.4))
        axis.set_xlim(left=seen / 2)
        axis.get_legend().remove()
    handles = {}
    for axis in axes[0]:
        handles |= dict(zip(*axis.get_legend_handles_labels()[::-1]))
    if handles:
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    return figure


def weights_map(maps: Mapping[str, pd.DataFrame], label: str = "PSNR [dB]") -> Figure:
    """A number for each lambda (rows) and mu (columns), one panel a title, on one colour scale.

    White crosses mark the paper's lambda = mu = .5, the numbers are written in the fields.
    """
    figure, axes = plt.subplots(
        1, len(maps), figsize=(4.6 * len(maps), 3.9), squeeze=False, sharey=True
    )
    values = np.concatenate([table.to_numpy(float).ravel() for table in maps.values()])
    there = values[np.isfinite(values)]
    low, high = (there.min(), there.max()) if len(there) else (0.0, 1.0)
    for axis, (title, table) in zip(axes[0], maps.items()):
        numbers = table.to_numpy(float)
        picture = axis.imshow(numbers, cmap="cividis", vmin=low, vmax=high, origin="lower")
        for (i, j), value in np.ndenumerate(numbers):
            dark = np.isfinite(value) and value < (low + high) / 2
            text = f"{value:.1f}" if np.isfinite(value) else "–"
            axis.text(
                j, i, text, ha="center", va="center", color="white" if dark else "black", size=9
            )
        axis.set_xticks(range(len(table.columns)), [f"{mu:g}" for mu in table.columns])
        axis.set_yticks(range(len(table.index)), [f"{lam:g}" for lam in table.index])
        axis.set(title=title, xlabel="μ")
        axis.grid(False)
    axes[0, 0].set_ylabel("λ")
    figure.colorbar(picture, ax=axes, label=label, shrink=0.85)
    return figure


def parameter_lines(
    lines: Mapping[str, pd.DataFrame],
    usual: Mapping[str, float],
    dip: float,
    ylabel: str = "PSNR [dB]",
) -> Figure:
    """End and best over the values of one parameter a panel, as `comparisons.sensitivity_line`.

    `usual` marks the paper's value of each, `dip` is DIP's end to compare with. Values are set at
    equal distances.
    """
    columns = min(3, len(lines))
    rows = -(-len(lines) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.7 * rows), squeeze=False, sharey=True
    )
    for axis in axes.flat[len(lines) :]:
        axis.set_axis_off()
    for axis, (title, table) in zip(axes.flat, lines.items()):
        place = np.arange(len(table))
        axis.plot(place, table["best"], "--", color=COLOURS["deepred-2"], marker="o", ms=4,
                  label="best iteration")  # fmt: skip
        axis.plot(place, table["end"], "-", color=COLOURS["deepred"], marker="o", ms=4,
                  label="last iteration")  # fmt: skip
        axis.axhline(dip, color=COLOURS["dip"], ls=":", lw=1.2, label="DIP, last iteration")
        near = np.isclose(table["value"], usual[title], rtol=0.01)
        axis.plot(place[near], table["end"][near], "s", ms=9, mfc="none", color="black",
                  label="the paper's value")  # fmt: skip
        axis.set_xticks(place, [f"{value:.3g}" for value in table["value"]])
        axis.set_xlabel(title)
        if axis in axes[:, 0]:
            axis.set_ylabel(ylabel)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def differences(tables: Mapping[str, pd.DataFrame], xlabel: str = "difference [dB]") -> Figure:
    """Mean differences and their standard errors, a panel a title, of `comparisons.deviations`."""
    heights = [len(table) for table in tables.values()]
    figure, axes = plt.subplots(
        len(tables),
        1,
        figsize=(7.5, 0.25 * sum(heights) + 0.8 * len(tables)),
        squeeze=False,
        height_ratios=heights,
    )
    for axis, (title, table) in zip(axes[:, 0], tables.items()):
        place = np.arange(len(table))[::-1]
        axis.errorbar(table["mean"], place, xerr=table["standard error"].fillna(0), fmt="o",
                      color=COLOURS["deepred"], ecolor=COLOURS["dip"], capsize=3)  # fmt: skip
        axis.axvline(0, color="black", lw=0.8)
        axis.set_yticks(place, table["departure"])
        axis.set_ylim(-0.6, len(table) - 0.4)
        axis.set_title(title, loc="left")
        axis.grid(axis="y", alpha=0.15)
    axes[-1, 0].set_xlabel(xlabel)
    return figure


def schedule(steps: Sequence[tuple[float, float]], calls: Sequence[tuple[float, float]]) -> Figure:
    """Figure 1 of the paper, drawn from a trace: the denoiser's calls beside the iterations.

    `steps` and `calls` are (start, end) in seconds.
    """
    figure, axis = plt.subplots(figsize=(10, 1.9))
    zero = steps[0][0]
    rows = [
        (1, steps, ("#0072B2", "#56B4E9"), "Θ-, x- and u-update"),
        (0, calls, ("#D55E00", "#E69F00"), "denoiser f(x)"),
    ]
    for row, spans, colours, _ in rows:
        bars = [(1000 * (start - zero), 1000 * (end - start)) for start, end in spans]
        shades = [colours[i % 2] for i in range(len(bars))]
        axis.broken_barh(bars, (row - 0.36, 0.72), facecolors=shades, edgecolor="white", lw=0.4)
    axis.set_yticks([row for row, *_ in rows], [name for *_, name in rows])
    axis.set_xlabel("time [ms]; every bar is one iteration, or one call")
    axis.set_xlim(0, 1000 * (steps[-1][1] - zero))
    axis.grid(False, axis="y")
    return figure
