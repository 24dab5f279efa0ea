"""Every operator under the contract: ours, CONTRIBUTING.md's example, deepinv's physics."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import contracts
import pytest
import torch

from deepred.operators import adapted

every_check = pytest.mark.parametrize("check", contracts.CHECKS, ids=lambda f: f.__name__)


@pytest.mark.parametrize("dtype", contracts.CLOSE, ids=str)
@every_check
@pytest.mark.parametrize("name", contracts.OPERATORS)
def test_operators_keep_the_contract(name, check, dtype):
    H, shapes = contracts.OPERATORS[name]
    for shape in shapes:
        check(H, shape, dtype)


@every_check
def test_the_example_of_contributing_keeps_it(check, monkeypatch):
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n((?:(?!```).)*class Mirror.*?)```", text, re.DOTALL)
    module = ModuleType("contributing")
    monkeypatch.setitem(sys.modules, "contributing", module)  # for pickle
    exec(code, vars(module))
    check(module.Mirror(), (2, 5, 8), torch.float64)
    assert "`OPERATORS` of `tests/contracts.py`" in text


BOX = torch.ones(1, 1, 3, 3) / 9
SIZE = (3, 16, 16)
PHYSICS = {
    "denoising": lambda physics: physics.Denoising(physics.GaussianNoise(0.1)),
    "inpainting": lambda physics: physics.Inpainting(SIZE, mask=0.5),
    "blur": lambda physics: physics.BlurFFT(SIZE, filter=BOX),
    "blur, valid": lambda physics: physics.Blur(filter=BOX, padding="valid"),
    "smaller": lambda physics: physics.Downsampling(factor=2, filter="bicubic"),
    "projections": lambda physics: physics.Tomography(
        img_width=16, angles=6, circle=False, normalize=True
    ),
    "grey": lambda physics: physics.Decolorize(),
}


@pytest.mark.parametrize("name", PHYSICS)
def test_a_physics_of_deepinv_is_its_noiseless_map(name):
    deepinv = pytest.importorskip("deepinv", reason="needs deepred[deepinv]")
    physics = PHYSICS[name](deepinv.physics)
    H = adapted(physics)
    contracts.shape_of_the_image(adapted(PHYSICS[name](deepinv.physics)), SIZE, torch.float32)
    for check in contracts.MAP:
        check(H, SIZE, torch.float32)
    x = contracts.random(1, *SIZE, dtype=torch.float32)
    assert torch.equal(H(x), physics.A(x))
