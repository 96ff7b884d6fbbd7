"""Files that `sextant generate` and `capture follow` leave: checked before any work, written after it."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import sextant
from sextant.errors import invalid
from sextant.heatmap import PAGES, PICTURES
from sextant.heatmap.picture import require_matplotlib

_SUFFIXES = {"html": PAGES, "png": PICTURES}
_SETTLE_SECONDS = 5.0  # How long a capture may take to close after its call was cancelled.


def add_to(group: argparse._ArgumentGroup, implied: str = "") -> None:
    """Adds the flags of what readings are written as."""
    group.add_argument("--html", metavar="FILE", help=f"interactive heatmap{implied}")
    group.add_argument("--png", metavar="FILE", help=f"heatmap as a picture: .png, .svg or .pdf{implied}")
    group.add_argument("--json", metavar="FILE", help=f"readings as logitlenskit v2 JSON{implied}")
    group.add_argument("--theme", choices=("light", "dark"), help="of the picture (default light)")


def check(options: argparse.Namespace) -> None:
    """Refuses, before any work, what could not be written after it. Raises SextantError INVALID_ARGUMENT."""
    if options.theme and not options.png:
        raise invalid(
            "NO_PICTURE", "--theme is the picture's: add --png FILE (the page has a switch of its own)"
        )
    for kind in ("html", "png", "json", "save_capture"):
        path = getattr(options, kind, None)
        if path is None:
            continue
        suffixes = _SUFFIXES.get(kind, ())
        if suffixes and Path(path).suffix not in suffixes:
            raise invalid("UNKNOWN_FORMAT", f"--{kind} {path}: its name must end in {' or '.join(suffixes)}")
        folder = Path(path).resolve().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise invalid("OUTPUT_NOT_WRITABLE", f"cannot write {path}: {folder} is no writable folder")
        if Path(path).is_dir():
            raise invalid("OUTPUT_NOT_WRITABLE", f"cannot write {path}: it is a folder; name a file in it")
    if options.png:
        require_matplotlib()


def save_readings(lens: sextant.LensResult, options: argparse.Namespace, partial: str = "") -> Iterator[Path]:
    """Writes what the flags ask for and says what was written; partial files get names that say so."""
    named: Callable[[str], Path] = _partial_name if partial else Path
    if options.html or options.png:
        heatmap = lens.heatmap(partial=partial)
        if options.html:
            yield heatmap.save(named(options.html))
        if options.png:
            yield heatmap.save(named(options.png), theme=options.theme or "light")
    if options.json:
        yield lens.save(named(options.json), partial=partial)


def save_partial(
    client: sextant.Client, out: sextant.Generation, options: argparse.Namespace, console: Console, why: str
) -> None:
    """Writes what had arrived of a generation that did not end well; says what, and what it could not."""
    out.cancel()
    received = out.received
    partial = f"{why} after {len(received.token_ids)} of at most {options.max_new_tokens} tokens"
    if options.html or options.png or options.json:
        _attempt(
            console, "readings", lambda: save_readings(sextant.LensResult(received, client), options, partial)
        )
    if options.save_capture:
        _attempt(console, "activations", lambda: _save_activations(client, out, options))


def report(console: Console, path: Path, partial: bool = False) -> None:
    """One line about a file."""
    console.print(
        f"[dim]wrote[/] {escape(str(path))}{' (partial)' if partial else ''}", highlight=False, soft_wrap=True
    )


def _attempt(console: Console, what: str, write: Callable[[], Iterator[Path]]) -> None:
    try:
        for path in write():
            report(console, path, partial=True)
    except (sextant.SextantError, OSError) as error:
        console.print(f"[yellow]no {what} could be saved:[/] {escape(str(error))}", soft_wrap=True)


def _save_activations(
    client: sextant.Client, out: sextant.Generation, options: argparse.Namespace
) -> Iterator[Path]:
    name = out.received.capture
    if not name:
        raise invalid("NOTHING_CAPTURED", "the call ended before its capture was opened")
    deadline = time.monotonic() + _SETTLE_SECONDS
    while client.captures.info(name).state == "open" and time.monotonic() < deadline:
        time.sleep(0.1)
    rows = client.captures.get(name, out.received.options.capture)
    yield rows.save(_partial_name(options.save_capture))


def _partial_name(path: str) -> Path:
    """`heat.partial.html` of `heat.html`: a whole file of an earlier run stays as it is."""
    whole = Path(path)
    return whole.with_name(f"{whole.stem}.partial{whole.suffix}")
