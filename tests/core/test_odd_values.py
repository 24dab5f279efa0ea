"""Twenty odd values for each argument: it is refused in one line, or it is a value that works."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import deepred
from deepred import red
from deepred.beyond import likelihoods, stopping
from deepred.beyond.baselines import total_variation
from deepred.beyond.operators import Composed, Scaled
from deepred.beyond.radon import Radon
from deepred.compute.engine import Engine, pick
from deepred.io.images import to_tensor
from deepred.operators import Blur, Downsample, Identity, Inpaint, degrade

Y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TINY = deepred.preset("paper").replace(
    channels=4, scales=1, input_channels=4, iterations=1, runs=1, denoiser="median"
)

VALUES = {
    "None": None, "''": "", "text": "text", "bytes": b"x", "3": 3, "-1": -1, "0": 0, "1.5": 1.5,
    "nan": math.nan, "inf": math.inf, "1j": 1j, "10^30": 10**30, "10^5000": 10**5000, "True": True,
    "[]": [], "{}": {}, "object": object(), "array": np.array([1, 2]), "ints": np.ones((8, 8), int),
    "tensor": torch.ones(2), "sparse": Y.to_sparse(), "meta": Y.to("meta"), "graph":
    torch.ones(2, requires_grad=True), "lambda": lambda: None, "path": Path("missing.png"),
}  # fmt: skip


def restore(**given):
    common = dict(settings=TINY, sigma=0.1, engine=Engine()) | given
    return deepred.restore(common.pop("y", Y), common.pop("H", None), **common)


def of_restore(name):
    return lambda value: restore(**{name: value})


# Entry: a call with the value, and the values with which it works.
ENTRIES = {
    "y": (of_restore("y"), ""),
    "an array": (to_tensor, ""),
    "H": (of_restore("H"), "None"),
    "method": (of_restore("method"), ""),
    "denoiser": (of_restore("denoiser"), "None"),
    "settings": (lambda v: restore(settings=0 if v is None else v), ""),  # None: 3000 iterations
    "sigma": (of_restore("sigma"), "None"),
    "seed": (of_restore("seed"), "0 3"),
    "device": (lambda v: restore(device=v, engine=None), ""),
    "engine": (of_restore("engine"), "None"),
    "shape": (of_restore("shape"), "None"),
    "network": (of_restore("network"), "None"),
    "callback": (of_restore("callback"), "None"),
    "callback's answer": (lambda v: restore(callback=lambda state: v), "None {}"),
    "a number of the callback": (
        lambda v: restore(callback=lambda state: {"mine": v}),
        "3 -1 0 1.5 nan inf 10^30 True",
    ),
    "checkpoint": (of_restore("checkpoint"), "None text path"),
    "checkpoint_seconds": (of_restore("checkpoint_seconds"), "3 0 1.5 10^30"),
    "likelihood": (of_restore("likelihood"), "None"),
    "a likelihood's terms": (lambda v: restore(likelihood=lambda Hx, y: v), "graph"),
    "stop": (of_restore("stop"), "None"),
    "what H makes": (lambda v: restore(H=lambda x: v), ""),
    "what f makes": (lambda v: restore(denoiser=lambda x, sigma: v), ""),
    "preset": (deepred.preset, ""),
    "preset's task": (lambda v: deepred.preset("fast", v), ""),
    "preset's method": (lambda v: deepred.preset("fast", method=v), ""),
    "preset's setting": (lambda v: deepred.preset("fast", setting=v), "None"),
    "preset's denoiser": (lambda v: deepred.preset("fast", denoiser=v), "None '' text"),
    "preset's sigma": (lambda v: deepred.preset("fast", sigma=v), "3 0 1.5 10^30"),
    "kernel": (Blur, "ints"),
    "kernel of": (Blur.of, "ints"),
    "method of a blur": (lambda v: Blur(((1.0,),), v), ""),
    "side": (Blur.uniform, "3"),
    "deviation": (lambda v: Blur.gaussian(3, v), "3 1.5 10^30"),
    "factor": (Downsample, "3"),
    "mask": (Inpaint.of, "ints"),
    "bits": (lambda v: Inpaint(v, (1, 8, 8)), ""),
    "mask's shape": (lambda v: Inpaint.random(v, 0.5), ""),
    "mask's share": (lambda v: Inpaint.random((8, 8), v), ""),
    "radon's side": (lambda v: Radon(v, (0.0,)), "3"),
    "angles": (lambda v: Radon(8, v), ""),
    "views": (lambda v: Radon.views(8, v), "3"),
    "an operator's x": (Downsample(2), ""),
    "radon's x": (Radon.views(8, 3), ""),
    "composed": (lambda v: Composed(v, Identity()), "None lambda"),
    "scaled": (lambda v: Scaled(v, 2.0), "None lambda"),
    "unit": (lambda v: Scaled(None, v), "3 -1 1.5 10^30"),
    "degraded": (lambda v: degrade(v, None, 0.1, 0), ""),
    "noise": (lambda v: degrade(Y, None, v, 0), "0"),
    "seed of the noise": (lambda v: degrade(Y, None, 0.1, v), "0 3"),
    "precision": (lambda v: pick("cpu", v), ""),
    "batch": (lambda v: pick("cpu", batch=v), "3"),
    "problems": (lambda v: deepred.restore_all(v, device="cpu"), "'' [] {}"),
    "rule": (stopping.named, ""),
    "window": (stopping.WindowedVariance, "3"),
    "weight": (stopping.ExponentialVariance, ""),
    "level": (stopping.Discrepancy, "3 1.5 10^30"),
    "every": (lambda v: stopping.WindowedVariance(every=v), "3"),
    "patience": (lambda v: stopping.WindowedVariance(patience=v), "3"),
    "target": (lambda v: stopping.Discrepancy(0.1, v), "3 1.5 10^30"),
    "sliding mean": (stopping.SlidingMean, "3"),
    "exponential mean": (stopping.ExponentialMean, ""),
    "weight of tv": (lambda v: total_variation(Y, None, v, iterations=1), "3 1.5 10^30"),
    "iterations of tv": (lambda v: total_variation(Y, None, 0.1, iterations=v), "3"),
    "lam of red": (lambda v: red.solve(Y, None, lambda t: t, v), "3 1.5 10^30"),
    "c of red": (lambda v: red.solve(Y, None, lambda t: t, 0.1, c=v), "None 3 1.5 10^30"),
    "eps": (Blur.uniform(3).whitener, "3 1.5 10^30"),
    "eps of x2": (lambda v: Downsample(2).whitener(v)(Y), "3 1.5 10^30"),
    "eps of radon": (Radon.views(8, 3).whitener, "3 1.5 10^30"),
    "span": (lambda v: Radon.views(8, 3, v), "3 1.5 10^30"),
    "filter": (lambda v: Radon.views(8, 3).fbp(Y[..., :3, :8], v), "None"),
    "seed of a model": (lambda v: likelihoods.Gaussian(0.1).sample(Y, v), "0 3"),
}  # fmt: skip
for kind in (likelihoods.Gaussian, likelihoods.Poisson, likelihoods.Laplace, likelihoods.Gamma):
    ENTRIES[kind.__name__] = kind, "3 1.5 10^30"


def outcome(call, value, told: str) -> bool:
    """Whether the call works with the value; else it is refused in one line."""
    try:
        call(value)
    except deepred.InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 400, told
        return False
    return True


@pytest.mark.parametrize("entry", ENTRIES)
def test_odd_values_work_or_are_refused_in_one_line(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, works = ENTRIES[entry]
    found = [name for name, value in VALUES.items() if outcome(call, value, f"{entry}: {name}")]
    assert found == [name for name in VALUES if name in works.split()]


def test_odd_values_of_settings_are_refused_in_one_line():
    whole, number = {"3"}, {"3", "1.5", "10^30"}
    for field in dataclasses.fields(deepred.Settings):
        default = getattr(TINY, field.name)
        found = {
            name
            for name, value in VALUES.items()
            if outcome(lambda v, n=field.name: TINY.replace(**{n: v}), value, f"{field}: {name}")
        }
        match default:
            case bool():
                allowed = {"True"}
            case int():
                allowed = whole | {"0"}
            case float() | None:
                allowed = number | {"0", "None"}
            case _:
                allowed = {"None", "''", "text"} if field.name == "denoiser" else set()
        assert found <= allowed, field.name
