"""The paper's images by name: a registry, a hash-checked download, and scikit-image's own images.

None of the paper's images states a licence, so none is distributed with this project. They are read
from the folder that the environment variable DEEPRED_DATA names, or from a cache that
`deepred data fetch` fills from their public sources.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from .files import data_file, replacing
from .images import Picture, read, to_tensor

# Photographs that come inside scikit-image's package: nothing to download, free licences.
BUILT_IN = ("astronaut", "chelsea", "coffee", "rocket")
PHANTOM = "shepp-logan"  # Shepp and Logan's head (1974), scikit-image's, at 128 x 128, grey

LARGEST, SECONDS, WAITS = 20_000_000, 120.0, (1, 3)  # of a download: bytes, time, before new tries


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


def registry() -> list[Entry]:
    """All images of the registry (data/registry.tsv)."""
    with open(data_file("registry.tsv"), newline="", encoding="utf-8") as file:
        return [
            Entry(**{**row, "width": int(row["width"]), "height": int(row["height"])})
            for row in csv.DictReader(file, delimiter="\t")
        ]


def select(names: Iterable[str]) -> list[Entry]:
    """The entries of the given data sets ("set5") and images ("set5/bird"); all if none is given.

    Raises
    ------
    InputError
        If the registry has no such name.
    """
    entries, names = registry(), list(names)
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
    import pooch  # half a second

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
        import skimage.data
        from skimage.transform import resize

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
    content = _download(entry)
    if hashlib.sha256(content).hexdigest() != entry.sha256_file:
        raise DownloadError(f"{entry}: {entry.url} sent other bytes than the registry's")
    if _sha256_rgb(io.BytesIO(content)) != entry.sha256_rgb:
        raise DownloadError(f"{entry}: {entry.url} has other pixels than the registry's")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except (OSError, InputError) as error:
        raise DownloadError(f"{entry}: {error}") from None
    return path


def _download(entry: Entry) -> bytes:
    """What is at an entry's address; three tries where the server or the line fails."""
    import requests  # which pooch brings

    if not entry.url.startswith(("https://", "http://")):
        raise DownloadError(f"{entry}: {entry.url}: only http and https addresses are fetched")
    deadline, failure = time.monotonic() + SECONDS, ""
    for wait in (0, *WAITS):
        time.sleep(wait)
        try:
            with requests.get(entry.url, stream=True, timeout=10) as response:
                failure = f"{response.status_code} {response.reason}"
                if response.status_code >= 500:
                    continue
                response.raise_for_status()
                content = bytearray()
                # Small pieces: a server that sends a byte now and then is to be noticed.
                for piece in response.iter_content(64):
                    content += piece
                    if len(content) > LARGEST:
                        raise DownloadError(f"{entry}: {entry.url} sends more than {LARGEST} bytes")
                    if time.monotonic() > deadline:
                        raise DownloadError(f"{entry}: {entry.url} takes more than {SECONDS:g} s")
                return bytes(content)
        except requests.HTTPError:
            break
        except (requests.RequestException, OSError) as error:
            failure = str(error).partition("\n")[0] or type(error).__name__
        if time.monotonic() > deadline:
            break
    raise DownloadError(f"{entry}: could not download {entry.url} ({failure})")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sha256_rgb(path: Path | io.BytesIO) -> str | None:
    """The hash of the decoded RGB pixels, None if it is no image."""
    try:
        with Image.open(path) as image:
            return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()
    except Exception:  # decoders raise anything on damaged files
        return None
