"""Our own studies: their runs are what their labels say, and their tables right on made-up runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from deepred.batch import reproduce
from deepred.io.images import read
from deepred.paper import comparisons, execution, experiments, plots, studies
from deepred.paper.store import Store, read_runs
from deepred.presets import preset
from deepred.settings import Settings

SMALL = (
    "deviations", "sensitivity", "noise", "architectures", "denoisers", "tomography", "inpainting"
)  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_runs_of_a_study_are_told_apart_by_image_seed_and_label(name):
    runs = experiments.plan("paper", [name])
    told = [(r.task, r.setting, r.image, r.method, r.label, r.seed) for r in runs]
    assert len(told) == len(set(told)) > 4
    assert experiments.plan("quick", [name]) == []
    assert any(name in shown for shown in reproduce.NOTEBOOKS.values())


def test_no_two_studies_share_a_run():
    """A record is of one study, and the table of another would lack it."""
    runs = [r for r in experiments.plan("paper") if r.dataset == "builtin"]
    assert len({run.key(run.truth()) for run in runs}) == len(runs) > 500


def test_each_deviation_alone_and_all_of_them():
    runs = experiments.plan("paper", ["deviations"])
    first = {(r.task, r.label): r.settings for r in runs if r.image == "coffee"}
    for task, variants in studies.DEVIATIONS.items():
        base = first[task, "paper"].as_dict()
        changed = dict(variants)
        changed.pop("")
        for label, changes in changed.items():
            own = first[task, f"paper, {label}"].as_dict()
            assert {k: v for k, v in own.items() if v != base[k]} == changes, label
        everything = first[task, "authors"].as_dict()
        authors = preset("authors", task).as_dict()
        same = ("channels", "iterations", "runs")
        assert {k for k in authors if authors[k] != everything[k]} <= set(same)
        # Together they are what the preset changes, but for the length and number of runs.
        different = {k for k in authors if everything[k] != base[k]}
        alone = {k for label, changes in changed.items() for k in changes}
        assert different == alone - {"runs", "iterations"}
    assert {r.seed for r in runs if r.task == "denoise"} == {0, 1, 2}


def test_noise_is_restored_with_either_term():
    runs = experiments.plan("paper", ["noise"])
    for run in runs:
        assert run.model is not None and run.H(torch.ones(1)) == 1
        assert run.term == run.variant or run.method == "noisy"
    keys = {run.key(run.truth()) for run in runs}
    assert len(keys) == len(runs)  # the term is part of the key
    (one,) = [
        r for r in runs if (r.setting, r.method, r.term) == ("poisson 10", "dip", "likelihood")
        and (r.image, r.seed) == ("rocket", 0)
    ]  # fmt: skip
    y = one.measurement(one.truth())
    assert torch.equal((10 * y).round() / 10, y)
    # The level that y has on average: the root of the mean of y / 10.
    assert one.level(y) == pytest.approx((y.mean() / 10).sqrt().item())


def test_runs_of_other_tasks_end_in_the_store(tmp_path):
    """Each kind computed for a few iterations, exported without curves, and shown in its table."""
    runs = []
    for name in ("noise", "architectures", "denoisers", "tomography"):
        for run in experiments.plan("paper", [name]):
            if run.image in ("coffee", "shepp-logan") and run.seed == 0 and run.method != "red":
                short = run.settings and run.settings.replace(channels=4, scales=2, iterations=2)
                runs.append(replace(run, settings=short))
    store = Store(tmp_path / "store")
    execution.execute_all(runs, store, device="cpu")
    store.export(tmp_path / "csv")
    assert not list((tmp_path / "csv" / "curves").iterdir())
    found = comparisons.tables(read_runs(tmp_path / "csv"))
    assert len(found["noise"]) == 6 and found["noise"]["standard error"].isna().all()  # one each
    assert found["noise"].drop(columns="standard error").notna().all(axis=None)
    assert found["architectures"].notna().all(axis=None)
    gains = found["denoisers"].filter(like="[dB]")
    assert gains.shape == (11, 2) and gains.notna().all(axis=None)
    scans = found["tomography"].set_index("method")
    assert scans.loc["TV", "PSNR [dB]"] > scans.loc["FBP", "PSNR [dB]"] + 5
    assert math.isnan(scans.loc["RED", "PSNR [dB]"])  # was not run
    assert found["inpainting"]["PSNR [dB]"].isna().all()


# Tables of made-up runs --------------------------------------------------------------------------


def row(label, image="a", seed=0, *, psnr, experiment="deviations", task="denoise", **more) -> dict:
    preset, _, variant = label.partition(", ")
    return dict(
        preset=preset, variant=variant, setting="", image=image, seed=seed, psnr=psnr,
        psnr_y=psnr + 100, task=task, experiment=experiment, best_psnr=psnr + 1,
        method="deepred", **more,
    )  # fmt: skip


def test_differences_are_of_pairs():
    runs = pd.DataFrame(
        [
            row("paper", "a", psnr=20.0), row("paper", "b", psnr=30.0), row("paper", "c", psnr=9.0),
            row("paper, late denoiser", "a", psnr=21.0), row("paper, late denoiser", "b", psnr=33.),
            row("paper", "a", 1, psnr=20.5), row("paper, late denoiser", "a", 1, psnr=21.5),
            row("authors", "a", psnr=19.0),
        ]
    )  # fmt: skip
    others = [("paper", "late denoiser"), ("authors", "")]
    table = comparisons.against(comparisons.of(runs, "deviations"), ("paper", ""), others)
    late = table.loc[0]
    assert (late["pairs"], late["images"]) == (3, 2)
    assert (late["PSNR [dB]"], late["mean"]) == pytest.approx(((21 + 33 + 21.5) / 3, 5 / 3))
    # Of an image's 1 (twice) and the other's 3: a deviation of sqrt 2, by sqrt 2.
    assert late["standard error"] == pytest.approx(1.0)
    assert math.isnan(table.loc[1, "standard error"])
    named = comparisons.deviations(runs, "denoise").set_index("departure")
    assert named.loc["late denoiser", "mean"] == 1.67 and named.loc["all of them", "mean"] == -1.0
    assert named.loc["uniform input", "pairs"] == 0
    assert math.isnan(named.loc["uniform input", "mean"])


def test_the_psnr_is_that_of_the_task():
    runs = pd.DataFrame([row("paper", psnr=20.0, task=t) for t in ("denoise", "sr", "inpaint")])
    assert list(comparisons.of(runs, "deviations")["dB"]) == [20.0, 120.0, 20.0]
    assert len(comparisons.of(runs, "deviations", "sr")) == 1
    assert comparisons.of(runs, "noise").empty


def sensitivity_rows() -> pd.DataFrame:
    """PSNR is 20 + lam + 10 mu on the map; 30 + the value along the lines."""
    rows = []
    for run in experiments.plan("paper", ["sensitivity"]):
        if run.method != "deepred":
            continue
        s, usual = run.settings, preset("paper")
        moved = [n for n in studies.SENSITIVITY if getattr(s, n) != getattr(usual, n)]
        value = getattr(s, moved[0]) if moved else 0
        psnr = 30 + value if moved else 20 + s.lam + 10 * s.mu
        if not moved and s.x_update == "steepest-descent":
            raise AssertionError("c is always given")
        told = dict(settings=json.dumps(s.as_dict()))
        rows.append(row(run.label, run.image, psnr=psnr, experiment="sensitivity", **told))
    return pd.DataFrame(rows)


def test_the_map_and_the_lines_of_sensitivity():
    runs = sensitivity_rows()
    table = comparisons.sensitivity_map(runs)
    expected = [[20 + lam + 10 * mu for mu in studies.WEIGHTS] for lam in studies.WEIGHTS]
    np.testing.assert_allclose(table, expected)
    np.testing.assert_allclose(comparisons.sensitivity_map(runs, "best_psnr"), table + 1)
    for name, values in studies.SENSITIVITY.items():
        line = comparisons.sensitivity_line(runs, name)
        usual = getattr(Settings(), name)
        expected = [25.5 if value == usual else 30 + value for value in values]
        np.testing.assert_allclose(line["value"], values)
        np.testing.assert_allclose(line["end"], expected)
        np.testing.assert_allclose(line["best"], line["end"] + 1)


def test_figures_of_what_has_been_run_and_of_nothing():
    runs = sensitivity_rows()
    for found in (runs, runs.iloc[:0]):
        plots.weights_map({"last": comparisons.sensitivity_map(found)})
        plots.parameter_lines({"lag": comparisons.sensitivity_line(found, "lag")}, {"lag": 0}, 20.0)
    empty = pd.DataFrame([row("paper", psnr=20.0)])
    figure = plots.differences({"denoising": comparisons.deviations(empty, "denoise")})
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][-1] == "all of them"
    plots.plt.close("all")


def test_inpainting_is_measured_with_what_is_seen(tmp_path):
    """The seen pixels of the stored image are the truth's, in the curve's numbers, too."""
    run = experiments.plan("paper", ["inpainting"])[2]
    if experiments.missing(run):
        pytest.skip(experiments.missing(run))
    assert (run.image, run.method) == ("vase", "dip")
    short = run.settings.replace(channels=4, scales=2, iterations=2)
    store = Store(tmp_path)
    record = execution.execute(replace(run, settings=short), store, device="cpu")
    truth, mask = run.truth(), run.H.mask(run.truth()) > 0
    kept = read(store.image(record["key"])).image
    # Stored with 8 bits.
    torch.testing.assert_close(kept.where(mask, 0), truth.where(mask, 0), atol=0.5 / 255, rtol=0)
    holes = (~mask.expand_as(truth)).float().mean().item()
    # At least: the holes wrong by half the range.
    assert record["metrics"]["psnr"] > -10 * math.log10(0.25 * holes)
    assert record["metrics"]["best_psnr"] >= record["metrics"]["single_psnr"] - 1e-6
    assert record["metrics"]["single_psnr"] == pytest.approx(record["metrics"]["psnr"], abs=0.01)
