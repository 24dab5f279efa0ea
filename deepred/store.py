"""Results on disk: one record a run, whole or not at all, and the small CSVs that are committed.

A store is a folder. `records/KEY.json` is written last, so that a run is there when its record is;
`curves/KEY.csv` holds what was measured along the way and `images/KEY.png` the restored image.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import __version__
from .errors import InputError
from .files import replacing
from .images import Picture, write

logger = logging.getLogger(__name__)

# Columns of the committed runs.csv, in order.
COLUMNS = (
    "key", "profile", "experiment", "task", "setting", "image", "method", "preset", "seed",
    "iterations", "psnr", "ssim", "best_psnr", "best_iteration", "seconds", "device", "precision",
    "threads", "cpu", "gpu", "deepred", "commit", "python", "torch", "numpy", "scikit-image",
    "date", "settings",
)  # fmt: skip


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

    def put(self, record: dict, curve: pd.DataFrame | None, image: Tensor) -> None:
        """Store a finished run under record["key"]."""
        key = record["key"]
        for part in ("records", "curves", "images"):
            self._make(self.folder / part)
        write(self.folder / "images" / f"{key}.png", Picture(image))
        if curve is not None:
            with replacing(self.folder / "curves" / f"{key}.csv") as temporary:
                curve.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        with replacing(self.folder / "records" / f"{key}.json") as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def image(self, key: str) -> Path:
        """The restored image of a run, PNG."""
        return self.folder / "images" / f"{key}.png"

    def checkpoint(self, key: str) -> Path:
        """Where a run in progress saves itself."""
        self._make(self.folder / "checkpoints")
        return self.folder / "checkpoints" / f"{key}.pt"

    def records(self) -> list[dict]:
        """All finished runs."""
        paths = sorted((self.folder / "records").glob("*.json"))
        return [record for path in paths if (record := self.get(path.stem)) is not None]

    def export(self, folder: str | Path, keys: list[str] | None = None) -> None:
        """Write runs.csv and curves.csv, of all runs or of `keys`, sorted for small differences."""
        folder = Path(folder)
        self._make(folder)
        records = [r for r in self.records() if keys is None or r["key"] in keys]
        runs = pd.DataFrame([_row(r) for r in records], columns=COLUMNS)
        order = ["profile", "experiment", "setting", "image", "method", "preset", "seed"]
        runs = runs.sort_values(order, kind="stable")
        curves = [
            pd.read_csv(path).assign(key=key)
            for key in runs["key"]
            if (path := self.folder / "curves" / f"{key}.csv").exists()
        ]
        curve = pd.concat(curves) if curves else pd.DataFrame(columns=["key", "iteration"])
        curve = curve[["key", *[c for c in curve.columns if c != "key"]]]
        for name, table in (("runs", runs), ("curves", curve)):
            with replacing(folder / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")

    @staticmethod
    def _make(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be made ({error.strerror}); choose another folder"
            ) from None


def read_runs(folder: str | Path) -> pd.DataFrame:
    """The exported runs of a folder; an empty table with the same columns if there are none."""
    path = Path(folder) / "runs.csv"
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, keep_default_na=True, dtype={"key": str, "preset": str})


def read_curves(folder: str | Path, key: str) -> pd.DataFrame:
    """What was measured along the exported run `key`: iteration and one column a quantity.

    Raises
    ------
    InputError
        If the folder has no such curve.
    """
    path = Path(folder) / "curves.csv"
    table = pd.read_csv(path, dtype={"key": str}) if path.exists() else pd.DataFrame({"key": []})
    curve = table[table["key"] == key].drop(columns="key").dropna(axis=1, how="all")
    if curve.empty:
        raise InputError(f"{path}: no curve of run {key}")
    return curve.reset_index(drop=True)


def provenance(device: str) -> dict:
    """Where and with what a result is being made."""
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "scikit-image")}
    return {
        "deepred": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **versions,
        "device": device,
        "cpu": _processor(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
        "threads": torch.get_num_threads(),
        "precision": str(torch.get_default_dtype()).removeprefix("torch."),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def commit() -> str:
    """The commit of the code that runs, with "+" where it was changed since; "" if unknown."""
    here = Path(__file__).resolve().parent
    try:
        git = ["git", "-C", str(here)]
        tracked = [*git, "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, capture_output=True, check=True)  # not a repository around a venv
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", str(here)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed.strip() else "")


def _processor() -> str:
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
    if "best_iteration" in flat:
        flat["best_iteration"] = str(flat["best_iteration"])  # whole beside the empty ones
    for name, digits in (("psnr", 3), ("best_psnr", 3), ("ssim", 4), ("seconds", 1)):
        if flat.get(name) is not None:
            flat[name] = round(float(flat[name]), digits)
    return {name: flat.get(name, np.nan) for name in COLUMNS}
