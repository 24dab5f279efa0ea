"""Results on disk: one record a run, whole or not at all, and the small CSVs that are committed.

A store is a folder. `records/KEY.json` is written last, so that a run is there when its record is;
`curves/KEY.csv` holds what was measured along the way and `images/KEY.png` the restored image, and
the record has their hashes. An exported folder has one table, `runs.csv`, in place of the records.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from torch import Tensor

from ..errors import InputError
from ..io.files import WriteError, replacing
from ..io.images import Picture, write
from .files import check_writable, copy, make_folder, set_aside
from .runs import TASKS
from .studies import ENDS_ALONE

# Columns of the committed runs.csv, in order.
COLUMNS = tuple(
    "key profile experiment task setting dataset image crop method preset variant seed iterations "
    "psnr psnr_y snr ssim single_psnr plain_psnr best_psnr best_iteration run_means stops seconds "
    "processor_seconds device precision threads cpu gpu deepred commit python torch numpy "
    "scikit-image pillow bm3d date settings".split()
)
# What makes two rows the same run, whatever the code that computed it.
IDENTITY = tuple("profile experiment task setting image method preset variant seed".split())
# The files of a run, by their folder; the record comes last.
FILES = {"curves": ".csv", "images": ".png", "records": ".json"}

# What a record has at least.
_FIELDS = dict.fromkeys(
    "profile experiment task setting dataset image crop method preset variant".split(), str
) | dict(
    seed=int,
    iterations=int,
    metrics=dict,
    seconds=float,
    settings=dict,
    provenance=dict,
    sha256=dict,
)
_TEXTS = (*IDENTITY[:-1], "key", "dataset", "crop", "run_means", "stops", "date", "settings")


class Claimed(Exception):
    """Another process has the run."""


class Store:
    """The finished runs under a folder, which is made when the first is put there."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> dict | None:
        """The record of a run, None if it is not there.

        What is no record, or one whose image or curve is not as it was written, is set aside.
        """
        path = self.file("records", key)
        try:
            record = _checked(json.loads(path.read_bytes()), key)
            self._check_files(record)
            return record
        except FileNotFoundError:
            return None
        except (IsADirectoryError, ValueError, RecursionError) as error:
            set_aside(path, f"not a record ({error})", "the run is to be computed again")
            return None

    def _check_files(self, record: dict) -> None:
        for part in ("images", "curves") if record["iterations"] else ("images",):
            path, digest = self.file(part, record["key"]), record["sha256"].get(part)
            if not path.is_file() or digest not in (None, _sha256(path)):  # None before there was
                raise ValueError(f"{path} is not the file that it describes")

    def put(self, record: dict, curve: Mapping[str, Sequence] | None, image: Tensor) -> dict:
        """Store a finished run under record["key"]; the curve's columns are equally long.

        Returns the record with the hashes of its files.
        """
        key = record["key"]
        self.part("images")
        write(self.file("images", key), Picture(image))
        digests = {"images": _sha256(self.file("images", key))}
        if curve is not None:
            self.part("curves")
            with (
                replacing(self.file("curves", key)) as temporary,
                open(temporary, "w", newline="", encoding="utf-8") as file,
            ):
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(curve)
                rows.writerows(map(_number, values) for values in zip(*(curve[n] for n in curve)))
            digests["curves"] = _sha256(self.file("curves", key))
        record = {**record, "sha256": digests}
        self.part("records")
        with replacing(self.file("records", key)) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return record

    def file(self, part: str, key: str) -> Path:
        """A file of a run, of "records", "curves" or "images"."""
        return self.folder / part / f"{key}{FILES[part]}"

    def image(self, key: str) -> Path:
        """The restored image of a run, PNG."""
        return self.file("images", key)

    def checkpoint(self, key: str) -> Path:
        """Where a run in progress saves itself."""
        return self.part("checkpoints") / f"{key}.pt"

    def part(self, name: str) -> Path:
        """One of the store's folders, which is made: records, curves, images, checkpoints.

        Raises
        ------
        WriteError
            If it cannot be made.
        """
        return make_folder(self.folder / name)

    @contextmanager
    def claim(self, key: str, *others: str, wait: bool = True) -> Iterator[None]:
        """Have a run to oneself, against every process that shares the folder.

        The claim ends with the process, however it ends. What a killed process has left
        half-written under this key, or the `others` that the run may have, is removed.

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
            for each in (key, *others):
                for path in self.folder.glob(f"*/.{each}.*"):  # half a file, a checkpoint's lock
                    path.unlink(missing_ok=True)
            yield
        finally:
            # While it is held: who waits for this file sees that it is gone, and takes a new one.
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def check(self) -> None:
        """Before hours of work: make the folder, and remove what killed processes have left in it.

        Raises
        ------
        WriteError
            If it cannot be written to.
        """
        check_writable(self.part("records") / "record")
        for lock in self.folder.glob("claims/*.lock"):
            with suppress(Claimed), self.claim(lock.stem, wait=False):
                pass

    def records(self) -> list[dict]:
        """All finished runs."""
        paths = sorted((self.folder / "records").glob("*.json"))
        return [record for path in paths if (record := self.get(path.stem)) is not None]

    def export(
        self,
        folder: str | Path,
        keys: Sequence[str] | None = None,
        *,
        keep: bool = False,
        images: bool = False,
    ) -> int:
        """Write runs.csv, of all runs or of `keys`, sorted for small differences, and their curves.

        `keep` leaves what the folder holds already, but for runs that are computed anew: results of
        several machines come together so. `images` copies the restored images to images/KEY.png.
        Curves and images of runs that are no longer in runs.csv go. Of studies that are shown by
        their ends alone (`studies.ENDS_ALONE`) there are no curves. Returns how many runs came from
        this store.
        """
        folder = Path(folder)
        records = [r for r in self.records() if keys is None or r["key"] in keys]
        runs = as_table(records)
        if keep:
            runs = _merged(read_runs(folder), runs)
        runs = runs.sort_values(list(IDENTITY), kind="stable")
        # Whole numbers also beside empty ones.
        runs["best_iteration"] = pd.to_numeric(runs["best_iteration"]).astype("Int64")
        make_folder(folder)
        for part in ("curves", "images") if images else ("curves",):
            make_folder(folder / part)
            for record in records:
                source = self.file(part, record["key"])
                drawn = part == "images" or record["experiment"] not in ENDS_ALONE
                if drawn and source.exists():
                    copy(source, folder / part / source.name)
        with replacing(folder / "runs.csv") as temporary:
            runs.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        with_curve = ~runs["experiment"].isin(ENDS_ALONE)
        wanted = {"images": set(runs["key"]), "curves": set(runs["key"][with_curve])}
        for path in [*folder.glob("curves/*.csv"), *folder.glob("images/*.png")]:
            if path.stem not in wanted[path.parent.name]:
                path.unlink()
        return len(records)


def _checked(record: object, key: str) -> dict:
    """A record with every field that the tables need, or a ValueError that says what is wrong."""
    if not isinstance(record, dict) or record.get("key") != key:
        raise ValueError(f"it has not the key {key}")
    if "variant" not in record and isinstance(record.get("preset"), str):
        # Before there was this field the preset's name held both.
        record["preset"], _, record["variant"] = record["preset"].partition(", ")
    record.setdefault("sha256", {})
    kinds = {int: numbers.Integral, float: numbers.Real}
    for name, kind in _FIELDS.items():
        if not isinstance(record.get(name), kinds.get(kind, kind)):
            raise ValueError(f"its {name} is {record.get(name)!r:.40}")
    if record["task"] not in TASKS or not isinstance(record["metrics"].get("psnr"), numbers.Real):
        raise ValueError("its task or PSNR is none")
    return record


def _merged(old: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `old`, with those of `runs` in place of older ones of the same runs."""
    names = list(IDENTITY)
    new = set(map(tuple, runs[names].astype(str).to_numpy()))
    stay = [tuple(row) not in new for row in old[names].astype(str).to_numpy()]
    old = old[pd.Series(stay, old.index, dtype=bool) & ~old["key"].isin(runs["key"])]
    return pd.concat([t for t in (old, runs) if len(t)] or [runs], ignore_index=True)


