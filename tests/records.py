"""A record of a run, for the tests."""

from __future__ import annotations

from deepred.compute.engine import Engine
from deepred.paper.provenance import provenance


def record(key="k1", **changes):
    base = {
        "key": key, "profile": "quick", "experiment": "denoising", "task": "denoise",
        "setting": "sigma 25", "dataset": "builtin", "image": "coffee", "crop": "", "method": "dip",
        "preset": "fast", "variant": "", "seed": 0,
        "iterations": 3, "metrics": {"psnr": 30.12345, "ssim": 0.9}, "seconds": 1.23,
        "settings": {"lam": 0.5}, "provenance": provenance(Engine()),
    }  # fmt: skip
    return {**base, **changes}
