"""`deepred reproduce`: compute the runs, then execute the notebooks that show them.

Under the output folder: `store/` (every run, so that a second call continues), `results/` (the
same as CSV), `executed/` (the notebooks as run), `figures/`, `tables/` and `report.html`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..io.files import replacing
from ..paper import comparisons, execution, experiments
from ..paper.files import check_writable, make_folder
from ..paper.store import Store, read_runs
from .progress import Progress

try:
    import papermill

    from ..paper import tables
    from . import report
except ImportError:
    raise InputError("the notebooks need pip install 'deepred[notebooks]'") from None

# In reading order, with the experiments and parts of the paper that each shows. Asked for some of
# them, only their notebooks run.
NOTEBOOKS = {
    "00_start_here": (),
    "01_inverse_problems": ("noise",),
    "02_deep_image_prior": ("architectures",),
    "03_red": (),
    "04_denoisers": (),
    "05_deepred": ("sensitivity", "figure1"),
    "06_denoising": ("denoising", "section41", "table1", "overfitting", "endurance"),
    "07_super_resolution": ("super-resolution", "table2", "table3", "table4", "figure2", "figure3"),
    "08_deblurring": ("deblurring", "table5", "figure4", "figure5", "figure6"),
    "09_speed": ("choices", "economy", "precision", "stopping"),
    "10_open_questions": ("denoisers",),
    "11_paper_and_code": ("deviations",),
    "12_your_own_problem": ("inpainting", "tomography"),
}


def folder() -> Path:
    """The folder of the notebooks.

    Raises
    ------
    InputError
        If the package was installed without them.
    """
    path = Path(__file__).resolve().parents[2] / "notebooks"
    if not path.is_dir():
        raise InputError("the notebooks are not installed: run from a clone of the project")
    return path


def reproduce(options, compute) -> int:
    """The command; `compute` runs what the store lacks and returns what became of the runs.

    1 if a run or a notebook failed, which is said at the end, or if no run could be computed.
    """
    started = time.monotonic()
    runs = experiments.plan(options.profile, options.only, tuple(options.seeds))
    source = folder()
    out = Path(options.out)
    check_writable(make_folder(out) / "report.html")
    store = Store(out / "store")
    outcome = compute(runs, store, options)
    failures = [f"run {line}" for line in outcome.failures(store)]
    results = out / "results" / options.profile
    keys = {record["key"] for record in stored(store, options.profile, options.seeds)}
    store.export(results, list(keys), images=True)
    found = write_tables(results, out / "tables", options.profile)
    parameters = {
        "profile": options.profile,
        "results": str((out / "results").resolve()),
        "figures": str((out / "figures").resolve()),
        "device": options.device,
        "seed": options.seeds[0],
    }
    wanted = [
        name
        for name, shows in NOTEBOOKS.items()
        if not options.only or set(shows) & set(options.only)
    ]
    pairs = [(source / f"{name}.ipynb", out / "executed" / f"{name}.ipynb") for name in wanted]
    failures += [f"notebook {line}" for line in execute_all(pairs, parameters)]
    path = report.write(out, options.profile, runs, store, found, failures)
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    done = f"{_count(len(outcome.done), 'run')} and {_count(len(pairs), 'notebook')}"
    print(f"{done} in {_duration(time.monotonic() - started)}: open {path}", flush=True)
    return 1 if failures or (runs and not outcome.done) else 0


def stored(store: Store, profile: str, seeds: Sequence[int]) -> list[dict]:
    """The records of a profile: of all experiments, as earlier calls may have asked for others."""
    seeds = dict.fromkeys((*seeds, *(record["seed"] for record in store.records())))
    runs = experiments.plan(profile, None, tuple(seeds))
    found = [execution.find(run, store) for run in runs if experiments.missing(run) is None]
    return [record for record in found if record is not None]


def execute(source: Path, target: Path, parameters: dict) -> str | None:
    """One notebook by papermill; what is wrong if it failed. The copy is kept to look into."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as sockets:
            papermill.execute_notebook(
                source, target, parameters, cwd=source.parent, kernel_name="python3",
                progress_bar=False, log_output=False,
                extra_arguments=["--IPKernelApp.log_level=50"],  # not its word on our ending it
                **_transport(sockets),
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        return f"{source.stem}: {error.ename}: {error.evalue}; see {target}"
    except Exception as error:  # a kernel that dies, or never starts: the other notebooks go on
        reason = str(error).strip().partition("\n")[0]
        return f"{source.stem}: {type(error).__name__}: {reason}; see {target}"
    return None


def _transport(sockets: str) -> dict:
    """Talk to the kernel through files in the folder `sockets`, as ports can collide.

    Without a folder of its own each kernel would take the same names.
    """
    if sys.platform == "win32":
        return {}
    from jupyter_client.manager import AsyncKernelManager

    class Ipc(AsyncKernelManager):
        transport = "ipc"
        ip = f"{sockets}/kernel"

    return {"kernel_manager_class": Ipc}


def execute_all(pairs: list[tuple[Path, Path]], parameters: dict) -> list[str]:
    """Notebooks (source, target) beside each other, as many as there are cores; what failed.

    Their live parts have small networks, which use one core each; what runs outside the solver is
    told to.
    """

    def one(pair: tuple[Path, Path]) -> tuple[str | None, float]:
        started = time.monotonic()
        return execute(*pair, parameters), time.monotonic() - started

    workers = max(1, min(len(pairs), os.cpu_count() or 1))
    with (
        _one_thread_each(),
        Progress(len(pairs), "notebooks", "notebooks") as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        futures = {pool.submit(one, pair): pair[0].stem for pair in pairs}
        if pairs:
            progress.line(f"{_count(len(pairs), 'notebook')}, {workers} at once")
        for number, future in enumerate(as_completed(futures), 1):
            error, seconds = future.result()
            took = f"{seconds:.1f} s" if error is None else "failed"
            progress.line(f"{number:3d}/{len(pairs)}  {futures[future]:54s} {took:>9s}")
            progress.reach(number)
        return [error for error, _ in (future.result() for future in futures) if error is not None]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """In the environment that kernels inherit, unless the user has said how many threads."""
    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def write_tables(results: Path, folder: Path, profile: str) -> dict[str, pd.DataFrame]:
    """Tables as Markdown and CSV: the summary of a profile, which is printed, too, and the paper's.

    The latter from the results at hand in profile paper, else from the committed ones.
    """
    runs, found = read_runs(results), {}
    for name, table in experiments.TABLES.items():
        mine = runs[runs["experiment"] == name]
        if mine.empty:
            continue
        summary = found[f"{name}-{profile}"] = tables.summary(mine)
        print(f"\n{table.source}, profile {profile}, mean over the images\n")
        print(summary.to_string(index=False, justify="right"))
    print()
    if profile != "paper":
        runs = read_runs(committed())
    found |= papers_tables(runs)
    for name, table in found.items():
        tables.save(table, folder, name)
    return found


def papers_tables(runs) -> dict:
    """Tables 1 to 5, Section 4.1 and our studies from runs of the profile paper, by file name."""
    found = {
        "table1": tables.table_1(),
        "section41": tables.section_41(runs[runs["experiment"] == "denoising"]),
        "table4": tables.table_4(runs[runs["experiment"].isin(["table2", "table3"])]),
    }
    for name in ("table2", "table3", "table5"):
        table = experiments.TABLES[name]
        mine = runs[runs["experiment"] == name]
        for setting in table.settings:
            found[f"{name}-{setting}"] = tables.compared(table, setting, mine)
    return found | comparisons.tables(runs)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def regenerate(figures: Path) -> int:
    """Bring every .ipynb in step with its .py and run it in place, from top to bottom.

    For those who edit the notebooks (`make notebooks`). What belongs to the run and not to the
    notebook is stripped: the parameters given here, papermill's notes, times.
    """
    import jupytext
    import nbformat

    for name in NOTEBOOKS:
        target = folder() / f"{name}.ipynb"
        notebook = jupytext.read(target.with_suffix(".py"))
        jupytext.write(notebook, target, fmt="ipynb")
    targets = [folder() / f"{name}.ipynb" for name in NOTEBOOKS]
    failures = execute_all([(t, t) for t in targets], {"figures": str(figures.resolve())})
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    for target in targets:
        notebook = nbformat.read(target, as_version=4)
        _strip(notebook)
        nbformat.write(notebook, target)
    readme = folder().parent / "README.md"
    text = with_table(readme.read_text(encoding="utf-8"), headline())
    with replacing(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return 1 if failures else 0


def committed() -> Path:
    """The folder of the committed results of profile paper."""
    return folder().parent / "data" / "results" / "paper"


def headline() -> str:
    """README's table, from the committed results."""
    return tables.markdown(tables.averages(read_runs(committed())))


def with_table(readme: str, table: str) -> str:
    """README with the table between its marks replaced."""
    start = readme.index("\n", readme.index("<!-- results: ")) + 1
    end = readme.index("<!-- end -->")
    return f"{readme[:start]}\n{table}\n\n{readme[end:]}"


def _strip(notebook) -> None:
    for entry in ("papermill", "widgets"):  # a slider's picture stays, without its kernel
        notebook.metadata.pop(entry, None)
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
        folded = {"hide-input", "hide-cell", "remove-cell"} & set(cell.metadata.get("tags", []))
        if folded:  # in JupyterLab, as MyST and Jupyter Book do by the tag
            cell.metadata["jupyter"] = {"source_hidden": True}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
                if "execution_count" in output:
                    output.execution_count = count


if __name__ == "__main__":
    sys.exit(regenerate(Path(sys.argv[1])))
