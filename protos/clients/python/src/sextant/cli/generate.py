"""`sextant generate`: text as it comes, a live heatmap, and files of what was seen."""

from __future__ import annotations

import argparse
import shlex

from rich.console import Console

import sextant
from sextant.cli import arguments, generate_flags, outputs
from sextant.cli.consoles import standard_error
from sextant.cli.live import LiveHeatmap
from sextant.cli.saving import File, Saving, partial_files, readings_files
from sextant.events import StartedEvent, WarningEvent


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    p = commands.add_parser(
        "generate", help="continue a prompt", description="Continue a prompt; look inside."
    )
    generate_flags.add_to(p)
    p.set_defaults(run=run)


def run(client: sextant.Client, options: argparse.Namespace, console: Console) -> int:
    """Generates, shows, saves. 0, or 1 when readings are missing."""
    generate_flags.check(options)
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
        lens=generate_flags.lens_of(options),
        capture=generate_flags.capture_of(options),
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
        why = "interrupted"
        if isinstance(error, sextant.SextantError):
            why = f"failed ({error.reason or error.code})"
        saving = Saving(standard_error(), interrupted=isinstance(error, KeyboardInterrupt))
        saving.write_what_arrived(partial_files(client, out, options, why))
        if isinstance(error, KeyboardInterrupt) and out.finish_reason == "cancelled":
            raise KeyboardInterrupt("the work on the server is cancelled") from None
        raise
    missing = out.stats.missing_reading_count
    files = [*readings_files(lambda: out.lens, options, _lacking(missing))]
    if options.save_capture:
        files.append(File("safetensors", options.save_capture, lambda path: out.activations.save(path)))
    Saving(console, options.quiet).write(files)
    if not options.quiet:
        _summary(out, options)
    if missing:
        _say_how_to_resume(out, options)
    return 1 if missing else 0


def _lacking(missing: int) -> str:
    if missing == 0:
        return ""
    return "1 position has no readings yet" if missing == 1 else f"{missing} positions have no readings yet"


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
    server = ["--server", options.server] if options.server else []
    words = ["sextant", *server, "capture", "follow", out.capture.rpartition("/")[2]]
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
