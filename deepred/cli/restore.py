"""`deepred restore`: pictures of the user's own."""

from __future__ import annotations

import logging
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
from ..problem.noise import NoiseLevel, estimate

logger = logging.getLogger(__name__)

# Above so many pixels a network works in tiles: the presets were chosen on images of up to 512x768,
# and a larger one takes more iterations for the same fit. Sides of the tiles, the first that fits.
LARGE, SIDES = 1_500_000, (768, 512, 384, 256)
OVERLAP = {"denoise": 32, "inpaint": 32, "deblur": 64, "sr": 16}  # in pixels of the measurement


def restore(options) -> int:
    """`deepred restore`."""
    folder = Path(options.input)
    several = folder.is_dir()
    named = {name: getattr(options, name) for name in ("output", "compare", "confidence")}
    named = {name: Path(path) for name, path in named.items() if path is not None}
    if len({folder, *named.values()}) < 1 + len(named) and (several or len(named) > 1):
        raise InputError("INPUT, --output, --compare and --confidence must have different names")
    work = Work.of(options)
    sources = [folder]
    if several:
        sources = sorted(p for p in folder.iterdir() if p.suffix.lower() in images.SUFFIXES)
        if not sources:
            raise InputError(f"{folder}: no image in it, of {' '.join(images.SUFFIXES)}")
        for path in named.values():
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{path}: cannot be made a folder ({error.strerror})") from None
    failed = 0
    with Progress(len(sources) * work.iterations, options.method) as progress:
        for number, source in enumerate(sources):
            files = {name: p / source.name if several else p for name, p in named.items()}
            try:
                One(work, progress, number * work.iterations, source, **files).restore()
            except (InputError, DivergedError) as error:
                if not several:
                    raise
                failed += 1
                progress.line(f"deepred: {error}")
    if failed:
        progress.line(f"deepred: {failed} of {len(sources)} pictures were not restored")
    return 2 if failed else 0


@dataclass(frozen=True)
class Work:
    """What is asked for, whatever the picture."""

    options: object
    H: Callable[[Tensor], Tensor]
    setting: str | None  # the row of Table 1 whose settings are taken

    @classmethod
    def of(cls, options) -> Work:
        """Of the options; InputError where they do not go together."""
        for task, option, value in [
            ("sr", "--scale", options.scale),
            ("deblur", "--kernel", options.kernel),
            ("inpaint", "--mask", options.mask),
        ]:
            if value is not None and options.task != task:
                raise InputError(f"{option} belongs to --task {task}, not {options.task}")
        if options.stop is not None and options.method == "red":
            raise InputError("--stop has nothing to stop in --method red: leave it out")
        if options.patience is not None and options.stop not in stopping.NAMES[:2]:
            raise InputError(f"--patience belongs to --stop {' or '.join(stopping.NAMES[:2])}")
        if options.stop == "discrepancy" and options.sigma is None and options.task != "denoise":
            raise InputError(f"--stop discrepancy with --task {options.task} needs --sigma")
        engine.pick(options.device, options.precision)  # refused before anything is estimated
        H, setting = Identity(), None
        if options.task == "sr":
            H, setting = Downsample(options.scale or 4), "x8" if options.scale == 8 else "x4"
        elif options.task == "deblur":
            if options.kernel is None:
                raise InputError(f"--task deblur needs --kernel {'|'.join(KERNELS)}|FILE")
            setting = "gaussian" if options.kernel == "gauss25" else "uniform"
            H = Framed.of(read_kernel(options.kernel))
        elif options.task == "inpaint":
            if options.mask is None:
                raise InputError("--task inpaint needs --mask FILE, white where a pixel is to stay")
            H = read_mask(options.mask)
        work = cls(options, H, setting)
        if options.confidence and (options.method == "red" or work.settings(0.0).runs < 2):
            raise InputError("--confidence is the spread between runs: give --runs 2 or more, of a "
                             "method with a network")  # fmt: skip
        if options.denoiser is not None and options.method.startswith("dip"):
            logger.warning("--denoiser has no effect with --method %s", options.method)
        used = options.task == "denoise" or "deepred" in (options.method, options.stop)
        if options.sigma is not None and not used and options.stop != "discrepancy":
            what = f"--task {options.task} --method {options.method}"
            logger.warning("--sigma has no effect with %s", what)
        return work

    def settings(self, sigma: float | None, method: str | None = None):
        """Those of the preset, with what the options change; of the preview by RED alone."""
        o = self.options
        settings = presets.preset(
            "fast" if method else o.preset, o.task, method or o.method, self.setting,
            sigma=sigma or 0.0, denoiser="nlm" if method else o.denoiser,
        )  # fmt: skip
        if o.task == "deblur":
            settings = settings.replace(x_start="zeros")  # the image is larger than y: see Framed
        if method:  # of inpainting RED would take 200
            return settings.replace(iterations=min(settings.iterations, 30))
        if o.runs is not None and o.method != "red":
            settings = settings.replace(runs=o.runs)
        return settings if o.iterations is None else settings.replace(iterations=o.iterations)

    @property
    def iterations(self) -> int:
        """Of all runs on a picture."""
        settings = self.settings(0.0)
        return settings.iterations * settings.runs


