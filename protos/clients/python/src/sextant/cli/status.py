"""`sextant status`: is the gateway ready, what does it serve, and what do the services' metrics say."""

from __future__ import annotations

import argparse
import http.client
import re
import time
import urllib.error
import urllib.request

import grpc
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

import sextant
from sextant.cli import arguments
from sextant.cli.tables import table
from sextant.interrupts import call_apart

_WATCH_SECONDS = 2
_SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}; too small a proto to generate.
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(\{[^}]*\})?\s+([^\s]+)")
# HTTP ports, counted from the gateway's own port.
_SERVICES = {"gateway": 1000, "shard worker": 1011, "capture": 1020, "registry": 1030, "lens decoder": 1040}


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    p = commands.add_parser("status", help="health, model and metrics")
    p.add_argument("--watch", action="store_true", help="again every two seconds, until Ctrl-C")
    p.add_argument(
        "--metrics",
        type=arguments.given,
        action="append",
        metavar="HOST:PORT",
        help="HTTP address of a service; repeatable (default: the usual distances from the gateway's port)",
    )
    p.set_defaults(run=run)


def run(client: sextant.Client, options: argparse.Namespace, console: Console) -> int:
    """Shows it once or until interrupted. 1 when the gateway is not serving, 3 when nothing answers."""
    if not options.watch:
        shown, code = _look(client, options)
        console.print(shown)
        return code
    if not console.is_terminal:  # Nothing can be drawn over; a pipe's reader gets one look after another.
        while True:
            console.print(_look(client, options)[0])
            time.sleep(_WATCH_SECONDS)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_look(client, options)[0], refresh=True)
            time.sleep(_WATCH_SECONDS)


def _look(client: sextant.Client, options: argparse.Namespace) -> tuple[RenderableType, int]:
    health = _health(client)
    state = Text("serving", "bold green") if health == _SERVING else Text("not serving", "bold red")
    lines: list[RenderableType] = [Text.assemble(f"gateway {client.address}: ", state)]
    try:
        model = client.model()
        lines.append(
            f"model {model.name}: {model.family}, {model.layer_count} layers x {model.hidden_size}, "
            f"{model.dtype}, {model.tensor_parallel_size} ranks, epoch {model.epoch}"
        )
    except sextant.SextantError as error:
        lines.append(Text(str(error), "red"))
    host, _, port = client.address.rpartition(":")
    places = {address: address for address in options.metrics or ()} or {
        name: f"{host}:{int(port) + offset}" for name, offset in _SERVICES.items() if port.isdecimal()
    }
    pages = {address: _get(f"http://{address}/metrics") for address in places.values()}
    lines.append(_decoders("\n".join(page for page in pages.values() if page)))
    rows = table("service", "http", "ready", "figures")
    for name, address in places.items():
        ready = _get(f"http://{address}/readyz") is not None
        page = pages[address]
        rows.add_row(name, address, "yes" if ready else "no" if page else "-", figures(page or ""))
    return Group(*lines, Text(), rows), 0 if health == _SERVING else 3 if health is None else 1


def _decoders(metrics: str) -> Text:
    """How many lens decoders are connected, in words."""
    found = re.search(r"^sextant_capture_decoders(?:\{[^}]*\})? (\S+)$", metrics, re.MULTILINE)
    if found is None:
        return Text(
            "lens decoders connected: unknown (the capture service's metrics do not answer)", "yellow"
        )
    if float(found[1]) == 0:
        return Text(
            "lens decoders connected: 0; readings wait for one: deploy/local/scale --decoders 1", "yellow"
        )
    return Text(f"lens decoders connected: {float(found[1]):g}")


def _health(client: sextant.Client) -> bytes | None:
    """The gateway's own answer; None when nothing answers at its address."""
    check = client.channel.unary_unary("/grpc.health.v1.Health/Check")
    try:
        return call_apart(lambda: check(b"", timeout=2))
    except grpc.RpcError as error:
        unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return None if error.code() in unreachable else b""


def figures(text: str) -> str:
    """The plain sextant_* samples of a Prometheus page, labels summed, histograms and zeroes left out."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if (
            match is None
            or not match[1].startswith("sextant_")
            or re.search(r"_(bucket|sum|count)$", match[1])
        ):
            continue
        sums[match[1]] = sums.get(match[1], 0.0) + float(match[3])
    return ", ".join(f"{name.removeprefix('sextant_')} {value:g}" for name, value in sums.items() if value)


def _get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.read(1 << 20).decode("utf-8", "replace")
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
        return None
