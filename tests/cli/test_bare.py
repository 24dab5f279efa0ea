"""`deepred run` where the plain dependencies are all that is installed: nothing of Jupyter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata

from deepred.batch import results
from deepred.paper.store import Store

# Put where Python looks before anything else, in the workers, too.
BLOCKER = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {absent!r}:
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def _needed(names) -> set[str]:
    """The distributions that are installed with these ones, by their normal names."""
    seen, todo = set(), list(names)
    while todo:
        name = _normal(todo.pop())
        if name in seen:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform
            continue
        seen.add(name)
        todo += [re.match(r"[\w.-]+", r)[0] for r in requires if "extra ==" not in r]
    return seen


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _absent() -> set[str]:
    """The importable names of all that is installed here and would not be there."""
    there = _needed(["deepred"])
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if module != "deepred" and not {_normal(owner) for owner in owners} & there
    }


def test_a_bare_node_computes_and_packs(tmp_path):
    absent = _absent()
    assert {"IPython", "papermill", "matplotlib"} <= absent
    assert not {"torch", "numpy", "skimage", "pandas", "tqdm"} & absent
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(BLOCKER.format(absent=sorted(absent)))
    path = os.pathsep.join([str(tmp_path / "bare"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    refused = subprocess.run(
        [sys.executable, "-c", "import IPython"], env=environment, capture_output=True, text=True
    )
    assert "No module named 'IPython'" in refused.stderr  # the blocker is at work
    command = [
        sys.executable, "-m", "deepred", "run", "--profile", "smoke", "--store",
        str(tmp_path / "store"),
    ]  # fmt: skip
    plan = subprocess.run(
        [*command, "--dry-run"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert plan.returncode == 0 and "to do" in plan.stdout, plan.stderr
    done = subprocess.run(
        [*command, "--budget", "5m", "--pack", str(tmp_path / "part.zip"), "--device", "cpu"],
        env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert results.merge(store := Store(tmp_path / "here"), tmp_path / "part.zip").new
    assert {record["task"] for record in store.records()} == {"denoise", "sr", "deblur"}
    assert len(store.records()) == plan.stdout.count("to do ")
