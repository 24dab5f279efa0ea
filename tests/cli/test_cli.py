"""The command line: what it writes, what it refuses in one line, and what survives an interruption.

Subprocesses are waited for on conditions, with limits that a busy machine does not reach.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from command import assert_refused, call, names, picture, run, stopped
from pictures import cut, make, pixels
from PIL import Image

import deepred
from deepred.io import images

# What it does -------------------------------------------------------------------------------------


def test_restore_from_end_to_end(noisy_png, tmp_path):
    done = run("restore", noisy_png, "-o", tmp_path / "out.png", "--iterations", 3)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == [".out.png.checkpoint", "in.png", "out.png"]
    told = r"^fit not finished: residual [\d.]+, noise [\d.]+; --iterations 6 would go on$"
    assert re.search(told, done.stderr, re.MULTILINE)
    with Image.open(tmp_path / "out.png") as image:
        assert (image.mode, image.size) == ("RGB", (32, 48))
        assert np.ptp(np.array(image)) > 0
    estimated = re.search(r"noise level estimated: sigma = ([\d.]+) of 255", done.stderr)
    # 20 before rounding and clipping; the estimate from 1536 pixels is off by a few percent
    assert 15 < float(estimated[1]) < 25
    assert re.fullmatch(
        r".*out\.png: deepred, preset fast, 3 iterations x \d+, \d+ s on (cpu|cuda), \w+.*\n",
        done.stdout,
    )


@pytest.mark.parametrize(
    ("suffix", "channels", "kind"),
    [
        (".png", 1, np.uint8),
        (".png", 4, np.uint8),
        (".png", 2, np.uint16),
        (".tif", 4, np.uint16),
        (".tif", 3, np.float32),
    ],
)
def test_restore_keeps_size_depth_and_alpha(tmp_path, small_network, suffix, channels, kind):
    array = picture(channels, kind)
    if suffix == ".tif":
        make(tmp_path / "in.tif", array)
    else:
        alpha = array[..., -1] if channels in (2, 4) else None
        colours = array[..., :-1] if channels in (2, 4) else array
        bits = 8 * array.itemsize
        images.write(tmp_path / "in.png", images.Picture(images.to_tensor(colours), bits, alpha))
    given = images.read(tmp_path / f"in{suffix}")
    output = tmp_path / f"out{suffix}"
    code = call("restore", tmp_path / f"in{suffix}", "-o", output, "--iterations", 2, "--sigma", 20)
    assert code == 0
    got = images.read(output)
    assert got.image.shape == given.image.shape
    assert got.bits == given.bits
    assert (got.alpha is None) == (channels in (1, 3))
    if got.alpha is not None:
        assert np.array_equal(got.alpha, given.alpha)
    assert not torch.equal(got.image, given.image)


@pytest.mark.parametrize("method", ["deepred", "dip", "red"])
@pytest.mark.parametrize("denoiser", [None, "tv"])
def test_each_method_works(noisy_png, tmp_path, small_network, capsys, method, denoiser):
    output = tmp_path / "out.png"
    more = ["--denoiser", denoiser] if denoiser else []
    code = call(
        "restore", noisy_png, "-o", output, "--method", method, "--iterations", 3, "--sigma", 25,
        *more,
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0
    assert f"out.png: {method}, preset fast, 3 iterations" in said.out
    assert "estimated" not in said.err  # the level was given
    left = [".out.png.checkpoint"] if method == "deepred" else []  # not at the noise by far
    assert names(tmp_path) == [*left, "in.png", "out.png"]
    assert images.read(output).image.shape == (1, 3, 48, 32)


def test_the_seed_and_the_method_matter_and_the_rest_is_repeatable(
    noisy_png, tmp_path, small_network
):
    def result(*options) -> bytes:
        output = tmp_path / "out.png"
        assert call("restore", noisy_png, "-o", output, "--iterations", 3, *options) == 0
        (tmp_path / ".out.png.checkpoint").unlink(missing_ok=True)  # computed each time
        return output.read_bytes()

    first = result()
    assert result() == first
    assert result("--seed", 1) != first
    assert result("--method", "red") != first


def test_restore_may_replace_its_input(noisy_png, small_network):
    before = noisy_png.read_bytes()
    assert call("restore", noisy_png, "-o", noisy_png, "--iterations", 2) == 0
    assert noisy_png.read_bytes() != before
    assert names(noisy_png.parent) == ["in.png"]


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"deepred {deepred.__version__}\n"


@pytest.mark.parametrize("command", ["", "restore", "run", "reproduce", "data list", "data fetch"])
def test_help_of_each_command(capsys, command):
    assert call(*command.split(), "--help") == 0
    assert capsys.readouterr().out.startswith("usage: deepred")


def test_data_list_says_what_is_where(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    assert call("data", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 43
    assert all(line.startswith("missing") for line in lines)
    assert call("data", "list", "set5/bird") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == ["missing", "set5/bird", "288x288"]


def test_data_fetch_tells_each_failure_and_exits_1(tmp_path, monkeypatch, capsys):
    from deepred.io import datasets

    def fetch(entry):
        if entry.name == "bird":
            raise datasets.DownloadError(f"{entry}: no network")
        return tmp_path / entry.path

    monkeypatch.setattr(datasets, "fetch", fetch)
    assert call("data", "fetch", "set5") == 1
    said = capsys.readouterr()
    assert said.err == "deepred: set5/bird: no network\n"
    assert len(said.out.splitlines()) == 4


def test_a_dry_run_computes_and_writes_nothing(tmp_path, capsys):
    store = tmp_path / "store"
    assert call("run", "--profile", "smoke", "--dry-run", "--store", store) == 0
    assert "to do" in capsys.readouterr().out
    assert names(tmp_path) == []


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("method", ["deepred", "red"])
def test_super_resolution_gives_a_larger_image_with_its_alpha(
    tmp_path, small_network, scale, method
):
    make(tmp_path / "in.png", picture(4))
    output = tmp_path / "out.png"
    options = ["--task", "sr", "--scale", scale, "--method", method, "--iterations", 2]
    assert call("restore", tmp_path / "in.png", "-o", output, *options) == 0
    got = images.read(output)
    assert got.image.shape == (1, 3, 48 * scale, 32 * scale)
    assert got.alpha.shape == (48 * scale, 32 * scale)


@pytest.mark.parametrize("kernel", ["uniform9", "gauss25", "psf.txt"])
@pytest.mark.parametrize("method", ["deepred", "dip", "red"])
def test_deblurring_keeps_the_size(noisy_png, tmp_path, small_network, kernel, method):
    if kernel == "psf.txt":
        kernel = tmp_path / kernel
        np.savetxt(kernel, [[0, 1, 2, 3]])
    output = tmp_path / "out.png"
    options = ["--task", "deblur", "--kernel", kernel, "--method", method, "--iterations", 2]
    assert call("restore", noisy_png, "-o", output, *options) == 0
    assert images.read(output).image.shape == (1, 3, 48, 32)


@pytest.mark.parametrize("method", ["deepred", "dip", "red"])
@pytest.mark.parametrize("kind", ["mask.png", "mask.npy"])
def test_inpainting_fills_what_the_mask_leaves_out(
    noisy_png, tmp_path, small_network, method, kind
):
    """And keeps the rest to the last bit; what lies under the mask has no part."""
    seen = np.ones((48, 32), bool)
    seen[10:20, 5:15] = False
    mask = tmp_path / kind
    np.save(mask, seen) if kind == "mask.npy" else make(
        mask, 255 * seen.astype(np.uint8)[..., None]
    )
    options = ["--task", "inpaint", "--mask", mask, "--method", method, "--iterations", 2]
    before = images.read(noisy_png).image
    spoilt_png = make(tmp_path / "spoilt.png", np.array(Image.open(noisy_png)) * seen[..., None])
    filled = []
    for i, path in enumerate((noisy_png, spoilt_png)):
        output = tmp_path / f"out{i}.png"
        assert call("restore", path, "-o", output, *options) == 0
        filled.append(images.read(output).image)
    assert torch.equal(filled[0], filled[1])
    assert torch.equal(filled[0][0][:, seen], before[0][:, seen])
    assert not torch.equal(filled[0][0][:, ~seen], before[0][:, ~seen])


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("other size", "mask of 32x32 with 1 channel(s) does not fit an image of 32x48 with 3"),
        ("black", "must leave something to see"), ("missing", "no such file"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit_are_refused(noisy_png, tmp_path, capsys, kind, told):
    mask = tmp_path / "mask.png"
    if kind != "missing":
        side = 32 if kind == "other size" else 48
        make(mask, np.full((side, 32, 1), 0 if kind == "black" else 255, np.uint8))
    before = names(tmp_path)
    output = tmp_path / "out.png"
    code = call("restore", noisy_png, "-o", output, "--task", "inpaint", "--mask", mask)
    assert_refused(code, capsys.readouterr(), told)
    assert names(tmp_path) == before


def test_restore_stops_by_a_rule(noisy_png, tmp_path, small_network, capsys):
    output = tmp_path / "out.png"
    options = ["--method", "dip", "--stop", "discrepancy", "--sigma", 60, "--iterations", 400]
    assert call("restore", noisy_png, "-o", output, *options) == 0
    taken = re.search(r"iteration (\d+), (\d+) of 400", capsys.readouterr().out)
    assert taken and all(1 <= int(k) < 400 for k in taken.groups())  # sigma is generous
    options[3:6] = ["exponential-variance", "--patience", 30]
    assert call("restore", noisy_png, "-o", output, *options) == 0
    assert re.search(r"iteration \d+, \d+ of 400", capsys.readouterr().out)


# What it refuses ----------------------------------------------------------------------------------

# Options of a restore that is good but for them, and what the one line must say.
BAD_OPTIONS = {
    "--sigma abc": "--sigma: must be a number from 0.001 to 254, got 'abc'",
    "--sigma 300": "from 0.001 to 254, got '300'",
    "--iterations 0": "--iterations: must be a whole number from 1 to 10000000, got '0'",
    "--iterations 1.5": "must be a whole number",
    "--task sr --scale 5": "--scale",
    "--scale 4": "--scale belongs to --task sr, not denoise",
    "--task sr --kernel uniform9": "--kernel belongs to --task deblur, not sr",
    "--task deblur": "needs --kernel uniform9|gauss25|FILE",
    "--task deblur --kernel nowhere.png": "kernel nowhere.png: no such file",
    "--task inpaint": "--task inpaint needs --mask FILE, white where a pixel is to stay",
    "--mask nowhere.png": "--mask belongs to --task inpaint, not denoise",
    "--task inpaint --mask nowhere.png": "nowhere.png: no such file",
    "--task tomography": "--task",
    "--stop discrepancy --task sr": "--stop discrepancy with --task sr needs --sigma",
    "--stop discrepancy --method red": "--stop has nothing to stop in --method red",
    "--patience 5": "--patience belongs to --stop windowed-variance or exponential-variance",
    "--stop windowed-variance --patience 0": "--patience: must be a whole number from 1",
    "--profile quick": "--profile",
    "second.png": "second.png",
}

# Input files that are none, made in the folder.
BAD_INPUTS = {
    "missing": (lambda d: d / "no.png", "no such file"),
    "a folder": (lambda d: d, "no image in it"),
    "cut tiff": (lambda d: cut(make(d / "bad.tif", pixels(3)), 0.5), "bad.tif"),
    "tiff cut in its tags": (lambda d: cut(make(d / "bad.tif", pixels(3)), 0.005), "bad.tif"),
    "int32": (lambda d: make(d / "bad.tif", pixels(3).astype(np.int32)), "int32"),
    "no noise": (lambda d: make(d / "bad.png", np.zeros((32, 32, 3), np.uint8)), "sigma"),
}

# Outputs that cannot be, beside the input in.png or the RGBA image alpha.png.
BAD_OUTPUTS = {
    "missing folder": ("in.png", "nowhere/out.png", "does not exist"),
    "below a file": ("in.png", "in.png/out.png", "does not exist"),
    "a folder": ("in.png", ".", "unknown output format"),
    "unknown suffix": ("in.png", "out.webp", "unknown output format '.webp'"),
    "no suffix": ("in.png", "out", "unknown output format"),
    "name too long": ("in.png", "x" * 300 + ".png", "cannot be written"),
    "alpha to jpg": ("alpha.png", "out.jpg", "alpha"),
    "alpha to bmp": ("alpha.png", "out.bmp", "alpha"),
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options_are_refused(noisy_png, tmp_path, capsys, options):
    code = call("restore", noisy_png, "-o", tmp_path / "out.png", *options.split())
    assert_refused(code, capsys.readouterr(), BAD_OPTIONS[options])
    assert names(tmp_path) == ["in.png"]


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_inputs_are_refused(tmp_path, capsys, kind):
    prepare, reason = BAD_INPUTS[kind]
    path = prepare(tmp_path)
    before = names(tmp_path)
    code = call("restore", path, "-o", tmp_path / "out.png", "--iterations", 1)
    assert_refused(code, capsys.readouterr(), reason)
    assert names(tmp_path) == before


@pytest.mark.parametrize("kind", BAD_OUTPUTS)
def test_bad_outputs_are_refused_before_any_work(noisy_png, tmp_path, capsys, monkeypatch, kind):
    def work(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr("deepred.restoration.restore_all", work)
    make(tmp_path / "alpha.png", pixels(4))
    source, output, reason = BAD_OUTPUTS[kind]
    code = call("restore", tmp_path / source, "-o", tmp_path / output)
    assert_refused(code, capsys.readouterr(), reason)
    assert names(tmp_path) == ["alpha.png", "in.png"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("", "COMMAND"),
        ("restor in.png", "restor"),
        ("restore", "INPUT"),
        ("restore in.png", "-o/--output"),
        ("data", "list|fetch"),
        ("data fetch no_such_set", "unknown data set or image 'no_such_set'"),
        ("data list set5/nobody", "unknown data set or image 'set5/nobody'"),
        ("run --profile huge", "unknown profile 'huge'; known are smoke, quick, paper"),
        ("run --only magic", "unknown experiment 'magic'"),
        ("run --store file", "--store: file is no folder"),
        ("run --store file/below", "--store: file is no folder"),
        ("reproduce --profile huge", "unknown profile 'huge'"),
        ("reproduce --only magic", "unknown experiment 'magic'"),
        ("reproduce --out file", "--out: file is no folder"),
    ],
)
def test_bad_commands_are_refused(tmp_path, monkeypatch, capsys, command, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    assert_refused(call(*command.split()), capsys.readouterr(), reason)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("command", ["data list", "data fetch set5"])
def test_a_data_folder_that_is_nowhere_is_refused(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path / "nowhere"))
    assert_refused(call(*command.split()), capsys.readouterr(), "DEEPRED_DATA=")
    assert names(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, nothing to refuse")
def test_cuda_where_there_is_none_is_refused(noisy_png, tmp_path, capsys):
    code = call("restore", noisy_png, "-o", tmp_path / "out.png", "--device", "cuda")
    assert_refused(code, capsys.readouterr(), "no CUDA device here; use cpu or auto")
    assert names(tmp_path) == ["in.png"]


def test_too_little_memory_is_said_before_the_work(noisy_png, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("deepred.compute.memory.memory_available", lambda: 30_000_000)
    output = tmp_path / "out.png"
    code = call("restore", noisy_png, "-o", output, "--preset", "paper", "--device", "cpu")
    said = capsys.readouterr()
    assert_refused(code, said, "32x48 with 128 channels")
    assert re.search(r"needs about \d+\.\d GB, 0\.0 GB are free", said.err)
    assert names(tmp_path) == ["in.png"]


@pytest.mark.parametrize(
    ("kind", "reason"), [("tiff cut in its tags", "bad.tif"), ("cut tiff", "bad.tif")]
)
def test_a_process_says_one_line_too(tmp_path, kind, reason):
    """With the logs and warnings of libraries, which pytest keeps from the streams above."""
    path = BAD_INPUTS[kind][0](tmp_path)
    done = run("restore", path, "-o", tmp_path / "out.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert reason in done.stderr
    assert names(tmp_path) == [path.name]


# Interruptions ------------------------------------------------------------------------------------

# `deepred restore` with a small network, which waits for a signal at iteration STOP of both runs:
# the file REACHED says that it is there. SIGINT is set as a shell's background job ignores it.
INTERRUPTED = """
import signal, sys
from pathlib import Path
import torch
from deepred import cli, presets
from deepred.batch import progress

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
preset = presets.preset

