"""What memory a run takes, and how much there is."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from deepred.compute.memory import memory_available

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads the files of Linux"
)

GB = 10**9


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine of 8 GiB free, and a process without limits; writes the files it is told."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    write(**{"proc/meminfo": "MemFree: 1 kB\nMemAvailable: 8388608 kB\nSwapFree: 9 kB\n"})
    return write


def test_without_limits_it_is_what_the_machine_has(root):
    assert memory_available(root()) == 8 * 2**30
    assert 0 < memory_available() < 2**50  # this machine, whatever it is


@pytest.mark.parametrize("inside", [False, True], ids=["the host's paths", "a namespace"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_limit_counts_and_its_cache_of_files_does_not(root, version, inside):
    path = "/" if inside else "/docker/abc"
    mount = "sys/fs/cgroup" + (path if version == 2 else "/memory" + path).rstrip("/")
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    proc = f"0::{path}\n" if version == 2 else f"7:cpu,cpuacct:{path}\n4:memory:{path}\n0::/\n"
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
    """Pages: 300 in all, 200 of them data."""
    most = {getattr(resource, limit): 500 * resource.getpagesize()}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (most.get(which, -1), -1))
    left = memory_available(root(**{"proc/self/statm": "300 100 50 1 0 200 0\n"}))
    assert left == {"RLIMIT_AS": 200, "RLIMIT_DATA": 300}[limit] * resource.getpagesize()


# Two runs in a process; resident megabytes at iteration 100 and at the end of the first, and the
# highest of either.
RUNS = """
import torch, deepred
from pathlib import Path

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
