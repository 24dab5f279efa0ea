"""What can be typed, and its help."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from .. import __version__
from ..presets import METHODS, PRESETS

# As the modules that have them, which import torch, name them.
TASKS = ("denoise", "sr", "deblur", "inpaint")
DENOISERS = ("nlm", "bm3d", "tv", "wavelet", "bilateral", "median")
RULES = ("windowed-variance", "exponential-variance", "discrepancy")
DEVICES = ("auto", "cpu", "cuda")

RESTORE = """\
examples:
  deepred restore photo.jpg -o out.png                    take out noise; its level is estimated
  deepred restore photo.jpg -o out.png --method red       the denoiser alone, the quickest
  deepred restore small.png -o large.png --task sr --scale 4 --compare seen.png
  deepred restore photo.png -o out.png --task deblur --kernel psf.png
  deepred restore photo.png -o out.png --task inpaint --mask white-is-kept.png
  deepred restore scans -o restored                       all pictures of a folder

methods:
  deepred   a network learns the picture, drawn towards what a denoiser makes of it
  dip       the network alone (deep image prior)
  dip-tv    the network and the total variation of its picture
  red       the denoiser alone; it makes the preview of the others

presets:
  fast      a narrow network; the default
  best      a wider network and the mean of several runs: several times as long
  authors   the settings of the authors' released code, 128 channels wide: for a GPU
  paper     the paper's settings, as wide

