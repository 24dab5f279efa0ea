"""What goes into `restore` and comes out of it: arrays, files, pictures; what it says once."""

from __future__ import annotations

import base64
import io
import logging
import re
import threading

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import deepred
from deepred.beyond.operators import Framed, Scaled
from deepred.beyond.radon import Radon
from deepred.compute import job
from deepred.operators import Blur, Downsample, Inpaint
from deepred.problem import resolve

COMMON = dict(method="red", sigma=0.1, device="cpu")


def array(noisy, kind, grey=False) -> np.ndarray:
    white = {"uint8": 255, "uint16": 65535}.get(kind, 1)
    values = white * noisy[0].permute(1, 2, 0).numpy().astype(float)
    values = np.round(values).astype(kind) if white > 1 else values.astype(kind)
    return values[..., 0] if grey else values


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64"])
def test_an_array_comes_back_as_an_array_of_its_kind(noisy, kind, grey):
    given = array(noisy, kind, grey)
    before = given.copy()
    result = deepred.restore(given, **COMMON)
    assert result.image.shape == given.shape and result.image.dtype == given.dtype
    assert np.array_equal(given, before)
    # In units of white: the image of the tensor itself, to half a step of 8 bits twice.
    exact = deepred.restore(noisy[:, :1] if grey else noisy, **COMMON).image[0]
    white = {"uint8": 255, "uint16": 65535}.get(kind, 1)
    found = torch.from_numpy(result.image.astype(float) / white)
    found = found[None] if grey else found.permute(2, 0, 1)
    torch.testing.assert_close(found, exact.double().clamp(0, 1), atol=1 / 255, rtol=0)


@pytest.mark.parametrize("name", ["picture.png", "grey.png"])
def test_a_file_gives_an_array(noisy, tmp_path, name):
    given = array(noisy, "uint8", grey=name == "grey.png")
    Image.fromarray(given).save(tmp_path / name)
    for path in (tmp_path / name, str(tmp_path / name)):
        assert np.array_equal(deepred.restore(path, **COMMON).image,
                              deepred.restore(given, **COMMON).image)  # fmt: skip


def test_a_file_of_12_bits_in_16_comes_back_at_its_scale(noisy, tmp_path):
    given = np.round(4095 * array(noisy, "float64")).astype(np.uint16)
    tifffile.imwrite(tmp_path / "raw.tif", given, photometric="rgb")
    found = deepred.restore(tmp_path / "raw.tif", **COMMON).image
    assert found.dtype == np.uint16
    exact = 4095 * deepred.restore(given / 4095, **COMMON).image.clip(0, 1)
    assert np.abs(found - exact).max() <= 0.5 + 1e-2  # rounded once; float32 in between


def test_an_array_of_the_other_byte_order_is_the_same_array(noisy):
    given = array(noisy, "float32")
    found = deepred.restore(given.astype(">f4"), **COMMON).image
    assert np.array_equal(found, deepred.restore(given, **COMMON).image)


def test_a_larger_image_comes_back_larger(noisy, tiny):
    settings = tiny.replace(x_start="zeros", iterations=2, growth=0.0)
    result = deepred.restore(array(noisy, "uint8"), Downsample(2), settings=settings, device="cpu")
    assert result.image.shape == (64, 64, 3) and result.image.dtype == np.uint8


@pytest.mark.parametrize(
    "y",
    [np.ones((3, 8, 8)), np.ones((8, 8, 4)), np.ones(8), np.ones((8, 8), bool), np.ones((0, 8))],
    ids=lambda y: f"{y.dtype} {y.shape}",
)
def test_arrays_of_other_shapes_and_types_are_refused(y):
    with pytest.raises(deepred.InputError, match=r"an array y must be \(H, W\) or \(H, W, 3\)"):
        deepred.restore(y, **COMMON)


