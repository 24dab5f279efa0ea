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

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..io.files import replacing
from ..settings import Settings
from ..solver import VERSION

logger = logging.getLogger(__name__)

_DIGEST = 32  # bytes of the hash that a file begins with


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
        CheckpointError
            If the file is damaged or belongs to another run.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            if (content := intact(self.path)) is None:
                raise EOFError  # of a flipped bit torch would not say a word
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
        # By way of memory: torch's own writer takes a full disk for an error of its own.
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


def fingerprint(
    y: Tensor,
    H,
    method: str,
    denoiser,
    settings: Settings,
    sigma,
    seed,
    shape,
    engine,
    made,
    likelihood=None,
    rule=None,
    version="",
) -> str:
    """A hash of what a run's result depends on. Callables enter by what they do to noise."""
    probe = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(y)
    name = denoiser if isinstance(denoiser, str | None) else getattr(denoiser, "__qualname__", "f")
    budget = {"iterations": 0}  # any: a run may go on with more
    told = [method, name, settings.as_dict() | budget, sigma, seed, shape, str(y.dtype)]
    told += [str(replace(engine, threads=0, batch=1))]
    told += [torch.__version__, version, VERSION, made, "checkpoint 4"]
    told += [type(rule).__name__, repr(rule and rule.state_dict())]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    tensors = [y, H(probe)]
    if likelihood is not None:
        tensors.append(likelihood(H(probe), y))
        if hasattr(likelihood, "deviation"):  # the parameter, which the terms may be free of
            tensors.append(likelihood.deviation(H(probe)))
    if callable(denoiser):  # two callables may share a name
        tensors.append(denoiser(probe, settings.sigma_f))
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
