"""`sextant generate`: text as it comes, a live heatmap, and files of what was seen."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import sextant
from sextant.cli import arguments
from sextant.cli.live import LiveHeatmap
from sextant.events import StartedEvent, WarningEvent


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    p = commands.add_parser(
        "generate", help="continue a prompt", description="Continue a prompt; look inside."
    )
    p.add_argument("prompt", help="the text; - reads it from standard input")
    p.add_argument("--chat", action="store_true", help="send the prompt as a user's message of a chat")
    p.add_argument("--system", metavar="TEXT", help="system message (with --chat)")
    p.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="default %(default)s; 0: prompt only"
    )
    s = p.add_argument_group("sampling")
    s.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    s.add_argument("--top-p", type=float, default=1.0, metavar="P")
    s.add_argument("--top-k", type=int, default=0, metavar="K", help="0 is off (default)")
    s.add_argument("--seed", type=int, default=0)
    s.add_argument("--stop", action="append", default=[], metavar="TEXT", help="may be given several times")
    s.add_argument("--ignore-eos", action="store_true", help="go on after the model's end of text")
    lens = p.add_argument_group("lens")
    lens.add_argument(
        "--lens", action="store_true", help="decode every layer; shows a live heatmap on a terminal"
    )
    lens.add_argument("--lens-top-k", type=int, default=5, metavar="K", help="candidates a row (default 5)")
    lens.add_argument("--lens-sites", type=arguments.words, default=["resid_post"], metavar="SITE,...")
    lens.add_argument("--lens-layers", default="all", metavar="LAYERS", help="all, 14, 10-14 or 0,5,10-14")
    lens.add_argument("--lens-positions", type=arguments.positions, default="all", metavar="POSITIONS")
    lens.add_argument("--lens-wait", type=float, metavar="SECONDS", help="for readings after the last token")
    lens.add_argument("--html", metavar="FILE", help="interactive heatmap (implies --lens)")
    lens.add_argument("--png", metavar="FILE", help="heatmap as a picture (implies --lens)")
    lens.add_argument("--json", metavar="FILE", help="readings as logitlenskit v2 JSON (implies --lens)")
    lens.add_argument("--theme", choices=("light", "dark"), default="light", help="of the picture")
    c = p.add_argument_group("capture")
    c.add_argument(
        "--capture", type=arguments.words, metavar="SITE,...", help="keep activations of these sites"
    )
    c.add_argument("--capture-layers", default="all", metavar="LAYERS")
    c.add_argument("--capture-positions", type=arguments.positions, default="all", metavar="POSITIONS")
    c.add_argument("--capture-before-steering", action="store_true", help="record what steering then changed")
    c.add_argument("--capture-label", default="", metavar="TEXT")
    c.add_argument("--capture-ttl", type=int, metavar="SECONDS", help="time to live (default an hour)")
    c.add_argument(
        "--save-capture", metavar="FILE", help="write the activations as safetensors (needs --capture)"
    )
    p.add_argument_group("steering").add_argument(
        "--steer",
        type=arguments.steer,
        action="append",
        default=[],
        metavar="NAME[@V]:STRENGTH[,key=value]",
        help="keys: layers, positions, site, operator, low, high, preserve_norm, strict",
    )
    p.add_argument("--quiet", action="store_true", help="print the text and nothing else")
    p.set_defaults(run=run)


def run(client: sextant.Client, options: argparse.Namespace, console: Console) -> int:
    """Generates, shows, saves. 0, or 1 when readings are missing."""
    if options.save_capture and not options.capture:
        raise sextant.SextantError(
            "INVALID_ARGUMENT",
            "NOTHING_CAPTURED",
            "--save-capture needs sites: --capture resid_post,attn_out",
        )
    _check_outputs(options)
    text = sys.stdin.read() if options.prompt == "-" else options.prompt
    prompt: str | list[dict[str, str]] = text
    if options.chat:
        system = [{"role": "system", "content": options.system}] if options.system else []
        prompt = [*system, {"role": "user", "content": text}]
    out = client.generate(
        prompt,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
        stop=options.stop,
        ignore_eos=options.ignore_eos,
        lens=_lens(options),
        capture=_capture(options),
        steer=options.steer,
        lens_wait=options.lens_wait,
    )
    prefix = "" if options.chat else text
    if out.received.options.lens and console.is_terminal and not options.quiet:
        LiveHeatmap(client, out, console, prefix).run()
    else:
        _stream(out, console, prefix, options.quiet)
    _save(out, options, console)
    if not options.quiet:
        _summary(out, options)
    return 1 if out.stats.missing_reading_count else 0


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuses, before any work, files that could not be written after it."""
    for path in (options.html, options.png, options.json, options.save_capture):
        folder = Path(path).resolve().parent if path else None
        if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise sextant.SextantError(
                "INVALID_ARGUMENT", "OUTPUT_NOT_WRITABLE", f"cannot write {path}: {folder} is no writable folder"
            )


