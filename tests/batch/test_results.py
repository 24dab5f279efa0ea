"""Stores that travel: claimed, packed, merged, set side by side."""

from __future__ import annotations

import errno
import io
import resource
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace

import pandas as pd
import psutil
import pytest
import torch
from records import record

from deepred.batch import results, runner
from deepred.batch.progress import Progress
from deepred.cli import main
from deepred.compute.checkpoint import Checkpoint
from deepred.errors import InputError
from deepred.io.files import WriteError
from deepred.paper import execution, experiments
from deepred.paper.store import FILES, Claimed, Store, read_curves, read_runs


@pytest.fixture
def image():
    return torch.rand(1, 3, 16, 20)


def filled(folder, image, *keys, **changes):
    store = Store(folder)
    curve = pd.DataFrame({"iteration": [1, 2], "psnr": [20.0, 21.5]})
    for key in keys:
        store.put(record(key, image=f"image {key}", **changes), curve, image)
    return store


# Claims -------------------------------------------------------------------------------------------


def test_a_run_is_one_process_s_at_a_time(tmp_path):
    store = Store(tmp_path)
    with store.claim("k"):
        with pytest.raises(Claimed), Store(tmp_path).claim("k", wait=False):
            pass
        with Store(tmp_path).claim("other", wait=False):
            pass
    with store.claim("k", wait=False):
        pass


