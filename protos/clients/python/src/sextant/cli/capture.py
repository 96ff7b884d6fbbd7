"""`sextant capture`: list, get, delete."""

from __future__ import annotations

import argparse

from rich.console import Console

import sextant
from sextant.cli.tables import size, table, until
from sextant.heatmap.document import spans


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    actions = commands.add_parser("capture", help="kept activations").add_subparsers(
        required=True, metavar="ACTION"
    )
    actions.add_parser("list", help="what is kept").set_defaults(run=_list)
    get = actions.add_parser("get", help="show one capture, or save it")
    get.add_argument("id", help="32 hex digits")
    get.add_argument("--save", metavar="FILE", help="write it as safetensors")
    get.add_argument("--dtype", choices=("float32", "stored"), default="float32")
    get.set_defaults(run=_get)
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
    rows = client.captures.get(options.id)
    if options.save:
        console.print(f"wrote {rows.save(options.save, dtype=options.dtype)}", highlight=False)
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


def _delete(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    for identifier in options.id:
        client.captures.delete(identifier)
        console.print(f"deleted {identifier}", highlight=False)


def _shape(info: sextant.CaptureInfo) -> tuple[str, str, str]:
    sites = ", ".join(dict.fromkeys(site for site, _ in info.rows))
    return sites, spans([layer for _, layer in info.rows]), str(len(info.positions))
