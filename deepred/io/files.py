"""Files that are there whole or not at all, and checkpoints made of them."""

from __future__ import annotations

import io
import logging
import os
import pickle
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..errors import InputError

logger = logging.getLogger(__name__)


class WriteError(InputError):
    """Nothing can be written where it should be: a full disk, say."""


def data_file(name: str) -> Path:
    """A file of the repository's folder data, which an installed package has inside."""
    package = Path(__file__).resolve().parent.parent
    inside = package / name
    return inside if inside.exists() else package.parent / "data" / name


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or vanishes on an error.

    Raises
    ------
    WriteError
        If no file can be written there.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from None
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp's 0600 would hide a result from its group
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)


class Checkpoint:
    """One file that a run saves to now and then, and continues from.

    Parameters
    ----------
    path : the file, or None to keep nothing.
    identity : what the run is; a file of another identity is refused, unless it says that its run
        has ended ("ended" in its content): that one is not needed, and gives way.
    seconds : least time between two saves.
    """

    def __init__(self, path: str | Path | None, identity: str, seconds: float = 30.0) -> None:
        self.path = None if path is None else Path(path)
        self.identity, self.seconds = identity, seconds
        self._last = time.monotonic()

    def load(self, device: str) -> dict | None:
        """What was saved, or None if nothing was.

        Raises
        ------
        InputError
            If the file is damaged or belongs to another run.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location=device, weights_only=True)
            identity = saved.pop("identity")
        except (OSError, EOFError, RuntimeError, KeyError, AttributeError, pickle.PickleError):
            raise InputError(
                f"{self.path}: not a checkpoint, or damaged; delete it to start anew"
            ) from None
        if identity != self.identity and saved.get("ended"):
            logger.warning("%s: of another run, which has ended; it is replaced", self.path)
            return None
        if identity != self.identity:
            raise InputError(
                f"{self.path}: belongs to another input or other settings; delete it to start anew"
            )
        return saved

    def due(self) -> bool:
        return self.path is not None and time.monotonic() - self._last >= self.seconds

    def save(self, content: dict) -> None:
        if self.path is None:
            return
        # By way of memory: torch's own writer takes a full disk for an error of its own.
        buffer = io.BytesIO()
        torch.save({**content, "identity": self.identity}, buffer)
        with replacing(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        self._last = time.monotonic()

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