A preview is written to OUTPUT first, unless that is there already, and replaced by the result.
Interrupted, the same command goes on from its checkpoint, .OUTPUT.checkpoint.
"""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str):
        told = " ".join(f"{self.prog}: {message}".splitlines())
        self.exit(2, f"{told}; `{self.prog} --help` lists the options\n")


def command_of(arguments: list[str] | None) -> tuple[Callable[[argparse.Namespace], int], object]:
    """The command, its module imported, and its options."""
    parser = _parser()
    for argument in sys.argv[1:] if arguments is None else arguments:
        if argument.endswith("=--"):  # argparse would make an empty list of it
            parser.error(f"argument {argument[:-3]}: has no value")
    options = parser.parse_args(arguments)
    module, name = options.command
    import_module("logging").basicConfig(level="WARNING", format="%(message)s")
    # A bad file is one line, ours.
    import_module("logging").getLogger("tifffile").setLevel("CRITICAL")
    return getattr(import_module(f".{module}", __package__), name), options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="deepred", description="DeepRED: deep image prior powered by RED.")
    parser.add_argument("--version", action="version", version=f"deepred {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    restore = commands.add_parser(
        "restore", help="restore pictures of your own", epilog=RESTORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    restore.set_defaults(command=("restore", "restore"))
    add = restore.add_argument
    add("input", metavar="INPUT", help="PNG, JPEG, TIFF or BMP, or a folder of them")
    add("-o", "--output", required=True, metavar="OUTPUT", help="format by suffix; or a folder")
    add("--task", choices=TASKS, default="denoise")
    add("--sigma", type=_number(float, 0.001, 254), metavar="25", help="noise level of 255")
    add("--scale", type=_number(int, 2, 8), choices=(2, 3, 4, 8), help="of --task sr, default 4")
    add("--kernel", metavar="uniform9|gauss25|FILE", help="of --task deblur")
    text = "of --task inpaint: an image, white where a pixel is to stay, or .npy of 0 and 1"
    add("--mask", metavar="FILE", help=text)
    add("--method", choices=METHODS, default="deepred", help="see below")
    add("--denoiser", choices=DENOISERS, help="f of RED; the preset's if absent")
    add("--preset", choices=PRESETS, default="fast", help="see below")
    text = "of each run at most; the preset's if absent. More of them continue an unfinished fit"
    add("--iterations", type=_whole, metavar="N", help=text)
    text = "runs whose mean is the result; the preset's if absent"
    add("--runs", type=_number(int, 1, 100), metavar="N", help=text)
    text = "end each run early by a rule that needs no truth; discrepancy goes by --sigma"
    add("--stop", choices=RULES, help=text)
    text = "of --stop with a variance: iterations without a smaller one, default 1000"
    add("--patience", type=_whole, metavar="N", help=text)
    text = "side of overlapping tiles in pixels of the result; the default goes by size and memory"
    add("--tile", type=_number(int, 64, 100_000), metavar="N", help=text)
    add("--compare", metavar="FILE", help="write before, after and their difference side by side")
    text = "write a map of the spread between the runs: where the result is open"
    add("--confidence", metavar="FILE", help=text)
    add("--quality", type=_number(int, 1, 100), default=95, metavar="N", help="of JPEG, default 95")
    text = "value that is white, such as 4095 for 12 bits in a 16-bit file"
    add("--white", type=_number(float, 1e-6, 1e9), metavar="VALUE", help=text)
    add("--seed", type=_seed, default=0, metavar="N")
    add("--device", choices=DEVICES, default="auto")
    text = "of the network's products; auto: on a GPU tf32, on a CPU float32"
    add("--precision", choices=("auto", "float32", "tf32", "bf16"), default="auto", help=text)

    for name, text in [
        ("reproduce", "compute an experiment's runs, then its notebooks, figures and tables"),
        ("run", "compute the runs alone, without Jupyter"),
    ]:
        add = _command(commands, name, text)
        add("--profile", default="quick", metavar="smoke|quick|paper")
        text = "experiments, or parts of the paper such as figure3; default all"
        add("--only", nargs="+", default=[], metavar="NAME", help=text)
        add("--seeds", nargs="+", type=_seed, default=[0], metavar="N")
        add("--device", choices=DEVICES, default="auto")
        add("--workers", type=_whole, metavar="N", help="processes, default one a core")
        text = "runs of one size that take turns on a GPU, default as many as pay"
        add("--batch", type=_whole, metavar="N", help=text)
        text = "send the runs to a dask.distributed scheduler instead, tcp://host:8786"
        add("--dask", metavar="ADDRESS", help=text)
    add("--match", nargs="+", default=[], metavar="WORD", help="runs with all these in their title")
    add("--store", type=_folder, default="reproduction/store", metavar="DIR")
    text = "stop in time, 9m or 2h; the same command continues"
    add("--budget", type=_duration, metavar="TIME", help=text)
    text = "pack the store for results merge when all is done, or time is up"
    add("--pack", type=_file, metavar="FILE.zip", help=text)
    text = "list the runs: done, to do, or why they cannot be computed here"
    add("--dry-run", action="store_true", help=text)
    add = commands.choices["reproduce"].add_argument
    add("--out", type=_folder, default="reproduction", metavar="DIR")

    stores = commands.add_parser("results", help="stores of results: merge, export, diff, pack")
    actions = stores.add_subparsers(
        required=True, metavar="merge|export|diff|pack", parser_class=_Parser
    )
    text = "take what other stores, or packed ones, have"
    add = _command(actions, "merge", text, "results_merge")
    add("sources", nargs="+", metavar="STORE")
    add("--into", required=True, type=_folder, metavar="STORE")
    text = "write runs.csv and curves/ for a repository"
    add = _command(actions, "export", text, "results_export")
    add("store", metavar="STORE")
    add("folder", type=_folder, metavar="FOLDER")
    text = "and what FOLDER has already stays, unless computed anew"
    add("--keep", action="store_true", help=text)
    add("--images", action="store_true", help="and the restored images")
    add = _command(actions, "diff", "two stores or exports side by side", "results_diff")
    add("a", metavar="A")
    add("b", metavar="B")
    add("--csv", action="store_true", help="all columns, as CSV")
    add = _command(actions, "pack", "a few small files that merge takes", "results_pack")
    add("store", metavar="STORE")
    add("file", type=_file, metavar="FILE.zip")

    text = "recompute the paper's deterministic numbers on the images that are here"
    _command(commands, "verify", text)

    text = "time the engine and the denoisers on this machine, beside their references"
    add = _command(commands, "bench", text)
    add("--json", action="store_true", help="print all figures as JSON")
    add("--device", choices=DEVICES, default="auto")
    add("--only", nargs="+", metavar="SECTION", help="what to time, default all of it")
    text = "of the images on which the iteration is timed, default 128 256 512"
    add("--sides", nargs="+", type=_number(int, 16, 8192), metavar="PX", help=text)
    add("--compile", action="store_true", help="time torch.compile, too, which takes minutes")

    data = commands.add_parser("data", help="the paper's images")
    actions = data.add_subparsers(required=True, metavar="list|fetch", parser_class=_Parser)
    for name, text in [
        ("list", "what the registry has, and what is here"),
        ("fetch", "download from the public sources, hashes checked"),
    ]:
        add = _command(actions, name, text, f"data_{name}")
        add("names", nargs="*", metavar="NAME", help="data sets (set5) or images (set5/bird)")
    return parser


def _command(parsers, name: str, text: str, function: str | None = None):
    """A command of `commands.py`; what adds its options."""
    made = parsers.add_parser(name, help=text)
    made.set_defaults(command=("commands", function or name))
    return made.add_argument


# Types of options ---------------------------------------------------------------------------------


def _number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """What makes a number in [low, high] of a text."""

    def convert(text: str) -> float:
        try:  # Python takes 1_000 and other alphabets' digits, too
            value = kind(text) if text.isascii() and "_" not in text and len(text) < 40 else None
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            what = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(
                f"must be a {what} from {low} to {high}, got {text[:40]!r}"
            )
        return value

    return convert


_whole, _seed = _number(int, 1, 10_000_000), _number(int, 0, 2**40 - 1)


def _duration(text: str) -> float:
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    return (unit or 1) * _number(float, 0.001, 1e6)(text[:-1] if unit else text)


def _folder(text: str) -> str:
    try:
        nearest = next(path for path in (Path(text), *Path(text).parents) if path.exists())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise argparse.ArgumentTypeError(f"{nearest} is no folder that can be written to")
    return text


def _file(text: str) -> str:
    """A file to be written after hours of work."""
    folder = Path(text).parent
    if not text or Path(text).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text[:200]!r} is no file that can be written")
    return text
