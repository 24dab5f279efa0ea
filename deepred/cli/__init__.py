"""The command line: deepred restore | run | reproduce | verify | bench | data."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from .. import __version__
from ..errors import DivergedError, InputError
from ..presets import METHODS, PRESETS

KERNELS = ("uniform9", "gauss25")
TASKS = ("denoise", "sr", "deblur", "inpaint")
DENOISERS = ("nlm", "bm3d", "tv", "wavelet", "bilateral", "median")
RULES = ("windowed-variance", "exponential-variance", "discrepancy")

logger = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` lists the options\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # a bad file is one line, ours
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.command(options)
    except InputError as error:
        print(f"deepred: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"deepred: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "deepred: interrupted; the same command continues from what was saved", file=sys.stderr
        )
        return 130
    except BrokenPipeError:  # `deepred data list | head`
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="deepred", description="DeepRED: deep image prior powered by RED.")
    parser.add_argument("--version", action="version", version=f"deepred {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    add = commands.add_parser("restore", help="restore an image of your own").add_argument
    add("input", metavar="INPUT", help="PNG, JPEG, TIFF or BMP")
    add("-o", "--output", required=True, metavar="OUTPUT", help="format by its suffix")
    add("--task", choices=TASKS, default="denoise")
    add("--sigma", type=_positive, metavar="25", help="noise level of 255; estimated if needed")
    add("--scale", type=int, choices=(2, 3, 4, 8), help="of --task sr, default 4")
    add("--kernel", metavar="|".join(KERNELS) + "|FILE", help="of --task deblur")
    text = "of --task inpaint: an image, white where a pixel is to stay, or .npy of 0 and 1"
    add("--mask", metavar="FILE", help=text)
    add("--method", choices=METHODS, default="deepred")
    add("--denoiser", choices=DENOISERS, help="f of RED; the preset's if absent")
    add("--preset", choices=PRESETS, default="fast")
    text = "of each run at most; the preset's if absent. More of them continue an unfinished fit"
    add("--iterations", type=_whole, metavar="N", help=text)
    text = "end each run early by a rule that needs no truth; discrepancy goes by --sigma"
    add("--stop", choices=RULES, help=text)
    text = "of --stop with a variance: iterations without a smaller one, default 1000"
    add("--patience", type=_whole, metavar="N", help=text)
    add("--seed", type=_natural, default=0, metavar="N")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    text = "of the network's products; auto: on a GPU tf32, on a CPU float32"
    add("--precision", choices=("auto", "float32", "tf32", "bf16"), default="auto", help=text)
    add.__self__.set_defaults(command=_restore)

    for name, text in [
        ("reproduce", "compute an experiment's runs, then its notebooks, figures and tables"),
        ("run", "compute the runs alone, without Jupyter"),
    ]:
        add = commands.add_parser(name, help=text).add_argument
        add("--profile", default="quick", metavar="smoke|quick|paper")
        text = "experiments, or parts of the paper such as figure3; default all"
        add("--only", nargs="+", default=[], metavar="NAME", help=text)
        add("--seeds", nargs="+", type=_natural, default=[0], metavar="N")
        add("--device", choices=("auto", "cpu", "cuda"), default="auto")
        add("--workers", type=_whole, metavar="N", help="processes, default one a core")
        text = "runs of one size that take turns on a GPU, default as many as pay"
        add("--batch", type=_whole, metavar="N", help=text)
        text = "send the runs to a dask.distributed scheduler instead, tcp://host:8786"
        add("--dask", metavar="ADDRESS", help=text)
        if name == "run":
            text = "only runs with all these in their title, such as woman x4 red"
            add("--match", nargs="+", default=[], metavar="WORD", help=text)
            add("--store", type=_folder, default="reproduction/store", metavar="DIR")
            text = "stop in time, 9m or 2h; the same command continues"
            add("--budget", type=_duration, metavar="TIME", help=text)
            text = "pack the store for results merge when all is done, or time is up"
            add("--pack", metavar="FILE.zip", help=text)
            text = "list the runs: done, to do, or why they cannot be computed here"
            add("--dry-run", action="store_true", help=text)
            add.__self__.set_defaults(command=_run)
        else:
            add("--out", type=_folder, default="reproduction", metavar="DIR")
            add.__self__.set_defaults(command=_reproduce)

    stores = commands.add_parser("results", help="stores of results: merge, export, diff, pack")
    actions = stores.add_subparsers(
        required=True, metavar="merge|export|diff|pack", parser_class=_Parser
    )
    add = actions.add_parser("merge", help="take what other stores, or packed ones, have")
    add.add_argument("sources", nargs="+", metavar="STORE")
    add.add_argument("--into", required=True, type=_folder, metavar="STORE")
    add.set_defaults(command=_results_merge)
    add = actions.add_parser("export", help="write runs.csv and curves/ for a repository")
    add.add_argument("store", metavar="STORE")
    add.add_argument("folder", type=_folder, metavar="FOLDER")
    text = "and what FOLDER has already stays, unless computed anew"
    add.add_argument("--keep", action="store_true", help=text)
    add.add_argument("--images", action="store_true", help="and the restored images")
    add.set_defaults(command=_results_export)
    add = actions.add_parser("diff", help="two stores or exports side by side")
    add.add_argument("a", metavar="A")
    add.add_argument("b", metavar="B")
    add.add_argument("--csv", action="store_true", help="all columns, as CSV")
    add.set_defaults(command=_results_diff)
    add = actions.add_parser("pack", help="a few small files that merge takes")
    add.add_argument("store", metavar="STORE")
    add.add_argument("file", metavar="FILE.zip")
    add.set_defaults(command=_results_pack)

    text = "recompute the paper's deterministic numbers on the images that are here"
    commands.add_parser("verify", help=text).set_defaults(command=_verify)

    text = "time the engine and the denoisers on this machine, beside their references"
    add = commands.add_parser("bench", help=text).add_argument
    add("--json", action="store_true", help="print all figures as JSON")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--only", nargs="+", metavar="SECTION", help="what to time, default all of it")
    text = "of the images on which the iteration is timed, default 128 256 512"
    add("--sides", nargs="+", type=_whole, metavar="PX", help=text)
    add("--compile", action="store_true", help="time torch.compile, too, which takes minutes")
    add.__self__.set_defaults(command=_bench)

    data = commands.add_parser("data", help="the paper's images")
    actions = data.add_subparsers(required=True, metavar="list|fetch", parser_class=_Parser)
    for name, text, command in [
        ("list", "what the registry has, and what is here", _data_list),
        ("fetch", "download from the public sources, hashes checked", _data_fetch),
    ]:
        add = actions.add_parser(name, help=text).add_argument
        add("names", nargs="*", metavar="NAME", help="data sets (set5) or images (set5/bird)")
        add.__self__.set_defaults(command=command)
    return parser


# Commands -----------------------------------------------------------------------------------------


def _restore(options) -> int:
    from .. import operators, restoration
    from ..batch.progress import Progress
    from ..beyond import stopping
    from ..compute import engine
    from ..io import images
    from ..noise import estimate

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
    if options.patience is not None and options.stop not in RULES[:2]:
        raise InputError(f"--patience belongs to --stop {' or '.join(RULES[:2])}")
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
    from ..beyond.operators import Framed
    from ..io.kernels import read_kernel, read_mask
    from ..operators import Downsample, Identity

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
    from ..presets import preset

    settings = preset(
        options.preset, options.task, options.method, setting,
        sigma=sigma or 0.0, denoiser=options.denoiser,
    )  # fmt: skip
    if options.task == "deblur":
        settings = settings.replace(x_start="zeros")  # the image is larger than y: see Framed
    if options.iterations is not None:
        settings = settings.replace(iterations=options.iterations)
    return settings


def _run(options) -> int:
    from ..paper import experiments
    from ..paper.store import Store

    store = Store(options.store)
    runs = experiments.plan(options.profile, options.only, tuple(options.seeds))
    if not runs:
        other = (
            "use --profile paper" if options.profile != "paper" else "deepred reproduce draws it"
        )
        raise InputError(
            f"profile {options.profile} has no runs of {', '.join(options.only)}: {other}"
        )
    runs = [run for run in runs if set(options.match) <= set(run.title.split())]
    if not runs:
        raise InputError("--match: no run of these has all the words; --dry-run lists them")
    if options.dry_run:
        _dry_run(runs, store)
        return 0
    outcome = _compute(runs, store, options, options.budget)
    failures = outcome.failures(store)
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    status = 1 if failures or not (outcome.done or outcome.left) else 0
    if options.pack:
        from ..batch import results

        for path in results.pack(store, options.pack):
            print(path)
    return status


def _dry_run(runs, store) -> None:
    """The runs, each with its state."""
    from ..paper import execution, experiments

    count = dict.fromkeys(("done", "to do", "cannot"), 0)
    for run in runs:
        absent = experiments.missing(run)
        state = "cannot" if absent else "done" if execution.find(run, store) else "to do"
        count[state] += 1
        line = f"{state:8s}  {run.experiment:12s} {run.title:46s} {run.iterations:6d} iterations"
        print(f"{line}  {absent or ''}".rstrip())
    print(", ".join(f"{number} {state}" for state, number in count.items()))


def _compute(runs, store, options, budget: float | None = None):
    """Compute runs, here or on a cluster, and say which cannot be."""
    if options.dask:
        from ..batch import cluster

        for option in ("workers", "batch", "budget"):
            if getattr(options, option, None):
                raise InputError(f"--{option} is for this machine: leave it out with --dask")
        outcome = cluster.compute(runs, store, options.dask, device=options.device)
    else:
        from ..batch import runner

        outcome = runner.compute(
            runs, store, device=options.device, workers=options.workers, budget=budget,
            batch=options.batch,
        )  # fmt: skip
    for reason in dict.fromkeys(reason for _, reason in outcome.absent):
        print(f"not computed: {reason}", file=sys.stderr)
    return outcome


def _results_merge(options) -> int:
    from ..batch import results
    from ..paper.store import Store

    store = Store(options.into)
    for source in options.sources:
        merged = results.merge(store, source)
        told = f"{len(merged.new)} new, {len(merged.had)} there already"
        told += f", {len(merged.continued)} begun" if merged.continued else ""
        if merged.differ:
            told += f"; {len(merged.differ)} of those with another result, which was not taken: "
            told += ", ".join(merged.differ)
        print(f"{source}: {told}")
    return 0


def _results_export(options) -> int:
    store = _store(options.store)
    store.export(options.folder, keep=options.keep, images=options.images)
    print(f"{options.folder}: {len(store.records())} runs of {options.store}")
    return 0


def _results_diff(options) -> int:
    from ..batch import results

    table = results.side_by_side(options.a, options.b)
    if options.csv:
        print(table.to_csv(index=False), end="")
        return 0
    print(f"A is {options.a}, B is {options.b}\n")
    print(table.to_string(index=False, na_rep="", float_format="{:.2f}".format))
    both = table["B - A [dB]"].dropna()
    print(f"\n{len(both)} in both, {len(table) - len(both)} in one", end="")
    print(f"; B - A is {both.mean():+.2f} dB on average" if len(both) else "")
    return 0


def _results_pack(options) -> int:
    from ..batch import results

    for path in results.pack(_store(options.store), options.file):
        print(path)
    return 0


def _store(folder: str):
    """A store that is there."""
    from ..paper.store import Store

    if not (Path(folder) / "records").is_dir():
        raise InputError(f"{folder}: no store of results; deepred run makes one")
    return Store(folder)


def _reproduce(options) -> int:
    from ..batch import reproduce

    return reproduce.reproduce(options, _compute)


def _verify(options) -> int:
    from ..paper import verify

    absent = verify.missing()
    if len(absent) == len(verify.SETS):
        raise InputError("; ".join(absent.values()))
    for name, reason in absent.items():
        print(f"not checked, {name}: {reason}", file=sys.stderr)
    print(verify.HEADER)
    off = 0
    for line in verify.lines():
        print(line, flush=True)
        off += not line.agrees
    count = f"{off} of them" if off else "none"
    print(f"off by more than {verify.TOLERANCE} dB: {count}")
    return 1 if off else 0


def _bench(options) -> int:
    from ..paper import bench, tables

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    only = options.only or bench.SECTIONS
    for name in only:
        if name not in bench.SECTIONS:
            raise InputError(f"unknown section {name!r}; known are {', '.join(bench.SECTIONS)}")
    sides = options.sides or bench.SIDES
    result = bench.run(options.device, sides, only=only, compiled=options.compile, say=say)
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    for title, table in bench.tables(result).items():
        print(f"\n{title}\n\n{tables.markdown(table)}")
    return 0


def _data_list(options) -> int:
    from ..io import datasets

    for entry in datasets.select(options.names):
        size = f"{entry.width}x{entry.height}"
        print(f"{datasets.status(entry):8s}  {entry!s:24s} {size:>9s}  {entry.licence}")
    return 0


def _data_fetch(options) -> int:
    from ..io import datasets

    failed = 0
    for entry in datasets.select(options.names):
        try:
            print(datasets.fetch(entry))
        except datasets.DownloadError as error:
            print(f"deepred: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


# Types of options ---------------------------------------------------------------------------------


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 255:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 255, got {text}")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**40:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 2**40, got {text}")
    return value


def _duration(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number = text[:-1] if text[-1:] in units else text
    seconds = float(number) * units.get(text[-1:], 1)
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return seconds


def _folder(text: str) -> str:
    try:
        nearest = next(path for path in (Path(text), *Path(text).parents) if path.exists())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise argparse.ArgumentTypeError(f"{nearest} is no folder that can be written to")
    return text


# argparse names the type in its message: "invalid number value: 'abc'".
_positive.__name__, _whole.__name__, _natural.__name__ = "number", "whole number", "whole number"
_duration.__name__ = "time (such as 90s, 9m or 2h)"

if __name__ == "__main__":
    sys.exit(main())
