"""Files that can be read, and files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


class WriteError(InputError):
    """Nothing can be written where it should be: a full disk, say."""


def data_file(name: str) -> Path:
    """A file of the repository's folder data, which an installed package has inside."""
    package = Path(__file__).resolve().parent.parent
    inside = package / name
    return inside if inside.exists() else package.parent / "data" / name


def regular(path: str | Path) -> Path:
    """The path of a file with content; a pipe or a device has no end, and is refused.

    Raises
    ------
    InputError
        If there is no such file, or it is a folder, a pipe, a device, or empty.
    """
    path = Path(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = getattr(error, "strerror", error)
        raise InputError(f"{path}: cannot be read ({why})") from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path}: is a folder; name one file")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is a pipe or device; give a regular file")
    if not found.st_size:
        raise InputError(f"{path}: is empty (0 bytes)")
    return path


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
