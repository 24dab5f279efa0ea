"""Stores of several machines: packed into files that travel, merged into one, set side by side."""

from __future__ import annotations

import io
import logging
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..compute.checkpoint import intact
from ..errors import InputError
from ..io.files import WriteError, replacing
from ..paper.files import copy, make_folder
from ..paper.runs import column
from ..paper.store import FILES, IDENTITY, Store, as_table, read_runs

logger = logging.getLogger(__name__)

PACKED = 15 * 2**20  # bytes of a file of `pack`
MOST = 2**31  # bytes that a packed store may unpack to
_MEMBER = re.compile(r"(records|curves|images|checkpoints)/\w+\.(json|csv|png|pt)")


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
        If `source` is neither, or a file is damaged or unpacks to more than `MOST` bytes.
    """
    source = Path(source)
    if source.is_file():
        with tempfile.TemporaryDirectory() as folder:
            _unpack(source, Path(folder))
            return _merge(store, Path(folder))
    if not any((source / part).is_dir() for part in (*FILES, "checkpoints")):
        raise InputError(f"{source}: no store, and no packed one")
    if source.resolve() == store.folder.resolve():
        raise InputError(f"{source}: cannot be merged into itself")
    return _merge(store, source)


def _unpack(source: Path, folder: Path) -> None:
    """The files of a packed store; whatever else is in it stays there."""
    for name, content in _members(source):
        target = folder / name
        make_folder(target.parent)
        try:
            target.write_bytes(content)
        except OSError as error:
            raise WriteError(f"{target}: cannot be written ({error.strerror})") from None


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    damaged = InputError(f"{source}: not a packed store, or damaged")
    try:
        packed = zipfile.ZipFile(source)
        members = [each for each in packed.infolist() if _MEMBER.fullmatch(each.filename)]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise damaged from None
    with packed:
        if sum(each.file_size for each in members) > MOST:
            raise InputError(f"{source}: unpacks to more than {MOST >> 20} MiB")
        for each in members:
            try:
                content = packed.read(each)  # of no more bytes than it says
            except RuntimeError as error:  # encrypted
                raise InputError(f"{source}: {error}; pack it without a password") from None
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError):
                raise damaged from None
            yield each.filename, content


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
        for part in FILES:  # the record last: see Store.put
            path = other.file(part, key)
            if path.exists():
                copy(path, store.part(part) / path.name)
        merged.new.append(key)
    for path in sorted((source / "checkpoints").glob("*.pt")):
        mine = store.checkpoint(path.stem)
        older = not mine.exists() or mine.stat().st_mtime < path.stat().st_mtime
        if older and not store.has(path.stem):
            if intact(path) is not None:
                copy(path, mine)
                merged.continued.append(path.stem)
            else:
                logger.warning("%s: not a checkpoint, or damaged; not taken", path)
    return merged


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
    """A file of `pack` in memory, of all finished runs unless given."""
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
        paths = [store.file(part, record["key"]) for part in FILES]
        yield [path for path in paths if path.exists()]
    if begun:
        for path in sorted((store.folder / "checkpoints").glob("*.pt")):
            yield [path]


def side_by_side(a: str | Path, b: str | Path) -> pd.DataFrame:
    """Two stores, or folders of exported results, by run.

    Columns: experiment, setting, image, method, preset, variant, seed; ``A [dB]`` and ``B [dB]``,
    PSNR as the task is measured (`deepred.paper.runs.column`), NaN where one has no such run;
    ``B - A [dB]``; ``A [s]`` and ``B [s]``; ``other``, what else is not the same: settings, device,
    precision, torch. Of several records of a run the latest counts.

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
    table = table.sort_values("date", kind="stable")
    return table.drop_duplicates(list(IDENTITY), keep="last")