def small(*arguments, **options):
    made = preset(*arguments, **options)
    return made.replace(channels=4, scales=2, input_channels=4, runs=2)

presets.preset = small
reach = progress.Progress.reach

def stop(self, done, note=""):
    reach(self, done, note)
    if done == int(sys.argv[1]):
        Path(sys.argv[2]).touch()
        signal.pause()

progress.Progress.reach = stop
sys.exit(cli.main(sys.argv[3:]))
"""

# `deepred.restore` with a checkpoint at each iteration. Waits at iteration STOP of both runs, or,
# where STOP is negative, when save number -STOP is half written.
KILLED = """
import signal, sys
from pathlib import Path
import torch
import deepred

stop, reached, given, checkpoint = int(sys.argv[1]), *sys.argv[2:]
torch.set_num_threads(1)
given = torch.load(given)
settings = deepred.Settings(**given["settings"])
save, saves, states = Path.write_bytes, 0, 0

def wait():
    Path(reached).touch()
    signal.pause()

def half(path, content):
    global saves
    saves += 1
    if saves == -stop:
        save(path, content[: len(content) // 2])
        wait()
    return save(path, content)

def callback(state):
    global states  # in all, with those of the first run where the second is continued
    states = state.k if state.k > states else settings.iterations + state.k
    if states == stop:
        wait()

Path.write_bytes = half
deepred.restore(
    given["y"], settings=settings, sigma=25 / 255, device="cpu", callback=callback,
    checkpoint=checkpoint, checkpoint_seconds=0,
)
"""

needs_signals = pytest.mark.skipif(not hasattr(signal, "pause"), reason="needs POSIX signals")


@needs_signals
def test_an_interrupted_restore_continues_to_the_same_bytes(
    noisy_png, tmp_path, small_network, caplog
):
    def arguments(output):
        return ["restore", noisy_png, "-o", output, "--iterations", 60, "--device", "cpu"]

    # 60 iterations in each of two runs, looked at every 25: saved is iteration 25 of the first
    output, reached = tmp_path / "out.png", tmp_path / "reached"
    code, said = stopped(signal.SIGINT, reached, INTERRUPTED, 40, *arguments(output))
    assert code == 130
    assert said.splitlines()[-1].startswith("deepred: interrupted")
    assert "Traceback" not in said
    assert names(tmp_path) == [".out.png.checkpoint", "in.png", "out.png"]  # the preview

    # again, and now in the second run, of which iteration 25 is saved, too
    code, said = stopped(signal.SIGTERM, reached, INTERRUPTED, 60 + 30, *arguments(output))
    assert code == 130
    assert "continuing from the checkpoint: run 1 of 2, iteration 25" in said
    assert "Traceback" not in said
    assert names(tmp_path) == [".out.png.checkpoint", "in.png", "out.png"]  # the preview

    assert call(*arguments(output)) == 0
    assert "continuing from the checkpoint: run 2 of 2, iteration 25" in caplog.text
    assert names(tmp_path) == [".out.png.checkpoint", "in.png", "out.png"]

    caplog.clear()
    assert call(*arguments(tmp_path / "whole.png")) == 0
    assert "continuing" not in caplog.text
    assert output.read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_more_iterations_go_on_where_the_fit_was_not_finished(
    noisy_png, tmp_path, small_network, caplog, capsys
):
    def restore(output, iterations, *more):
        caplog.clear()
        command = ["restore", noisy_png, "-o", tmp_path / output, "--iterations", iterations]
        assert call(*command, "--device", "cpu", "--sigma", 20, *more) == 0
        return (tmp_path / output).read_bytes(), capsys.readouterr()

    short, said = restore("out.png", 40)
    assert "--iterations 80 would go on" in said.err
    assert restore("out.png", 40)[0] == restore("out.png", 20)[0] == short
    assert "continuing" not in caplog.text  # nothing was computed
    longer, said = restore("out.png", 60)
    assert "run 1 of 2, iteration 25" in caplog.text and "60 iterations x 2" in said.out
    assert longer == restore("whole.png", 60)[0] != short

    restore("out.png", 60, "--seed", 1)  # what has ended is in nobody's way
    assert ".out.png.checkpoint: of another run, which has ended; it is replaced" in caplog.text


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[torch.Tensor, deepred.Settings, deepred.Result]:
    """A measurement, settings, and what comes out of them if nothing happens."""
    y = images.to_tensor(picture())
    settings = deepred.preset("authors").replace(
        channels=4, scales=2, input_channels=4, iterations=40, runs=2, check_every=10
    )
    return y, settings, deepred.restore(y, settings=settings, sigma=25 / 255, device="cpu")


@needs_signals
@pytest.mark.parametrize(
    "stops", [[33], [-30], [12, 40 + 31]], ids=["once", "while saving", "twice"]
)
def test_a_killed_run_continues_to_the_same_bits(uninterrupted, tmp_path, caplog, stops):
    y, settings, whole = uninterrupted
    given, checkpoint = tmp_path / "given.pt", tmp_path / "checkpoint.pt"
    torch.save({"y": y, "settings": settings.as_dict()}, given)
    for number, stop in enumerate(stops):
        code, said = stopped(signal.SIGKILL, tmp_path / "reached", KILLED, stop, given, checkpoint)
        assert code == -signal.SIGKILL  # no handler ran, nothing was tidied up
        assert ("continuing from the checkpoint" in said) == (number > 0)
        assert checkpoint.exists()

    result = deepred.restore(
        y, settings=settings, sigma=25 / 255, device="cpu", checkpoint=checkpoint
    )
    assert "continuing from the checkpoint" in caplog.text
    assert torch.equal(result.image, whole.image)
    assert result.history["iteration"].tolist() == 2 * list(range(1, 41))
    assert result.history["run"].tolist() == [0] * 40 + [1] * 40
    assert set(result.history) == set(whole.history)
    for name in set(whole.history) - {"seconds"}:
        assert np.array_equal(result.history[name], whole.history[name]), name
    for run_number in (0, 1):
        assert (np.diff(result.history["seconds"][result.history["run"] == run_number]) >= 0).all()


# Checkpoints that do not fit ----------------------------------------------------------------------


def stop_at(k: int):
    def callback(state):
        if state.k == k:
            raise KeyboardInterrupt

    return callback


def leave_checkpoint(path: Path, y, settings) -> None:
    with pytest.raises(KeyboardInterrupt):
        deepred.restore(
            y, settings=settings, sigma=0.1, device="cpu", checkpoint=path, callback=stop_at(27)
        )
    assert path.exists()


@pytest.mark.parametrize(
    "content",
    ["cut", b"", b"not a checkpoint", "a bit", "another file of torch", "a folder"],
    ids=str,
)
def test_a_damaged_checkpoint_is_refused_and_kept(noisy, tiny, tmp_path, content):
    path = tmp_path / "run.checkpoint"
    leave_checkpoint(path, noisy, tiny)
    good = path.read_bytes()
    if content == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif content == "a bit":
        at = len(good) // 2
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
    elif content == "another file of torch":
        torch.save(torch.zeros(3), path)
    elif content == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(deepred.InputError, match="not a checkpoint, or damaged; delete") as caught:
        deepred.restore(noisy, settings=tiny, sigma=0.1, device="cpu", checkpoint=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == [path.name]


OTHER = {
    "settings": lambda y, s: (y, s.replace(lam=0.4), {}),
    "settle": lambda y, s: (y, s.replace(settle=0.1), {}),
    "sigma": lambda y, s: (y, s, dict(sigma=0.2)),
    "seed": lambda y, s: (y, s, dict(seed=1)),
    "image": lambda y, s: (y.flip(-1), s, {}),
    "method": lambda y, s: (y, s, dict(method="dip")),
    "denoiser": lambda y, s: (y, s, dict(denoiser="tv")),
    "operator": lambda y, s: (y, s, dict(H=lambda x: 0.9 * x)),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_checkpoint_of_another_run_is_refused_and_kept(noisy, tiny, tmp_path, what):
    path = tmp_path / "run.checkpoint"
    leave_checkpoint(path, noisy, tiny)
    before = path.read_bytes()
    y, settings, changes = OTHER[what](noisy, tiny)
    arguments = {"sigma": 0.1, "device": "cpu", **changes}
    with pytest.raises(deepred.InputError, match="another input or other settings; delete it"):
        deepred.restore(y, settings=settings, checkpoint=path, **arguments)
    assert path.read_bytes() == before


def test_the_command_refuses_a_damaged_checkpoint_in_one_line(noisy_png, tmp_path, capsys):
    (tmp_path / ".out.png.checkpoint").write_bytes(b"not a checkpoint")
    code = call("restore", noisy_png, "-o", tmp_path / "out.png", "--sigma", 25, "--iterations", 2)
    assert_refused(code, capsys.readouterr(), ".out.png.checkpoint: not a checkpoint, or damaged")
    assert names(tmp_path) == [".out.png.checkpoint", "in.png"]


def test_a_kernel_larger_than_the_image_is_refused(noisy_png, tmp_path, capsys):
    np.savetxt(tmp_path / "k.txt", np.ones((1, 200)))
    code = call(
        "restore", noisy_png, "-o", tmp_path / "out.png", "--task", "deblur",
        "--kernel", tmp_path / "k.txt",
    )  # fmt: skip
    assert code == 2
    assert "k.txt: 200x1 is larger than the image" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--method", "dip", "--denoiser", "tv"], "--denoiser has no effect with --method dip"),
        (
            ["--task", "sr", "--method", "dip", "--sigma", "25"],
            "--sigma has no effect with --task sr --method dip",
        ),
    ],
)
def test_options_without_effect_are_named(noisy_png, tmp_path, small_network, caplog, more, told):
    output = tmp_path / "out.png"
    assert call("restore", noisy_png, "-o", output, "--iterations", 2, *more) == 0
    assert told in caplog.text
