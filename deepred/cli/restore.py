"""`deepred restore`: pictures of the user's own."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from .. import operators, presets, restoration
from ..batch.progress import Progress
from ..beyond import stopping
from ..beyond.operators import Framed
from ..compute import engine
from ..compute.job import Job
from ..compute.memory import check_memory
from ..compute.tiles import boxes, tiled
from ..errors import DivergedError, InputError
from ..io import images
from ..io.images import Picture
from ..io.kernels import KERNELS, read_kernel, read_mask
from ..io.panels import before_and_after
from ..io.resize import bicubic
from ..operators import Downsample, Identity, Inpaint
from ..problem import resolve
from ..problem.noise import estimate
from ..settings import Settings

logger = logging.getLogger(__name__)

# Above so many pixels a network works in tiles: the presets were chosen on images of up to 512x768,
# and a larger one takes more iterations for the same fit. Sides of the tiles, the first that fits.
LARGE, SIDES = 1_500_000, (768, 512, 384, 256)
OVERLAP = {"denoise": 32, "inpaint": 32, "deblur": 64, "sr": 16}  # in pixels of the measurement
MOST = 30  # iterations of the preview by RED alone; of inpainting its preset has 200


def restore(options) -> int:
    """`deepred restore`."""
    given, several = Path(options.input), Path(options.input).is_dir()
    named = {name: getattr(options, name) for name in ("output", "compare", "confidence")}
    named = {name: Path(path) for name, path in named.items() if path is not None}
    files = {os.path.realpath(path) for path in (given, *named.values())}
    if len(files) < 1 + len(named) and (several or len(named) > 1):
        raise InputError("INPUT, --output, --compare and --confidence must have different names")
    H, setting = _operator(options)
    settings = partial(_settings, options, setting)
    _check(options, settings(0.0).runs)
    sources = [given]
    if several:
        sources = sorted(
            path for path in given.iterdir()
            if path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".")
        )  # fmt: skip
        if not sources:
            raise InputError(f"{given}: no image in it, of {' '.join(images.SUFFIXES)}")
        for path in named.values():
            if path.exists() and not path.is_dir():
                raise InputError(f"{path}: a file, and what comes of a folder needs a folder")
            path.mkdir(parents=True, exist_ok=True)
    done, failed, each = [], 0, settings(0.0).iterations * settings(0.0).runs
    with Progress(len(sources) * each, options.method) as progress:
        for number, source in enumerate(sources):
            files = {name: p / source.name if several else p for name, p in named.items()}
            try:
                one = One(options, H, settings, progress, number * each, source, **files)
                done += one.restore()
            except (InputError, DivergedError) as error:
                if not several:
                    raise
                failed += 1
                progress.line(f"deepred: {error}")
        # Until then the same command, interrupted and given again, does not compute them again.
        for path in done:
            path.unlink(missing_ok=True)
        if failed:
            progress.line(f"deepred: {failed} of {len(sources)} pictures were not restored")
    return 2 if failed else 0


@dataclass
class One:
    """A picture and the files that come of it."""

    options: object
    H: Callable[[Tensor], Tensor]
    settings_at: Callable[..., Settings]  # of the noise level, and whether of the preview
    progress: Progress
    before: int  # iterations of the pictures before it
    source: Path
    output: Path
    compare: Path | None = None
    confidence: Path | None = None

    def restore(self) -> list[Path]:
        """From the file to the files; returns the checkpoints that are no longer needed."""
        options, H = self.options, self.H
        self.picture = images.read(self.source, white=options.white)
        images.check_output(self.output, self.picture)
        for path in filter(None, (self.compare, self.confidence)):
            images.check_output(path)
        self.y, self.mask, self.scale = self.picture.image, None, getattr(H, "factor", 1)
        height, width = self.y.shape[2:]
        if options.task == "deblur":  # it would take for ever
            rows, columns = H.top + H.bottom + 1, H.left + H.right + 1
            if rows > height or columns > width:
                raise InputError(
                    f"kernel {options.kernel}: {columns}x{rows} is larger than the image, "
                    f"{width}x{height}: crop it to where it is not zero"
                )
        if options.task == "inpaint":
            try:
                self.y, self.mask = H(self.y), H.mask(self.y)
            except InputError as error:
                raise InputError(f"mask {options.mask}: {error}") from None
        alpha = self.picture.alpha
        self.opaque = None if alpha is None else torch.from_numpy(alpha > 0)
        told, strongest = self._noise()
        self.settings = settings = self.settings_at(strongest)
        self.tile, needed = self._tile()
        tiles = len(boxes(height, width, self.tile, OVERLAP[options.task]))
        name = self.output.name
        checkpoints = [
            self.output.with_name(f".{name}{f'.{n}' if tiles > 1 else ''}.checkpoint")
            for n in range(tiles)
        ]
        lines = [
            f"{self.source}: {width}x{height}, {'colour' if self.y.shape[1] == 3 else 'grey'}{told}"
            f"; {options.method}, preset {options.preset}: at most {settings.iterations} iterations"
            + (f" x {settings.runs} runs" if settings.runs > 1 else "")
            + f", about {needed / 1e9:.1f} GB of memory"
            + (f", in {tiles} tiles of {self.scale * self.tile}" if tiles > 1 else "")
        ]
        clock, previewed = Clock(tiles * settings.runs * settings.iterations), False
        if not any(path.exists() for path in checkpoints):  # one that is refused is the only line
            self.progress.line(lines.pop())
            # What is there already may be better than a preview.
            blind = options.task == "denoise" and not (self.sigma or self.level)
            if options.method != "red" and not blind and not self.output.exists():
                clock.red, previewed = self._preview(), True

        def show(number: int, state) -> None:
            done = (number * settings.runs + state.run) * settings.iterations + state.k
            for line in (*lines, clock.told(done)):
                if line:
                    self.progress.line(line)
            lines.clear()
            self.progress.reach(self.before + done // tiles)

        more = {} if options.patience is None else {"patience": options.patience}
        stop = options.stop and partial(stopping.named, options.stop, self.sigma, **more)
        try:
            image, results = self._solve(
                options.method, settings,
                lambda n: dict(callback=partial(show, n), checkpoint=checkpoints[n], stop=stop),
            )  # fmt: skip
        except (DivergedError, InputError, KeyboardInterrupt) as error:
            if previewed:
                told = str(error) or "the same command continues"
                error.args = (f"{told}; {self.output} is the preview",)
            raise
        self._write(image)
        # Of an unfinished fit they stay: the same command with more iterations goes on from there.
        unfinished = [result for result in results if result.finished is False]
        if unfinished:
            where = f" in {len(unfinished)} of {tiles} tiles" if tiles > 1 else ""
            ending = max(unfinished, key=lambda result: result.residual).ending
            self.progress.line(ending.replace("fit not finished", f"fit not finished{where}"))
        iterations = [k for result in results for k in result.iterations]
        most = max(settings.iterations, *iterations)
        taken = f"{most} iterations x {settings.runs}"
        if tiles > 1:
            taken = f"{tiles} tiles, at most {taken}"
        elif options.stop is not None or min(iterations) < most:
            taken = f"iteration {', '.join(map(str, iterations))} of {most}"
        print(
            f"{self.output}: {options.method}, preset {options.preset}, {taken}, "
            f"{sum(result.seconds for result in results):.0f} s on {self.how}"
            + (f"; {results[0].ending}" if tiles == 1 and results[0].finished else "")
        )
        return [] if unfinished and not self.output.samefile(self.source) else checkpoints

    def _noise(self) -> tuple[str, float | None]:
        """What is said of the noise, and the level that f is told.

        `sigma` is what the runs are told, `level` the estimate. Noise that a compression or a
        change of size has correlated is white to no denoiser: f is told the upper bound.
        """
        options, self.sigma, self.level = self.options, None, None
        if options.sigma is not None:
            self.sigma = options.sigma / 255
            return f", noise sigma = {options.sigma:g} of 255", self.sigma
        if options.task != "denoise":
            return "", None
        free = options.method.startswith("dip") and options.stop != "discrepancy"
        try:  # transparent pixels hold anything; black ones the estimate leaves out
            found = estimate(self.y if self.opaque is None else self.y * self.opaque)
        except InputError:
            if free:
                return "", None
            raise InputError(
                f"{self.source}: no noise found in it; give its level with --sigma, of 255"
            ) from None
        self.level = found.sigma
        self.sigma = None if free else found.sigma
        strongest = found.high if options.method == "deepred" else self.sigma
        return f", noise level estimated: {found.told('--sigma')}", strongest

    def _tile(self) -> tuple[int, int]:
        """The side of the tiles, in pixels of y, and the bytes that one takes."""
        options, y = self.options, self.y
        whole, red = max(y.shape[2:]), options.method == "red"
        sides = [side // self.scale for side in SIDES if side // self.scale < whole]
        if options.tile is not None:
            sides, least = [options.tile // self.scale], 2 * OVERLAP[options.task]
            if least >= sides[0] < whole:
                raise InputError(
                    f"--tile {options.tile}: its overlap with others leaves nothing of it; give "
                    f"more than {self.scale * (least + 1)}"
                )
        elif red or y[0, 0].numel() * self.scale**2 <= LARGE:
            sides = [whole, *sides]
        for side in sides:
            part = y[..., :side, :side]
            _, height, width = operators.image_shape(self.H, part.shape[1:])
            work = None if red else self.settings.channels * height * width
            self.how = engine.pick(options.device, options.precision, work=work)
            ones = None if self.mask is None else torch.ones_like(part)
            problem = self._problem(part, ones, options.method, self.settings)
            needs = Job(resolve(problem)).memory(self.how)
            try:
                check_memory(needs, self.how)
                return side, needs[0][0]
            except InputError:
                if side == sides[-1]:
                    raise

    def _problem(self, y: Tensor, mask: Tensor | None, method: str, settings: Settings, **more):
        """A part of the measurement as a problem."""
        if mask is not None and not mask.any():
            raise InputError("a tile has nothing to see: give a larger --tile")
        return restoration.Problem(
            y, self.H if mask is None else Inpaint.of(mask[0]), method, settings=settings,
            sigma=self.sigma or (self.level if method == "red" else None), seed=self.options.seed,
            **more,
        )  # fmt: skip

    def _solve(self, method: str, settings: Settings, more: Callable[[int], dict]):
        """The image, and where a map is asked for the spread of its runs as the last channel."""
        numbers, results, channels = count(), [], self.y.shape[1]
        spread = self.confidence and method != "red"
        crop = getattr(self.H, "crop", lambda image: image)

        def one(part: Tensor) -> Tensor:
            mask = None if self.mask is None else part[:, channels:]
            problem = self._problem(
                part[:, :channels], mask, method, settings, **more(next(numbers))
            )
            (result,) = restoration.restore_all([problem], engine=self.how)
            if isinstance(result, DivergedError):
                raise result
            parts = [result.image]
            if spread:
                parts.append(result.deviation.square().mean(1, keepdim=True).sqrt())
            results.append(replace(result, image=None, images=[], y=None, history={}))
            return crop(torch.cat(parts, 1).cpu())

        seen = self.y if self.mask is None else torch.cat([self.y, self.mask], 1)
        return tiled(seen, one, self.scale, self.tile, OVERLAP[self.options.task]), results

    def _preview(self) -> float:
        """Write what RED alone makes of it; the seconds that --method red would take."""
        settings, started = self.settings_at(self.sigma or self.level, True), time.perf_counter()
        fewer = settings.replace(iterations=min(settings.iterations, MOST))
        image, _ = self._solve("red", fewer, lambda _: {})
        seconds = time.perf_counter() - started
        images.write(self.output, self._as_written(image), self.options.quality)
        told = f"a preview by RED alone, {_duration(seconds)}; the result replaces it"
        self.progress.line(f"{self.output}: {told}")
        return seconds * settings.iterations / fewer.iterations

    def _as_written(self, image: Tensor) -> Picture:
        """The restoration, with what is seen through a mask or is transparent as it was."""
        given = self.picture.image
        if self.mask is not None:
            image = image.where(self.mask == 0, given)
        if self.opaque is not None and image.shape == given.shape:
            image = image.where(self.opaque, given)
        alpha = images.resized_alpha(self.picture.alpha, tuple(image.shape[2:]))
        return replace(self.picture, image=image, alpha=alpha)

    def _write(self, image: Tensor) -> None:
        """The result, the comparison and the map."""
        given, quality = self.picture.image, self.options.quality
        made = self._as_written(image[:, : given.shape[1]])
        images.write(self.output, made, quality)
        if self.compare:
            before = bicubic(given, self.scale) if self.scale > 1 else given
            images.write(self.compare, Picture(before_and_after(before, made.image)), quality)
        if self.confidence:
            most = float(image[:, -1].max()) or 1.0
            images.write(self.confidence, Picture(image[:, -1:] / most), quality)
            self.progress.line(f"{self.confidence}: white is a spread of {255 * most:.1f} of 255")


@dataclass
class Clock:
    """Tells the time that is left, once, from the first iterations of the run itself."""

    total: int
    red: float | None = None  # seconds
    first: tuple[int, float] | None = None
    done: bool = False

    def told(self, done: int) -> str | None:
        """A line after ten iterations, or after two that took ten seconds; else None."""
        now = time.monotonic()
        self.first = self.first or (done, now)  # not timed: what is made once belongs to it
        steps, seconds = done - self.first[0], now - self.first[1]
        if self.done or steps < 2 or (steps < 10 and seconds < 10):
            return None
        self.done, each = True, seconds / steps
        red = "" if self.red is None else f"; --method red would take {_duration(self.red)}"
        left = _duration(each * (self.total - done))
        return f"at most {left} to go, at {each:.2g} s an iteration{red}"


def _duration(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"


def _operator(options) -> tuple[Callable[[Tensor], Tensor], str | None]:
    """H of the task, and the row of Table 1 whose settings it takes."""
    for task, option in (("sr", "scale"), ("deblur", "kernel"), ("inpaint", "mask")):
        if getattr(options, option) is not None and options.task != task:
            raise InputError(f"--{option} belongs to --task {task}, not {options.task}")
    if options.task == "sr":
        return Downsample(options.scale or 4), "x8" if options.scale == 8 else "x4"
    if options.task == "deblur":
        if options.kernel is None:
            raise InputError(f"--task deblur needs --kernel {'|'.join(KERNELS)}|FILE")
        setting = "gaussian" if options.kernel == "gauss25" else "uniform"
        return Framed.of(read_kernel(options.kernel)), setting
    if options.task == "inpaint":
        if options.mask is None:
            raise InputError("--task inpaint needs --mask FILE, white where a pixel is to stay")
        return read_mask(options.mask), None
    return Identity(), None


def _check(options, runs: int) -> None:
    """That the options go together."""
    engine.pick(options.device, options.precision)
    if options.stop is not None and options.method == "red":
        raise InputError("--stop has nothing to stop in --method red: leave it out")
    if options.patience is not None and options.stop not in stopping.NAMES[:2]:
        raise InputError(f"--patience belongs to --stop {' or '.join(stopping.NAMES[:2])}")
    discrepancy = options.stop == "discrepancy"
    if discrepancy and options.sigma is None and options.task != "denoise":
        raise InputError(f"--stop discrepancy with --task {options.task} needs --sigma")
    if options.confidence is not None and (options.method == "red" or runs < 2):
        raise InputError(
            "--confidence is the spread between runs: give --runs 2 or more, and no --method red"
        )
    if options.denoiser is not None and options.method.startswith("dip"):
        logger.warning("--denoiser has no effect with --method %s", options.method)
    used = options.task == "denoise" or options.method == "deepred" or discrepancy
    if options.sigma is not None and not used:
        what = f"--task {options.task} --method {options.method}"
        logger.warning("--sigma has no effect with %s", what)


def _settings(options, setting: str | None, sigma: float | None, preview=False) -> Settings:
    """Those of the preset, with what the options change; or those of RED alone by NLM."""
    settings = presets.preset(
        "fast" if preview else options.preset, options.task, "red" if preview else options.method,
        setting, sigma=sigma or 0.0, denoiser="nlm" if preview else options.denoiser,
    )  # fmt: skip
    if options.task == "deblur":
        settings = settings.replace(x_start="zeros")  # the image is larger than y: see Framed
    runs = None if options.method == "red" else options.runs
    asked = {} if preview else {"iterations": options.iterations, "runs": runs}
    return settings.replace(**{name: value for name, value in asked.items() if value is not None})