def _lens(options: argparse.Namespace) -> sextant.Lens | None:
    if not (options.lens or options.html or options.png or options.json):
        return None
    return sextant.Lens(
        top_k=options.lens_top_k,
        sites=options.lens_sites,
        layers=options.lens_layers,
        positions=options.lens_positions,
        tracked=bool(options.json or options.html),
    )


def _capture(options: argparse.Namespace) -> sextant.Capture | None:
    if not options.capture:
        return None
    return sextant.Capture(
        sites=options.capture,
        layers=options.capture_layers,
        positions=options.capture_positions,
        record="before_steering" if options.capture_before_steering else "after_steering",
        ttl_seconds=options.capture_ttl,
        label=options.capture_label,
    )


def _stream(out: sextant.Generation, console: Console, prefix: str, quiet: bool) -> None:
    try:
        for event in out:
            if isinstance(event, StartedEvent) and not quiet:
                console.print(f"[dim]{escape(prefix)}[/]", end="", highlight=False, soft_wrap=True)
            if event.text:
                sys.stdout.write(event.text)
                sys.stdout.flush()
            if isinstance(event, WarningEvent):
                Console(stderr=True).print(f"\n[yellow]warning {event.reason}[/]: {escape(event.message)}")
    finally:  # An error that follows begins on a line of its own.
        sys.stdout.write("\n")
        sys.stdout.flush()


def _save(out: sextant.Generation, options: argparse.Namespace, console: Console) -> None:
    written = []
    if options.html or options.png:
        heatmap = out.lens.heatmap()
        if options.html:
            written.append(heatmap.save(options.html))
        if options.png:
            written.append(heatmap.save(options.png, theme=options.theme))
    if options.json:
        written.append(out.lens.save(options.json))
    if options.save_capture:
        written.append(out.activations.save(options.save_capture))
    if not options.quiet:
        for path in written:
            console.print(f"[dim]wrote[/] {escape(str(path))}", highlight=False)


def _summary(out: sextant.Generation, options: argparse.Namespace) -> None:
    stats = out.stats
    parts = [f"{stats.prompt_token_count} prompt + {stats.generated_token_count} generated tokens"]
    if stats.tokens_per_second == stats.tokens_per_second:
        parts.append(f"{stats.tokens_per_second:.1f} tok/s")
    parts.append(f"ended by {out.finish_reason}")
    if stats.lens_position_count:
        read = stats.lens_position_count - stats.missing_reading_count
        parts.append(f"{read} of {stats.lens_position_count} positions read")
    for steer, count in zip(options.steer, stats.touched_row_counts, strict=False):
        parts.append(f"{steer.label} touched {count} rows")
    if options.capture:
        parts.append(f"kept as {out.capture.rpartition('/')[2]}")
    Console(stderr=True).print(f"[dim]{escape('; '.join(parts))}[/]", highlight=False, soft_wrap=True)
