"""The paper's images by name: a registry, a hash-checked download, and scikit-image's own images.

None of the paper's images states a licence, so none is distributed with this project. They are read
from the folder that the environment variable DEEPRED_DATA names, or from a cache that
`deepred data fetch` fills from their public sources.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import skimage.data
from PIL import Image
from skimage.transform import resize

from ..errors import InputError
from .files import data_file
from .images import Picture, read, to_tensor

# Photographs that come inside scikit-image's package: nothing to download, free licences.
BUILT_IN = ("astronaut", "chelsea", "coffee", "rocket")
PHANTOM = "shepp-logan"  # Shepp and Logan's head (1974), scikit-image's, at 128 x 128, grey


@dataclass(frozen=True)
class Entry:
    """One image of the registry."""

    dataset: str
    name: str
    width: int
    height: int
    sha256_file: str
    sha256_rgb: str  # of the decoded pixels, whatever the file's encoding; grey counts as RGB
    url: str
    licence: str

    @property
    def path(self) -> Path:
        """Where it lies inside a data folder."""
        return Path(self.dataset) / f"{self.name}.png"

    def __str__(self) -> str:
        return f"{self.dataset}/{self.name}"


class DownloadError(RuntimeError):
    """An image could not be fetched, or what came is not what the registry says."""


def registry(path: str | Path | None = None) -> list[Entry]:
    """All images of the registry (data/registry.tsv)."""
    with open(path or data_file("registry.tsv"), newline="", encoding="utf-8") as file:
        return [
            Entry(**{**row, "width": int(row["width"]), "height": int(row["height"])})
            for row in csv.DictReader(file, delimiter="\t")
        ]


def select(names: Iterable[str], entries: list[Entry] | None = None) -> list[Entry]:
    """The entries of the given data sets ("set5") and images ("set5/bird"); all if none is given.

    Raises
    ------
    InputError
        If the registry has no such name.
    """
    entries = registry() if entries is None else entries
    names = list(names)
    for name in names:
        if not any(name in (entry.dataset, str(entry)) for entry in entries):
            known = ", ".join(dict.fromkeys(entry.dataset for entry in entries))
            raise InputError(
                f"unknown data set or image {name!r}; data sets are {known}, "
                "`deepred data list` shows the images"
            )
    return [e for e in entries if not names or e.dataset in names or str(e) in names]


def folder() -> Path:
    """The folder of the images: $DEEPRED_DATA, or the user's cache.

    Raises
    ------
    InputError
        If DEEPRED_DATA names no folder.
    """
    given = os.environ.get("DEEPRED_DATA")
    if given:
        if not Path(given).is_dir():
            raise InputError(f"DEEPRED_DATA={given}: no such folder")
        return Path(given)
    return Path(pooch.os_cache("deepred"))


def status(entry: Entry, where: Path | None = None) -> str:
    """ "present", "missing" or "differs" (other pixels than the registry's)."""
    path = (folder() if where is None else where) / entry.path
    if not path.is_file():
        return "missing"
    if _sha256(path) == entry.sha256_file or _sha256_rgb(path) == entry.sha256_rgb:
        return "present"
    return "differs"


def load(dataset: str, name: str) -> Picture:
    """An image by data set and name; data set "builtin" is scikit-image's.

    Raises
    ------
    InputError
        If there is no such image, it is not on this machine, or its pixels differ.
    """
    if dataset == "builtin":
        if name == PHANTOM:
            phantom = resize(skimage.data.shepp_logan_phantom(), (128, 128), anti_aliasing=True)
            return Picture(to_tensor(phantom.clip(0, 1)))
        if name not in BUILT_IN:
            raise InputError(f"unknown built-in image {name!r}; known are {', '.join(BUILT_IN)}")
        return Picture(to_tensor(getattr(skimage.data, name)()))
    (entry,) = select([f"{dataset}/{name}"])
    found = status(entry)
    if found == "missing":
        raise InputError(
            f"image {entry} is not in {folder()}: run `deepred data fetch {entry}`, "
            "or set DEEPRED_DATA to a folder that has it"
        )
    if found == "differs":
        raise InputError(f"{folder() / entry.path}: not the registry's image; fetch it again")
    return read(folder() / entry.path)


def fetch(entry: Entry, where: Path | None = None) -> Path:
    """Download an image unless it is there; both hashes are checked and nothing else is kept.

    Raises
    ------
    DownloadError
        If it cannot be fetched, or its bytes or pixels are not the registry's.
    """
    where = folder() if where is None else where
    path = where / entry.path
    if status(entry, where) == "present":
        return path
    try:
        pooch.retrieve(  # a file of other bytes is replaced only once the right ones are there
            entry.url,
            known_hash=f"sha256:{entry.sha256_file}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    except ValueError:  # pooch's word for a hash that does not match; it keeps nothing of it
        raise DownloadError(f"{entry}: {entry.url} sent other bytes than the registry's") from None
    except OSError as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DownloadError(f"{entry}: could not download {entry.url} ({reason})") from None
    if _sha256_rgb(path) != entry.sha256_rgb:
        path.unlink()
        raise DownloadError(f"{entry}: {entry.url} has other pixels than the registry's")
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sha256_rgb(path: Path) -> str | None:
    """The hash of the decoded RGB pixels, None if it is no image."""
    try:
        with Image.open(path) as image:
            return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()
    except Exception:  # decoders raise anything on damaged files
        return None
