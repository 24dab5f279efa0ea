"""Progress on a terminal as a bar with the time left, elsewhere as plain lines."""

from __future__ import annotations

import sys
import time

try:
    from tqdm import tqdm
except ImportError:  # a node that only computes writes plain lines
    tqdm = None

_FORMAT = "{desc} |{bar:24}| {percentage:3.0f}% [{elapsed}, {remaining} left{postfix}]"


class Progress:
    """Counts iterations up to `total`; a context manager."""

    def __init__(self, total: int, label: str, *, every: float = 15.0) -> None:
        self.total, self.label, self.every = total, label, every
        self.done = 0
        self._started = self._told = time.monotonic()
        self._first: int | None = None  # what was done before this session, not to be timed
        self._bar = (
            tqdm(total=total, desc=label, bar_format=_FORMAT, file=sys.stderr, leave=False)
            if tqdm is not None and sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` iterations are done in all."""
        if self._first is None:
            self._first = done
        self.done = done
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._told >= self.every:
            self._told = time.monotonic()
            self.line(f"{self.label}: {done}/{self.total} iterations, {self._left()} left  {note}")

    def line(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def _left(self) -> str:
        fresh = self.done - (self._first or 0)
        if fresh <= 0:
            return "unknown time"
        seconds = (time.monotonic() - self._started) / fresh * (self.total - self.done)
        return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"
