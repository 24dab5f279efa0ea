"""The record of one run, one row per iteration, without waiting for a GPU in the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from ..solver import TERMS, State

_INDEX = ("run", "iteration", "seconds")


class History:
    """Rows of a run's states and of what a callback measured on them."""

    def __init__(self, rows: list[dict[str, float]] | None = None) -> None:
        self._rows = list(rows or [])
        self._waiting: list[tuple[dict[str, float], torch.Tensor]] = []

    def add(self, state: State, measured: Mapping[str, float] | None) -> None:
        """Append a state. After a rollback its iteration is there already: the rows from there on
        are replaced."""
        index = {"run": state.run, "iteration": state.k, "seconds": state.seconds}
        terms = torch.stack([state.terms[name].float() for name in TERMS])
        row = {**(measured or {}), **index}
        if terms.is_cuda:
            self._waiting.append((row, terms))
        else:  # kept small tensors would fragment the memory between the large ones
            self._append(row, terms.tolist())

    def _append(self, row: dict[str, float], terms: list[float]) -> None:
        place = (row["run"], row["iteration"])
        while self._rows and (self._rows[-1]["run"], self._rows[-1]["iteration"]) >= place:
            self._rows.pop()
        self._rows.append({**row, **dict(zip(TERMS, terms))})

    def rows(self, until: int | None = None) -> list[dict[str, float]]:
        """The rows as plain numbers, only those up to iteration `until` if given."""
        if self._waiting:
            table = torch.stack([terms for _, terms in self._waiting]).tolist()
            for (row, _), terms in zip(self._waiting, table):
                self._append(row, terms)
            self._waiting = []
        if until is None:
            return self._rows
        return [row for row in self._rows if row["iteration"] <= until]

    def columns(self) -> dict[str, np.ndarray]:
        """One array a column; NaN where a row has no such entry."""
        rows = self.rows()
        extra = [key for row in rows for key in row if key not in (*_INDEX, *TERMS)]
        names = [*_INDEX, *TERMS, *dict.fromkeys(extra)]
        columns = {n: np.array([row.get(n, np.nan) for row in rows], float) for n in names}
        for name in ("run", "iteration"):
            columns[name] = columns[name].astype(int)
        return columns


def joined(histories: Iterable[History]) -> dict[str, np.ndarray]:
    """The columns of several runs, one after the other."""
    return History([row for history in histories for row in history.rows()]).columns()
