"""The notebooks: pairs in step, parameters checked, run by papermill."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
import torch

from deepred.batch import reproduce
from deepred.errors import InputError
from deepred.io import images
from deepred.paper import experiments, notebook

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = list(reproduce.NOTEBOOKS)


def test_every_notebook_is_listed():
    assert sorted(p.stem for p in FOLDER.glob("*.py")) == NAMES
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_is_in_step(name):
    source = jupytext.read(FOLDER / f"{name}.py")
    paired = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)

    def cells(nb):
        return [(c.cell_type, c.source, sorted(c.metadata.get("tags", []))) for c in nb.cells]

    assert cells(source) == cells(paired), f"run `make notebooks`: {name}.py and .ipynb differ"


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_outputs_are_of_one_clean_run(name):
    paired = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    code = [c for c in paired.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c.outputs]
    assert outputs
    assert not any(o.output_type == "error" for o in outputs)
    assert not any(o.get("name") == "stderr" for o in outputs)
    assert "papermill" not in paired.metadata
    assert str(FOLDER.parent) not in nbformat.writes(paired)


@pytest.mark.parametrize("name", NAMES)
def test_prose_comes_first_and_cells_are_short(name):
    cells = jupytext.read(FOLDER / f"{name}.py").cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert "**What you need.**" in cells[0].source
    lengths = [len(c.source.splitlines()) for c in cells if c.cell_type == "code"]
    assert sorted(lengths)[len(lengths) // 2] <= 6  # the median cell
    text = "\n".join(c.source for c in cells)
    assert "## Exercises" in text and "<details>" in text and "TODO" not in text


@pytest.mark.parametrize("name", NAMES)
def test_exercises_are_open_and_their_folded_solutions_are_right(name):
    """As MyST and Jupyter Book read the tags; exercise and solution have the same check."""
    paired = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)

    def told(tag):
        cells = [c for c in paired.cells if tag in c.metadata.get("tags", [])]
        return cells, ["".join(o.get("text", "") for o in c.outputs) for c in cells]

    (asked, open_), (solved, right) = told("exercise"), told("solution")
    assert asked and len(asked) == len(solved)
    assert all("Not answered yet." in text for text in open_)
    assert all("Right." in text and "Not " not in text for text in right)
    assert all("hide-cell" in c.metadata.tags for c in solved)


@pytest.mark.parametrize("name", NAMES)
def test_set_up_and_assertions_are_folded(name):
    for cell in jupytext.read(FOLDER / f"{name}.py").cells:
        tags = set(cell.metadata.get("tags", []))
        if "parameters" in tags or "notebook.parameters(" in cell.source:
            assert "hide-input" in tags
        if re.search(r"^(if|for) .*\n +assert |p\.unchanged", cell.source, re.M):
            assert "remove-cell" in tags, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_its_parameters_are_the_defaults(name):
    cells = jupytext.read(FOLDER / f"{name}.py").cells
    (tagged,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    exec(tagged.source, variables := {})
    (asked,) = [line for c in cells for line in c.source.splitlines() if line[:4] == "p = "]
    exec(asked, {"notebook": notebook, "globals": lambda: variables}, found := {})
    p = found["p"]
    assert p.unchanged and p == notebook.Parameters(image=p.image, own=p.own)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"iteration": 5}, "unknown parameter 'iteration'; known are device, figures"),
        ({"profile": "fast"}, "profile must be one of smoke, quick, paper, got 'fast'"),
        ({"profile": 3}, "profile must be"),
        ({"device": "gpu"}, "device must be auto, cpu or cuda"),
        ({"iterations": 0}, "iterations must be a whole number of at least 1"),
        ({"iterations": "10"}, "iterations must be a whole number"),
        ({"seed": [1]}, "seed must be a whole number of at least 0, got [1]"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"image": ["coffee"]}, "image must be a name such as 'builtin/chelsea', got ['coffee']"),
        ({"image": "builtin/dog"}, "unknown built-in image 'dog'"),
        ({"image": "nowhere/dog"}, "unknown data set or image 'nowhere/dog'"),
        ({"own": "builtin/coffee"}, "unknown parameter 'own'"),
        ({"results": 1}, "results must be the path of a folder"),
    ],
    ids=str,
)
def test_wrong_parameters_are_told(wrong, said):
    with pytest.raises(InputError, match="^" + re.escape(said)):
        notebook.parameters({"profile": "quick", **wrong})


def test_an_answer_is_told_right_wrong_or_missing():
    image = torch.ones(1, 3, 2, 2)
    assert notebook.check(None, 1.0) == "Not answered yet."
    assert notebook.check(1.00001, 1.0) == notebook.check(image, image.double()) == "Right."
    assert notebook.check(1.5, 1.0) == "Not yet: off by up to 0.5."
    assert notebook.check(image[0], image).startswith("Not yet: the shape is (3, 2, 2)")


def test_a_small_live_part_has_the_same_picture_averaged_down():
    large, small = (notebook.load("builtin/astronaut", side) for side in (128, 64))
    assert small.shape == (1, 3, 64, 64)
    assert torch.allclose(small[..., 5, 7], large[..., 10:12, 14:16].mean((2, 3)), atol=1e-6)


def test_what_jupyter_itself_defines_is_no_parameter():
    own = {"In": [""], "Out": {}, "_i1": "x", "exit": object(), "notebook": notebook}
    assert notebook.parameters(own) == notebook.Parameters()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_papermill_runs_it_in_profile_smoke(name, tmp_path):
    """As by hand: papermill notebooks/NAME.ipynb out.ipynb -p profile smoke."""
    figures = tmp_path / "figures"
    papermill.execute_notebook(
        FOLDER / f"{name}.ipynb", tmp_path / "out.ipynb",
        {"profile": "smoke", "iterations": 15, "figures": str(figures), "device": "cpu"},
        cwd=FOLDER, kernel_name="python3", progress_bar=False,
    )  # fmt: skip
    assert list(figures.glob("*.png"))


def test_a_misspelt_parameter_stops_the_notebook_with_a_clear_message(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            FOLDER / f"{NAMES[0]}.ipynb", tmp_path / "out.ipynb", {"iteration": 3},
            cwd=FOLDER, kernel_name="python3", progress_bar=False,
        )  # fmt: skip
    assert caught.value.ename == "InputError"
    assert caught.value.evalue.startswith("unknown parameter 'iteration'; known are device")


def test_the_readme_shows_the_committed_results():
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert reproduce.headline() in readme


def test_every_picture_and_link_of_the_readme_is_there():
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    local = [t for t in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in t]
    assert local
    assert [t for t in local if not (FOLDER.parent / t).exists()] == []


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_restored_image_is_found_in_whatever_precision_it_was_made(tmp_path, precision):
    (run,) = [
        run
        for run in experiments.plan("paper", ["tomography"])
        if run.method == "deepred" and run.seed == 0
    ]
    folder = tmp_path / "paper" / "images"
    folder.mkdir(parents=True)
    (folder.parent / "runs.csv").touch()
    truth = run.truth()
    images.write(folder / f"{run.key(truth, precision)}.png", images.Picture(truth))
    p = notebook.Parameters(results=str(tmp_path))
    found = notebook.pictures(p, "tomography", "30 views", "shepp-logan", ("fast",))
    told = {title.partition("\n")[0].partition(" ")[0]: title for title in found}
    assert told["DeepRED"].endswith("dB") and "DIP" not in told


def test_no_committed_file_is_of_many_megabytes():
    """Whoever clones has all of them at once, and GitHub draws no large notebook."""
    root = FOLDER.parent
    files = [f for part in ("notebooks", "figures", "data") for f in (root / part).rglob("*.*")]
    assert [f"{f.name}: {f.stat().st_size}" for f in files if f.stat().st_size > 3_000_000] == []
