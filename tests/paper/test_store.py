"""Results on disk: there whole or not at all, found again, exported for small differences."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

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
    put = kept.get("k1")
    assert set(put.pop("sha256")) == {"images", "curves"} and put == record()
    assert kept.image("k1").exists()
    assert [r["key"] for r in kept.records()] == ["k1"]


DAMAGED = {
    "empty": b"",
    "cut": b"{",
    "of another key": b'{"key": "other"}',
    "a list": b"[]",
    "no key": b'{"no": 1}',
    "no fields": b'{"key": "k1"}',
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "no metrics": json.dumps({**record(), "metrics": {}}).encode(),
    "metrics of another kind": json.dumps({**record(), "metrics": [30.0]}).encode(),
    "no such task": json.dumps({**record(), "task": "guess"}).encode(),
    "no hashes": json.dumps({**record(), "sha256": "of the image"}).encode(),
    "a folder": None,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_record_is_set_aside_and_the_run_is_not_there(tmp_path, image, kind, caplog):
    kept = Store(tmp_path)
    kept.put(record("k2", iterations=0), None, image)
    path, aside = (tmp_path / "records" / f"k1.{suffix}" for suffix in ("json", "damaged"))
    for _ in range(2):  # also where something was set aside before
        kept.put(record(iterations=0), None, image)
        path.unlink()
        path.mkdir() if DAMAGED[kind] is None else path.write_bytes(DAMAGED[kind])
        assert not kept.has("k1") and [r["key"] for r in kept.records()] == ["k2"]
        assert "k1.json: not a record" in caplog.text and "set aside as k1.damaged" in caplog.text
        assert aside.exists() and not path.exists()
    kept.put(record(iterations=0), None, image)
    assert kept.has("k1")


@pytest.mark.parametrize("part", ["images", "curves"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_run_whose_files_are_not_as_written_is_to_be_computed_again(
    tmp_path, image, part, how, caplog
):
    kept = Store(tmp_path / "store")
    curve = pd.DataFrame({"iteration": [1, 2], "psnr": [20.0, 21.5]})
    for key in ("k1", "k2"):
        kept.put(record(key, seed=int(key[1])), curve, image)
    path = kept.file(part, "k1")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if how != "gone":
        path.write_bytes(content if how == "flipped" else content[:20])
    kept.export(tmp_path / "out", images=True)  # of the other
    assert list(read_runs(tmp_path / "out")["key"]) == ["k2"]
    assert [p.stem for p in (tmp_path / "out" / part).iterdir()] == ["k2"]
    assert f"{path} is not the file that it describes" in caplog.text
    assert not kept.has("k1") and (tmp_path / "store" / "records" / "k1.damaged").exists()


def test_records_from_before_there_were_variants_and_hashes(tmp_path, image):
    """Of long runs of older code: the variant is what followed the preset's name."""
    kept = Store(tmp_path)
    old = record(preset="paper, lambda, mu", iterations=0)
    kept.put(old, None, image)
    path = tmp_path / "records" / "k1.json"
    path.write_text(json.dumps({k: v for k, v in old.items() if k != "variant"}))
    found = kept.get("k1")
    assert (found["preset"], found["variant"]) == ("paper", "lambda, mu")
    kept.image("k1").unlink()
    assert not kept.has("k1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "No columns"), (b"a,b\n1,2\n", "no column profile"), (b"\xff\xfe\x00", "codec"),
        (b"key,psnr\n1,high\n", "could not convert"), (None, "Is a directory"),
    ],
    ids=["empty", "foreign", "no text", "no number", "folder"],
)  # fmt: skip
def test_a_table_that_is_no_export_is_one_line(tmp_path, content, reason, capsys):
    path = tmp_path / "runs.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=f"runs.csv: not exported results \\(.*{reason}"):
        read_runs(tmp_path)


def test_a_record_comes_last(tmp_path, image, monkeypatch):
    """Killed before the record is written, the run is not there."""
    kept = Store(tmp_path)
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept.put(record(iterations=0), None, image)
    monkeypatch.undo()
    assert not kept.has("k1")
    assert not list(tmp_path.rglob("*.part"))


def test_export_is_sorted_and_carries_settings_and_provenance(tmp_path, image):
    kept = Store(tmp_path / "store")
    curve = pd.DataFrame({"iteration": [1, 2], "psnr": [20.0, 21.5]})
    kept.put(record("b", image="coffee"), curve, image)
    kept.put(record("a", image="astronaut", preset="", iterations=0), None, image)
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


@pytest.mark.slow
def test_stored_results_keep_their_keys():
    """Whole experiments are found under their committed keys, studies with variants among them.

    Of other experiments some rows are of older code, and to be computed again.
    """
    root = Path(__file__).parents[2] / "data" / "results"
    whole = {"quick": ["denoising", "table2", "table5"], "paper": ["denoisers", "stopping"]}
    for profile, names in whole.items():
        runs = read_runs(root / profile)
        runs = runs[runs["experiment"].isin(names)]
        planned = experiments.plan(profile, names, tuple(map(int, runs["seed"].unique())))
        found = {tuple(str(getattr(run, name)) for name in store.IDENTITY): run for run in planned}
        assert len(runs) >= 57
        for row in runs[[*store.IDENTITY, "key"]].astype(str).itertuples(index=False):
            run = found[tuple(row[:-1])]
            assert row.key in run.keys(run.truth()), run.title


@pytest.mark.slow
def test_no_key_of_a_planned_run_changes():
    """Long runs stand under these keys. A change of one is a change of what determines a result."""
    planned = [run for name in ("smoke", "quick", "paper") for run in experiments.plan(name)]
    here = [r for r in planned if r.dataset == "builtin" and r.task != "tomography"]
    keys = sorted(run.key(run.truth()) for run in here)
    assert hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16] == "768e5f4611396b0f"


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
