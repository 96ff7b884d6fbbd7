"""`sextant generate`: text as it comes, a live heatmap, and files of what was seen."""

from __future__ import annotations

import argparse
import shlex

from rich.console import Console

import sextant
from sextant.cli import arguments, outputs
from sextant.cli.consoles import standard_error
from sextant.cli.live import LiveHeatmap
from sextant.cli.saving import File, Saving, partial_files, readings_files
from sextant.errors import invalid
from sextant.events import StartedEvent, WarningEvent


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    p = commands.add_parser(
        "generate", help="continue a prompt", description="Continue a prompt; look inside."
    )
    p.add_argument("prompt", help="the text; - reads it from standard input")
    p.add_argument("--chat", action="store_true", help="send the prompt as a user's message of a chat")
    p.add_argument("--system", type=arguments.given, metavar="TEXT", help="system message (with --chat)")
    p.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="default %(default)s; 0: prompt only"
    )
    s = p.add_argument_group("sampling")
    s.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    s.add_argument("--top-p", type=float, default=1.0, metavar="P")
    s.add_argument("--top-k", type=int, default=0, metavar="K", help="0 is off (default)")
    s.add_argument("--seed", type=int, default=0)
    s.add_argument(
        "--stop",
        type=arguments.given,
        action="append",
        default=[],
        metavar="TEXT",
        help="may be given several times",
    )
    s.add_argument("--ignore-eos", action="store_true", help="go on after the model's end of text")
    lens = p.add_argument_group("lens")
    lens.add_argument(
        "--lens", action="store_true", help="decode every layer; shows a live heatmap on a terminal"
    )
    # No defaults here: a flag that was given without its feature is refused.
    lens.add_argument("--lens-top-k", type=arguments.count, metavar="K", help="candidates a row (default 5)")
    lens.add_argument(
        "--lens-sites",
        type=arguments.words,
        metavar="SITE,...",
        help="default resid_post; also attn_out, ...",
    )
    lens.add_argument(
        "--lens-layers",
        type=arguments.given,
        metavar="LAYERS",
        help="all (default), 14, 10-14 or 0,5,10-14",
    )
    lens.add_argument(
        "--lens-positions",
        type=arguments.positions,
        metavar="POSITIONS",
        help="all (default), prompt, generation, or prompt positions like 0,-1 or 2:5",
    )
    lens.add_argument(
        "--lens-wait",
        type=arguments.lens_wait,
        metavar="SECONDS",
        help="the longest wait, after the last token, for readings that lens decoders still owe (default 60, "
        "0 to 600). When it passes: exit code 1, files are written as NAME.partial, and the command that "
        "waits for the rest is printed",
    )
    outputs.add_to(lens, " (implies --lens)")
    c = p.add_argument_group("capture")
    c.add_argument(
        "--capture", type=arguments.words, metavar="SITE,...", help="keep activations of these sites"
    )
    c.add_argument("--capture-layers", type=arguments.given, metavar="LAYERS", help="as --lens-layers")
    c.add_argument(
        "--capture-positions", type=arguments.positions, metavar="POSITIONS", help="as --lens-positions"
    )
    c.add_argument("--capture-before-steering", action="store_true", help="record what steering then changed")
    c.add_argument(
        "--capture-label",
        type=arguments.given,
        metavar="TEXT",
        help="shown by `sextant capture list`",
    )
    c.add_argument(
        "--capture-ttl", type=arguments.count, metavar="SECONDS", help="time to live (default an hour)"
    )
    c.add_argument(
        "--save-capture",
        type=arguments.given,
        metavar="FILE",
        help="write the activations as safetensors (needs --capture)",
    )
    p.add_argument_group("steering").add_argument(
        "--steer",
        type=arguments.steer,
        action="append",
        default=[],
        metavar="NAME[@V]:STRENGTH[,key=value]",
        help="keys: layers, positions, site (instead of the vector's own), operator (add, add_scaled, "
        "ablate, clamp, set), low and high (of clamp), preserve_norm, strict (refuse a vector made on other "
        "weights)",
    )
    p.add_argument("--quiet", action="store_true", help="print the text and nothing else")
    p.set_defaults(run=run)


