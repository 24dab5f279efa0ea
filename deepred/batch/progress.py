"""Progress on a terminal as a bar with the time left, elsewhere as a line now and then."""

from __future__ import annotations

import sys

from tqdm import tqdm

_BAR = "{desc} |{bar:24}| {percentage:3.0f}% [{elapsed}, {remaining} left{postfix}]"
_LINE = "{desc}: {n}/{total} {unit}, {remaining} left{postfix}"


class Progress(tqdm):
    """Counts iterations, or what else `unit` names, up to `total`; a context manager."""

    def __init__(self, total: int, label: str, unit: str = "iterations") -> None:
        self.terminal = sys.stderr.isatty()
        wait = 0.1 if self.terminal else 15.0
        super().__init__(
            total=total,
            desc=label,
            unit=unit,
            bar_format=_BAR if self.terminal else _LINE,
            file=sys.stderr,
            leave=False,
            miniters=1,
            mininterval=wait,
            delay=wait,  # not before: a refusal is to be the only line
        )

    def reach(self, done: int, note: str = "") -> None:
        """Say that `done` iterations are done in all."""
        if self.n == self.initial == 0:
            self.n = self.initial = done  # before this session: not to be timed
            self.start_t = self._time()
        self.set_postfix_str(note, refresh=False)
        self.update(done - self.n)

    def line(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self.terminal:
            self.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.terminal:
            super().display(msg, pos)
        elif msg is None:
            print(self, file=sys.stderr, flush=True)
