"""`deepred restore` as a photographer has it: previews, tiles, folders, EXIF, comparisons."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from command import ENVIRONMENT, LIMIT, call, names, stopped
from PIL import Image

from deepred import denoisers, solver
from deepred.beyond import stopping
from deepred.cli import options
from deepred.io import images


@pytest.fixture
def photograph(tmp_path) -> Path:
    """130 x 110, noise of 20, lies on its side: EXIF's orientation is 6."""
    array = skimage.data.astronaut()[:110, 150:280]
    noisy = array + 20 * np.random.default_rng(0).standard_normal(array.shape)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "photo.jpg"
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, exif=exif, quality=95)
    return path


def test_what_is_said_before_and_after(photograph, tmp_path, small_network, capsys):
    output, seen, map_ = (tmp_path / name for name in ("out.jpg", "seen.png", "map.png"))
    code = call(
        "restore", photograph, "-o", output, "--iterations", 15, "--runs", 2, "--denoiser", "nlm",
        "--compare", seen,
        "--confidence", map_, "--quality", 30,
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    first, preview, clock, *_ = said.err.splitlines()
    assert re.search(r"photo\.jpg: 110x130, colour, noise level estimated: sigma = [\d.]+", first)
    assert re.search(r"at most 15 iterations x 2 runs, about [\d.]+ GB of memory$", first)
    assert re.search(r"out\.jpg: a preview by RED alone, .*; the result replaces it$", preview)
    assert re.search(r"at most .* to go, at .* s an iteration; --method red would", clock)
    assert re.search(r"map\.png: white is a spread of [\d.]+ of 255", said.err)
    with Image.open(output) as image:
        assert image.size == (110, 130)  # upright
        assert image.getexif().get(0x010F) == "A camera" and 0x0112 not in image.getexif()
        steps = max(image.quantization[0])
    assert steps > 100  # of quality 95 it is 10
    made = images.read(output).image
    assert images.read(seen).image.shape[3] > 3 * 110  # with gaps between the three
    assert images.read(map_).image.max() == 1 and images.read(map_).image.shape[1] == 1
    assert made.shape == (1, 3, 130, 110)


def test_interrupted_the_preview_stays(photograph, tmp_path, small_network, monkeypatch, capsys):
    def interrupted(self, done, note=""):
        raise KeyboardInterrupt

    monkeypatch.setattr("deepred.batch.progress.Progress.reach", interrupted)
    output, quick = tmp_path / "out.png", tmp_path / "quick.png"
    assert call("restore", photograph, "-o", output, "--denoiser", "nlm") == 130
    assert f"{output} is the preview" in capsys.readouterr().err
    monkeypatch.undo()
    assert call("restore", photograph, "-o", quick, "--method", "red") == 0
    # the same settings but for what f is told, which the preview takes from the upper bound
    assert (images.read(output).image - images.read(quick).image).abs().mean() < 0.01

    (tmp_path / ".out.png.checkpoint").unlink()
    before = output.read_bytes()  # what is there may be a result: no preview takes its place
    monkeypatch.setattr("deepred.batch.progress.Progress.reach", interrupted)
    again = ["--sigma", 20, "--method", "dip"]
    assert call("restore", photograph, "-o", output, "--seed", 1, *again) == 130
    assert output.read_bytes() == before


@pytest.mark.parametrize("task", ["denoise", "sr", "deblur", "inpaint"])
def test_tiles_restore_each_task(photograph, tmp_path, small_network, capsys, task):
    more = {"sr": ["--scale", 2], "deblur": ["--kernel", "uniform9"]}.get(task, [])
    if task == "inpaint":
        mask = np.full((130, 110), 255, np.uint8)
        mask[60:70, 30:60] = 0
        Image.fromarray(mask).save(tmp_path / "mask.png")
        more = ["--mask", tmp_path / "mask.png"]
    output = tmp_path / "out.png"
    options = ["--method", "red", "--iterations", 3, "--task", task, *more]
    tile = 140 if task == "deblur" else 100
    if task == "deblur":
        array = np.tile(np.array(Image.open(photograph)), (2, 2, 1))
        Image.fromarray(array).save(photograph)
    assert call("restore", photograph, "-o", output, *options) == 0
    whole = images.read(output).image
    assert call("restore", photograph, "-o", output, *options, "--tile", tile) == 0
    count = re.search(r"(\d+) tiles", capsys.readouterr().out)
    assert count and int(count[1]) > 1
    parts = images.read(output).image
    # NLM and a few conjugate gradients reach little beyond a pixel's own neighbourhood
    assert (parts - whole).abs().mean() < 0.01


def test_tiles_that_are_all_overlap_are_refused(photograph, tmp_path, capsys):
    command = ["restore", photograph, "-o", tmp_path / "out.png", "--task", "sr"]
    assert call(*command, "--scale", 8, "--tile", 200) == 2
    assert "--tile 200: its overlap" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_tiles_continue_after_an_interruption(photograph, tmp_path, small_network, monkeypatch):
    from deepred.batch.progress import Progress

    output, reach, calls = tmp_path / "out.png", Progress.reach, []
    command = ["restore", photograph, "-o", output, "--tile", 100, "--iterations", 6]
    command += ["--denoiser", "nlm", "--sigma", 20]

    def third(self, done, note=""):
        calls.append(done)
        if len(calls) == 15:  # two runs of six iterations, and into the second tile
            raise KeyboardInterrupt
        reach(self, done, note)

    monkeypatch.setattr(Progress, "reach", third)
    assert call(*command) == 130
    assert ".out.png.0.checkpoint" in names(tmp_path)
    assert call(*command) == 0
    assert len(calls) <= 15 + 4 * 12 - 12  # the first tile is not computed again
    continued = output.read_bytes()
    assert call(*command[:3], tmp_path / "whole.png", *command[4:]) == 0
    assert (tmp_path / "whole.png").read_bytes() == continued


def test_a_folder_and_a_bad_file_in_it(photograph, tmp_path, capsys):
    Image.open(photograph).save(photograph.with_name("second.png"))
    photograph.with_name("bad.png").write_bytes(b"no image")
    photograph.with_name("notes.txt").write_text("not looked at")
    out, compared = tmp_path / "out", tmp_path / "compared"
    options = ["--method", "red", "--sigma", 20, "--compare", compared]
    assert call("restore", photograph.parent, "-o", out, *options) == 2
    said = capsys.readouterr()
    assert names(out) == names(compared) == ["photo.jpg", "second.png"]
    assert "bad.png: not a PNG" in said.err and "1 of 3 pictures were not" in said.err
    photograph.with_name("._photo.jpg").write_bytes(b"what macOS writes beside a file")
    for same in (photograph.parent, photograph.parent / ".." / photograph.parent.name):
        assert call("restore", photograph.parent, "-o", same, *options[:4]) == 2
        assert "different names" in capsys.readouterr().err
    assert call("restore", photograph.parent, "-o", photograph, *options[:4]) == 2
    assert "photo.jpg: a file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert call("restore", tmp_path / "empty", "-o", out) == 2
    assert "no image in it" in capsys.readouterr().err


def test_an_interrupted_folder_goes_on_where_it_was(
    photograph, tmp_path, monkeypatch, small_network
):
    Image.open(photograph).save(photograph.with_name("second.png"))
    command = ["restore", photograph.parent, "-o", tmp_path / "out", "--method", "dip"]
    command += ["--iterations", 8]
    made, write = [], images.write

    def second_is_interrupted(path, *rest, **more):
        made.append(path.name)
        if made == ["photo.jpg", "photo.jpg", "second.png", "second.png"]:  # preview and result
            raise KeyboardInterrupt
        write(path, *rest, **more)

    monkeypatch.setattr(images, "write", second_is_interrupted)
    assert call(*command) == 130
    names = [".photo.jpg.checkpoint", ".second.png.checkpoint"]
    assert sorted(path.name for path in (tmp_path / "out").glob(".*")) == names
    monkeypatch.setattr(solver.ADMM, "theta_update", None)  # nothing is computed again
    assert call(*command) == 0
    assert not list((tmp_path / "out").glob(".*"))


def test_exif_that_a_jpeg_cannot_hold_is_left_out_with_a_word(photograph, tmp_path, caplog):
    exif = Image.Exif()
    exif[0x010E] = "a long description" * 5000
    Image.open(photograph).save(tmp_path / "long.png", exif=exif)
    output = tmp_path / "out.jpg"
    assert call("restore", tmp_path / "long.png", "-o", output, "--method", "red") == 0
    assert "EXIF is too long for a JPEG" in caplog.text
    assert not Image.open(output).getexif()


def test_transparent_pixels_stay_and_tell_no_noise(tmp_path, capsys):
    random = np.random.default_rng(0)
    array = np.full((64, 96, 4), 128, np.uint8)
    array[..., :3] += np.round(5 * random.standard_normal((64, 96, 3))).astype(np.int8).view("u1")
    array[:, :48, :3] = random.integers(0, 256, (64, 48, 3))  # below nothing
    array[:, :48, 3] = 0
    Image.fromarray(array).save(tmp_path / "in.png")
    assert call("restore", tmp_path / "in.png", "-o", tmp_path / "out.png", "--method", "red") == 0
    sigma = re.search(r"sigma = ([\d.]+)", capsys.readouterr().err)
    assert 4 < float(sigma[1]) < 6.5  # 5 and rounding, told from few blocks
    made = np.array(Image.open(tmp_path / "out.png"))
    assert np.array_equal(made[:, :48], array[:, :48])


def test_confidence_needs_runs(photograph, tmp_path, capsys):
    for more in ([], ["--method", "red"], ["--runs", 1]):
        command = ["restore", photograph, "-o", tmp_path / "out.png"]
        assert call(*command, "--confidence", tmp_path / "map.png", *more) == 2
        assert "give --runs 2 or more" in capsys.readouterr().err
    assert names(tmp_path) == ["in", "in/photo.jpg"]


# The process --------------------------------------------------------------------------------------


def test_help_is_quick_and_the_names_are_those_of_the_modules():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "deepred", "restore", "--help"], env=ENVIRONMENT, timeout=LIMIT,
        capture_output=True, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "examples:" in done.stdout and "presets:" in done.stdout
    # .1 s of processor time here; torch alone takes 1.5, and the limit is for a slower machine
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert options.DENOISERS == denoisers.NAMES and options.RULES == stopping.NAMES


