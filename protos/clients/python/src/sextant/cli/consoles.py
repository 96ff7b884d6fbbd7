"""Where commands talk. Nothing is read as markup: names, labels and tokens may look like it."""

from __future__ import annotations

from rich.console import Console

_PIPE_COLUMNS = 240


def standard_output() -> Console:
    """A terminal, or lines that are whole because programs read them."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=_PIPE_COLUMNS)


def standard_error() -> Console:
    """What is said about the work; lines are not broken, so that they can be searched."""
    return Console(markup=False, highlight=False, stderr=True, soft_wrap=True)
