"""The runs of a plan on a real dask.distributed cluster of two worker processes."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from deepred.batch import cluster, results
from deepred.cli import main
from deepred.errors import InputError
from deepred.paper import execution, experiments
from deepred.paper.store import Store

distributed = pytest.importorskip("distributed", reason="pip install 'deepred[dask]'")


@pytest.fixture(scope="module")
def workers():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, resources={"run": 1}, dashboard_address=None,
        memory_limit=0,
    ) as local:  # fmt: skip
        yield local


def pids(local) -> dict[str, int]:
    with distributed.Client(local, set_as_default=False) as client:
        return client.run(os.getpid)


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_nothing_is_stored_twice(
    workers, tmp_path, monkeypatch, capsys
):
    """One of two workers is killed in the middle: every run is there, once, as if computed here."""
    runs = experiments.plan("smoke")
    store, stored = Store(tmp_path / "there"), []
    merge = results.merge
    monkeypatch.setattr(
        results, "merge", lambda *a: stored.append(merge(*a)) or stored[-1]
    )  # fmt: skip
    before = pids(workers)

    def kill() -> None:
        while not stored:
            time.sleep(0.01)
        os.kill(next(iter(before.values())), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = cluster.compute(runs, store, workers.scheduler_address, device="cpu")
    killer.join()
    assert len(outcome.done) == len(runs) and not outcome.failed and not outcome.left
    new = [key for merged in stored for key in merged.new]
    assert len(new) == len(set(new)) == len(runs)
    assert not any(merged.had for merged in stored)
    told = capsys.readouterr().err
    assert f"{len(runs)} runs on 2 workers" in told and "astronaut deepred (fast)" in told
    assert pids(workers) != before  # it was one of the workers

    # A second call has nothing to do, and the numbers are those of this process.
    again = cluster.compute(runs, store, workers.scheduler_address, device="cpu")
    assert len(again.done) == len(runs)
    assert len(stored) == len(runs)
    run = next(run for run in runs if run.method == "deepred")
    here = execution.execute(run, Store(tmp_path / "here"), device="cpu")
    # A worker and this process may differ in threads, which changes the order of sums.
    assert execution.find(run, store)["metrics"]["psnr"] == pytest.approx(
        here["metrics"]["psnr"], abs=0.05
    )


def test_what_another_process_has_is_left_to_it(workers, tmp_path):
    run, other = experiments.plan("smoke", ["denoising"])[:2]
    store = Store(tmp_path)
    with store.claim(run.key(run.truth())):
        outcome = cluster.compute([run, other], store, workers.scheduler_address, device="cpu")
    assert outcome.left == [run] and [done for done, _ in outcome.done] == [other]


def test_a_run_that_fails_on_a_worker_is_told(workers, tmp_path):
    from dataclasses import replace

    runs = experiments.plan("smoke", ["denoising"])
    run = next(run for run in runs if run.method == "deepred")
    broken = replace(run, settings=run.settings.replace(denoiser="unheard-of"))
    outcome = cluster.compute([broken], Store(tmp_path), workers.scheduler_address, device="cpu")
    ((_, error),) = outcome.failed
    assert "unknown denoiser 'unheard-of'" in error


def test_the_command_sends_its_runs_there(workers, tmp_path, capsys):
    command = ["run", "--profile", "smoke", "--only", "denoising", "--match", "nlm"]
    command += ["--store", str(tmp_path), "--device", "cpu", "--dask", workers.scheduler_address]
    assert main(command) == 0
    assert len(Store(tmp_path).records()) == 1
    assert main([*command, "--workers", "2"]) == 2
    assert "--workers is for this machine" in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_said(tmp_path):
    runs = experiments.plan("smoke", ["denoising"])
    with pytest.raises(InputError, match="no scheduler answers"):
        cluster.compute(runs, Store(tmp_path), "tcp://127.0.0.1:9", seconds=1)
    with pytest.raises(InputError, match="no scheduler answers"):
        cluster.compute(runs, Store(tmp_path), "nonsense://x", seconds=1)


def test_workers_that_would_mix_runs_are_refused(tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as local,
        pytest.raises(InputError, match="--resources run=1"),
    ):
        cluster.compute([], Store(tmp_path), local.scheduler_address)
