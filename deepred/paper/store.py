"""Results on disk: one record a run, whole or not at all, and the small CSVs that are committed.

A store is a folder. `records/KEY.json` is written last, so that a run is there when its record is;
`curves/KEY.csv` holds what was measured along the way and `images/KEY.png` the restored image. An
exported folder has one table, `runs.csv`, in place of the records.
"""

from __future__ import annotations

import json
import logging
import math
import numbers
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .. import __version__
from ..compute.engine import Engine
from ..errors import InputError
from ..io.files import WriteError, replacing
from ..io.images import Picture, write
from .studies import ENDS_ALONE

logger = logging.getLogger(__name__)

# Columns of the committed runs.csv, in order.
COLUMNS = (
    "key", "profile", "experiment", "task", "setting", "dataset", "image", "crop", "method",
    "preset", "seed", "iterations", "psnr", "psnr_y", "snr", "ssim", "single_psnr", "plain_psnr",
    "best_psnr", "best_iteration", "run_means", "stops", "seconds", "processor_seconds",
    "device", "precision",
    "threads", "cpu", "gpu", "deepred", "commit", "python", "torch", "numpy", "scikit-image",
    "pillow", "bm3d", "date", "settings",
)  # fmt: skip


class Claimed(Exception):
    """Another process has the run."""


