"""A progress bar that shows itself only when the work takes long and somebody is watching."""

from __future__ import annotations

import sys
import time

import rich.progress
from rich.console import Console

_PATIENCE_SECONDS = 0.5


class Progress:
    """Counts to `total` on stderr. show: None waits half a second and needs a terminal."""

    def __init__(self, title: str, total: int, show: bool | None = None) -> None:
        self._title = title
        self._total = total
        self._show = show
        self._done = 0
        self._begin = time.monotonic()
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Counts `count` more."""
        self._done += count
        if self._bar is None and self._due():
            self._bar = rich.progress.Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._title, total=self._total)
            self._bar.start()
        if self._bar:
            self._bar.update(self._task, completed=self._done)

    def _due(self) -> bool:
        if self._show is not None:
            return self._show
        return sys.stderr.isatty() and time.monotonic() - self._begin > _PATIENCE_SECONDS
