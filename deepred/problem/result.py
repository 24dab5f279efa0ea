"""What `restore` returns."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..settings import Settings

if TYPE_CHECKING:
    from ..compute.engine import Engine


@dataclass(frozen=True, repr=False)
class Result:
    """What `restore` returns.

    Attributes
    ----------
    image : the mean of `images`, as the kind of thing that y was: a tensor (1, C, H, W); an array
        (H, W) or (H, W, 3) of y's type, rounded and clipped to its range if that is of integers;
        for a file the array of one.
    images : a tensor (1, C, H, W) for each run, in [0, 1] and a little beyond.
    history : one row per iteration, the runs one after the other: ``run``, ``iteration``,
        ``seconds``, the terms of `deepred.solver.State` and what the callback returned (NaN where
        it returned nothing).
    settings, method, sigma, seed, engine : of the run; the noise level in image units.
    seconds : of all runs together.
    iterations : of each of `images`: the run's last, or the one that its stopping rule chose.
    finished : for DeepRED, whether the fit has come down to the noise in every run and, where
        settings.settle is above 0, the image has settled. None if that cannot be said: the noise
        level is not known, or another method or a stopping rule ended the run.
    residual, noise : root mean squares of H T(z) - y, over the last `check_every` iterations, and
        of the noise, in image units, of the run furthest from its target; None if not known.
    y : the measurement, a tensor.
    resumable : whether a checkpoint is there to go on from.
    """

    image: Tensor | np.ndarray
    images: list[Tensor]
    history: dict[str, np.ndarray]
    settings: Settings
    method: str
    sigma: float | None
    seed: int
    seconds: float
    engine: Engine
    iterations: list[int]
    finished: bool | None
    residual: float | None
    noise: float | None
    y: Tensor
    resumable: bool

    def __repr__(self) -> str:
        size = "x".join(map(str, self.images[0].shape[:0:-1]))  # width x height x channels
        runs = f"{len(self.images)} runs, " if len(self.images) > 1 else ""
        return f"<Result of {self.method}: {size}, {runs}{self.seconds:.0f} s, {self.ending}>"

    def _repr_html_(self) -> str:
        """Measurement and result side by side, for notebooks."""
        shown = {"before": self.y, "after": torch.stack(self.images).mean(0)}
        figures = "".join(
            f'<figure style="display:inline-block;margin:0 1em 0 0"><img alt="{name}" width="256" '
            f'src="data:image/png;base64,{_png(image)}"><figcaption>{name}</figcaption></figure>'
            for name, image in shown.items()
            if image.ndim == 4 and image.shape[1] in (1, 3)
        )
        return f"<div>{figures}<p>{repr(self)[1:-1]}</p></div>"

    def plot(self):
        """A matplotlib figure: measurement, result, and the residual over the iterations.

        Raises
        ------
        InputError
            If matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise InputError("plot needs matplotlib: pip install 'deepred[notebooks]'") from None
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        before, after, curves = figure.subplots(1, 3)
        shown = [(before, "before", self.y), (after, "after", torch.stack(self.images).mean(0))]
        for axes, title, image in shown:
            axes.set_title(title)
            axes.set_axis_off()
            if image.ndim == 4 and image.shape[1] in (1, 3):
                axes.imshow(_pixels(image), cmap="gray", vmin=0, vmax=1)
        for run in range(len(self.images)):
            curves.plot(*self.curve("residual", run), label=f"run {run + 1}")
        if self.noise is not None:
            curves.axhline(self.noise, color="black", linestyle=":", label="noise")
        curves.set(title="residual", xlabel="iteration", yscale="log")
        curves.legend()
        return figure

    @property
    def ending(self) -> str:
        """One sentence on how the runs ended; levels of 255.

        `--iterations` is the command line's name of settings.iterations.
        """
        if self.finished is None:
            iterations = ", ".join(map(str, dict.fromkeys(self.iterations)))
            return f"ended after {iterations} iterations"
        levels = f"residual {255 * self.residual:.3g}, noise {255 * self.noise:.3g}"
        if self.finished:
            return f"fit finished: {levels}"
        if self.residual <= self.settings.residual_target * self.noise:
            levels += ", image still changing"
        more = int(float(f"{2 * max(self.iterations):.2g}"))
        if self.resumable:
            return f"fit not finished: {levels}; --iterations {more} would go on"
        return f"fit not finished: {levels}; try settings.iterations={more}"

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each pixel over the runs (1, C, H, W), with n - 1.

        The runs differ where prior and measurement leave the image open; an error common to all
        runs does not show.

        Raises
        ------
        InputError
            If there was one run only.
        """
        if self.method == "red":
            raise InputError("the deviation is over runs, and method 'red' has only one")
        if len(self.images) < 2:
            raise InputError("the deviation over runs needs settings.runs of at least 2")
        return torch.stack(self.images).std(0)

    def curve(self, name: str, run: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Iterations and values of a column of the history, without NaN."""
        rows = (self.history["run"] == run) & ~np.isnan(self.history[name])
        return self.history["iteration"][rows], self.history[name][rows]


def _pixels(image: Tensor) -> np.ndarray:
    """An image (1, C, H, W), C of 1 or 3, as bytes (H, W) or (H, W, 3)."""
    array = image.detach().cpu()[0].permute(1, 2, 0).clamp(0, 1).double().numpy()
    array = np.round(255 * array).astype(np.uint8)
    return array[..., 0] if array.shape[2] == 1 else array


def _png(image: Tensor, side: int = 256) -> str:
    """An image as a PNG in base64, made smaller if it is large."""
    from PIL import Image

    factor = min(1.0, side / max(image.shape[2:]))
    if factor < 1:
        image = F.interpolate(image, scale_factor=factor, mode="area")
    buffer = io.BytesIO()
    Image.fromarray(_pixels(image)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
