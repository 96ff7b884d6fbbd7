"""`sextant vector`: list, show, import, export, delete."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

import sextant
from sextant.cli import arguments, outputs
from sextant.cli.tables import table
from sextant.errors import invalid
from sextant.heatmap.document import spans


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    actions = commands.add_parser("vector", help="steering vectors").add_subparsers(
        required=True, metavar="ACTION"
    )
    listing = actions.add_parser("list", help="the newest version of every name")
    listing.add_argument("name", nargs="?", default="", help="every version of this name instead")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="everything about one version")
    show.add_argument("reference", metavar="NAME[@V]")
    show.set_defaults(run=_show)
    bring = actions.add_parser(
        "import",
        help="store a GGUF control vector, or safetensors, .npy or .npz arrays",
        description="Stores a GGUF control vector (llama.cpp's, repeng's), what `vector export` wrote, or an "
        "array [hidden] or [layers, hidden] of a .npy, .npz or safetensors file.",
    )
    bring.add_argument("file", help="its kind is told by what it holds")
    bring.add_argument(
        "--tensor", type=arguments.given, metavar="NAME", help="which array, where a file holds several"
    )
    bring.add_argument(
        "--layers",
        type=arguments.given,
        metavar="LAYERS",
        help="where a plain array acts, in its order: 14 or 10-14; all is 0 to its last. Of a file that says "
        "its layers: only these",
    )
    bring.add_argument(
        "--site", choices=sextant.SITES, metavar="SITE", help="where a plain array acts (default resid_post)"
    )
    bring.add_argument(
        "--name", type=arguments.given, help="default: the name in the file, else the file's own"
    )
    bring.add_argument("--description", metavar="TEXT", help="default: that in the file")
    bring.set_defaults(run=_import)
    export = actions.add_parser("export", help="write a version to a file")
    export.add_argument("reference", metavar="NAME[@V]")
    export.add_argument("--format", choices=("gguf", "safetensors"), help="default: what FILE ends in")
    export.add_argument(
        "--output", type=arguments.given, metavar="FILE", help="default: NAME-V.gguf or NAME-V.safetensors"
    )
    export.set_defaults(run=_export)
    delete = actions.add_parser("delete", help="hide a version, or all versions of a name")
    delete.add_argument("reference", metavar="NAME[@V]")
    delete.set_defaults(run=_delete)


def _list(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    vectors = client.vectors.history(options.name) if options.name else client.vectors.list()
    if not vectors:
        console.print("no vectors; bring one with: sextant vector import FILE")
        return
    rows = table("vector", "site", "layers", ">hidden", ">norm", "model", "description")
    for v in vectors:
        norm = f"{max(v.norms):.3g}" if v.norms else ""
        rows.add_row(
            v.reference, v.site, spans(list(v.layers)), str(v.hidden_size), norm, v.model, v.description
        )
    console.print(rows)


def _show(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    v = client.vectors.info(options.reference)
    shown = table("field", "value")
    for name, value in (
        ("vector", v.reference),
        ("site", v.site),
        ("layers", spans(list(v.layers))),
        ("directions", f"{len(v.layers)} x {v.hidden_size}"),
        ("norms", ", ".join(f"{norm:.4g}" for norm in v.norms)),
        ("model", f"{v.model} ({v.model_layer_count} layers)"),
        ("model sha256", v.model_sha256 or "unknown"),
        ("sha256", v.sha256),
        ("created", f"{v.create_time:%Y-%m-%d %H:%M:%S} UTC" if v.create_time else ""),
        ("description", v.description),
        *((f"label {key}", text) for key, text in sorted(v.labels.items())),
    ):
        shown.add_row(name, value)
    console.print(shown)


def _import(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    file = sextant.read_vector(options.file, tensor=options.tensor, layers=options.layers, site=options.site)
    size, hidden_size = file.directions.shape[1], client.model().hidden_size
    if size != hidden_size:
        raise invalid(
            "BAD_VECTOR",
            f"directions of {options.file} have {size} numbers; rows of the served model have {hidden_size}",
        )
    stored = client.vectors.put(
        options.name or file.name or Path(options.file).stem.lower(),
        file.directions,
        site=file.site,
        layers=file.layers,
        description=file.description if options.description is None else options.description,
        model_sha256=file.model_sha256,
    )
    console.print(f"stored {stored.reference}: {stored.site} {spans(list(stored.layers))}")


def _export(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    if not options.format and not options.output:
        raise invalid(
            "UNKNOWN_FORMAT", "say what to write: --output happy.gguf, or --format gguf or safetensors"
        )
    if options.output:
        outputs.check_file("--output", options.output)
    v = client.vectors.get(options.reference)
    path = options.output or f"{v.name}-{v.version}.{options.format}"
    console.print(f"wrote {sextant.export_vector(v, path, options.format)}")


def _delete(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    count = client.vectors.delete(options.reference)
    console.print(f"deleted {count} version{'s' if count != 1 else ''} of {options.reference}")