class Store:
    """The finished runs under a folder, which is made when the first is put there."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> dict | None:
        """The record of a run, None if it is not there. A damaged one is set aside."""
        path = self.folder / "records" / f"{key}.json"
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["key"] != key:
                raise ValueError(f"key is {record['key']}")
            return record
        except (ValueError, KeyError, TypeError) as error:
            aside = path.with_suffix(".damaged")
            os.replace(path, aside)
            logger.warning("%s: not a record (%s); set aside as %s", path, error, aside.name)
            return None

    def put(self, record: dict, curve: Mapping[str, Sequence[float]] | None, image: Tensor) -> None:
        """Store a finished run under record["key"]; the curve's columns are equally long."""
        key = record["key"]
        write(self.part("images") / f"{key}.png", Picture(image))
        if curve is not None:
            with replacing(self.part("curves") / f"{key}.csv") as temporary:
                rows = [[_number(v) for v in values] for values in zip(*(curve[n] for n in curve))]
                lines = [",".join(cells) for cells in ([*curve], *rows)]
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with replacing(self.part("records") / f"{key}.json") as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def image(self, key: str) -> Path:
        """The restored image of a run, PNG."""
        return self.folder / "images" / f"{key}.png"

    def checkpoint(self, key: str) -> Path:
        """Where a run in progress saves itself."""
        return self.part("checkpoints") / f"{key}.pt"

    def part(self, name: str) -> Path:
        """One of the store's folders, which is made: records, curves, images, checkpoints."""
        self._make(self.folder / name)
        return self.folder / name

    @contextmanager
    def claim(self, key: str, *, wait: bool = True) -> Iterator[None]:
        """Have a run to oneself, against every process that shares the folder.

        The claim ends with the process, however it ends.

        Raises
        ------
        Claimed
            If another process has the run, and `wait` is false.
        """
        lock = FileLock(self.part("claims") / f"{key}.lock", timeout=-1 if wait else 0)
        try:
            lock.acquire(poll_interval=0.5)
        except Timeout:
            raise Claimed(key) from None
        except OSError as error:
            raise WriteError(f"{lock.lock_file}: cannot be written ({error.strerror})") from None
        try:
            yield
        finally:
            # Whoever takes a new file of this name finds the record, or begins as after a kill.
            if self.has(key):
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def records(self) -> list[dict]:
        """All finished runs."""
        paths = sorted((self.folder / "records").glob("*.json"))
        return [record for path in paths if (record := self.get(path.stem)) is not None]

    def export(
        self,
        folder: str | Path,
        keys: list[str] | None = None,
        *,
        keep: bool = False,
        images: bool = False,
    ) -> None:
        """Write runs.csv, of all runs or of `keys`, sorted for small differences, and their curves.

        `keep` leaves what the folder holds already, but for runs that are computed anew: results of
        several machines come together so. `images` copies the restored images to images/KEY.png.
        Curves and images of runs that are no longer in runs.csv go. Of studies that are shown by
        their ends alone (`studies.ENDS_ALONE`) there are no curves.
        """
        folder = Path(folder)
        records = [r for r in self.records() if keys is None or r["key"] in keys]
        runs = as_table(records)
        if keep and (folder / "runs.csv").exists():
            runs = _merged(read_runs(folder), runs)
        runs = runs.sort_values(list(IDENTITY), kind="stable")
        # Whole numbers also beside empty ones.
        runs["best_iteration"] = pd.to_numeric(runs["best_iteration"]).astype("Int64")
        for name in ("curves", "images") if images else ("curves",):
            self._make(folder / name)
            for record in records:
                if name == "curves" and record["experiment"] in ENDS_ALONE:
                    continue
                for source in (self.folder / name).glob(f"{record['key']}.*"):
                    with replacing(folder / name / source.name) as temporary:
                        shutil.copyfile(source, temporary)
        with replacing(folder / "runs.csv") as temporary:
            runs.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        with_curve = ~runs["experiment"].isin(ENDS_ALONE)
        wanted = {"images": set(runs["key"]), "curves": set(runs["key"][with_curve])}
        for path in [*folder.glob("curves/*.csv"), *folder.glob("images/*.png")]:
            if path.stem not in wanted[path.parent.name]:
                path.unlink()

    @staticmethod
    def _make(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(
                f"{folder}: cannot be made ({error.strerror}); choose another folder"
            ) from None


# What makes two rows the same run, whatever the code that computed it.
IDENTITY = ("profile", "experiment", "task", "setting", "image", "method", "preset", "seed")


def _merged(old: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `old`, with those of `runs` in place of older ones of the same runs."""
    old = old.astype({"preset": object}).fillna({"preset": ""})
    names = list(IDENTITY)
    new = set(map(tuple, runs[names].astype(str).to_numpy()))
    stay = [tuple(row) not in new for row in old[names].astype(str).to_numpy()]
    old = old[stay]
    old = old[~old["key"].isin(runs["key"])]
    return pd.concat([t for t in (old, runs) if len(t)], ignore_index=True)


def as_table(records: list[dict]) -> pd.DataFrame:
    """Records as the rows of runs.csv."""
    return pd.DataFrame([_row(record) for record in records], columns=COLUMNS)


def read_runs(folder: str | Path) -> pd.DataFrame:
    """The exported runs of a folder; an empty table with the same columns if there are none."""
    path = Path(folder) / "runs.csv"
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(
        path, dtype=dict.fromkeys(("key", "preset", "crop", "run_means", "stops"), str)
    )
    return table.reindex(columns=COLUMNS)


def read_curves(folder: str | Path, key: str) -> pd.DataFrame:
    """What was measured along the exported run `key`: iteration and one column a quantity.

    Raises
    ------
    InputError
        If the folder has no such curve.
    """
    path = Path(folder) / "curves" / f"{key}.csv"
    if not path.exists():
        raise InputError(f"{path}: no curve of run {key}")
    return pd.read_csv(path).dropna(axis=1, how="all")


def provenance(engine: Engine) -> dict:
    """Where and with what a result is being made."""
    return {
        "deepred": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "scikit-image", "pillow", "bm3d")},
        "device": engine.device,
        "cpu": processor(),
        "gpu": torch.cuda.get_device_name() if engine.device == "cuda" else "",
        "threads": engine.threads or torch.get_num_threads(),
        "precision": engine.precision,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _number(value: float) -> str:
    """Six digits, as the tables have; nothing for NaN."""
    if isinstance(value, numbers.Integral):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # bm3d is an extra
        return ""


def commit() -> str:
    """The commit of the code that runs, with "+" where it was changed since; "" if unknown."""
    here = Path(__file__).resolve().parent.parent
    try:
        git = ["git", "-C", str(here)]
        tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]
        subprocess.run(tracked, capture_output=True, check=True)  # not a repository around a venv
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", str(here)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed.strip() else "")


def processor() -> str:
    """The CPU's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _row(record: dict) -> dict:
    flat = {**record, **record["metrics"], **record["provenance"]}
    flat["settings"] = json.dumps(record["settings"], sort_keys=True, separators=(",", ":"))
    decibels = dict.fromkeys(("psnr", "psnr_y", "snr", "single_psnr", "plain_psnr", "best_psnr"), 3)
    for name, digits in {**decibels, "ssim": 4, "seconds": 1, "processor_seconds": 1}.items():
        if flat.get(name) is not None:
            flat[name] = round(float(flat[name]), digits)
    return {name: flat.get(name, math.nan) for name in COLUMNS}