@dataclass
class One:
    """A picture and the files that come of it."""

    work: Work
    progress: Progress
    before: int  # iterations of the pictures before it
    source: Path
    output: Path
    compare: Path | None = None
    confidence: Path | None = None

    def restore(self) -> None:
        """From the file to the files."""
        options, H = self.work.options, self.work.H
        self.picture = picture = images.read(self.source, white=options.white)
        images.check_output(self.output, picture)
        for path in filter(None, (self.compare, self.confidence)):
            images.check_output(path)
        self.scale = H.factor if options.task == "sr" else 1
        self.y, mask = picture.image, None
        if options.task == "deblur":
            _check_kernel(options, H, self.y)
        if options.task == "inpaint":
            try:
                self.y, mask = H(self.y), H.mask(self.y)
            except InputError as error:
                raise InputError(f"mask {options.mask}: {error}") from None
        self.opaque = None if picture.alpha is None else torch.from_numpy(picture.alpha > 0)
        self.sigma, told, strongest = self._noise()
        self.settings = settings = self.work.settings(strongest)
        tile, needed = self._tile(mask)
        self.places = boxes(*self.y.shape[2:], tile, OVERLAP[options.task])
        tiles = len(self.places)
        height, width = self.y.shape[2:]
        many = f" x {settings.runs} runs" if settings.runs > 1 else ""
        lines = [
            f"{self.source}: {width}x{height}, {'colour' if self.y.shape[1] == 3 else 'grey'}{told}"
            f"; {options.method}, preset {options.preset}: at most {settings.iterations} "
            f"iterations{many}, about {needed / 1e9:.1f} GB of memory"
            + (f", in {tiles} tiles of {self.scale * tile}" if tiles > 1 else "")
        ]
        checkpoints = [self._checkpoint(number) for number in range(tiles)]
        begun = any(path.exists() for path in checkpoints)
        replaces = self.output.exists()  # what is there may be better than a preview
        seconds = None
        if not begun:  # else a checkpoint may be refused, which is to be the only line
            self.progress.line(lines.pop())
        if options.method != "red" and not replaces and not begun and told is not None:
            seconds = self._preview(tile, mask)
        clock = Clock(tiles * self.work.iterations, seconds)

        def show(number: int, state) -> None:
            while lines:
                self.progress.line(lines.pop())
            done = (number * settings.runs + state.run) * settings.iterations + state.k
            if (line := clock.told(done)) is not None:
                self.progress.line(line)
            self.progress.reach(self.before + done // tiles)

        rule = options.stop
        patience = {} if options.patience is None else {"patience": options.patience}
        stop = rule and partial(stopping.named, rule, self.sigma, **patience)
        try:
            image, results = self._solve(
                tile, mask, options.method, settings,
                lambda n: dict(callback=partial(show, n), checkpoint=checkpoints[n], stop=stop),
            )  # fmt: skip
        except (DivergedError, KeyboardInterrupt) as error:
            if self.output.exists() and not replaces:
                raise type(error)(
                    f"{str(error) or 'the same command continues'}; {self.output} is the preview"
                ) from None
            raise
        except InputError:
            if not replaces:
                self.output.unlink(missing_ok=True)
            raise
        self._write(image, results)
        # Of an unfinished fit they stay: the same command with more iterations goes on from there.
        unfinished = [result for result in results if result.finished is False]
        if not unfinished or self.output.samefile(self.source):
            for path in checkpoints:
                path.unlink(missing_ok=True)
        if unfinished:
            where = f" in {len(unfinished)} of {tiles} tiles" if tiles > 1 else ""
            ending = max(unfinished, key=lambda result: result.residual).ending
            self.progress.line(ending.replace("fit not finished", f"fit not finished{where}"))
        most = max(settings.iterations, *(k for result in results for k in result.iterations))
        taken = f"{most} iterations x {settings.runs}"
        if tiles > 1:
            taken = f"{tiles} tiles, at most {taken}"
        elif rule is not None or min(results[0].iterations) < most:
            taken = f"iteration {', '.join(map(str, results[0].iterations))} of {most}"
        print(
            f"{self.output}: {options.method}, preset {options.preset}, {taken}, "
            f"{sum(result.seconds for result in results):.0f} s on {self.how}"
            + (f"; {results[0].ending}" if tiles == 1 and results[0].finished else "")
        )

    def _noise(self) -> tuple[float | None, str | None, float | None]:
        """The level that the runs are told, what is said of it, and the level that f is told.

        Noise that a compression or a change of size has correlated is white to no denoiser: f is
        told the upper bound.
        """
        options = self.work.options
        if options.sigma is not None:
            sigma = options.sigma / 255
            return sigma, f", noise sigma = {options.sigma:g} of 255", sigma
        if options.task != "denoise":
            return None, "", None
        # Transparent pixels hold anything; black ones the estimate leaves out.
        seen = self.y if self.opaque is None else self.y * self.opaque
        dip = options.method.startswith("dip") and options.stop != "discrepancy"
        try:
            level: NoiseLevel = estimate(seen)
        except InputError:
            if dip:
                return None, None, None
            raise InputError(
                f"{self.source}: no noise found in it; give its level with --sigma, of 255"
            ) from None
        self.level = level.sigma
        told = f", noise level estimated: {level.told('--sigma')}"
        sigma = None if dip else level.sigma
        return sigma, told, level.high if options.method == "deepred" else sigma

    def _tile(self, mask: Tensor | None) -> tuple[int, int]:
        """The side of the tiles, in pixels of y, and the bytes that one takes."""
        options, y = self.work.options, self.y
        whole = max(y.shape[2:])
        sides = [side // self.scale for side in SIDES if side // self.scale < whole]
        if options.tile is not None:
            sides = [options.tile // self.scale]
        elif options.method == "red" or y[0, 0].numel() * self.scale**2 <= LARGE:
            sides = [whole, *sides]
        for side in sides:
            shape = operators.image_shape(self.work.H, y[..., :side, :side].shape[1:])
            work = None if options.method == "red" else self.settings.channels * shape[1] * shape[2]
            self.how = engine.pick(options.device, options.precision, work=work)
            part = y[..., :side, :side]
            ones = None if mask is None else torch.ones_like(part)
            problem = self._problem(part, ones, options.method, self.settings)
            needs = Job(resolve(problem)).memory(self.how)
            try:
                check_memory(needs, self.how)
            except InputError:
                if side == sides[-1]:
                    raise
                continue
            return side, needs[0][0]

    def _problem(self, y: Tensor, mask: Tensor | None, method: str, settings, **more):
        """A part of the measurement as a problem."""
        H = self.work.H
        if mask is not None:
            if not mask.any():
                raise InputError("a tile without anything to see: give a larger --tile")
            H = Inpaint.of(mask[0])
        sigma = self.level if method == "red" and self.sigma is None else self.sigma
        return restoration.Problem(
            y, H, method, settings=settings, sigma=sigma, seed=self.work.options.seed, **more
        )

    level: float | None = None  # of the noise, estimated

    def _solve(self, tile: int, mask: Tensor | None, method: str, settings, more: Callable):
        """The image, and where a map is asked for the spread of its runs as the last channel."""
        numbers, results, channels = count(), [], self.y.shape[1]
        crop = getattr(self.work.H, "crop", lambda image: image)

        def one(part: Tensor) -> Tensor:
            holes = None if mask is None else part[:, channels:]
            options = more(next(numbers))
            problem = self._problem(part[:, :channels], holes, method, settings, **options)
            (result,) = restoration.restore_all([problem], engine=self.how)
            if isinstance(result, DivergedError):
                raise result
            image = result.image.cpu()
            if self.confidence and method != "red":
                spread = result.deviation.cpu().square().mean(1, keepdim=True).sqrt()
                image = torch.cat([image, spread], 1)
            results.append(replace(result, images=[]))
            return crop(image)

        seen = self.y if mask is None else torch.cat([self.y, mask], 1)
        return tiled(seen, one, self.scale, tile, OVERLAP[self.work.options.task]), results

    def _preview(self, tile: int, mask: Tensor | None) -> float:
        """Write what RED alone makes of it; the seconds that its full length takes."""
        settings = self.work.settings(self.sigma or self.level, "red")
        full = presets.RED[self.work.options.task]["iterations"]
        started = time.perf_counter()
        image, _ = self._solve(tile, mask, "red", settings, lambda _: {})
        seconds = time.perf_counter() - started
        images.write(self.output, self._as_written(image), self.work.options.quality)
        self.progress.line(
            f"{self.output}: a preview by RED alone, {_duration(seconds)}; the result replaces it"
        )
        return seconds * max(1, full / settings.iterations)

    def _as_written(self, image: Tensor) -> Picture:
        """The restoration, with what is seen through a mask and is transparent as it was."""
        given = self.picture.image
        if isinstance(self.work.H, Inpaint):
            image = image.where(self.work.H.mask(given) == 0, given)
        if self.opaque is not None and image.shape == given.shape:
            image = image.where(self.opaque, given)
        alpha = images.resized_alpha(self.picture.alpha, tuple(image.shape[2:]))
        return replace(self.picture, image=image, alpha=alpha)

    def _write(self, image: Tensor, results: list) -> None:
        """The result, the comparison and the map."""
        given, quality = self.picture.image, self.work.options.quality
        made = self._as_written(image[:, : given.shape[1]])
        images.write(self.output, made, quality)
        if self.compare:
            before = bicubic(given, self.scale) if self.scale > 1 else given
            images.write(self.compare, Picture(before_and_after(before, made.image)), quality)
        if self.confidence:
            spread = image[:, -1:]
            most = float(spread.max()) or 1.0
            images.write(self.confidence, Picture(spread / most), quality)
            self.progress.line(f"{self.confidence}: white is a spread of {255 * most:.1f} of 255")

    def _checkpoint(self, number: int) -> Path:
        """That of a tile."""
        name = self.output.name if len(self.places) == 1 else f"{self.output.name}.{number}"
        return self.output.with_name(f".{name}.checkpoint")


class Clock:
    """Tells the time that is left from the first iterations, once."""

    def __init__(self, total: int, red: float | None) -> None:
        self.total, self.red, self.first, self.done = total, red, None, False

    def told(self, done: int) -> str | None:
        """A line after ten iterations, or after two that took ten seconds; else None."""
        now = time.monotonic()
        if self.first is None:  # not timed: what is made once belongs to it
            self.first = done, now
        steps, seconds = done - self.first[0], now - self.first[1]
        if self.done or steps < 2 or (steps < 10 and seconds < 10):
            return None
        self.done, each = True, seconds / steps
        red = "" if self.red is None else f"; --method red would take {_duration(self.red)}"
        left = _duration(each * (self.total - done))
        return f"at most about {left} to go, at {each:.2g} s an iteration{red}"


def _duration(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"


def _check_kernel(options, H, y) -> None:
    """A kernel larger than the picture is a mistake, and would take for ever."""
    rows, columns = H.top + H.bottom + 1, H.left + H.right + 1
    height, width = y.shape[2:]
    if rows > height or columns > width:
        raise InputError(
            f"kernel {options.kernel}: {columns}x{rows} is larger than the image, "
            f"{width}x{height}: crop it to where it is not zero"
        )
