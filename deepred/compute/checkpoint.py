"""The file that a run saves to and continues from."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ..errors import CheckpointError, InputError
from ..fidelity import checked
from ..io.files import WriteError, replacing
from ..solver import VERSION
from .engine import Engine

if TYPE_CHECKING:
    from ..problem import Resolved

logger = logging.getLogger(__name__)

_DIGEST = 32  # bytes of the hash that a file begins with


class Checkpoint:
    """One file that a run saves to now and then, and continues from.

    While one has the file locked, by `lock`, no other can have it, in this process or another.

    Parameters
    ----------
    path : the file, or None to keep nothing.
    identity : what the run is. A file of another identity is refused, unless its run has ended
        ("ended" in its content): such a file is replaced.
    seconds : least time between two saves.
    """

    def __init__(self, path: str | Path | None, identity: str, seconds: float = 30.0) -> None:
        self.path = None if path is None else Path(path)
        self.identity, self.seconds = identity, seconds
        self._last = time.monotonic()
        self._lock: FileLock | None = None

    def lock(self) -> None:
        """Have the file to oneself until `close`.

        Raises
        ------
        InputError
            If another run has it.
        WriteError
            If no file can be written there.
        """
        if self.path is None:
            return
        if not self.path.parent.is_dir():
            raise WriteError(f"{self.path}: there is no folder {self.path.parent}")
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            told = f"{self.path}: another run is using this checkpoint; give another file"
            raise InputError(told) from None
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written ({error.strerror})") from None
        self._lock = lock

    def close(self) -> None:
        """Let others have the file."""
        if self._lock is not None:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def load(self, device: str) -> dict | None:
        """What was saved, or None if nothing was.

        Raises
        ------
        CheckpointError
            If the file is damaged or belongs to another run.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            if (content := intact(self.path)) is None:
                raise EOFError  # torch does not notice a flipped bit
            saved = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            identity = saved.pop("identity")
        except (OSError, EOFError, RuntimeError, KeyError, AttributeError, pickle.PickleError):
            raise CheckpointError(self.path, "not a checkpoint, or damaged") from None
        if identity != self.identity and saved.get("ended"):
            logger.warning("%s: of another run, which has ended; it is replaced", self.path)
            return None
        if identity != self.identity:
            raise CheckpointError(self.path, "belongs to another input or other settings")
        return saved

    def due(self) -> bool:
        return self.path is not None and time.monotonic() - self._last >= self.seconds

    def save(self, content: dict) -> None:
        if self.path is None:
            return
        # Through memory: torch's own writer reports a full disk as an error of its own.
        buffer = io.BytesIO()
        torch.save({**content, "identity": self.identity}, buffer)
        content = buffer.getvalue()
        with replacing(self.path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        self._last = time.monotonic()

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def intact(path: Path) -> bytes | None:
    """What a checkpoint holds after its hash; None if that does not fit."""
    raw = path.read_bytes()
    return raw[_DIGEST:] if hashlib.sha256(raw[_DIGEST:]).digest() == raw[:_DIGEST] else None


def fingerprint(p: Resolved, y: Tensor, engine: Engine, made: str, version: str) -> str:
    """A hash of what a run's result depends on, but for the number of iterations.

    Callables enter by what they make of noise. `y` is on the engine's device, `made` a description
    of the network if that is not the settings', and `version` the package's.
    """
    probe = torch.rand(1, *p.shape, generator=torch.Generator().manual_seed(0)).to(y)
    f, settings, rule = p.denoiser, p.settings, p.stop and p.stop()
    name = f if isinstance(f, str | None) else getattr(f, "__qualname__", "f")
    budget = {"iterations": 0}  # any: a run may go on with more
    told = [p.method, name, settings.as_dict() | budget, p.sigma, p.seed, p.shape, str(y.dtype)]
    told += [str(replace(engine, threads=0, batch=1))]
    told += [torch.__version__, version, VERSION, made, "checkpoint 4"]
    told += [type(rule).__name__, repr(rule and rule.state_dict())]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    tensors = [y, checked(p.H, probe, y)]
    if p.likelihood is not None:
        tensors.append(p.likelihood(tensors[1], y))
        if hasattr(p.likelihood, "deviation"):  # the parameter, which the terms may not depend on
            tensors.append(p.likelihood.deviation(tensors[1]))
    if callable(f):  # two callables may share a name
        tensors.append(f(probe, settings.sigma_f))
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
