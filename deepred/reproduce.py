"""`deepred reproduce`: compute the runs, then execute the notebooks that show them.

Under the output folder: `store/` (every run, so that a second call continues), `results/` (the
same as CSV), `executed/` (the notebooks as run), `figures/` and `tables/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from . import experiments, plots
from .errors import InputError
from .files import replacing
from .store import Store, read_runs

# In reading order. A notebook runs when one of its experiments is asked for; the first always.
NOTEBOOKS = {
    "00_start_here": (),
    "05_denoising": ("denoising", "overfitting"),
}


def folder() -> Path:
    """The folder of the notebooks.

    Raises
    ------
    InputError
        If the package was installed without them.
    """
    path = Path(__file__).resolve().parent.parent / "notebooks"
    if not path.is_dir():
        raise InputError("the notebooks are not installed: run from a clone of the project")
    return path


def reproduce(options, compute) -> int:
    """The command; `compute` runs what the store lacks and returns 1 if something failed."""
    runs = experiments.plan(options.profile, options.only, tuple(options.seeds))
    source = folder()
    try:
        import papermill  # noqa: F401 - before any work
    except ImportError:
        raise InputError("the notebooks need pip install 'deepred[notebooks]'") from None
    out = Path(options.out)
    store = Store(out / "store")
    status = compute(runs, store, options)
    keys = [run.key(run.truth()) for run in runs if experiments.missing(run) is None]
    results = out / "results" / options.profile
    store.export(results, keys)
    status |= _tables(results, out / "tables", options.profile)
    for name, wanted in NOTEBOOKS.items():
        if wanted and options.only and not set(wanted) & set(options.only):
            continue
        parameters = {
            "profile": options.profile,
            "results": str((out / "results").resolve()),
            "figures": str((out / "figures").resolve()),
            "device": options.device,
        }
        print(f"notebook {name}", file=sys.stderr, flush=True)
        status |= execute(source / f"{name}.ipynb", out / "executed" / f"{name}.ipynb", parameters)
    for name in ("figures", "tables", "executed"):
        files = sorted(p.name for p in (out / name).glob("*.*"))
        print(f"{out / name}/: {', '.join(files)}")
    return status


def execute(source: Path, target: Path, parameters: dict) -> int:
    """One notebook by papermill; 0, or 1 with the reason said and the copy kept to look into."""
    import papermill

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            source, target, parameters, cwd=source.parent, kernel_name="python3",
            progress_bar=False, log_output=False,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        print(
            f"failed: {source.stem}: {error.ename}: {error.evalue}; see {target}", file=sys.stderr
        )
        return 1
    return 0


def _tables(results: Path, tables: Path, profile: str) -> int:
    """The summary of Section 4.1 as Markdown and CSV, and on the screen."""
    runs = read_runs(results)
    runs = runs[runs["experiment"] == "denoising"]
    if runs.empty:
        return 0
    table = plots.denoising_table(runs)
    tables.mkdir(parents=True, exist_ok=True)
    text = plots.markdown(table)
    with replacing(tables / f"denoising-{profile}.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    with replacing(tables / f"denoising-{profile}.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    print(f"\nSection 4.1, denoising, sigma 25, profile {profile}, mean over the images\n")
    print(_aligned(table))
    print()
    return 0


def _aligned(table) -> str:
    return table.to_string(index=False, justify="right")


def regenerate(figures: str) -> int:
    """Bring every .ipynb in step with its .py and execute it in place, outputs clean of run data.

    For those who edit the notebooks: `make notebooks`.
    """
    import jupytext
    import nbformat

    status = 0
    for name in NOTEBOOKS:
        source = folder() / f"{name}.py"
        target = source.with_suffix(".ipynb")
        notebook = jupytext.read(source)
        with replacing(target) as temporary:
            jupytext.write(notebook, temporary, fmt="ipynb")
        status |= execute(target, target, {})
        notebook = nbformat.read(target, as_version=4)
        clean(notebook)
        nbformat.write(notebook, target)
    return status


def clean(notebook) -> None:
    """Strip what differs from run to run and is not output: papermill's notes, times, counts."""
    notebook.metadata.pop("papermill", None)
    kept = []
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            continue
        for entry in ("papermill", "execution"):
            cell.metadata.pop(entry, None)
        kept.append(cell)
    notebook.cells = kept


if __name__ == "__main__":
    sys.exit(regenerate("figures"))
