"""The command line: deepred restore | run | reproduce | verify | bench | data."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from .. import __version__
from ..beyond.stopping import NAMES as RULES
from ..denoisers import NAMES as DENOISERS
from ..errors import DivergedError, InputError
from ..io.kernels import KERNELS
from ..presets import METHODS, PRESETS

TASKS = ("denoise", "sr", "deblur", "inpaint")

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
    add.__self__.set_defaults(command=_command("restore", "restore"))

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
            add.__self__.set_defaults(command=_command("commands", "run"))
        else:
            add("--out", type=_folder, default="reproduction", metavar="DIR")
            add.__self__.set_defaults(command=_command("commands", "reproduce"))

    stores = commands.add_parser("results", help="stores of results: merge, export, diff, pack")
    actions = stores.add_subparsers(
        required=True, metavar="merge|export|diff|pack", parser_class=_Parser
    )
    add = actions.add_parser("merge", help="take what other stores, or packed ones, have")
    add.add_argument("sources", nargs="+", metavar="STORE")
    add.add_argument("--into", required=True, type=_folder, metavar="STORE")
    add.set_defaults(command=_command("commands", "results_merge"))
    add = actions.add_parser("export", help="write runs.csv and curves/ for a repository")
    add.add_argument("store", metavar="STORE")
    add.add_argument("folder", type=_folder, metavar="FOLDER")
    text = "and what FOLDER has already stays, unless computed anew"
    add.add_argument("--keep", action="store_true", help=text)
    add.add_argument("--images", action="store_true", help="and the restored images")
    add.set_defaults(command=_command("commands", "results_export"))
    add = actions.add_parser("diff", help="two stores or exports side by side")
    add.add_argument("a", metavar="A")
    add.add_argument("b", metavar="B")
    add.add_argument("--csv", action="store_true", help="all columns, as CSV")
    add.set_defaults(command=_command("commands", "results_diff"))
    add = actions.add_parser("pack", help="a few small files that merge takes")
    add.add_argument("store", metavar="STORE")
    add.add_argument("file", metavar="FILE.zip")
    add.set_defaults(command=_command("commands", "results_pack"))

    text = "recompute the paper's deterministic numbers on the images that are here"
    commands.add_parser("verify", help=text).set_defaults(command=_command("commands", "verify"))

    text = "time the engine and the denoisers on this machine, beside their references"
    add = commands.add_parser("bench", help=text).add_argument
    add("--json", action="store_true", help="print all figures as JSON")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--only", nargs="+", metavar="SECTION", help="what to time, default all of it")
    text = "of the images on which the iteration is timed, default 128 256 512"
    add("--sides", nargs="+", type=_whole, metavar="PX", help=text)
    add("--compile", action="store_true", help="time torch.compile, too, which takes minutes")
    add.__self__.set_defaults(command=_command("commands", "bench"))

    data = commands.add_parser("data", help="the paper's images")
    actions = data.add_subparsers(required=True, metavar="list|fetch", parser_class=_Parser)
    for name, text, command in [
        ("list", "what the registry has, and what is here", "data_list"),
        ("fetch", "download from the public sources, hashes checked", "data_fetch"),
    ]:
        add = actions.add_parser(name, help=text).add_argument
        add("names", nargs="*", metavar="NAME", help="data sets (set5) or images (set5/bird)")
        add.__self__.set_defaults(command=_command("commands", command))
    return parser


def _command(module: str, name: str):
    """A command whose module is imported when it is called: restore need not wait for pandas."""

    def call(options) -> int:
        return getattr(import_module(f".{module}", __name__), name)(options)

    return call


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
