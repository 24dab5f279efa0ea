"""`deepred restore`: an image of the user's own."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from .. import operators, presets, restoration
from ..batch.progress import Progress
from ..beyond import stopping
from ..beyond.operators import Framed
from ..compute import engine
from ..errors import InputError
from ..io import images
from ..io.kernels import KERNELS, read_kernel, read_mask
from ..operators import Downsample, Identity
from ..problem.noise import estimate

logger = logging.getLogger(__name__)


def restore(options) -> int:
    """`deepred restore`."""
    images.check_output(options.output)
    H, setting = _operator(options)
    picture = images.read(options.input)
    images.check_output(options.output, picture)
    y = picture.image
    if options.task == "deblur":
        _check_kernel(options, H, y)
    if options.task == "inpaint":
        y = _masked(options, H, y)
    if options.stop is not None and options.method == "red":
        raise InputError("--stop has nothing to stop in --method red: leave it out")
    if options.patience is not None and options.stop not in stopping.NAMES[:2]:
        raise InputError(f"--patience belongs to --stop {' or '.join(stopping.NAMES[:2])}")
    engine.pick(options.device, options.precision)  # refused now, before anything is estimated
    sigma = None if options.sigma is None else options.sigma / 255
    dip = options.method.startswith("dip")
    discrepancy = options.stop == "discrepancy"
    if discrepancy and sigma is None and options.task != "denoise":
        raise InputError(f"--stop discrepancy with --task {options.task} needs --sigma")
    estimated = sigma is None and options.task == "denoise" and (not dip or discrepancy)
    if estimated:
        try:
            level = estimate(y)
            sigma = level.sigma
        except InputError:
            raise InputError(
                f"{options.input}: no noise found in it; give its level with --sigma, of 255"
            ) from None
    # Noise that a compression or a change of size has correlated is white to no denoiser: f is told
    # the upper bound.
    strongest = level.high if estimated and options.method == "deepred" else sigma
    settings = _settings(options, setting, strongest)
    shape = operators.image_shape(H, y.shape[1:])
    work = settings.channels * shape[1] * shape[2]
    how = engine.pick(options.device, options.precision, work=work)
    if options.denoiser is not None and dip:
        logger.warning("--denoiser has no effect with --method %s", options.method)
    used = options.task == "denoise" or options.method == "deepred" or discrepancy
    if options.sigma is not None and not used:
        what = f"--task {options.task} --method {options.method}"
        logger.warning("--sigma has no effect with %s", what)
    output = Path(options.output)
    checkpoint = output.with_name(f".{output.name}.checkpoint")
    patience = {} if options.patience is None else {"patience": options.patience}
    with Progress(settings.iterations * settings.runs, options.method) as progress:

        def show(state) -> None:
            done = state.run * settings.iterations + state.k
            if estimated and progress.n == 0:
                # Not before: a refusal, of the checkpoint say, is to be the only line.
                progress.line(f"noise level estimated: {level.told('--sigma')}")
            progress.reach(done)

        result = restoration.restore(
            y, H, method=options.method, settings=settings, sigma=sigma,
            seed=options.seed, engine=how, callback=show,
            checkpoint=checkpoint,
            stop=options.stop and partial(stopping.named, options.stop, sigma, **patience),
        )  # fmt: skip
    image = H.crop(result.image) if hasattr(H, "crop") else result.image
    if options.task == "inpaint":  # what is seen stays as it is
        image = image.cpu().where(H.mask(y) == 0, y)
    alpha = images.resized_alpha(picture.alpha, tuple(image.shape[2:]))
    images.write(output, images.Picture(image, picture.bits, alpha, picture.profile))
    # Of an unfinished fit it stays: the same command with more iterations goes on from there.
    if result.finished is not False or output.samefile(options.input):
        checkpoint.unlink(missing_ok=True)
    most = max(settings.iterations, *result.iterations)
    taken = f"{most} iterations x {settings.runs}"
    if options.stop is not None or min(result.iterations) < most:
        taken = f"iteration {', '.join(map(str, result.iterations))} of {most}"
    print(
        f"{output}: {options.method}, preset {options.preset}, {taken}, {result.seconds:.0f} s on "
        f"{how}" + (f"; {result.ending}" if result.finished else "")
    )
    return 0


def _operator(options):
    """H of the task, and the row of Table 1 whose settings it takes."""
    for task, option, value in [
        ("sr", "--scale", options.scale),
        ("deblur", "--kernel", options.kernel),
        ("inpaint", "--mask", options.mask),
    ]:
        if value is not None and options.task != task:
            raise InputError(f"{option} belongs to --task {task}, not {options.task}")
    if options.task == "sr":
        factor = options.scale or 4
        return Downsample(factor), "x8" if factor == 8 else "x4"
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


def _masked(options, H, y):
    """The measurement: the picture where the mask is white."""
    try:
        return H(y)
    except InputError as error:
        raise InputError(f"mask {options.mask}: {error}") from None


def _check_kernel(options, H, y) -> None:
    """A kernel larger than the picture is a mistake, and would take for ever."""
    rows, columns = H.top + H.bottom + 1, H.left + H.right + 1
    height, width = y.shape[2:]
    if rows > height or columns > width:
        raise InputError(
            f"kernel {options.kernel}: {columns}x{rows} is larger than the image, "
            f"{width}x{height}: crop it to where it is not zero"
        )


def _settings(options, setting: str | None, sigma: float | None):
    """Those of the preset, with what the options change."""
    settings = presets.preset(
        options.preset, options.task, options.method, setting,
        sigma=sigma or 0.0, denoiser=options.denoiser,
    )  # fmt: skip
    if options.task == "deblur":
        settings = settings.replace(x_start="zeros")  # the image is larger than y: see Framed
    if options.iterations is not None:
        settings = settings.replace(iterations=options.iterations)
    return settings
