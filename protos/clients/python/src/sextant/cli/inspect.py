"""`sextant model` and `sextant tokenize`."""

from __future__ import annotations

import argparse
from dataclasses import fields

from rich.console import Console
from rich.text import Text

import sextant
from sextant.cli import arguments
from sextant.cli.tables import table


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommands."""
    commands.add_parser("model", help="what is served").set_defaults(run=_model)
    tokenize = commands.add_parser("tokenize", help="token ids of a text")
    tokenize.add_argument("text", help="- reads it from standard input")
    tokenize.add_argument("--add-special-tokens", action="store_true")
    tokenize.set_defaults(run=_tokenize)


def _model(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    model = client.model()
    rows = table("field", "value")
    for holder in (model, model.limits):
        for field in fields(holder):
            if field.name != "limits":
                rows.add_row(field.name.replace("_", " "), str(getattr(holder, field.name)))
    console.print(rows)


def _tokenize(client: sextant.Client, options: argparse.Namespace, console: Console) -> None:
    tokens = client.tokenize(arguments.text(options.text), options.add_special_tokens)
    if not console.is_terminal:
        console.print(" ".join(map(str, tokens.ids)), soft_wrap=True)
        return
    shown = Text()
    for number, piece in enumerate(tokens.texts):
        shown.append(piece, "black on bright_blue" if number % 2 else "black on bright_cyan")
    console.print(shown)
    console.print(Text(" ".join(map(str, tokens.ids)), "dim"))
    console.print(Text(f"{len(tokens)} tokens", "dim"))
