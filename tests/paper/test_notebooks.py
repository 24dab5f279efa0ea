"""The notebooks: pairs in step, parameters checked, run by papermill."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

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
    lengths = [len(c.source.splitlines()) for c in cells if c.cell_type == "code"]
    assert sorted(lengths)[len(lengths) // 2] <= 10  # the median cell
    text = "\n".join(c.source for c in cells)
    assert "## Questions" in text and "<details>" in text and "TODO" not in text


def test_parameters_are_the_defaults_of_every_notebook():
    for name in NAMES:
        cells = jupytext.read(FOLDER / f"{name}.py").cells
        (tagged,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
        variables = {}
        exec(tagged.source, variables)
        assert notebook.parameters(variables) == notebook.Parameters()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"iteration": 5}, "unknown parameter 'iteration'; known are device, figures"),
        ({"profile": "fast"}, "profile must be one of smoke, quick, paper, got 'fast'"),
        ({"profile": 3}, "profile must be"),
        ({"device": "gpu"}, "device must be auto, cpu or cuda"),
        ({"iterations": 0}, "iterations must be a whole number of at least 1"),
        ({"iterations": "10"}, "iterations must be a whole number"),
        ({"seeds": 1}, "seeds must be a list of whole numbers"),
        ({"seeds": [-1]}, "seeds must be one or more numbers of at least 0"),
        ({"seeds": []}, "seeds must be"),
        ({"images": "coffee"}, "images must be a list"),
        ({"images": ["builtin/dog"]}, "unknown built-in image 'dog'"),
        ({"images": ["nowhere/dog"]}, "unknown data set or image 'nowhere/dog'"),
        ({"seeds": [0, 1]}, "seeds: a live part takes one"),
        ({"images": ["builtin/coffee", "builtin/chelsea"]}, "images: a live part takes one"),
        ({"results": 1}, "results must be the path of a folder"),
    ],
    ids=str,
)
def test_wrong_parameters_are_told(wrong, said):
    with pytest.raises(InputError, match="^" + said.replace("[", r"\[")):
        notebook.parameters({"profile": "quick", **wrong})


def test_what_jupyter_itself_defines_is_no_parameter():
    own = {"In": [""], "Out": {}, "_i1": "x", "exit": object(), "notebook": notebook}
    assert notebook.parameters(own) == notebook.Parameters()


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
