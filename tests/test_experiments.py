"""The paper's experiments as data, and computing them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from deepred import datasets, experiments, runner
from deepred.errors import InputError
from deepred.store import Store, read_runs


def test_the_paper_profile_is_section_41():
    runs = experiments.plan("paper", ["denoising"])
    assert len({run.image for run in runs}) == 9
    assert {run.sigma for run in runs} == {25 / 255}
    methods = {(run.method, run.preset) for run in runs}
    wanted = {(method, name) for method in ("dip", "deepred") for name in ("paper", "authors")}
    assert methods == wanted | {("noisy", ""), ("nlm", ""), ("red", "paper")}
    by = {(run.method, run.preset): run.settings for run in runs}
    assert by["deepred", "paper"].channels == 128
    assert by["dip", "paper"].runs == 2  # "average over two runs"


def test_quick_and_smoke_need_nothing_but_built_in_images():
    for profile in ("smoke", "quick"):
        runs = experiments.plan(profile)
        assert runs and all(experiments.missing(run) is None for run in runs)
        assert all(run.truth().shape[0] == 1 for run in runs)


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
    a, b = experiments.denoising("smoke", (3,))[:2]
    truth = a.truth()
    assert torch.equal(a.measurement(truth), b.measurement(truth))
    other = experiments.denoising("smoke", (4,))[0]
    assert not torch.equal(a.measurement(truth), other.measurement(truth))


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

    by = {record["method"]: record for record in store.records()}
    assert by["nlm"]["metrics"]["psnr"] > by["noisy"]["metrics"]["psnr"]
    assert by["deepred"]["settings"]["iterations"] == 40
    assert by["deepred"]["provenance"]["device"] == "cpu"
    store.export(tmp_path / "out")
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert {"iteration", "psnr", "objective", "gap", "residual", "lam", "mu"} <= set(curves)
    # The last of the smoothed curve is the record's number, through a CSV of six digits.
    row = read_runs(tmp_path / "out").set_index("method").loc["deepred"]
    last = curves[curves["key"] == row["key"]].iloc[-1]
    assert last["iteration"] == 40
    assert last["psnr"] == pytest.approx(row["psnr"], abs=2e-3)


def test_a_failing_run_is_reported_and_the_others_go_on(tmp_path):
    runs = experiments.plan("smoke")
    from dataclasses import replace

    broken = replace(runs[-1], settings=runs[-1].settings.replace(denoiser="unheard-of"))
    outcome = runner.compute([*runs[:2], broken], Store(tmp_path), device="cpu", workers=1)
    assert len(outcome.done) == 2
    ((run, error),) = outcome.failed
    assert run is broken and "unknown denoiser 'unheard-of'" in error


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
    assert len(Store(tmp_path).records()) == 4
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())


def test_the_average_needs_all_nine_images():
    from deepred import plots

    runs = pd.DataFrame(
        [
            {"method": "nlm", "preset": None, "image": image, "psnr": 29.0}
            for image in experiments.CSET9
        ]
        + [{"method": "dip", "preset": "paper", "image": "house", "psnr": 31.0}]
    )
    table = plots.section_41(runs, experiments.PRINTED, experiments.CSET9).set_index("method")
    assert table.loc["NLM", "ours [dB]"] == "29.00"
    assert table.loc["NLM", "difference"] == "-0.13"
    dip = table.loc["DIP, preset paper"]
    assert dip["images"] == "1 of 9" and pd.isna(dip["ours [dB]"])
    text = plots.markdown(table.reset_index())
    assert "missing" in text and "nan" not in text


def test_noisy_house_has_the_psnr_of_its_noise(paper_images):
    run = experiments.plan("paper", ["denoising"])[0]
    truth = run.truth()
    mse = (run.measurement(truth) - truth).square().mean().item()
    # Unclipped: 20.17 dB; clipping can only lower the error, on this image by about .1 dB.
    assert 20.17 < -10 * math.log10(mse) < 20.6