# Says that torch is being imported, and waits there for a signal.
IMPORTING = """
import signal, sys, time
from pathlib import Path

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            Path(sys.argv[2]).touch()
            time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
from deepred import cli
cli.main(["restore", "in.png", "-o", "out.png"])
"""


@pytest.mark.parametrize("number", [2, 15], ids=["SIGINT", "SIGTERM"])
def test_a_signal_during_the_imports_is_one_line(tmp_path, number):
    code, said = stopped(number, tmp_path / "reached", IMPORTING, 0)
    assert (code, said) == (130, "deepred: interrupted\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_a_full_device_ends_no_work(photograph, tmp_path, which):
    output = tmp_path / "out-ä.png"
    with open("/dev/full", "w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, which: full}
        done = subprocess.run(
            [sys.executable, "-m", "deepred", "restore", photograph, "-o", output, "--method",
             "red"],
            env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}, timeout=LIMIT, text=True, **streams,
        )  # fmt: skip
    assert done.returncode == 0
    assert images.read(output).image.shape == (1, 3, 130, 110)
    if which == "stderr":
        assert "out-\\xe4.png: red" in done.stdout
    else:
        assert done.stderr.splitlines()[-1].startswith("deepred: standard output: No space left")


def test_a_list_that_cannot_be_printed_is_a_failure():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deepred", "data", "list"], env=ENVIRONMENT, timeout=LIMIT,
            text=True, stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