def run(client: sextant.Client, options: argparse.Namespace, console: Console) -> int:
    """Generates, shows, saves. 0, or 1 when readings are missing."""
    _check_flags(options)
    outputs.check(options)
    console = outputs.console_of(options, console)
    text = arguments.text(options.prompt)
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
    try:
        if out.received.options.lens and console.is_terminal and not options.quiet:
            LiveHeatmap(client, out, console, prefix).run()
        else:
            _stream(out, console, prefix, options.quiet)
    except (sextant.SextantError, KeyboardInterrupt) as error:
        out.cancel()
        failed = isinstance(error, sextant.SextantError)
        why = f"failed ({error.reason or error.code})" if failed else "interrupted"
        saving = Saving(standard_error(), interrupted=not failed)
        saving.write_what_arrived(partial_files(client, out, options, why))
        raise
    missing = out.stats.missing_reading_count
    saving = Saving(console, options.quiet)
    saving.write(
        readings_files(
            lambda: out.lens, options, f"{missing} positions have no readings yet" if missing else ""
        ),
        partial=bool(missing),
    )
    if options.save_capture:
        saving.write([File("safetensors", options.save_capture, lambda path: out.activations.save(path))])
    if not options.quiet:
        _summary(out, options)
    if missing:
        _say_how_to_resume(out, options)
    return 1 if missing else 0


def _check_flags(options: argparse.Namespace) -> None:
    """Refuses flags that would say nothing without another one."""
    lens = options.lens or outputs.wants_readings(options)
    needs = (
        ("system", options.chat, "--chat"),
        *((f"lens_{name}", lens, "--lens") for name in ("top_k", "sites", "layers", "positions", "wait")),
        *(
            (f"capture_{name}", options.capture, "--capture SITE,...")
            for name in ("layers", "positions", "before_steering", "label", "ttl")
        ),
        ("save_capture", options.capture, "--capture SITE,..."),
    )
    for name, given, other in needs:
        if getattr(options, name) not in (None, False) and not given:
            flag = "--" + name.replace("_", "-")
            raise invalid(
                "FLAG_WITHOUT_EFFECT", f"{flag} says nothing without {other}: add it, or leave {flag} out"
            )


def _lens(options: argparse.Namespace) -> sextant.Lens | None:
    if not (options.lens or outputs.wants_readings(options)):
        return None
    return sextant.Lens(
        top_k=5 if options.lens_top_k is None else options.lens_top_k,
        sites=options.lens_sites or ["resid_post"],
        layers=options.lens_layers or "all",
        positions=options.lens_positions or "all",
        tracked=bool(options.json or options.html),
    )


def _capture(options: argparse.Namespace) -> sextant.Capture | None:
    if not options.capture:
        return None
    return sextant.Capture(
        sites=options.capture,
        layers=options.capture_layers or "all",
        positions=options.capture_positions or "all",
        record="before_steering" if options.capture_before_steering else "after_steering",
        ttl_seconds=options.capture_ttl,
        label=options.capture_label or "",
    )


def _stream(out: sextant.Generation, console: Console, prefix: str, quiet: bool) -> None:
    started = False
    try:
        for event in out:
            started = True
            if isinstance(event, StartedEvent) and not quiet:
                console.print(prefix, style="dim", end="", soft_wrap=True)
            if event.text:
                console.file.write(event.text)
                console.file.flush()
            if isinstance(event, WarningEvent):
                standard_error().print(f"\nwarning {event.reason}: {event.message}", style="yellow")
    finally:  # An error that follows begins on a line of its own.
        if started:
            console.file.write("\n")
            console.file.flush()


def _say_how_to_resume(out: sextant.Generation, options: argparse.Namespace) -> None:
    """Readings that are missing come once a lens decoder has time: the command that waits for them."""
    words = ["sextant", "capture", "follow", out.capture.rpartition("/")[2]]
    for kind in outputs.READINGS:
        if path := getattr(options, kind):
            words += [f"--{kind}", path]
    standard_error().print(f"the missing readings can still come; wait for them with: {shlex.join(words)}")


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
    standard_error().print("; ".join(parts), style="dim")
