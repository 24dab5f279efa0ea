"""Where and with what a result was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

from .. import __version__
from ..compute.engine import Engine


def provenance(engine: Engine) -> dict:
    """Where and with what a result is being made."""
    return {
        "deepred": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "scikit-image", "pillow", "bm3d")},
        "device": engine.device,
        "cpu": processor(),
        "gpu": torch.cuda.get_device_name() if engine.device == "cuda" else "",
        "threads": engine.threads or torch.get_num_threads(),
        "precision": engine.precision,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # bm3d is an extra
        return ""


def commit() -> str:
    """The commit of the code that runs, with "+" where it was changed since; "" if unknown."""
    here = Path(__file__).resolve().parent.parent
    try:
        git = ["git", "-C", str(here)]
        tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]
        subprocess.run(tracked, capture_output=True, check=True)  # not a repository around a venv
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", str(here)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed.strip() else "")


def processor() -> str:
    """The CPU's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
