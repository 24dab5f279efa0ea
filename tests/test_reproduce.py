"""Selections, forecasts, and what `deepred reproduce` does where something fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import nbformat
import pytest
import torch

from deepred import bench, cli, datasets, experiments, forecast, reproduce
from deepred.errors import InputError
from deepred.experiments import EXPERIMENTS, PARTS
from deepred.runner import Outcome
from deepred.settings import Settings
from deepred.store import Store

# Selections ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_runs_of_its_experiments_only(name):
    for profile in experiments.PROFILES:
        runs = experiments.plan(profile, [name])
        assert {run.experiment for run in runs} <= {first for first, *_ in PARTS[name]}
    assert bool(runs) == bool(PARTS[name])  # of the profile paper
    for experiment, *words in PARTS[name]:  # and each of its lines finds some
        assert any(set(words) <= set(run.title.split()) for run in runs)


def test_a_figure_needs_its_image_alone():
    titles = [run.title for run in experiments.plan("paper", ["figure3"])]
    assert sorted(titles) == ["head x4 bicubic", "head x4 deepred (paper)"]
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
    from deepred.store import IDENTITY, read_runs

    for profile in ("quick", "paper"):
        runs = read_runs(Path(__file__).parent.parent / "data" / "results" / profile)
        seeds = tuple(int(seed) for seed in runs["seed"].unique())
        planned = {
            tuple(str(getattr(run, name)) for name in IDENTITY)
            for name in EXPERIMENTS
            for run in experiments.plan(profile, [name], seeds)
        }
        stored = runs.fillna({"preset": ""})[list(IDENTITY)].astype(str).itertuples(index=False)
        assert {tuple(row) for row in stored} <= planned


def test_the_size_of_an_image_is_known_without_it(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    comic = next(r for r in experiments.plan("paper", ["table3"]) if r.title == "comic x8 bicubic")
    (entry,) = datasets.select(["set14/comic"])
    assert comic.shape == (entry.height // 8 * 8, entry.width // 8 * 8)
    for run in experiments.plan("quick"):
        assert run.shape == tuple(run.truth().shape[2:])


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


# Forecasts ----------------------------------------------------------------------------------------


def result_of_bench(device="cpu", side=64, seconds=0.5, **machine) -> dict:
    """What `deepred bench --json` would print of a machine that is not this one."""
    mode = "tf32, channels last" if device == "cuda" else "float32, 1 thread"
    row = {"channels": 128, "side": side, "mode": mode, "seconds": seconds, "ratio": 1.0}
    calls = [{"side": 64, "denoiser": "NLM", "seconds": 0.1, "reference": None, "ratio": None}]
    empty = {name: [] for name in bench.SECTIONS}
    told = {"device": device, "cpu": "a CPU", "gpu": "a GPU" * (device == "cuda"), "cores": 2}
    return {"machine": told | machine, **empty, "iterations": [row], "denoisers": calls}


def run_of(method="dip", channels=128, iterations=100, **changes):
    run = next(r for r in experiments.plan("smoke", ["denoising"]) if r.method == method)
    settings = Settings(channels=channels, iterations=iterations, runs=1, **changes)
    from dataclasses import replace

    return replace(run, settings=settings)


def test_the_measured_network_takes_what_was_measured():
    machine = forecast.Machine.told([result_of_bench()])
    assert machine.workers == 2 and machine.name == "a CPU, 2 cores"
    # 64 x 64 as in the bench: a hundred iterations of half a second, to rounding.
    assert machine.seconds(run_of()) == pytest.approx(50, rel=1e-9)
    assert machine.seconds(run_of(iterations=200)) == pytest.approx(100, rel=1e-9)
    # One call of the denoiser every ten iterations comes on top.
    assert machine.seconds(run_of("deepred")) == pytest.approx(50 + 10 * 0.1, rel=1e-9)
    assert machine.all_of([run_of(), run_of()]) == pytest.approx(50, rel=1e-9)


def test_a_cpu_is_as_fast_as_its_kernels():
    rows = [
        {"channels": 128, "height": 32, "width": 128, "threads": n, "native": 0.1 * n}
        for n in (1, 2)
    ]
    result = {**result_of_bench(), "kernels": rows}
    assert forecast.Machine.told([result]).seconds(run_of()) == pytest.approx(10, rel=1e-9)
    assert forecast.Machine.told([result], 1).seconds(run_of()) == pytest.approx(10, rel=1e-9)


def test_a_narrower_network_takes_its_share_of_the_work():
    machine = forecast.Machine.told([result_of_bench()])
    share = bench.work(64, Settings(channels=32))[0] / bench.work(64, Settings())[0]
    assert machine.seconds(run_of(channels=32)) == pytest.approx(50 * share, rel=1e-9)
    assert forecast.operations(run_of()) == 100 * bench.work(64, Settings())[0]


def test_what_was_not_timed_is_unknown():
    machine = forecast.Machine.told([result_of_bench()])
    assert machine.seconds(run_of("deepred", denoiser="bm3d")) is None
    assert forecast.Machine.told([{**result_of_bench(), "iterations": []}]) is None
    assert forecast.Machine.of([result_of_bench()], "cpu") is None  # of another machine
    noisy = next(r for r in experiments.plan("smoke", ["denoising"]) if r.method == "noisy")
    assert machine.seconds(noisy) == 0 and forecast.operations(noisy) == 0


def test_a_gpu_has_one_worker():
    assert forecast.Machine.told([result_of_bench("cuda")]).workers == 1
    assert forecast.Machine.told([result_of_bench("cuda")]).name == "a GPU"


def test_a_cluster_is_as_fast_as_its_workers_until_it_is_not():
    assert forecast.makespan(1000, 1, 60, 0) == pytest.approx(60_000)
    assert forecast.makespan(1000, 64, 60, 0) == pytest.approx(16 * 60)  # 15 rounds, and a part
    assert forecast.makespan(3, 64, 60, 0) == pytest.approx(60)
    assert forecast.makespan(1, 1, 60, 2) == pytest.approx(62)
    # Far fewer workers than 60 / 0.1: they are busy all the time, but for the waiting at the start.
    assert forecast.makespan(1000, 64, 60, 0.1) == pytest.approx(16 * 60, rel=0.01)
    # Far more: the one process that serves them is, and further workers are of no use.
    many, more = (forecast.makespan(10_000, n, 60, 0.1) for n in (2400, 4800))
    assert many == pytest.approx(10_000 * 0.1, rel=0.1) == more


def test_readme_says_what_the_simulation_does():
    root = Path(__file__).parent.parent
    results = bench.read(root / "data" / "bench")
    rows = {row["side"]: row["seconds"] for each in results for row in each.get("dispatch", ())}
    told = [f"{rows[256] * 1e3:.0f} ms", f"{rows[512] * 1e3:.0f} ms"]
    for name, seconds in [("10 s", 10), ("1 min", 60), ("10 min", 600)]:
        cells = [name]
        for count in (64, 256):
            took = forecast.makespan(1000, count, seconds, rows[512])
            cells += [forecast.told(took), f"{100_000 * seconds / count / took:.0f} %"]
        told.append("| " + " | ".join([*cells, f"{seconds / rows[512]:,.0f} GPUs"]) + " |")
    readme = (root / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    for text in told:
        assert text in readme


@pytest.mark.parametrize(
    "seconds, told",
    [(None, "unknown"), (0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5990, "100 min"),
     (7200, "2.0 h"), (90000, "25 h"), (86400 * 3.26, "3.3 days")],
)  # fmt: skip
def test_durations_read_well(seconds, told):
    assert forecast.told(seconds) == told


def test_a_plan_says_what_is_there_and_how_long_the_rest_takes(tmp_path, capsys):
    (tmp_path / "gpu.json").write_text(json.dumps(result_of_bench("cuda")))
    command = ["run", "--profile", "smoke", "--only", "denoising", "--store", str(tmp_path / "s")]
    assert cli.main([*command, "--match", "noisy", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert cli.main([*command, "--dry-run", "--bench", str(tmp_path / "gpu.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("done") for line in lines) == 1
    assert "1 done, 5 to do, 0 cannot" in lines
    assert "on a GPU, 1 at once" in lines[-1]
    assert not (tmp_path / "s" / "checkpoints").exists()  # nothing was begun


def test_a_machine_without_figures_has_no_forecast(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "read", lambda folder: [result_of_bench()])
    command = ["run", "--profile", "smoke", "--dry-run", "--device", "cpu"]
    assert cli.main([*command, "--store", str(tmp_path)]) == 0
    assert "time: unknown" in capsys.readouterr().out


def test_a_file_that_is_no_bench_is_refused(tmp_path, capsys):
    (tmp_path / "bad.json").write_text("[1]")
    command = ["run", "--profile", "smoke", "--dry-run", "--bench"]
    for name, why in [("bad.json", "not what"), ("none.json", "cannot be read")]:
        assert cli.main([*command, str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert name in line and why in line


# Failures -----------------------------------------------------------------------------------------


def notebook(path: Path, *cells: str) -> None:
    made = nbformat.v4.new_notebook()
    made.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python"}
    names = ("profile", "results", "figures", "device", "seeds")
    parameters = nbformat.v4.new_code_cell("\n".join(f"{name} = None" for name in names))
    parameters.metadata.tags = ["parameters"]
    made.cells = [parameters, *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(made, path)


def test_what_fails_is_told_at_the_end_and_the_rest_still_runs(tmp_path, monkeypatch, capsys):
    sources, out = tmp_path / "notebooks", tmp_path / "out"
    sources.mkdir()
    notebook(sources / "bad.ipynb", "raise ValueError('of no use')")
    notebook(sources / "dies.ipynb", "import os; os._exit(3)")
    mark = tmp_path / "mark"
    notebook(sources / "good.ipynb", f"open({str(mark)!r}, 'w').write(profile + str(seeds))")
    shows = ("denoising",)
    monkeypatch.setattr(reproduce, "NOTEBOOKS", dict.fromkeys(("bad", "dies", "good"), shows))
    monkeypatch.setattr(reproduce, "folder", lambda: sources)
    committed = Path(__file__).parent.parent / "data" / "results" / "paper"
    monkeypatch.setattr(reproduce, "committed", lambda: committed)

    def compute(runs, store, options) -> Outcome:
        assert {run.experiment for run in runs} == {"denoising"}
        store.part("records")
        return Outcome(failed=[(runs[0], "Traceback\nRuntimeError: a run's own\n")])

    options = Namespace(profile="smoke", only=["denoising"], seeds=[3], out=out, device="cpu")
    assert reproduce.reproduce(options, compute) == 1
    assert mark.read_text() == "smoke[3]"
    told = capsys.readouterr().err.splitlines()[-3:]
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
    sr, deblur, denoise = "06_super_resolution", "07_deblurring", "05_denoising"
    assert ran == [[sr], [deblur], [denoise, deblur], list(reproduce.NOTEBOOKS)]


def test_an_unknown_part_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'figure9'; known are denoising.*table5.*figure6"):
        experiments.plan("paper", ["figure9"])


# Killed -------------------------------------------------------------------------------------------


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
