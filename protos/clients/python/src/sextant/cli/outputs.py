"""Files that commands leave: their flags, checked before any work."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from sextant.cli import arguments
from sextant.cli.consoles import standard_error
from sextant.errors import SextantError, invalid
from sextant.heatmap import PAGES, PICTURES
from sextant.heatmap.picture import require_matplotlib
from sextant.refusals import unwritable, writing
from sextant.replacing import is_special, part_name, real_path

STANDARD_OUTPUT = "-"
READINGS = ("html", "png", "json")  # Flags of what readings are written as.
_SUFFIXES = {"html": PAGES, "png": PICTURES}


def add_to(group: argparse._ArgumentGroup, implied: str = "") -> None:
    """Adds the flags of what readings are written as."""
    for flag, what in (
        ("--html", "interactive heatmap"),
        ("--png", "heatmap as a picture: .png, .svg or .pdf"),
        ("--json", "readings as logitlenskit v2 JSON"),
    ):
        group.add_argument(
            flag, type=arguments.given, metavar="FILE", help=f"{what}; - is standard output{implied}"
        )
    group.add_argument("--theme", choices=("light", "dark"), help="of the picture (default light)")


def wants_readings(options: argparse.Namespace) -> bool:
    """Whether any flag asks for readings in a file."""
    return any(getattr(options, kind) for kind in READINGS)


def check(options: argparse.Namespace) -> None:
    """Refuses, before any work, what could not be written after it. Raises SextantError INVALID_ARGUMENT."""
    if options.theme and not options.png:
        raise invalid(
            "NO_PICTURE", "--theme is the picture's: add --png FILE (the page has a switch of its own)"
        )
    for kind in READINGS:
        if path := getattr(options, kind):
            _check_readings(kind, path)
    if [getattr(options, kind) for kind in READINGS].count(STANDARD_OUTPUT) > 1:
        raise invalid("OUTPUT_NOT_WRITABLE", "only one of --html, --png and --json can be standard output")
    if path := getattr(options, "save_capture", None):
        check_file("--save-capture", path, replaced=True)
    if options.png:
        require_matplotlib()


def check_file(flag: str, path: str, replaced: bool = False) -> None:
    """Refuses a file that cannot be written. One that is there stays as it is, none stays behind.

    replaced: whether it is written beside its place first, as captures are.
    """
    if path == STANDARD_OUTPUT:
        raise invalid("OUTPUT_NOT_WRITABLE", f"{flag} cannot write to standard output: name a file")
    for one in (Path(path), partial_name(path)):
        try:
            _try_to_open(one)
            if replaced and not is_special(one):
                _try_to_open(part_name(one))
        except SextantError as error:
            raise invalid(error.reason, f"{flag}: {error.message}") from None


def console_of(options: argparse.Namespace, console: Console) -> Console:
    """Where a command talks: standard error when a file goes to standard output."""
    used = STANDARD_OUTPUT in [getattr(options, kind) for kind in READINGS]
    return standard_error() if used else console


def partial_name(path: str) -> Path:
    """`heat.partial.html` of `heat.html`: a whole file of an earlier run stays as it is."""
    whole = Path(path)
    if is_special(whole):
        return whole
    return whole.with_name(f"{whole.stem}.partial{whole.suffix}")


def _check_readings(kind: str, path: str) -> None:
    if path == STANDARD_OUTPUT:
        if kind == "png" and sys.stdout.isatty():
            raise invalid("OUTPUT_NOT_WRITABLE", "--png -: a terminal shows no picture; send it to a file")
        return
    suffixes = _SUFFIXES.get(kind, ())
    if suffixes and Path(path).suffix not in suffixes:
        raise invalid("UNKNOWN_FORMAT", f"--{kind} {path}: its name must end in {' or '.join(suffixes)}")
    check_file(f"--{kind}", path)


def _try_to_open(path: Path) -> None:
    """As writing it will; a pipe or a device is only looked at."""
    with writing(path):
        if path.is_dir():
            raise unwritable(path, "it is a folder; name a file in it")
        if is_special(path):
            return
        real = real_path(path)  # A link that leads nowhere yet stays; what it leads to is tried.
        if not real.parent.exists():
            raise unwritable(path, f"there is no folder {real.parent}")
        was_there = real.exists()
        real.open("ab").close()
        if not was_there:
            real.unlink()
