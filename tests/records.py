"""A record of a run, for the tests."""

from __future__ import annotations

from deepred.compute.engine import Engine
from deepred.paper import store


def record(key="k1", **changes):
    base = {
        "key": key, "profile": "quick", "experiment": "denoising", "task": "denoise",
        "setting": "sigma 25", "image": "coffee", "method": "dip", "preset": "fast", "seed": 0,
        "iterations": 3, "metrics": {"psnr": 30.12345, "ssim": 0.9}, "seconds": 1.23,
        "settings": {"lam": 0.5}, "provenance": store.provenance(Engine()),
    }  # fmt: skip
    return {**base, **changes}
