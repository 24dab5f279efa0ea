"""`deepred reproduce`: compute the runs, then execute the notebooks that show them.

Under the output folder: `store/` (every run, so that a second call continues), `results/` (the
same as CSV), `executed/` (the notebooks as run), `figures/` and `tables/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from . import experiments
from .errors import InputError
from .files import replacing
from .store import Store, read_runs

try:
    import papermill

    from . import plots
except ImportError:
    raise InputError("the notebooks need pip install 'deepred[notebooks]'") from None

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
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            source, target, parameters, cwd=source.parent, kernel_name="python3",
            progress_bar=False, log_output=False, **_transport(),
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        print(
            f"failed: {source.stem}: {error.ename}: {error.evalue}; see {target}", file=sys.stderr
        )
        return 1
    return 0


def _transport() -> dict:
    """Talk to the kernel through files where there are such sockets: ports can collide."""
    if sys.platform == "win32":
        return {}
    from jupyter_client.manager import AsyncKernelManager

    class Ipc(AsyncKernelManager):
        transport = "ipc"

    return {"kernel_manager_class": Ipc}


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


def regenerate(figures: Path) -> int:
    """Bring every .ipynb in step with its .py and run it in place, from top to bottom.

    For those who edit the notebooks (`make notebooks`). What belongs to the run and not to the
    notebook is stripped: the parameters given here, papermill's notes, times.
    """
    import jupytext
    import nbformat

    status = 0
    for name in NOTEBOOKS:
        target = folder() / f"{name}.ipynb"
        notebook = jupytext.read(target.with_suffix(".py"))
        jupytext.write(notebook, target, fmt="ipynb")
        failed = execute(target, target, {"figures": str(figures.resolve())})
        status |= failed
        notebook = nbformat.read(target, as_version=4)
        _strip(notebook)
        nbformat.write(notebook, target)
    readme = folder().parent / "README.md"
    text = with_table(readme.read_text(encoding="utf-8"), headline(folder().parent))
    with replacing(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return status


def headline(root: Path) -> str:
    """README's table, from the committed results."""
    runs = read_runs(root / "data" / "results" / "paper")
    runs = runs[runs["experiment"] == "denoising"]
    return plots.markdown(plots.section_41(runs, experiments.PRINTED, experiments.CSET9))


def with_table(readme: str, table: str) -> str:
    """README with the table between its marks replaced."""
    start = readme.index("\n", readme.index("<!-- section 4.1")) + 1
    end = readme.index("<!-- end -->")
    return f"{readme[:start]}\n{table}\n\n{readme[end:]}"


def _strip(notebook) -> None:
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    notebook.cells = [c for c, t in zip(notebook.cells, tags) if "injected-parameters" not in t]
    count = 0
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # random ones would differ each time
        for entry in ("papermill", "execution"):
            cell.metadata.pop(entry, None)
        if cell.metadata.get("tags") == []:
            cell.metadata.pop("tags")
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = count


if __name__ == "__main__":
    sys.exit(regenerate(Path(sys.argv[1])))
