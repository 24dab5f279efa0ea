"""`deepred ...` in this process and in others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deepred import cli

LIMIT = 300  # seconds a subprocess may take; they take one to ten

# One thread: tiny networks are slower on many, most of all beside other work.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def picture(channels: int = 3, kind: type = np.uint8) -> np.ndarray:
    """A ramp with noise of sigma 20, 32 wide and 48 high, with alpha if channels is 2 or 4."""
    random = np.random.default_rng(0)
    ramp = np.linspace(60, 190, 32)[None, :, None] * np.ones((48, 1, channels))
    values = (ramp + 20 * random.standard_normal(ramp.shape)).clip(0, 255) / 255
    if kind == np.float32:
        return values.astype(kind)
    return np.round(values * np.iinfo(kind).max).astype(kind)


def run(*arguments) -> subprocess.CompletedProcess:
    """`python -m deepred ...` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "deepred", *map(str, arguments)],
        capture_output=True, text=True, timeout=LIMIT, env=ENVIRONMENT,
    )  # fmt: skip


def call(*arguments) -> int:
    """The exit code of `deepred ...` in this process."""
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def assert_refused(code: int, said, reason: str) -> None:
    """Exit code 2 and one line with the reason, nothing on standard output."""
    assert code == 2
    assert said.out == ""
    assert said.err.endswith("\n") and said.err.count("\n") == 1, said.err
    assert said.err.startswith("deepred")
    assert reason in said.err
    assert "Traceback" not in said.err


def stopped(signal_number: int, reached: Path, script: str, stop: int, *arguments):
    """Run a script up to `stop`, where it is sent the signal; its exit code and standard error."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(stop), str(reached), *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    started = time.monotonic()
    try:
        while not reached.exists():
            if process.poll() is not None:
                pytest.fail(f"ended before iteration {stop}: {process.communicate()[1]}")
            assert time.monotonic() - started < LIMIT
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)  # no busy waiting
        process.send_signal(signal_number)
        _, said = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait()
    reached.unlink()
    return process.returncode, said
