"""The benchmark: what it counts is right, every figure is there. Nothing is judged by a clock."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import torch

from deepred.cli import main
from deepred.compute.engine import Engine
from deepred.errors import InputError
from deepred.networks import SkipNetwork
from deepred.paper import bench, notebook, timing
from deepred.presets import preset

CLOCK = bench.Clock("cpu", 0.001)
TINY = preset("paper", "denoise", "dip").replace(channels=4, scales=1, skip=0, input_channels=2)


def test_the_work_of_a_small_network_by_hand():
    """Two channels in, 16 x 16: stride-2 conv, conv, conv 3x3 at full size, 1x1 twice."""
    full, half = 16 * 16, 8 * 8
    layers = [  # inputs, outputs, kernel, pixels in, pixels out
        (2, 4, 3, full, half), (4, 4, 3, half, half),
        (4, 4, 3, full, full), (4, 4, 1, full, full), (4, 3, 1, full, full),
    ]  # fmt: skip
    forward = sum(2 * i * o * k * k * p for i, o, k, _, p in layers)
    first = 2 * 2 * 4 * 9 * half  # z needs no gradient: one product less
    flops, moved = bench.work(16, TINY)
    assert flops == 3 * forward - first
    # Without padding a product reads what the layer reads, with it up to a border more.
    network = SkipNetwork((16, 16), inputs=2, channels=4, scales=1, skip=0)
    theta = sum(p.numel() for p in network.parameters())
    traffic = sum(2 * (i * a + o * b) + i * a for i, o, _, a, b in layers) - 2 * full
    assert moved == 4 * traffic + 28 * theta


def test_the_work_of_the_papers_network_grows_with_its_pixels():
    paper = preset("paper")
    small, large = (bench.work(side, paper)[0] for side in (128, 256))
    assert large == 4 * small
    assert large == pytest.approx(115.0e9, rel=1e-3)  # to the digits told in the text


def test_the_floor_is_the_larger_of_two_times():
    rates = [
        {"precision": "float32", "flops": 1e3, "bytes": 1e30},
        {"precision": "bf16", "flops": 1e30, "bytes": 1e3},
    ]
    flops, _ = bench.work(32, TINY)
    _, moved = bench.work(32, TINY, bytes_each=2)
    assert bench.floor(32, TINY, "float32", rates) == flops / 1e3
    assert bench.floor(32, TINY, "bf16", rates) == moved / 1e3
    assert bench.floor(32, TINY, "tf32", rates) is None


def test_the_clock_gives_the_time_of_one_call():
    calls = []
    seconds = bench.Clock("cpu", 0.05).seconds(lambda: calls.append(sum(range(1000))))
    assert 0 < seconds < 0.05
    assert len(calls) > 100


def test_a_slow_call_is_not_warmed_up_for_long(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def slow():
        calls.append(None)
        now[0] += 10.0

    assert bench.Clock("cpu", 1.0).seconds(slow) == 10.0
    assert len(calls) == 3


def test_calls_that_take_turns_meet_the_same_load(monkeypatch):
    """A machine that slows down all the time leaves the ratio of two calls nearly as it is."""
    now, order = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def call(name, cost):
        order.append(name)
        now[0] += cost * (1 + len(order))

    a, b = bench.Clock("cpu", 100.0).turns([lambda: call("a", 1), lambda: call("b", 10)])
    assert order == ["a", "b"] * 8  # a warm-up and seven rounds
    assert b / a == pytest.approx(10, rel=0.2)  # one after the other: 18


def test_turns_that_are_slow_are_fewer(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def slow():
        calls.append(None)
        now[0] += 10.0

    assert bench.Clock("cpu", 1.0).turns([slow]) == [10.0]
    assert len(calls) == 4


def test_the_ways_to_compute(monkeypatch):
    monkeypatch.setattr(bench, "has_bf16", lambda: False)
    plain = bench.modes("cpu")
    assert plain[0] == Engine() and all(how.precision == "float32" for how in plain)
    assert [how.compiled for how in bench.modes("cpu", compiled=True)][-2:] == [True, True]
    monkeypatch.setattr(bench, "has_bf16", lambda: True)
    assert Engine(precision="bf16") in bench.modes("cpu")
    gpu = bench.modes("cuda", compiled=True)
    assert gpu[0] == Engine("cuda") and len(gpu) == len(set(gpu))
    assert any(how.graphs and how.compiled and how.precision == "bf16" for how in gpu)


def test_every_figure_has_its_baseline():
    rates = list(bench.ceilings(bench.Clock("cpu", 0.0), "cpu"))
    assert rates[0]["precision"] == "float32" and rates[0]["flops"] > 0 and rates[0]["bytes"] > 0
    rows = list(bench.iterations(CLOCK, bench.modes("cpu"), (32,), rates))
    assert rows[0]["mode"] == "float32" and rows[0]["ratio"] == 1
    assert [row["channels"] for row in rows] == sorted([128, 16] * (len(rows) // 2))[::-1]
    for row in rows:
        (reference,) = [
            r for r in rows if r["channels"] == row["channels"] and r["mode"] == "float32"
        ]
        assert row["ratio"] == pytest.approx(reference["seconds"] / row["seconds"])
        assert row["floor"] > 0 or row["mode"].startswith("bf16")
    rows = list(bench.loops(CLOCK, "cpu", 32))
    assert len(rows) == 2 and rows[0]["ratio"] == 1
    rows = list(bench.batches(CLOCK, "cpu", 32))
    assert [row["batch"] for row in rows] == [1, 2, 4, 8] and rows[0]["ratio"] == 1


def test_denoisers_are_compared_by_what_they_return():
    rows = list(bench.denoiser_times(CLOCK, "cpu", 32))
    assert rows[0]["denoiser"] == "NLM" and rows[0]["difference"] < 1e-4
    assert rows[0]["ratio"] == pytest.approx(rows[0]["reference"] / rows[0]["seconds"])


def test_a_denoiser_without_its_package_has_no_reference(monkeypatch):
    def absent():
        raise InputError("not installed")

    monkeypatch.setattr("deepred.denoise.bm3d._bm3d_package", absent)
    rows = {row["denoiser"]: row for row in bench.denoiser_times(CLOCK, "cpu", 16)}
    assert rows["CBM3D"]["reference"] is None and rows["CBM3D"]["seconds"] > 0


def test_a_preset_takes_its_iterations_times_their_number(monkeypatch):
    monkeypatch.setattr(bench, "_interval", lambda *a: None)
    monkeypatch.setattr(bench.Clock, "turns", lambda self, calls: [6.0] * len(calls))
    for row in bench.presets(CLOCK, "cpu", 32):
        s = preset(row["preset"], row["task"])
        assert row["seconds"] == 6.0 / s.denoise_every
        assert row["total"] == pytest.approx(row["seconds"] * s.iterations * s.runs)
        if row["preset"] == "fast":
            paper = preset("paper", row["task"])
            count = paper.iterations * paper.runs / paper.denoise_every
            assert row["ratio"] == pytest.approx(count / (row["iterations"] / s.denoise_every))


def test_timing_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    list(bench.iterations(CLOCK, [Engine(threads=before + 1)], (32,), []))
    assert torch.get_num_threads() == before


def test_the_command_tells_it_as_json_and_as_tables(capsys):
    assert main(["bench", "--json", "--only", "iterations", "--sides", "32"]) == 0
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert result["machine"]["torch"] == torch.__version__ and result["machine"]["cores"] >= 1
    assert result["presets"] == [] and "side 32" in told.err
    shown = bench.tables(result)
    (table,) = shown.values()
    assert list(table.columns) == [
        "channels", "side [px]", "mode", "time [ms]", "ratio", "floor [ms]",
    ]  # fmt: skip
    assert main(["bench", "--only", "batches"]) == 0
    assert "| side [px] | mode | batch | time [ms] | ratio |" in capsys.readouterr().out


def test_an_unknown_section_is_refused(capsys):
    assert main(["bench", "--only", "everything"]) == 2
    assert "unknown section 'everything'; known are kernels," in capsys.readouterr().err


def test_stored_results_are_read_in_order(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"machine": {"cpu": name}}))
    assert [result["machine"]["cpu"] for result in bench.read(tmp_path)] == ["a", "b"]
    assert bench.read(tmp_path / "none") == []


def test_committed_machines_tell_where_and_when():
    for result in notebook.machines():
        told = result["machine"]
        assert told["commit"] and not told["commit"].endswith("+") and told["date"]
        assert set(result) <= {"machine", *bench.SECTIONS}
        assert all(len(table) for table in bench.tables(result).values())


def test_what_was_not_measured_says_so():
    row = {"side": 1, "mode": "bf16", "seconds": 0.00123, "ratio": 1.0, "floor": None}
    result = dict.fromkeys(bench.SECTIONS, ()) | {"iterations": [row]}
    (table,) = bench.tables(result).values()
    assert isinstance(table, pd.DataFrame)
    assert list(table.iloc[0]) == ["1", "bf16", "1.23", "1.00", "–"]
    assert not math.isnan(row["seconds"])
