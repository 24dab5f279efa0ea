"""Stores of several machines: packed into files that travel, merged into one, set side by side."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..io.files import replacing
from ..paper.runs import column
from ..paper.store import IDENTITY, Store, as_table, read_runs

logger = logging.getLogger(__name__)

PARTS = {"curves": ".csv", "images": ".png", "records": ".json"}  # the record last: see Store.put
PACKED = 15 * 2**20  # bytes of a file of `pack`


@dataclass
class Merged:
    """What came of a merge, by the runs' keys."""

    new: list[str] = field(default_factory=list)
    had: list[str] = field(default_factory=list)
    # Had, too, but with another result; ours stays.
    differ: list[str] = field(default_factory=list)
    continued: list[str] = field(default_factory=list)  # begun there, to be continued here


def merge(store: Store, source: str | Path) -> Merged:
    """Take what another store has, or a file of `pack`: finished runs, and those begun.

    A run that both have stays as it is here.

    Raises
    ------
    InputError
        If `source` is neither, or a file is damaged.
    """
    source = Path(source)
    if source.is_file():
        with tempfile.TemporaryDirectory() as folder:
            try:
                with zipfile.ZipFile(source) as packed:
                    if (bad := packed.testzip()) is not None:
                        raise zipfile.BadZipFile(bad)
                    packed.extractall(folder)  # names that lead elsewhere are made harmless
            except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError):
                raise InputError(f"{source}: not a packed store, or damaged") from None
            return _merge(store, Path(folder))
    if not any((source / part).is_dir() for part in (*PARTS, "checkpoints")):
        raise InputError(f"{source}: no store, and no packed one")
    if source.resolve() == store.folder.resolve():
        raise InputError(f"{source}: cannot be merged into itself")
    return _merge(store, source)


def _merge(store: Store, source: Path) -> Merged:
    merged, other = Merged(), Store(source)
    for record in other.records():
        key = record["key"]
        mine = store.get(key)
        if mine is not None:
            merged.had.append(key)
            if mine["metrics"] != record["metrics"]:
                merged.differ.append(key)
            continue
        for part, suffix in PARTS.items():
            path = source / part / f"{key}{suffix}"
            if path.exists():
                _copy(path, store.part(part) / path.name)
        merged.new.append(key)
    for path in sorted((source / "checkpoints").glob("*.pt")):
        mine = store.checkpoint(path.stem)
        older = not mine.exists() or mine.stat().st_mtime < path.stat().st_mtime
        if older and not store.has(path.stem):
            _copy(path, mine)
            merged.continued.append(path.stem)
    return merged


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    shutil.copystat(source, target)


def pack(store: Store, path: str | Path, *, limit: int = PACKED) -> list[Path]:
    """Write a store to files that `merge` takes: NAME-1.zip, NAME-2.zip, for `path` NAME.zip.

    Each holds whole runs, and is of at most `limit` bytes unless a single run is larger; a store
    that fits is NAME.zip alone. What is begun goes along.

    Raises
    ------
    InputError
        If the store is empty.
    """
    path = Path(path).with_suffix(".zip")
    groups: list[list[Path]] = [[]]
    size = 0
    for files in _runs(store):
        more = sum(f.stat().st_size for f in files)  # zipped it is less
        if groups[-1] and size + more > limit:
            groups.append([])
            size = 0
        groups[-1] += files
        size += more
    if not groups[0]:
        raise InputError(f"{store.folder}: nothing to pack")
    written = []
    for number, files in enumerate(groups, 1):
        target = path if len(groups) == 1 else path.with_name(f"{path.stem}-{number}.zip")
        with replacing(target) as temporary:
            temporary.write_bytes(zipped(store, files))
        written.append(target)
    return written


def zipped(store: Store, files: list[Path] | None = None) -> bytes:
    """A file of `pack` in memory, of all finished runs unless told."""
    if files is None:
        files = [f for run in _runs(store, begun=False) for f in run]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for f in files:
            packed.write(f, f.relative_to(store.folder))
    return buffer.getvalue()


def _runs(store: Store, begun: bool = True) -> Iterator[list[Path]]:
    """The files of each run."""
    for record in store.records():
        paths = [store.part(p) / f"{record['key']}{suffix}" for p, suffix in PARTS.items()]
        yield [path for path in paths if path.exists()]
    if begun:
        for path in sorted((store.folder / "checkpoints").glob("*.pt")):
            yield [path]


def side_by_side(a: str | Path, b: str | Path) -> pd.DataFrame:
    """Two stores, or folders of exported results, by run.

    Columns: experiment, setting, image, method, preset, seed; ``A [dB]`` and ``B [dB]``, PSNR as
    the experiment measures it (of the luma in super-resolution and deblurring), NaN where one has
    no such run; ``B - A [dB]``; ``A [s]`` and ``B [s]``; ``other``, what else is not the same:
    settings, device, precision, torch. Of several records of a run the latest counts.

    Raises
    ------
    InputError
        If one is no store and no export.
    """
    tables = [_table(Path(folder)).set_index(list(IDENTITY)) for folder in (a, b)]
    index = tables[0].index.union(tables[1].index, sort=False)
    first, second = (table.reindex(index) for table in tables)
    out = index.to_frame(index=False)
    both = first["key"].notna() & second["key"].notna()
    for name, table in (("A", first), ("B", second)):
        of_luma = out["task"].map(column).eq("psnr_y").to_numpy()
        out[f"{name} [dB]"] = table["psnr_y"].where(of_luma, table["psnr"]).to_numpy()
    out["B - A [dB]"] = (out["B [dB]"] - out["A [dB]"]).round(3)
    for name, table in (("A", first), ("B", second)):
        out[f"{name} [s]"] = table["seconds"].to_numpy()
    what = ("settings", "device", "precision", "torch")
    unlike = pd.DataFrame({w: both & (first[w] != second[w]) for w in what})
    out["other"] = [", ".join(w for w in what if row[w]) for _, row in unlike.iterrows()]
    return out.drop(columns=["profile", "task"])


def _table(folder: Path) -> pd.DataFrame:
    if (folder / "runs.csv").exists():
        table = read_runs(folder)
    elif (folder / "records").is_dir():
        table = as_table(Store(folder).records())
    else:
        raise InputError(f"{folder}: no store, and no exported results")
    table = table.fillna({"preset": "", "setting": ""}).sort_values("date", kind="stable")
    return table.drop_duplicates(list(IDENTITY), keep="last")
