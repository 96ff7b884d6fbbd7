"""`sextant capture`: list, get, follow, delete."""

from __future__ import annotations

import argparse

from rich.console import Console

import sextant
from sextant.cli import arguments, outputs
from sextant.cli.saving import Saving, readings_files
from sextant.cli.tables import size, table, until
from sextant.heatmap.document import spans
from sextant.progress import Progress


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    actions = commands.add_parser("capture", help="kept activations").add_subparsers(
        required=True, metavar="ACTION"
    )
    actions.add_parser("list", help="what is kept").set_defaults(run=_list)
    get = actions.add_parser("get", help="show one capture, or save it")
    get.add_argument("id", help="32 hex digits")
    get.add_argument("--save", type=arguments.given, metavar="FILE", help="write it as safetensors")
    get.add_argument("--dtype", choices=("float32", "stored"), default="float32")
    get.set_defaults(run=_get)
    follow = actions.add_parser(
        "follow",
        help="wait for readings that were missing when their call ended",
        description="Waits until every reading of a capture is there, and writes them.",
    )
    follow.add_argument("id", help="32 hex digits")
    follow.add_argument(
        "--wait", type=arguments.seconds, metavar="SECONDS", help="the longest wait (default: no limit)"
    )
    outputs.add_to(follow.add_argument_group("files"))
    follow.set_defaults(run=_follow)
    delete = actions.add_parser("delete", help="free captures")
    delete.add_argument("id", nargs="+")
    delete.set_defaults(run=_delete)


def _list(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    captures = client.captures.list()
    if not captures:
        console.print("no captures; keep one with: sextant generate ... --capture resid_post")
        return
    rows = table("id", "state", "label", "sites", "layers", ">positions", ">size", "expires in")
    for info in captures:
        rows.add_row(
            info.id, info.state, info.label, *_shape(info), size(info.stored_bytes), until(info.expire_time)
        )
    console.print(rows)


def _get(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    if options.save:
        outputs.check_file("--save", options.save, replaced=True)
    rows = client.captures.get(options.id)
    if options.save:
        console.print(f"wrote {rows.save(options.save, dtype=options.dtype)}")
        return
    info = rows.info
    sites, layers, positions = _shape(info)
    shown = table("field", "value")
    for name, value in (
        ("id", info.id),
        ("state", info.state),
        ("label", info.label),
        ("model", info.model),
        ("sites", sites),
        ("layers", layers),
        ("positions", f"{positions}: {spans(list(info.positions))}"),
        ("missing", ", ".join(f"{a}:{b}" for a, b in info.gaps) or "none"),
        ("row", f"{info.hidden_size} x {info.dtype}, {info.record.replace('_', ' ')}"),
        ("size", size(info.stored_bytes)),
        ("expires in", until(info.expire_time)),
    ):
        shown.add_row(name, value)
    console.print(shown)


def _follow(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    outputs.check(options)
    console = outputs.console_of(options, console)
    following = client.captures.follow(options.id, timeout=options.wait)
    expected = following.info.position_count
    try:
        with Progress("readings", expected, None) as bar:
            for event in following:
                bar.advance(len(event.positions))
    except sextant.SextantError as error:
        if error.code != "DEADLINE_EXCEEDED":
            raise
        count = following.received.log.position_count
        raise sextant.SextantError(
            error.code,
            "READINGS_LATE",
            f"{count} of {expected} positions have readings after {options.wait:g} s; is a lens decoder "
            "running? Wait longer with the same command",
        ) from None
    readings = following.lens
    Saving(console).write(readings_files(lambda: readings, options))
    console.print(f"{following.received.log.position_count} positions read")


def _delete(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    for identifier in options.id:
        client.captures.delete(identifier)
        console.print(f"deleted {identifier}")


def _shape(info: sextant.CaptureInfo) -> tuple[str, str, str]:
    sites = ", ".join(dict.fromkeys(site for site, _ in info.rows))
    return sites, spans([layer for _, layer in info.rows]), str(len(info.positions))
