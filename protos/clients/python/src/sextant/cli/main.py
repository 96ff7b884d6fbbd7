"""The `sextant` command: arguments in, one subcommand, errors as one line and an exit code."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from rich.text import Text

import sextant
from sextant.cli import arguments, capture, generate, inspect, status, vector
from sextant.cli.consoles import standard_error, standard_output

_EPILOG = """exit codes:
  0    done
  1    the server refused or failed, or readings are missing
  2    wrong arguments
  3    no gateway answers at --server
  130  interrupted (Ctrl-C); a generation still under way is cancelled on the server
"""


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
        type=arguments.given,
        metavar="HOST:PORT",
        help=f"the gateway (default: SEXTANT_SERVER, else {sextant.DEFAULT_ADDRESS})",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (generate, capture, vector, inspect, status):
        module.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; the exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    complaints = standard_error()
    try:
        with sextant.Client(options.server) as client:
            return options.run(client, options, standard_output()) or 0
    except sextant.SextantError as error:
        name = f"{error.code}/{error.reason}" if error.reason else error.code
        retry = f" (retry after {error.retry_after:g} s)" if error.retry_after is not None else ""
        complaints.print(
            Text.assemble(("sextant:", "bold red"), " ", (name, "red"), f": {error.message}{retry}")
        )
        return _exit_code(error)
    except OSError as error:
        complaints.print(Text.assemble(("sextant:", "bold red"), f" {error}"))
        return 1
    except KeyboardInterrupt as interrupt:  # What it says is what came of the command.
        complaints.print(": ".join(["interrupted", *map(str, interrupt.args)]), style="yellow")
        return 130


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    top = parser()
    if unsaid := [word for word in arguments if word.startswith("--") and word.endswith("=--")]:
        top.error(f"{unsaid[0]}: -- is no value")  # argparse would make it an empty list, unseen by any type.
    return top.parse_args(arguments)


def _exit_code(error: sextant.SextantError) -> int:
    if error.reason == "SERVER_UNREACHABLE":
        return 3
    return 2 if error.code == "INVALID_ARGUMENT" else 1


def run() -> None:
    """Entry point of the installed command."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sextant ... | head` ends quietly.
    sys.stdout.reconfigure(
        errors="backslashreplace"
    )  # A file's name may be any bytes, a terminal's set small.
    sys.exit(main())


if __name__ == "__main__":
    run()