def test_a_result_is_shown_with_before_and_after(noisy, tiny):
    wide = noisy.repeat(1, 1, 1, 20)  # 640 pixels: shown at 256
    result = deepred.restore(wide, settings=tiny.replace(iterations=3), sigma=0.1, device="cpu")
    html = result._repr_html_()
    pictures = re.findall(r'alt="(\w+)".*?base64,([^"]+)"', html)
    assert [name for name, _ in pictures] == ["before", "after"]
    for _, data in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(data))).width == 256
    assert "fit not finished" in html and len(repr(result)) < 200
    axes = result.plot().axes
    assert [a.get_title() for a in axes] == ["before", "after", "residual"]
    assert len(axes[2].get_lines()[0].get_xdata()) == 3


def test_a_sinogram_is_shown_as_well(noisy):
    H = Radon.views(32, 8)
    result = deepred.restore(H(noisy[:, :1]), H, method="red", device="cpu")
    assert result._repr_html_().count("<img") == 2 and len(result.plot().axes) == 3


# What looks wrong, in one line -------------------------------------------------------------------


DOUBTS = {
    "of 12 bits": (lambda y: (y / 16, None), "divide by 4095"),
    "of -1 to 1": (lambda y: (2 * y - 1, None), "becomes so by (y + 1) / 2"),
    "even": (lambda y: (y, Blur.uniform(8)), "centre of mass is -0.5 pixels below"),
    "framed": (lambda y: (y, Framed.of(Blur.of([[0, 0, 1]]))), "1.0 right of its origin"),
    "inverted": (lambda y: (y, Inpaint.random((32, 32), 0.03)), "invert it"),
    "sums": (lambda y: (32 * Radon.views(32, 8)(y), Radon.views(32, 8)), "divide one of sums by"),
    "sums, scaled": (
        lambda y: (96 * Radon.views(32, 8)(y), Scaled(Radon.views(32, 8), 2.0)),
        "divide one of sums by side, 32",
    ),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_what_looks_wrong_is_said_once(noisy, case, caplog):
    make, told = DOUBTS[case]
    y, H = make(noisy)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            resolve(deepred.Problem(y, H, sigma=0.1))
    (record,) = caplog.records
    assert told in record.message and "\n" not in record.message


def test_what_looks_right_is_not_remarked_upon(noisy, caplog):
    for H in (None, Blur.uniform(), Blur.gaussian(), Inpaint.random((32, 32), 0.1)):
        resolve(deepred.Problem(noisy + 0.1 * torch.randn(noisy.shape), H, sigma=0.1))
    H = Radon.views(32, 8)
    resolve(deepred.Problem(H(noisy), H, sigma=0.1))
    assert not caplog.records


# One run for each checkpoint, and memory ---------------------------------------------------------


def test_two_runs_on_one_checkpoint_are_refused(noisy, tiny, tmp_path):
    options = dict(settings=tiny, sigma=0.1, device="cpu", checkpoint=tmp_path / "c.pt")
    refused, whole = [], deepred.restore(noisy, settings=tiny, sigma=0.1, device="cpu")

    def other(state):
        if state.k == 5:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    def second():
        with pytest.raises(deepred.InputError, match="another run is using this checkpoint"):
            deepred.restore(noisy, **options)
        refused.append(True)

    result = deepred.restore(noisy, callback=other, **options)
    assert refused and torch.equal(result.image, whole.image)
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]  # no lock is left
    problem = deepred.Problem(noisy, **{k: v for k, v in options.items() if k != "device"})
    with pytest.raises(deepred.InputError, match="another run is using this checkpoint"):
        deepred.restore_all([problem, problem], device="cpu")
    with pytest.raises(deepred.InputError, match="there is no folder"):
        deepred.restore(noisy, **options | {"checkpoint": tmp_path / "none" / "c.pt"})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=repr,
)
def test_an_allocation_that_fails_is_told_in_one_line(noisy, tiny, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(job, "initialise", fail)
    for changes, advice in (({"channels": 128}, "fewer channels"), ({}, "use a smaller image")):
        with pytest.raises(deepred.InputError, match=f"^not enough memory .*{advice}") as told:
            deepred.restore(noisy, settings=tiny.replace(**changes), sigma=0.1, device="cpu")
        assert "\n" not in str(told.value) and "--preset" not in str(told.value)
