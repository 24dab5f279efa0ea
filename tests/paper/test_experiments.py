"""The paper's experiments as data, and computing them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from deepred.batch import runner
from deepred.compute.checkpoint import Checkpoint
from deepred.errors import InputError
from deepred.io import datasets
from deepred.paper import execution, experiments
from deepred.paper.experiments import TABLES
from deepred.paper.store import Store, read_curves, read_runs


def test_the_paper_profile_is_section_41():
    runs = experiments.plan("paper", ["denoising"])
    assert len({run.image for run in runs}) == 9
    assert {run.sigma for run in runs} == {25 / 255}
    methods = {(run.method, run.preset) for run in runs}
    presets = ("fast", "paper", "authors")
    wanted = {(method, name) for method in ("dip", "deepred") for name in presets}
    wanted |= {("noisy", ""), ("nlm", ""), ("cbm3d", ""), ("red", "fast")}
    wanted |= {("dip-tv", "fast"), ("dip-tv", "authors")}
    assert methods == wanted
    by = {(run.method, run.preset): run.settings for run in runs}
    assert by["deepred", "paper"].channels == 128
    assert by["dip", "paper"].runs == 2  # "average over two runs"


def test_quick_and_smoke_need_nothing_but_built_in_images():
    for profile in ("smoke", "quick"):
        runs = experiments.plan(profile)
        assert runs and all(experiments.missing(run) is None for run in runs)
        assert all(run.truth().shape[0] == 1 for run in runs)


def test_the_paper_profile_has_every_image_of_every_table():
    counts = {"table2": (5, ("x4", "x8")), "table3": (12, ("x4", "x8")), "table5": (4, None)}
    for name, (images, settings) in counts.items():
        runs = experiments.plan("paper", [name])
        assert len({run.image for run in runs}) == images
        assert {run.setting for run in runs} == set(settings or ("uniform", "gaussian"))
        assert {run.preset for run in runs if run.method == "deepred"} == {
            "paper", "authors", "fast"
        }  # fmt: skip
        as_printed = [run for run in runs if run.settings and run.preset != "fast"]
        assert not any(run.settings.precondition for run in as_printed)
        sigma = math.sqrt(2) / 255 if name == "table5" else 0
        assert {run.sigma for run in runs} == {sigma}


def test_a_run_knows_its_operator_and_its_frame():
    sr, blur = (experiments.plan("smoke", [name])[0] for name in ("table2", "table5"))
    truth = sr.truth()
    assert sr.H(truth).shape == sr.measurement(truth).shape == (1, 3, 16, 16)
    assert len(blur.H.kernel) == 9
    images = {run.image: run for run in experiments.plan("paper", ["table3"])}
    assert images["zebra"].factor in (4, 8)


def test_runs_that_two_experiments_share_are_planned_once(monkeypatch):
    monkeypatch.setattr(experiments, "TABLES", {**TABLES, "twin": TABLES["table2"]})
    monkeypatch.setattr(experiments, "EXPERIMENTS", (*experiments.EXPERIMENTS, "twin"))
    once = experiments.plan("smoke", ["table2"])
    both = experiments.plan("smoke", ["table2", "twin"])
    assert both == once  # the first named has them


def test_crops_are_inside_their_images():
    for name, (top, left, side) in experiments.CROPS.items():
        shape = datasets.load("builtin", name).image.shape
        assert top + side <= shape[2] and left + side <= shape[3]


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="unknown profile 'fast'"):
        experiments.plan("fast")
    with pytest.raises(InputError, match="unknown experiment 'table9'"):
        experiments.plan("quick", ["table9"])


def test_an_image_that_is_not_here_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    reason = experiments.missing(experiments.plan("paper", ["denoising"])[0])
    assert "deepred data fetch cset9/house" in reason


def test_noise_depends_on_the_seed_alone():
    a, b = experiments.plan("smoke", ["denoising"], (3,))[:2]
    truth = a.truth()
    assert torch.equal(a.measurement(truth), b.measurement(truth))
    other = experiments.plan("smoke", ["denoising"], (4,))[0]
    assert not torch.equal(a.measurement(truth), other.measurement(truth))


@pytest.mark.slow
def test_workers_compute_each_run_once_and_a_second_call_computes_nothing(tmp_path):
    store = Store(tmp_path)
    runs = experiments.plan("smoke")
    outcome = runner.compute(runs, store, device="cpu", workers=2)
    assert len(outcome.done) == len(runs) and not outcome.failed and not outcome.absent
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    again = runner.compute(runs, store, device="cpu", workers=2)
    assert len(again.done) == len(runs)
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert not list(tmp_path.rglob("*.pt"))  # no checkpoint is left

    assert {record["task"] for record in store.records()} == {"denoise", "sr", "deblur"}
    by = {r["method"]: r for r in store.records() if r["experiment"] == "denoising"}
    assert by["nlm"]["metrics"]["psnr"] > by["noisy"]["metrics"]["psnr"]
    assert by["deepred"]["settings"]["iterations"] == 40
    assert by["deepred"]["provenance"]["device"] == "cpu"
    store.export(tmp_path / "out")
    # The last of the smoothed curve is the record's number, through a CSV of six digits.
    runs = read_runs(tmp_path / "out")
    rows = runs[runs["experiment"] == "denoising"].set_index("method")
    row = rows.loc["dip"]
    curve = read_curves(tmp_path / "out", row["key"])
    assert {"iteration", "psnr", "objective", "gap", "residual", "lam", "mu"} <= set(curve)
    last = curve.iloc[-1]
    assert last["iteration"] == 40
    assert last["psnr"] == pytest.approx(row["psnr"], abs=2e-3)
    # DeepRED's result is f of the mean that its curve is of.
    row = rows.loc["deepred"]
    assert row["single_psnr"] == row["psnr"] > row["best_psnr"] + 1


@pytest.mark.parametrize("junk", [b"", b"junk", None], ids=["empty", "junk", "of another run"])
def test_a_checkpoint_of_no_use_is_set_aside(tmp_path, caplog, junk):
    """Damaged, or of an older torch: a store is started again without a person."""
    run = next(r for r in experiments.plan("smoke", ["denoising"]) if r.method == "dip")
    store = Store(tmp_path)
    path = store.checkpoint(run.key(run.truth()))
    if junk is None:
        other = Checkpoint(path, "another")
        other.save({"solvers": {}})
    else:
        path.write_bytes(junk)
    record = execution.execute(run, store, device="cpu")
    assert record == store.get(record["key"]) and path.with_suffix(".damaged").exists()
    assert f"set aside as {path.stem}.damaged" in caplog.text


def test_a_failing_run_is_reported_and_the_others_go_on(tmp_path):
    runs = experiments.plan("smoke")
    from dataclasses import replace

    broken = replace(runs[-1], settings=runs[-1].settings.replace(denoiser="unheard-of"))
    outcome = runner.compute([*runs[:2], broken], Store(tmp_path), device="cpu", workers=1)
    assert len(outcome.done) == 2
    ((run, error),) = outcome.failed
    assert run is broken and "unknown denoiser 'unheard-of'" in error


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_killed_and_started_again_it_continues(tmp_path, how):
    """Whatever ends it, finished runs are kept and the next call completes the rest."""
    command = [
        sys.executable, "-m", "deepred", "run", "--profile", "smoke", "--store", str(tmp_path),
        "--workers", "1", "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("records/*.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, how)
    process.communicate(timeout=120)
    done = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("records/*.json")}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert len(Store(tmp_path).records()) == len(experiments.plan("smoke"))
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())


def test_noisy_house_has_the_psnr_of_its_noise(paper_images):
    run = experiments.plan("paper", ["denoising"])[0]
    truth = run.truth()
    mse = (run.measurement(truth) - truth).square().mean().item()
    # Unclipped: 20.17 dB; clipping can only lower the error, on this image by about .1 dB.
    assert 20.17 < -10 * math.log10(mse) < 20.6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_background_job_ends_when_it_is_told_to(tmp_path):
    """A shell has its background jobs ignore SIGINT, which the workers inherit and are sent."""
    arguments = ["run", "--profile", "quick", "--only", "denoising", "--match", "chelsea", "(fast)"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deepred", *arguments, "--store", str(tmp_path), "--workers", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoints").exists():  # a solver is about to start
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(2)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(timeout=60) == 130  # its runs would take minutes
        deadline = time.monotonic() + 20
        while any(map(_lives, workers)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not any(map(_lives, workers))
        assert list((tmp_path / "checkpoints").glob("*.pt"))  # and it goes on from there
    finally:
        process.kill()


def _lives(process: psutil.Process) -> bool:
    try:  # where nobody collects orphans a dead one keeps its number
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
