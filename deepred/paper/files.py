"""Folders that results go to, and files in them that are of no use."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from ..io.files import WriteError, replacing

logger = logging.getLogger(__name__)


def make_folder(folder: Path) -> Path:
    """A folder that is there.

    Raises
    ------
    WriteError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"{folder}: cannot be made ({error.strerror}); choose another folder"
        ) from None
    return folder


def check_writable(path: Path) -> None:
    """Refuse, before any work, a file that cannot be written where it is to be.

    Raises
    ------
    WriteError
        If it is a folder, or its folder is not there or takes no file.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror}); choose another folder or name"
        ) from None


def copy(source: Path, target: Path) -> None:
    """Copy a file with its times, whole or not at all."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    shutil.copystat(source, target)


def set_aside(path: Path, why: str, then: str) -> None:
    """Rename what is of no use to NAME.damaged, and say so."""
    aside = path.with_suffix(".damaged")
    shutil.rmtree(aside, ignore_errors=True)  # an earlier one, if that is a folder
    with suppress(FileNotFoundError):  # another process was first
        os.replace(path, aside)
        logger.warning("%s: %s; set aside as %s, and %s", path, why, aside.name, then)