def test_a_claim_ends_with_its_process(tmp_path):
    code = (
        "import sys, time; from deepred.paper.store import Store\n"
        "with Store(sys.argv[1]).claim('k'): print('mine', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"mine\n"
    with pytest.raises(Claimed), Store(tmp_path).claim("k", wait=False):
        pass
    process.kill()
    process.wait()
    with Store(tmp_path).claim("k", wait=False):
        pass


def test_who_waits_for_a_run_gets_the_other_s_record(tmp_path, monkeypatch):
    """The second process computes nothing: it waits, and reads what the first has stored."""
    store = Store(tmp_path)
    run = experiments.plan("smoke", ["denoising"])[0]
    began = threading.Event()
    computed = []
    compute = execution.direct

    def slow(run, y):
        computed.append(run)
        began.set()
        time.sleep(0.5)
        return compute(run, y)

    monkeypatch.setattr(execution, "direct", slow)
    first = threading.Thread(target=execution.execute, args=(run, store))
    first.start()
    began.wait()
    with pytest.raises(Claimed):
        execution.execute_all([run], Store(tmp_path), wait=False)
    record = execution.execute(run, Store(tmp_path))
    first.join()
    assert len(computed) == 1 and record == execution.find(run, store)


@pytest.mark.slow
def test_two_processes_on_one_store_share_the_runs(tmp_path):
    """Each run is computed once: the records' numbers of both processes are the same files."""
    command = [
        sys.executable, "-m", "deepred", "run", "--profile", "smoke", "--store", str(tmp_path),
        "--workers", "2", "--device", "cpu",  # of one thread: they do not disturb each other
    ]  # fmt: skip
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    records = Store(tmp_path).records()
    assert len(records) == len(experiments.plan("smoke"))
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.damaged"))
    assert not list(tmp_path.rglob("*.pt"))


def test_batches_of_two_processes_do_not_wait_for_each_other(tmp_path, monkeypatch):
    """Of a unit's two runs another process has one: the other is computed meanwhile, alone."""
    runs = experiments.plan("smoke", ["denoising"])[:2]
    store = Store(tmp_path)
    kept = [execution.execute(run, Store(tmp_path / "kept")) for run in runs]
    crew = runner._Crew([list(runs)], 1, store, "cpu", Progress(0, "runs"), runner.Outcome())
    given = []

    class Pipe:
        def send(self, message):
            given.append(message)

        def recv(self):
            unit, claims = given[-1]
            return ("ended", [kept[runs.index(r)] for r in unit], "") if claims else ("claimed",)

    monkeypatch.setattr(crew, "_idle", Pipe)
    monkeypatch.setattr(runner, "wait", lambda pipes, timeout: pipes)
    crew.follow(None)
    assert given == [(runs, False), ([runs[0]], True), ([runs[1]], True)]
    assert [run for run, _ in crew.outcome.done] == runs


def test_runs_that_need_other_engines_are_not_mixed(tmp_path):
    """Each has the precision of its own record, though they are asked for together."""
    run = next(r for r in experiments.plan("smoke", ["denoising"]) if r.method == "dip")
    pair = [replace(run, precision=name) for name in ("float32", "bf16")]
    records = execution.execute_all(pair, Store(tmp_path), device="cpu")
    assert [r["provenance"]["precision"] for r in records] == ["float32", "bf16"]
    alone = execution.execute(pair[1], Store(tmp_path / "alone"), device="cpu")
    assert records[1]["metrics"] == alone["metrics"] != records[0]["metrics"]


# Packing and merging ------------------------------------------------------------------------------


def test_what_is_packed_here_is_merged_there(tmp_path, image, caplog):
    here = filled(tmp_path / "here", image, "a", "b")
    Checkpoint(here.checkpoint("c"), "c").save({"k": 3})
    here.checkpoint("d").write_bytes(b"junk, and no checkpoint at all of anything")
    (path,) = results.pack(here, tmp_path / "some.zip")
    there = filled(tmp_path / "there", image, "b")
    merged = results.merge(there, path)
    assert (merged.new, merged.had, merged.differ, merged.continued) == (["a"], ["b"], [], ["c"])
    assert there.get("a") == here.get("a")
    assert there.image("a").read_bytes() == here.image("a").read_bytes()
    assert there.checkpoint("c").read_bytes() == here.checkpoint("c").read_bytes()
    assert not there.checkpoint("d").exists() and "d.pt: not a checkpoint" in caplog.text
    there.export(tmp_path / "out")
    assert len(read_curves(tmp_path / "out", "a")) == 2
    again = results.merge(there, here.folder)
    assert again.new == again.continued == [] and again.had == ["a", "b"]


def test_another_result_of_the_same_run_is_told_and_not_taken(tmp_path, image):
    here = filled(tmp_path / "here", image, "a")
    there = filled(tmp_path / "there", image, "a", metrics={"psnr": 1.0})
    assert results.merge(there, here.folder).differ == ["a"]
    assert there.get("a")["metrics"] == {"psnr": 1.0}


def test_what_was_begun_is_taken_if_it_is_newer_and_not_finished(tmp_path, image):
    here, there = Store(tmp_path / "here"), filled(tmp_path / "there", image, "done")
    for store, text in ((there, "old"), (here, "new")):
        Checkpoint(store.checkpoint("begun"), text).save({})
        Checkpoint(store.checkpoint("done"), text).save({})
        time.sleep(0.01)
    assert results.merge(there, here.folder).continued == ["begun"]
    begun, done = (there.checkpoint(key).read_bytes() for key in ("begun", "done"))
    assert begun == here.checkpoint("begun").read_bytes()
    assert done != here.checkpoint("done").read_bytes()
    assert results.merge(here, there.folder).continued == []


def test_packs_are_small_and_hold_whole_runs(tmp_path, image):
    store = filled(tmp_path / "store", image, *"abcde")
    one = sum(f.stat().st_size for f in store.folder.rglob("*a.*"))
    paths = results.pack(store, tmp_path / "p.zip", limit=2 * one + 99)
    assert [path.name for path in paths] == ["p-1.zip", "p-2.zip", "p-3.zip"]
    for path, count in zip(paths, (2, 2, 1), strict=True):
        with zipfile.ZipFile(path) as packed:
            assert len(packed.namelist()) == 3 * count
    together = Store(tmp_path / "together")
    for path in paths:
        results.merge(together, path)
    assert together.records() == store.records()


@pytest.mark.parametrize("part", FILES)
def test_a_damaged_run_is_not_taken_by_a_merge(tmp_path, image, caplog, part):
    here = filled(tmp_path / "here", image, "a", "b")
    path = here.file(part, "a")
    path.write_bytes(path.read_bytes()[:20])
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as packed:
        for each in here.folder.rglob("*.*"):
            packed.write(each, each.relative_to(here.folder))
    assert results.merge(Store(tmp_path / "there"), tmp_path / "p.zip").new == ["b"]
    assert "set aside" in caplog.text


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def encrypted(path):
    """A member that says of itself that it is."""
    content = bytearray(zip_of(path, {"records/a.json": "x"}).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["encrypted", "flipped", "flipped and deflated", "bomb"])
def test_zips_that_are_no_store_are_one_line(tmp_path, kind, capsys, monkeypatch):
    path = tmp_path / "a.zip"
    if kind == "encrypted":
        encrypted(path)
    elif kind == "bomb":
        monkeypatch.setattr(results, "MOST", 10_000)
        zip_of(path, {f"curves/b{i}.csv": bytes(4000) for i in range(3)}, zipfile.ZIP_DEFLATED)
    else:
        how = zipfile.ZIP_DEFLATED if "deflated" in kind else zipfile.ZIP_STORED
        content = bytearray(zip_of(path, {"records/a.json": "{" * 99}, how).read_bytes())
        content[45] ^= 255  # of the member's data: 30 of header, 14 of its name
        path.write_bytes(content)
    expected = {"encrypted": "without a password", "bomb": "unpacks to more"}
    assert main(["results", "merge", str(path), "--into", str(tmp_path / "store")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected.get(kind, "not a packed store, or damaged") in line
    assert not list(tmp_path.rglob("*.json"))


def test_other_members_of_a_zip_stay_there(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"../out.txt": "x", "records/../../b.json": "x", "c": "x"})
    assert results.merge(Store(tmp_path / "store"), path) == results.Merged()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip"]


def test_a_full_disk_is_not_taken_for_damage(tmp_path, image, monkeypatch):
    (path,) = results.pack(filled(tmp_path / "store", image, "a"), tmp_path / "p.zip")

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(WriteError, match="No space left on device"):
        results.merge(Store(tmp_path / "there"), path)


def test_what_is_no_store_is_refused(tmp_path, image):
    store = filled(tmp_path / "store", image, "a")
    (path,) = results.pack(store, tmp_path / "p")
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-300])
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "empty").mkdir()
    for source, told in [
        ("cut.zip", "damaged"), ("text.zip", "damaged"), ("empty", "no store"), ("no", "no store"),
        ("store", "into itself"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=told):
            results.merge(store, tmp_path / source)
    with pytest.raises(InputError, match="nothing to pack"):
        results.pack(Store(tmp_path / "empty"), tmp_path / "q.zip")


# Side by side -------------------------------------------------------------------------------------


def test_two_stores_side_by_side(tmp_path, image):
    psnr = {"psnr": 30.0, "psnr_y": 31.0}
    a = filled(tmp_path / "a", image, "1", "2", metrics=psnr)
    b = filled(tmp_path / "b", image, "2", metrics=psnr | {"psnr": 30.5}, settings={"lam": 1})
    filled(tmp_path / "b", image, "3", metrics=psnr, task="sr", seconds=9.0)
    filled(tmp_path / "b", image, "4", metrics=psnr, task="inpaint")
    filled(tmp_path / "b", image, "5", metrics=psnr, task="tomography")
    table = results.side_by_side(a.folder, b.folder).set_index("image")
    assert list(table.index) == [f"image {k}" for k in range(1, 6)]
    assert table.loc["image 2", "B - A [dB]"] == 0.5
    assert table.loc["image 2", "other"] == "settings" and table.loc["image 1", "other"] == ""
    assert table["A [dB]"].isna().tolist() == [False, False, True, True, True]
    assert table.loc["image 3", "B [dB]"] == 31.0  # of the luma
    assert (table.loc[["image 4", "image 5"], "B [dB]"] == 30.0).all()  # of all channels
    b.export(tmp_path / "out")
    again = results.side_by_side(a.folder, tmp_path / "out").set_index("image")
    pd.testing.assert_frame_equal(again.sort_index(), table.sort_index())
    with pytest.raises(InputError, match="no store"):
        results.side_by_side(a.folder, tmp_path / "nothing")


def test_the_commands(tmp_path, image, capsys):
    filled(tmp_path / "a", image, "1", "2")
    filled(tmp_path / "b", image, "2", "3", metrics={"psnr": 31.0})
    a, b, c, out = (str(tmp_path / name) for name in ("a", "b", "c", "out"))
    assert main(["results", "pack", a, f"{tmp_path}/a.zip"]) == 0
    assert main(["results", "merge", b, f"{tmp_path}/a.zip", "--into", c]) == 0
    told = capsys.readouterr().out
    assert f"{b}: 2 new, 0 there already" in told
    assert "1 new, 1 there already; 1 of those with another result" in told
    assert main(["results", "export", c, out]) == 0
    assert len(read_runs(out)) == 3
    assert main(["results", "diff", a, c]) == 0
    told = capsys.readouterr().out
    assert "2 in both, 1 in one; B - A is +0.44 dB on average" in told
    assert main(["results", "diff", a, c, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("experiment,setting,image,")
    for wrong in (["merge", "no", "--into", c], ["export", "no", out], ["diff", a, "no"],
                  ["pack", "no", "x.zip"]):  # fmt: skip
        assert main(["results", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


# Runs that are stopped ----------------------------------------------------------------------------


@pytest.mark.slow
def test_time_is_kept_and_the_rest_continues(tmp_path, capsys):
    """A budget that ends within a run: it is saved, packed, merged elsewhere, and goes on there."""
    run = experiments.plan("quick", ["table5"])[-1]
    run = replace(run, settings=run.settings.replace(iterations=100_000))  # on any machine
    runs = [run, *experiments.plan("smoke", ["denoising"])[:2]]
    store = Store(tmp_path / "here")
    started = time.monotonic()
    outcome = runner.compute(runs, store, device="cpu", workers=1, budget=15)
    assert time.monotonic() - started < 25  # a worker imports torch first
    assert run in outcome.left and not outcome.failed
    assert "time is up" in capsys.readouterr().err
    saved = list(store.folder.glob("checkpoints/*.pt"))
    assert len(saved) == 1
    (path,) = results.pack(store, tmp_path / "p.zip")
    there = Store(tmp_path / "there")
    results.merge(there, path)
    saved_bytes = there.checkpoint(saved[0].stem).read_bytes()  # after the hash, torch's own
    begun = torch.load(io.BytesIO(saved_bytes[32:]), weights_only=True)
    assert begun["solvers"][0]["k"] > 0


@pytest.mark.slow
def test_a_killed_worker_costs_its_run_alone(tmp_path, monkeypatch, capsys):
    """One of two workers is killed -9 in the middle of its run: all the others are computed."""
    runs = experiments.plan("smoke", ["denoising", "table2"])
    (long,) = [r for r in runs if (r.task, r.method) == ("denoise", "deepred")]
    endless = replace(long, settings=long.settings.replace(iterations=100_000))
    runs[runs.index(long)] = endless  # the longest: it comes first
    store, key = Store(tmp_path), endless.key(endless.truth())
    done = threading.Event()

    def kill() -> None:
        while not done.is_set() and not (tmp_path / "claims" / f"{key}.lock").exists():
            time.sleep(0.02)
        while not done.is_set() and len(list(tmp_path.glob("records/*.json"))) < 2:
            time.sleep(0.02)
        for worker in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if any(key in each.path for each in worker.open_files()):
                    worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = runner.compute(runs, store, device="cpu", workers=2)
    done.set()
    killer.join()
    ((run, error),) = outcome.failed
    assert run == endless and "its worker was killed" in error
    assert len(outcome.done) == len(runs) - 1 and not outcome.left
    # What it left behind goes with the next one.
    (store.folder / "images" / f".{key}.png.x.part").touch()
    assert (tmp_path / "claims" / f"{key}.lock").exists()
    store.check()
    assert not list(tmp_path.rglob("*.lock")) and not list(tmp_path.rglob("*.part"))


def test_a_store_that_cannot_be_written_to_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    runs = experiments.plan("smoke", ["denoising"])[:1]
    with pytest.raises(WriteError, match="file/store/records: cannot be made"):
        runner.compute(runs, Store(tmp_path / "file" / "store"), device="cpu")


@pytest.mark.slow
def test_a_full_disk_stops_all_and_keeps_what_is_finished(tmp_path):
    """Files end at 5 kB here: a restored image does not fit."""
    store = Store(tmp_path)
    done = experiments.plan("smoke", ["denoising"])[0]
    execution.execute(done, store, device="cpu")

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    command = [
        sys.executable, "-m", "deepred", "run", "--profile", "smoke", "--only", "denoising",
        "--store", str(tmp_path), "--workers", "2", "--device", "cpu",
    ]  # fmt: skip
    told = subprocess.run(
        command, preexec_fn=small_files, capture_output=True, text=True, timeout=300
    )
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].startswith("deepred: ")
    assert "cannot be written (File too large)" in told.stderr.splitlines()[-1]
    assert "Traceback" not in told.stderr
    assert execution.find(done, store) is not None
    assert not list(tmp_path.rglob("*.part"))
