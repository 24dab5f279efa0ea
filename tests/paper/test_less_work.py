"""Experiments economy and precision: their runs, and the tables made of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from deepred.compute.engine import pick
from deepred.paper import bench, execution, experiments, less_work, plots, studies
from deepred.paper.store import COLUMNS, Store
from deepred.paper.studies import CROPS, ECONOMY, MODES
from deepred.presets import preset


def planned(name):
    return experiments.plan("paper", [name])


def test_economy_changes_what_its_labels_say():
    runs = {(r.task, r.image, r.label): r for r in experiments.plan("paper", ["economy"])}
    assert len(runs) == 4 * sum(map(len, ECONOMY.values()))
    narrow = runs["denoise", "coffee", "paper, 16 channels"].settings
    assert narrow == preset("paper").replace(channels=16, iterations=1800)
    plain = runs["deblur", "rocket", "fast, plain data term"].settings
    assert plain == preset("fast", "deblur", small=True).replace(precondition=0.0)
    assert runs["sr", "chelsea", "paper"].settings == preset("paper", "sr")
    assert runs["sr", "chelsea", "paper"].truth().shape == (1, 3, 64, 64)
    titles = [(run.task, run.title) for run in runs.values()]
    assert len(titles) == len(set(titles))
    for profile in ("quick", "smoke"):
        assert (
            experiments.plan(profile, ["economy"]) == experiments.plan(profile, ["precision"]) == []
        )


def test_precisions_are_different_runs_of_the_same_settings():
    runs = experiments.plan("paper", ["precision"])
    assert len(runs) == 3 * 4 * len(MODES)
    truth = torch.rand(1, 3, 64, 64)
    some = [r for r in runs if (r.image, r.seed) == ("coffee", 2)]
    assert [r.precision for r in some] == list(MODES)
    assert len({r.key(truth) for r in some}) == 3
    assert len({r.settings for r in some}) == 1
    auto = experiments.Run(**{**vars(some[0]), "precision": "auto"})
    told = experiments.Run(**{**vars(some[0]), "precision": "float32"})
    assert auto.key(truth) != told.key(truth)
    assert len(experiments.plan("paper", ["precision"], (0, 7))) == 4 * 4 * len(MODES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has tf32: nothing is missing there")
def test_a_precision_that_the_machine_lacks_is_missing():
    by_mode = {r.precision: experiments.missing(r) for r in planned("precision")}
    assert by_mode["float32"] is None and by_mode["bf16"] is None
    assert "tf32 is of NVIDIA GPUs" in by_mode["tf32"]


def test_a_record_says_the_precision_it_was_made_in(tmp_path):
    (run,) = [
        r for r in planned("precision")
        if (r.image, r.seed, r.precision) == ("rocket", 0, "bf16")
    ]  # fmt: skip
    small = run.settings.replace(channels=2, scales=1, skip=0, iterations=2, input_channels=1)
    run = experiments.Run(**{**vars(run), "settings": small})
    record = execution.execute(run, Store(tmp_path), device="cpu")
    assert record["provenance"]["precision"] == "bf16" == pick("cpu", "bf16").precision
    assert record["metrics"]["run_means"] == f"{record['metrics']['single_psnr']:.3f}"


def row(**values) -> dict:
    texts = dict(setting="", variant="", run_means="", preset="fast", seed=0)
    return {**dict.fromkeys(COLUMNS, np.nan), **texts, **values}


def test_precisions_are_compared_image_by_image_and_seed_by_seed():
    runs = pd.DataFrame(
        [
            row(experiment="precision", variant=mode, image=image, seed=seed,
                device="cpu", psnr=20 + seed + lost)
            for mode, lost in (("float32", 0.0), ("bf16", 0.1))
            for image in "ab"
            for seed in range(3)
        ]
    )  # fmt: skip
    runs.loc[runs.index[-1], "psnr"] -= 0.6  # of b, seed 2, in bf16
    table = less_work.precisions(runs).set_index("mode")
    assert table.loc["bf16", "runs"] == 6 and table.loc["bf16", "device"] == "cpu"
    assert table.loc["bf16", "mean"] == 0.0 and table.loc["bf16", "largest"] == 0.5
    assert table.loc["bf16", "spread"] == pytest.approx(
        np.std([0.1] * 5 + [-0.5], ddof=1), abs=1e-3
    )
    assert table.loc["tf32", "runs"] == 0 and pd.isna(table.loc["tf32", "device"])
    assert less_work.precisions(runs[:0])["runs"].sum() == 0


def economy_rows(label, psnr, count=2, images=tuple(CROPS)):
    return [
        row(experiment="economy", task="denoise", image=image, key=f"{label} {image}",
            preset=label.partition(", ")[0], variant=label.partition(", ")[2],
            psnr=psnr, best_psnr=psnr, single_psnr=psnr - 0.4, iterations=100,
            run_means=" ".join(["1.0"] * count))
        for image in images
    ]  # fmt: skip


def test_variants_stand_beside_preset_paper():
    best = 31.0

    def curve(key):
        first = best if key.startswith("paper") else 30.5 if "rocket" in key else 32
        return pd.DataFrame({"run": [0, 0, 1], "iteration": [10, 20, 10], "psnr": [20, first, 99]})

    runs = pd.DataFrame(
        [
            *economy_rows("paper", 31.0),
            *economy_rows("fast", 31.5, 4),
            *economy_rows("fast, 3 scales", 30.0, images=("coffee",)),
        ]
    )
    timing = [
        {"task": "denoise", "preset": "fast", "seconds": 0.3, "total": 12.34, "ratio": 9.87}
    ]  # fmt: skip
    table = less_work.economy("denoise", runs, curve, timing).set_index("variant")
    assert list(table.index) == ["paper", "fast"]  # a mean needs all the images
    fast = table.loc["fast"]
    assert fast["iterations"] == "100 × 4" and fast["gain [dB]"] == 0.5
    assert fast["one run [dB]"] == 31.1 and fast["reaches paper at"] == "20 (3 of 4)"
    assert fast["after [s]"] == 6
    assert (fast["total [s]"], fast["times faster"]) == (12, 9.9)
    assert table.loc["paper", "gain [dB]"] == 0 and np.isnan(table.loc["paper", "times faster"])
    assert table.loc["paper", "reaches paper at"] == "20 (4 of 4)"
    best = 40.0
    table = less_work.economy("denoise", runs, curve, timing).set_index("variant")
    assert table.loc["fast", "reaches paper at"] == "never"


def test_lines_of_quality_over_work():
    settings = preset("fast").replace(channels=4, iterations=20, runs=2)
    rows = [
        {**r, "settings": json.dumps(settings.as_dict())} for r in economy_rows("fast", 31.5)
    ]  # fmt: skip
    runs = pd.DataFrame([*rows, *economy_rows("paper", 31.0, images=("coffee",))])

    def curve(key):
        level = 30.0 if "rocket" in key else 31.0
        return pd.DataFrame({"run": [0, 0, 1], "iteration": [10, 20, 10], "psnr": [20, level, 99]})

    lines = less_work.economy_lines("denoise", (("paper", ""), ("fast", "")), runs, curve)
    assert list(lines) == ["fast"]  # a mean needs all the images
    mean, (work, psnr) = lines["fast"]
    each, _ = bench.work(64, settings)
    assert list(mean["psnr"]) == [20, 30.75] and list(mean["work"]) == [10 * each, 20 * each]
    assert (work, psnr) == (40 * each, 31.5)
    figure = plots.against_work({"denoising": lines, "deblurring": {}}, "PSNR [dB]")
    assert [axis.get_title() for axis in figure.axes] == ["denoising"]


def test_rules_look_on_and_stop_nothing(tmp_path):
    (run,) = [
        r for r in planned("stopping")
        if (r.task, r.method, r.image) == ("denoise", "dip", "rocket")
    ]  # fmt: skip
    small = run.settings.replace(channels=4, scales=2, iterations=150, input_channels=4)
    run = experiments.Run(**{**vars(run), "settings": small})
    record = execution.execute(run, Store(tmp_path / "a"), device="cpu")
    told = json.loads(record["metrics"]["stops"])
    assert list(told) == list(studies.RULES)
    stopped, takes, psnr = told["windowed-variance"]
    assert stopped is None and 50 <= takes <= 150 and 5 < psnr < 40  # it waits for 300
    plain = experiments.Run(**{**vars(run), "experiment": "economy"})
    other = execution.execute(plain, Store(tmp_path / "b"), device="cpu")
    assert other["metrics"]["stops"] == ""
    assert other["metrics"]["psnr"] == record["metrics"]["psnr"]


def test_what_a_stop_costs():
    def one(image, at, psnr):
        told = {"windowed-variance": [at, 100, psnr], "exponential-variance": [None, None, None]}
        told["discrepancy"] = [500, 500, 29.0]
        return row(
            experiment="stopping", task="denoise", method="dip", image=image, iterations=2000,
            best_psnr=30.0, single_psnr=27.0, stops=json.dumps(told),
        )  # fmt: skip

    runs = pd.DataFrame([one("a", 400, 29.5), one("b", 600, 29.9), one("c", None, 10.0)])
    table = less_work.stops(runs).set_index("rule")
    windowed = table.loc["windowed-variance"]
    assert windowed["images"] == "2 of 3" and windowed["stops at"] == 500
    assert windowed["PSNR [dB]"] == 29.7 and windowed["lost [dB]"] == 0.3
    assert table.loc["exponential-variance", "images"] == "0 of 3"
    assert pd.isna(table.loc["exponential-variance", "PSNR [dB]"])
    assert table.loc["none", "lost [dB]"] == 3.0 and table.loc["none", "takes"] == 2000
    assert less_work.stops(runs[:0]).empty