def as_table(records: list[dict]) -> pd.DataFrame:
    """Records as the rows of runs.csv."""
    return pd.DataFrame([_row(record) for record in records], columns=COLUMNS)


def read_runs(folder: str | Path) -> pd.DataFrame:
    """The exported runs of a folder; an empty table with the same columns if there are none.

    Texts that a row has not are "", numbers NaN.

    Raises
    ------
    InputError
        If the folder's runs.csv is no such table.
    """
    path = Path(folder) / "runs.csv"
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    kinds = dict.fromkeys(_TEXTS, str) | {"psnr": float, "seconds": float, "seed": int}
    try:
        table = pd.read_csv(path, dtype=kinds)
        if "variant" not in table and "preset" in table:  # as of a record
            both = table["preset"].fillna("").str.partition(", ")
            table["preset"], table["variant"] = both[0], both[2]
        lacking = [name for name in (*_TEXTS, "psnr") if name not in table]
        if lacking:
            raise ValueError(f"no column {lacking[0]}")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path}: not exported results ({reason}); deepred results export writes them"
        ) from None
    table = table.reindex(columns=COLUMNS)
    return table.fillna(dict.fromkeys(_TEXTS, ""))


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


def _number(value: float) -> str:
    """Six digits, as the tables have; nothing for NaN."""
    if isinstance(value, numbers.Integral):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _row(record: dict) -> dict:
    flat = {**record, **record["metrics"], **record["provenance"]}
    flat["settings"] = json.dumps(record["settings"], sort_keys=True, separators=(",", ":"))
    decibels = dict.fromkeys(("psnr", "psnr_y", "snr", "single_psnr", "plain_psnr", "best_psnr"), 3)
    for name, digits in {**decibels, "ssim": 4, "seconds": 1, "processor_seconds": 1}.items():
        if flat.get(name) is not None:
            flat[name] = round(float(flat[name]), digits)
    return {name: flat.get(name, math.nan) for name in COLUMNS}
