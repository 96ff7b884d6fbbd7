"""The `sextant` command: arguments in, one subcommand, errors as one line and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

import sextant
from sextant.cli import capture, generate, inspect, status, vector

_EPILOG = """exit codes:
  0    done
  1    the server refused or failed, or readings are missing
  2    wrong arguments
  3    no gateway answers at --server
  130  interrupted (Ctrl-C); the work on the server is cancelled
"""
_PIPE_COLUMNS = 240


def parser() -> argparse.ArgumentParser:
    """Every subcommand and flag."""
    top = argparse.ArgumentParser(
        prog="sextant",
        description="Generate with a window into the model: lens, captures, steering.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"sextant {sextant.__version__}")
    top.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get("SEXTANT_SERVER", sextant.DEFAULT_ADDRESS),
        help="the gateway (default: SEXTANT_SERVER, else %(default)s)",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (generate, capture, vector, inspect, status):
        module.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; the exit code."""
    options = parser().parse_args(arguments)
    console, complaints = Console(), Console(stderr=True)
    if not console.is_terminal:
        console = Console(width=_PIPE_COLUMNS)  # Programs read whole lines.
    try:
        with sextant.Client(options.server) as client:
            return options.run(client, options, console) or 0
    except sextant.SextantError as error:
        name = f"{error.code}/{error.reason}" if error.reason else error.code
        retry = f" (retry after {error.retry_after:g} s)" if error.retry_after is not None else ""
        complaints.print(
            f"[bold red]sextant:[/] [red]{name}[/]: {escape(error.message)}{retry}", soft_wrap=True
        )
        return _exit_code(error)
    except OSError as error:
        complaints.print(f"[bold red]sextant:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        complaints.print("[yellow]interrupted; the work on the server is cancelled[/]")
        return 130


def _exit_code(error: sextant.SextantError) -> int:
    if error.reason == "SERVER_UNREACHABLE":
        return 3
    return 2 if error.code == "INVALID_ARGUMENT" else 1


def run() -> None:
    """Entry point of the installed command."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sextant ... | head` ends quietly.
    sys.exit(main())


if __name__ == "__main__":
    run()
