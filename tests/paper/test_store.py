"""Results on disk: there whole or not at all, found again, exported for small differences."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from records import record

from deepred.errors import InputError
from deepred.paper import experiments, store, studies
from deepred.paper.store import Store, read_curves, read_runs
from deepred.settings import Settings


@pytest.fixture
def image():
    return torch.rand(1, 3, 16, 20)


def test_what_is_put_is_got(tmp_path, image):
    kept = Store(tmp_path / "new" / "store")
    curve = pd.DataFrame({"iteration": [1, 2], "psnr": [20.0, 21.5]})
    assert not kept.has("k1")
    kept.put(record(), curve, image)
    assert kept.get("k1") == record()
    assert kept.image("k1").exists()
    assert [r["key"] for r in kept.records()] == ["k1"]


@pytest.mark.parametrize("damage", ["", "{", '{"key": "other"}', "[]", '{"no": 1}'])
def test_a_damaged_record_is_set_aside_and_counts_as_missing(tmp_path, image, damage, caplog):
    kept = Store(tmp_path)
    kept.put(record(), None, image)
    (tmp_path / "records" / "k1.json").write_text(damage)
    assert not kept.has("k1")
    assert "set aside" in caplog.text
    assert (tmp_path / "records" / "k1.damaged").read_text() == damage
    kept.put(record(), None, image)
    assert kept.has("k1")


def test_a_record_comes_last(tmp_path, image, monkeypatch):
    """Killed before the record is written, the run is not there."""
    kept = Store(tmp_path)
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept.put(record(), None, image)
    monkeypatch.undo()
    assert not kept.has("k1")
    assert not list(tmp_path.rglob("*.part"))


def test_export_is_sorted_and_carries_settings_and_provenance(tmp_path, image):
    kept = Store(tmp_path / "store")
    curve = pd.DataFrame({"iteration": [1, 2], "psnr": [20.0, 21.5]})
    kept.put(record("b", image="coffee"), curve, image)
    kept.put(record("a", image="astronaut", preset=""), None, image)
    kept.put(record("c", image="zebra"), curve, image)
    kept.export(tmp_path / "out", ["a", "b"])
    runs = read_runs(tmp_path / "out")
    assert list(runs["key"]) == ["a", "b"]
    assert list(runs.columns) == list(store.COLUMNS)
    assert runs["psnr"].tolist() == [30.123, 30.123]
    assert json.loads(runs["settings"][0]) == {"lam": 0.5}
    for column in ("torch", "python", "device", "precision", "deepred", "date", "cpu"):
        assert runs[column].notna().all(), column
    assert read_curves(tmp_path / "out", "b")["psnr"].tolist() == [20.0, 21.5]
    with pytest.raises(InputError, match="no curve of run a"):
        read_curves(tmp_path / "out", "a")
    before = (tmp_path / "out" / "runs.csv").read_bytes()
    kept.export(tmp_path / "out", ["b", "a"])
    assert (tmp_path / "out" / "runs.csv").read_bytes() == before


def test_no_results_are_an_empty_table(tmp_path):
    assert read_runs(tmp_path).empty
    assert "psnr" in read_runs(tmp_path).columns
    with pytest.raises(InputError, match="no curve"):
        read_curves(tmp_path, "x")


def test_a_store_that_cannot_be_made_says_so(tmp_path, image):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        Store(tmp_path / "file" / "store").put(record(), None, image)


def test_committed_results_are_readable_and_complete():
    """Every committed run names its commit and settings; every curve belongs to a run."""
    from pathlib import Path

    root = Path(__file__).parents[2] / "data" / "results"
    folders = [f for f in sorted(root.glob("*")) if f.is_dir()]
    assert folders
    for folder in folders:
        runs = read_runs(folder)
        assert len(runs) and runs["key"].is_unique
        assert runs["profile"].eq(folder.name).all()
        for column in ("commit", "torch", "cpu", "date", "device", "precision", "psnr"):
            assert runs[column].notna().all(), (folder, column)
        solved = runs[runs["iterations"] > 0]
        assert all(json.loads(s)["iterations"] for s in solved["settings"])
        drawn = solved[~solved["experiment"].isin(studies.ENDS_ALONE)]
        assert {path.stem for path in (folder / "curves").iterdir()} == set(drawn["key"])
        images = {path.stem for path in folder.glob("images/*.png")}
        assert images <= set(runs["key"])


def test_keys_depend_on_what_determines_the_result():
    runs = experiments.plan("smoke", ["denoising"], (0, 1))
    truth = runs[0].truth()
    keys = [run.key(truth) for run in runs]
    assert len(set(keys)) == len(runs)
    assert keys == [run.key(truth) for run in experiments.plan("smoke", ["denoising"], (0, 1))]
    assert runs[0].key(truth + 0.01) != keys[0]


@pytest.mark.parametrize(
    ("changes", "stands"),
    [
        (dict(iterations=500), True),
        (dict(iterations=499), False),
        (dict(iterations=499, smoothing=0.0), True),
        (None, True),  # no solver
    ],
    ids=str,
)
def test_results_of_version_1_stand_where_version_2_changes_little(monkeypatch, changes, stands):
    settings = None if changes is None else Settings().replace(**changes)
    run = replace(experiments.plan("smoke", ["denoising"])[0], settings=settings)
    key = run.key(truth := run.truth())
    monkeypatch.setattr("deepred.solver.VERSION", 1)
    assert (run.key(truth) == key) == stands
