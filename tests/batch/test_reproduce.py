"""Selections, plans, and what `deepred reproduce` does where something fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch

from deepred import cli
from deepred.batch import report, reproduce
from deepred.batch.runner import Outcome
from deepred.errors import InputError
from deepred.paper import experiments
from deepred.paper.experiments import EXPERIMENTS, PARTS
from deepred.paper.store import COLUMNS, Store

# Selections ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_runs_of_its_experiments_only(name):
    for profile in experiments.PROFILES:
        runs = experiments.plan(profile, [name])
        assert {run.experiment for run in runs} <= set(PARTS[name])
    assert bool(runs) == bool(PARTS[name])  # of the profile paper
    for field, values in experiments.FIGURES.get(name, {}).items():  # each value has some
        assert {getattr(run, field) for run in runs} == set(values)


def test_a_figure_needs_its_image_alone():
    titles = [run.title for run in experiments.plan("paper", ["figure3"])]
    assert sorted(titles) == ["head x4 bicubic", "head x4 deepred (fast)"]
    both = experiments.plan("paper", ["figure4", "figure6"])
    assert {run.image for run in both} == {"butterfly", "leaves"}
    assert {run.setting for run in both} == {"uniform"}


def test_selections_combine_and_each_run_is_there_once():
    together = experiments.plan("paper", ["figure4", "table5", "denoising"])
    apart = experiments.plan("paper", ["table5"]) + experiments.plan("paper", ["denoising"])
    assert len(together) == len(apart)
    assert {run.title for run in together} == {run.title for run in apart}


def test_every_selection_has_a_notebook():
    shown = {name for shows in reproduce.NOTEBOOKS.values() for name in shows}
    assert shown == {*EXPERIMENTS, *PARTS}


def test_committed_results_are_of_runs_that_are_planned():
    """What a plan no longer has is shown by nothing. (Its key may be of older code.)"""
    from deepred.paper.store import IDENTITY, read_runs

    for profile in ("quick", "paper"):
        runs = read_runs(Path(__file__).parents[2] / "data" / "results" / profile)
        seeds = tuple(int(seed) for seed in runs["seed"].unique())
        planned = {
            tuple(str(getattr(run, name)) for name in IDENTITY)
            for name in EXPERIMENTS
            for run in experiments.plan(profile, [name], seeds)
        }
        stored = runs[list(IDENTITY)].astype(str).itertuples(index=False)
        assert {tuple(row) for row in stored} <= planned


@pytest.mark.parametrize("kernel", ["uniform", "gaussian"])
def test_a_measurement_does_not_depend_on_the_number_of_threads(kernel):
    run = next(r for r in experiments.plan("smoke", ["table5"]) if r.setting == kernel)
    threads, truth, found = torch.get_num_threads(), run.truth(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(run.measurement(truth))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


# Plans --------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_there_and_what_is_to_do(tmp_path, capsys):
    command = ["run", "--profile", "smoke", "--only", "denoising", "--store", str(tmp_path / "s")]
    assert cli.main([*command, "--match", "noisy", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert cli.main([*command, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("done") for line in lines) == 1
    assert lines[-1] == "1 done, 6 to do, 0 cannot"
    assert not (tmp_path / "s" / "checkpoints").exists()  # nothing was begun


def test_a_plan_says_why_a_run_cannot_be_computed(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    command = ["run", "--profile", "paper", "--only", "figure3", "--dry-run"]
    assert cli.main([*command, "--store", str(tmp_path / "s")]) == 0
    *runs, last = capsys.readouterr().out.splitlines()
    assert last == "0 done, 0 to do, 2 cannot"
    assert all(line.startswith("cannot") and "set5/head" in line for line in runs)


# Failures -----------------------------------------------------------------------------------------


def notebook(path: Path, *cells: str) -> None:
    made = nbformat.v4.new_notebook()
    made.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python"}
    names = ("profile", "results", "figures", "device", "seed")
    parameters = nbformat.v4.new_code_cell("\n".join(f"{name} = None" for name in names))
    parameters.metadata.tags = ["parameters"]
    made.cells = [parameters, *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(made, path)


@pytest.mark.slow
def test_what_fails_is_told_at_the_end_and_the_rest_still_runs(tmp_path, monkeypatch, capsys):
    sources, out = tmp_path / "notebooks", tmp_path / "out"
    sources.mkdir()
    notebook(sources / "bad.ipynb", "raise ValueError('of no use')")
    notebook(sources / "dies.ipynb", "import os; os._exit(3)")
    mark = tmp_path / "mark"
    notebook(sources / "good.ipynb", f"open({str(mark)!r}, 'w').write(profile + str(seed))")
    shows = ("denoising",)
    monkeypatch.setattr(reproduce, "NOTEBOOKS", dict.fromkeys(("bad", "dies", "good"), shows))
    monkeypatch.setattr(reproduce, "folder", lambda: sources)
    committed = Path(__file__).parents[2] / "data" / "results" / "paper"
    monkeypatch.setattr(reproduce, "committed", lambda: committed)

    def compute(runs, store, options) -> Outcome:
        assert {run.experiment for run in runs} == {"denoising"}
        store.part("records")
        return Outcome(failed=[(runs[0], "Traceback\nRuntimeError: a run's own\n")])

    options = Namespace(profile="smoke", only=["denoising"], seeds=[3], out=out, device="cpu")
    assert reproduce.reproduce(options, compute) == 1
    assert mark.read_text() == "smoke3"
    said = capsys.readouterr()
    assert re.fullmatch(
        rf"0 runs and 3 notebooks in \d+ (s|min): open {re.escape(str(out))}/report.html",
        said.out.splitlines()[-1],
    )
    assert "3 notebooks, " in said.err and "  3/3  " in said.err
    told = said.err.splitlines()[-3:]
    assert told[0].startswith(
        "failed: run denoising astronaut noisy seed 3: RuntimeError: a run's own"
    )
    log = Path(told[0].rpartition("see ")[2])
    assert log.read_text().startswith("Traceback")
    assert told[1].startswith("failed: notebook bad: ValueError: of no use; see ")
    assert Path(told[1].rpartition("see ")[2]).exists()
    assert told[2].startswith("failed: notebook dies: ")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "ValueError: of no use" in page and "RuntimeError: a run" in page


def test_each_of_the_papers_tables_says_what_has_not_been_run():
    found = reproduce.papers_tables(pd.DataFrame(columns=COLUMNS))
    silent = [name for name in report.TITLES if not found[name].attrs.get("left_out")]
    assert silent == ["table1"]  # which holds settings


def test_notebooks_without_runs_are_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "execute_all", lambda pairs, parameters: [])
    options = Namespace(profile="smoke", only=["table1"], seeds=[0], out=tmp_path, device="cpu")
    assert reproduce.reproduce(options, lambda *_: Outcome()) == 0
    assert (tmp_path / "tables" / "table1.md").exists() and (tmp_path / "report.html").exists()


def test_only_the_notebooks_that_show_a_selection_run(tmp_path, monkeypatch):
    ran = []

    def execute_all(pairs, parameters):
        ran.append([source.stem for source, _ in pairs])
        return []

    monkeypatch.setattr(reproduce, "execute_all", execute_all)
    for only in (["figure3"], ["table5"], ["table1", "figure6"], []):
        options = Namespace(profile="smoke", only=only, seeds=[0], out=tmp_path, device="cpu")
        reproduce.reproduce(options, lambda *_: Outcome())
    sr, deblur, denoise = "07_super_resolution", "08_deblurring", "06_denoising"
    assert ran == [[sr], [deblur], [denoise, deblur], list(reproduce.NOTEBOOKS)]


def test_an_unknown_part_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'figure9'; known are denoising.*table5.*figure6"):
        experiments.plan("paper", ["figure9"])


# Killed -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_three_times_it_ends_as_if_never(tmp_path):
    """SIGKILL to the whole group at three moments; then the records of an uninterrupted run."""
    command = [
        sys.executable, "-m", "deepred", "run", "--profile", "smoke", "--device", "cpu",
        "--workers", "2", "--store",
    ]  # fmt: skip
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for count, late in [(1, 0.05), (6, 0.21), (12, 0.0)]:
        process = subprocess.Popen(
            [*command, str(killed)], stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while len(list(killed.glob("records/*.json"))) < count:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(late)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(Store(killed).records()) < len(experiments.plan("smoke"))
    for folder in (killed, whole):
        subprocess.run([*command, str(folder)], check=True, capture_output=True, timeout=300)
    one, other = ({r["key"]: r for r in Store(f).records()} for f in (killed, whole))
    assert set(one) == set(other) and len(one) == len(experiments.plan("smoke"))
    for key, record in one.items():
        for name in ("metrics", "settings", "iterations", "image", "method"):
            assert record[name] == other[key][name], key
        assert Store(killed).image(key).read_bytes() == Store(whole).image(key).read_bytes()
    curves = [{p.name: p.read_bytes() for p in f.glob("curves/*.csv")} for f in (killed, whole)]
    assert curves[0].keys() == curves[1].keys()
    for name in curves[0]:
        assert _without_seconds(curves[0][name]) == _without_seconds(curves[1][name]), name
    assert not list(killed.glob("checkpoints/*.pt"))


def _without_seconds(curve: bytes) -> list[list[str]]:
    rows = [line.split(",") for line in curve.decode().splitlines()]
    keep = [i for i, name in enumerate(rows[0]) if name != "seconds"]
    return [[row[i] for i in keep] for row in rows]
