"""What memory a run takes, and how much there is."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepred import preset
from deepred.compute import memory
from deepred.compute.engine import Engine
from deepred.compute.memory import memory_available
from deepred.errors import InputError

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads the files of Linux"
)

GB = 10**9


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine of 8 GiB free, and a process without limits; writes the files it is told."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    free = SimpleNamespace(available=8 * 2**30)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_without_limits_it_is_what_the_machine_has(root):
    assert memory_available(root()) == 8 * 2**30


def test_this_machine_has_some():
    assert 0 < memory_available() < 2**50


@pytest.mark.parametrize("inside", [False, True], ids=["the host's paths", "a namespace"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_limit_counts_and_its_cache_of_files_does_not(root, version, inside):
    path = "/" if inside else "/docker/abc"
    mount = "sys/fs/cgroup" + (path if version == 2 else "/memory" + path).rstrip("/")
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    proc = f"0::{path}\n" if version == 2 else f"7:cpu,cpuacct:{path}\n4:memory,x:{path}\n0::/\n"
    files = {
        "proc/self/cgroup": proc,
        f"{mount}/{names[0]}": f"{4 * GB}\n",
        f"{mount}/{names[1]}": f"{3 * GB}\n",
        f"{mount}/memory.stat": f"anon 5\n{names[2]} {GB // 2}\nactive_file 7\n",
    }
    assert memory_available(root(**files)) == 1.5 * GB
    files[f"{mount}/{names[1]}"] = f"{5 * GB}\n"  # beyond the limit, for a moment
    assert memory_available(root(**files)) == 0


def test_the_least_of_the_groups_counts(root):
    """A service of 6 GB in a slice of 5 GB, in which others have 2 GB."""
    groups = {"a.slice/b.service": (6 * GB, GB), "a.slice": (5 * GB, 3 * GB)}
    files = {"proc/self/cgroup": "0::/a.slice/b.service\n"}
    for path, (most, used) in groups.items():
        files |= {
            f"sys/fs/cgroup/{path}/memory.max": str(most),
            f"sys/fs/cgroup/{path}/memory.current": str(used),
        }
    assert memory_available(root(**files)) == 2 * GB
    assert memory_available(root(**{"sys/fs/cgroup/a.slice/memory.max": "max\n"})) == 5 * GB


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_limits_of_the_process_count(root, monkeypatch, limit):
    most, taken = {getattr(resource, limit): 500}, SimpleNamespace(vms=300, data=200)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (most.get(which, -1), -1))
    monkeypatch.setattr(memory.psutil.Process, "memory_info", lambda self: taken)
    assert memory_available(root()) == {"RLIMIT_AS": 200, "RLIMIT_DATA": 300}[limit]


@pytest.mark.parametrize(
    ("changes", "method", "advice"),
    [
        (dict(channels=128), "deepred", "fewer channels (preset fast), or a smaller image"),
        (dict(denoiser="bm3d"), "deepred", "another denoiser than bm3d, or a smaller image"),
        (dict(), "deepred", "a smaller image"),
        (dict(channels=128), "red", "a smaller image"),
    ],
)
def test_the_advice_fits_what_is_in_use(monkeypatch, changes, method, advice):
    monkeypatch.setattr(memory, "memory_available", lambda: 10**6)
    settings = preset("fast", small=True).replace(**changes)
    needs = [memory.need((3, 64, 48), settings, method, Engine())] * 2
    for engine, start in ((Engine(), ""), (Engine(batch=2), "a smaller batch, ")):
        with pytest.raises(InputError, match=re.escape(f"free: use {start}{advice}") + "$"):
            memory.check_memory(needs, engine)


# Two runs in a process; resident megabytes at iteration 100 and at the end of the first, and the
# highest of either.
RUNS = """
import torch, deepred
from pathlib import Path
from types import SimpleNamespace

torch.set_num_threads(1)
y = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
settings = deepred.preset("fast", small=True).replace(runs=1, iterations=300)
seen = []

def callback(state):
    seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
    return {"psnr": 1.0}

for iterations in (300, 60):
    seen.clear()
    deepred.restore(
        y, settings=settings.replace(iterations=iterations), sigma=0.1, device="cpu",
        engine=deepred.compute.engine.pick("cpu", "float32", work=1), callback=callback,
    )
    print(seen[min(100, iterations) - 1], seen[-1], max(seen))
"""


def test_a_run_s_memory_is_flat_and_a_second_run_needs_no_more():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUNS], capture_output=True, text=True, env=environment, check=True
    )
    (at_100, end, first), (*_, second) = [
        [float(number) for number in line.split()] for line in done.stdout.splitlines()
    ]
    # Where every row's tensors stayed it grew by .1 MB an iteration, here 4 % of 470 MB; now by .6.
    assert end < 1.02 * at_100
    assert second < 1.02 * first
