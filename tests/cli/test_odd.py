"""Odd values for each option, and odd files for each entry: exit 2, one line, nothing written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from command import call, names
from PIL import Image

VALUES = [
    "", " ", "-1", "0", "0.0", "1e400", "-inf", "nan", "9" * 30, "9" * 5000, "1_0", "٣", "0x10",
    "ten", "1,5", "1e3x", "None", "[1]", "a\nb", "--", "-x", "../nowhere/x", "x" * 300, "\udcff",
]  # fmt: skip

# Each option of a restore that is good but for it; what of the above it takes.
OPTIONS = {
    "--sigma": [], "--scale": [], "--iterations": [], "--runs": [], "--patience": [], "--tile": [],
    "--quality": [], "--white": [], "--seed": ["0"], "--task": [], "--method": [], "--preset": [],
    "--denoiser": [], "--stop": [], "--device": [], "--precision": [], "--kernel": [], "--mask": [],
    "--output": [], "--compare": [], "--confidence": [],
}  # fmt: skip
NEEDS = {
    "--scale": ["--task", "sr"], "--kernel": ["--task", "deblur"], "--mask": ["--task", "inpaint"],
    "--patience": ["--stop", "windowed-variance"], "--confidence": ["--runs", "2"],
}  # fmt: skip
RUN = {
    "--profile": [], "--only": [], "--seeds": ["0"], "--device": [], "--workers": [], "--batch": [],
    "--budget": [],
}  # fmt: skip


def refused(code: int, said, what: str) -> None:
    assert code == 2, (what, said)
    assert said.out == "", what
    assert said.err.startswith("deepred") and said.err.endswith("\n"), (what, said.err)
    assert said.err.count("\n") == 1, (what, said.err)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """With a noisy picture in.png; nothing may be computed."""

    def work(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr("deepred.restoration.restore_all", work)
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (48, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save("in.png")
    return tmp_path


@pytest.mark.parametrize("option", OPTIONS)
def test_odd_values_of_restore(folder, capsys, option):
    for value in VALUES:
        if value not in OPTIONS[option]:
            output = [] if option == "--output" else ["-o", "out.png"]
            code = call("restore", "in.png", *output, *NEEDS.get(option, []), f"{option}={value}")
            refused(code, capsys.readouterr(), f"{option}={value[:50]}")
    assert names(folder) == ["in.png"]


@pytest.mark.parametrize("option", RUN)
def test_odd_values_of_run(folder, capsys, option):
    for value in VALUES:
        if value not in RUN[option]:
            code = call("run", "--profile", "smoke", "--dry-run", f"{option}={value}")
            refused(code, capsys.readouterr(), f"{option}={value[:50]}")
    assert names(folder) == ["in.png"]


def npy(array, **options) -> bytes:
    np.save("made.npy", array, **options)
    content = Path("made.npy").read_bytes()
    Path("made.npy").unlink()
    return content


def huge() -> bytes:
    """A .npy that announces a terabyte."""
    return npy(np.zeros((2, 2))).replace(b"(2, 2), ", b"(1000000, 1000000), ")[:128]


CONTENTS = {
    "nothing": lambda: b"",
    "a zero": lambda: b"\0",
    "zeros": lambda: bytes(1000),
    "text": lambda: b"one two three\n" * 30,
    "numbers of other counts": lambda: b"1 2 3\n4 5\n",
    "nan": lambda: b"nan nan\nnan nan\n",
    "infinity": lambda: b"1 inf\n1 1\n",
    "not utf-8": lambda: b"\xff\xfe\x001 2\n",
    "json": lambda: b"{}",
    "half a png": lambda: b"\x89PNG\r\n\x1a\n\0\0",
    "a jpeg's start": lambda: b"\xff\xd8\xff\xe0" + bytes(60),
    "a tiff's start": lambda: b"II*\0\x08\0\0\0\x01\0" + bytes(20),
    "a gif": lambda: b"GIF89a" + bytes(40),
    "a zip": lambda: b"PK\x05\x06" + bytes(18),
    "a pickle": lambda: pickle.dumps([1, 2]),
    "objects": lambda: npy(np.array([{}, None], object), allow_pickle=True),
    "complex": lambda: npy(np.ones((3, 3)) * 1j),
    "words": lambda: npy(np.array([["a", "b"]])),
    "a number": lambda: npy(np.float64(3)),
    "no rows": lambda: npy(np.zeros((0, 3))),
    "four dimensions": lambda: npy(np.ones((1, 1, 3, 3))),
    "halves": lambda: npy(np.full((48, 32), -0.5)),
    "a terabyte": huge,
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".txt", ".csv"])
@pytest.mark.parametrize("entry", ["INPUT", "--kernel", "--mask"])
def test_odd_files(folder, capsys, entry, suffix):
    odd = folder / f"odd{suffix}"
    for kind, content in CONTENTS.items():
        odd.write_bytes(content())
        refused(restored(entry, odd), capsys.readouterr(), kind)
    odd.unlink()
    assert names(folder) == ["in.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes in its file system")
@pytest.mark.parametrize("suffix", [".png", ".npy", ".txt"])
@pytest.mark.parametrize("entry", ["INPUT", "--kernel", "--mask"])
def test_what_is_no_regular_file(folder, capsys, entry, suffix):
    """None of them is opened: a pipe would wait for ever, a device has no end."""
    odd = folder / f"odd{suffix}"
    kinds = {
        "a pipe": os.mkfifo,
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a dead link": lambda path: path.symlink_to("nowhere"),
    }
    for kind, place in kinds.items():
        place(odd)
        refused(restored(entry, odd), capsys.readouterr(), kind)
        odd.unlink()
    assert names(folder) == ["in.png"]


def restored(entry: str, odd: Path) -> int:
    if entry == "INPUT":
        return call("restore", odd, "-o", "out.png")
    return call("restore", "in.png", "-o", "out.png", *NEEDS[entry], entry, odd)
