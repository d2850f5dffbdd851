"""A progress bar of one line on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

WIDTH = 24
REDRAW_SECONDS = 0.1


class ProgressBar:
    """``label [#######.................] 120/400 text``, redrawn in place.

    Parameters
    ----------
    total : int
        Number of `advance` calls to come.
    label : str
        Text in front of the bar.
    shown : bool, optional
        None shows it if stderr is a terminal.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> with ab.nn.ProgressBar(3, label="work", shown=False) as bar:
    ...     for _ in range(3):
    ...         bar.advance()
    """

    def __init__(self, total: int, *, label: str = "", shown: bool | None = None) -> None:
        self.total = total
        self.label = label
        self.shown = sys.stderr.isatty() if shown is None else shown
        self.done = 0
        self._drawn_at = -1.0
        self._length = 0

    def advance(self, text: str = "") -> None:
        """Count one more as done; `text` stands behind the count."""
        self.done += 1
        now = time.monotonic()
        if self.shown and (self.done >= self.total or now - self._drawn_at >= REDRAW_SECONDS):
            self._draw(text)
            self._drawn_at = now

    def _draw(self, text: str) -> None:
        filled = WIDTH * min(self.done, self.total) // max(self.total, 1)
        bar = "#" * filled + "." * (WIDTH - filled)
        line = f"{self.label} [{bar}] {self.done}/{self.total} {text}".strip()
        # Blanks wipe what a longer line left behind.
        sys.stderr.write("\r" + line.ljust(self._length))
        sys.stderr.flush()
        self._length = len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.shown and self._length:
            sys.stderr.write("\n")
            sys.stderr.flush()
