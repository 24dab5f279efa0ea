"""The commands around the paper: run, results, reproduce, verify, bench, data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..batch import results, runner
from ..errors import InputError
from ..io import datasets
from ..paper import bench as paper_bench
from ..paper import execution, experiments, tables
from ..paper import verify as paper_verify
from ..paper.store import Store


def run(options) -> int:
    """`deepred run`."""
    store = Store(options.store)
    runs = experiments.plan(options.profile, options.only, tuple(options.seeds))
    if not runs:
        other = (
            "use --profile paper" if options.profile != "paper" else "deepred reproduce draws it"
        )
        raise InputError(
            f"profile {options.profile} has no runs of {', '.join(options.only)}: {other}"
        )
    runs = [run for run in runs if set(options.match) <= set(run.title.split())]
    if not runs:
        raise InputError("--match: no run of these has all the words; --dry-run lists them")
    if options.dry_run:
        _dry_run(runs, store)
        return 0
    outcome = _compute(runs, store, options, options.budget)
    failures = outcome.failures(store)
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    status = 1 if failures or not (outcome.done or outcome.left) else 0
    if options.pack:
        for path in results.pack(store, options.pack):
            print(path)
    return status


def _dry_run(runs, store) -> None:
    """The runs, each with its state."""
    count = dict.fromkeys(("done", "to do", "cannot"), 0)
    for run in runs:
        absent = experiments.missing(run)
        state = "cannot" if absent else "done" if execution.find(run, store) else "to do"
        count[state] += 1
        line = f"{state:8s}  {run.experiment:12s} {run.title:46s} {run.iterations:6d} iterations"
        print(f"{line}  {absent or ''}".rstrip())
    print(", ".join(f"{number} {state}" for state, number in count.items()))


def _compute(runs, store, options, budget: float | None = None):
    """Compute runs, here or on a cluster, and say which cannot be."""
    if options.dask:
        from ..batch import cluster

        for option in ("workers", "batch", "budget"):
            if getattr(options, option, None):
                raise InputError(f"--{option} is for this machine: leave it out with --dask")
        outcome = cluster.compute(runs, store, options.dask, device=options.device)
    else:
        outcome = runner.compute(
            runs, store, device=options.device, workers=options.workers, budget=budget,
            batch=options.batch,
        )  # fmt: skip
    for reason in dict.fromkeys(reason for _, reason in outcome.absent):
        print(f"not computed: {reason}", file=sys.stderr)
    return outcome


def results_merge(options) -> int:
    """`deepred results merge`."""
    store = Store(options.into)
    for source in options.sources:
        merged = results.merge(store, source)
        told = f"{len(merged.new)} new, {len(merged.had)} there already"
        told += f", {len(merged.continued)} begun" if merged.continued else ""
        if merged.differ:
            told += f"; {len(merged.differ)} of those with another result, which was not taken: "
            told += ", ".join(merged.differ)
        print(f"{source}: {told}")
    return 0


def results_export(options) -> int:
    """`deepred results export`."""
    store = _store(options.store)
    store.export(options.folder, keep=options.keep, images=options.images)
    print(f"{options.folder}: {len(store.records())} runs of {options.store}")
    return 0


def results_diff(options) -> int:
    """`deepred results diff`."""
    table = results.side_by_side(options.a, options.b)
    if options.csv:
        print(table.to_csv(index=False), end="")
        return 0
    print(f"A is {options.a}, B is {options.b}\n")
    print(table.to_string(index=False, na_rep="", float_format="{:.2f}".format))
    both = table["B - A [dB]"].dropna()
    print(f"\n{len(both)} in both, {len(table) - len(both)} in one", end="")
    print(f"; B - A is {both.mean():+.2f} dB on average" if len(both) else "")
    return 0


def results_pack(options) -> int:
    """`deepred results pack`."""
    for path in results.pack(_store(options.store), options.file):
        print(path)
    return 0


def _store(folder: str):
    """A store that is there."""
    if not (Path(folder) / "records").is_dir():
        raise InputError(f"{folder}: no store of results; deepred run makes one")
    return Store(folder)


def reproduce(options) -> int:
    """`deepred reproduce`."""
    from ..batch.reproduce import reproduce as compute_and_show

    return compute_and_show(options, _compute)


def verify(options) -> int:
    """`deepred verify`."""
    absent = paper_verify.missing()
    if len(absent) == len(paper_verify.SETS):
        raise InputError("; ".join(absent.values()))
    for name, reason in absent.items():
        print(f"not checked, {name}: {reason}", file=sys.stderr)
    print(paper_verify.HEADER)
    off = 0
    for line in paper_verify.lines():
        print(line, flush=True)
        off += not line.agrees
    count = f"{off} of them" if off else "none"
    print(f"off by more than {paper_verify.TOLERANCE} dB: {count}")
    return 1 if off else 0


def bench(options) -> int:
    """`deepred bench`."""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    only = options.only or paper_bench.SECTIONS
    for name in only:
        if name not in paper_bench.SECTIONS:
            raise InputError(
                f"unknown section {name!r}; known are {', '.join(paper_bench.SECTIONS)}"
            )
    sides = options.sides or paper_bench.SIDES
    result = paper_bench.run(options.device, sides, only=only, compiled=options.compile, say=say)
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    for title, table in paper_bench.tables(result).items():
        print(f"\n{title}\n\n{tables.markdown(table)}")
    return 0


def data_list(options) -> int:
    """`deepred data list`."""
    for entry in datasets.select(options.names):
        size = f"{entry.width}x{entry.height}"
        print(f"{datasets.status(entry):8s}  {entry!s:24s} {size:>9s}  {entry.licence}")
    return 0


def data_fetch(options) -> int:
    """`deepred data fetch`."""
    failed = 0
    for entry in datasets.select(options.names):
        try:
            print(datasets.fetch(entry))
        except datasets.DownloadError as error:
            print(f"deepred: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0
