"""Flags of `sextant generate`, and the settings that they mean."""

from __future__ import annotations

import argparse

import sextant
from sextant.cli import arguments, outputs
from sextant.errors import invalid


def add_to(p: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    p.add_argument("prompt", help="the text; - reads it from standard input")
    p.add_argument("--chat", action="store_true", help="send the prompt as a user's message of a chat")
    p.add_argument("--system", type=arguments.given, metavar="TEXT", help="system message (with --chat)")
    p.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="default %(default)s; 0: prompt only"
    )
    s = p.add_argument_group("sampling")
    s.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    s.add_argument("--top-p", type=float, default=1.0, metavar="P", help="1 is off (default)")
    s.add_argument("--top-k", type=int, default=0, metavar="K", help="0 is off (default)")
    s.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same tokens")
    s.add_argument(
        "--stop",
        type=arguments.given,
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this text; may be given several times",
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
        "0 to 600). When it passes: exit code 1, files are called heat.partial.html instead of heat.html, "
        "and the command that waits for the rest is printed",
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


def check(options: argparse.Namespace) -> None:
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


def lens_of(options: argparse.Namespace) -> sextant.Lens | None:
    """What to decode; None without a flag that asks for readings."""
    if not (options.lens or outputs.wants_readings(options)):
        return None
    return sextant.Lens(
        top_k=5 if options.lens_top_k is None else options.lens_top_k,
        sites=options.lens_sites or ["resid_post"],
        layers=options.lens_layers or "all",
        positions=options.lens_positions or "all",
        tracked=bool(options.json or options.html),
    )


def capture_of(options: argparse.Namespace) -> sextant.Capture | None:
    """What to keep; None without --capture."""
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
