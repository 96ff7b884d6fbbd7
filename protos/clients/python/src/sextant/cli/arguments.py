"""Values of flags that are more than a word: steering, positions."""

from __future__ import annotations

import argparse
import math
import sys

import sextant
from sextant.errors import invalid
from sextant.selection import PositionsLike

_STEER_KEYS = ("layers", "positions", "site", "operator", "low", "high", "preserve_norm", "strict")


def steer(text: str) -> sextant.Steer:
    """NAME[@VERSION]:STRENGTH[,key=value...]; a part without `=` goes on with the list before it."""
    name, colon, rest = text.rpartition(":") if text.count(":") == 1 else text.partition(":")
    parts = rest.split(",")
    if not colon or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME[@VERSION]:STRENGTH[,key=value...]")
    values: dict[str, str] = {}
    key = ""
    for part in parts[1:]:
        left, equals, right = part.partition("=")
        if equals:
            key = left.strip()
            values[key] = right.strip()
        elif key:
            values[key] += "," + part
        else:
            raise argparse.ArgumentTypeError(f"{part!r} in {text!r}: write key=value")
    unknown = [key for key in values if key not in _STEER_KEYS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(_STEER_KEYS)}")
    try:
        return sextant.Steer(
            name,
            strength=float(parts[0]),
            operator=values.get("operator", "add"),  # type: ignore[arg-type]
            layers=values.get("layers"),
            site=values.get("site"),
            positions=positions(values.get("positions", "all")),
            low=float(values.get("low", 0)),
            high=float(values.get("high", 0)),
            preserve_norm=_truth(values.get("preserve_norm", "false")),
            strict=_truth(values.get("strict", "false")),
        )
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def positions(text: str) -> PositionsLike:
    """all, prompt, generation, or prompt indices and half-open windows: `0,-1`, `2:5`, `-3:`."""
    if text in ("all", "prompt", "generation"):
        return text
    found: list[int | slice] = []
    try:
        for part in text.split(","):
            begin, colon, end = part.partition(":")
            found.append(slice(int(begin or 0), int(end) if end else None) if colon else int(part))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write all, prompt, generation, or prompt positions like 0,-1 or 2:5"
        ) from None
    return found


def given(text: str) -> str:
    """Text that says something: an empty one would be taken for a flag that is not there."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: say what is meant, or leave the flag out")
    return text


def seconds(text: str, most: float = math.inf) -> float:
    """A length of time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value <= most and math.isfinite(value)):
        limit = f"0 to {most:g}" if math.isfinite(most) else "0 or more"
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds, {limit}")
    return value


def lens_wait(text: str) -> float:
    """As the server takes it: up to ten minutes."""
    return seconds(text, 600)


def count(text: str) -> int:
    """How many, at least one: 0 would be the server's default on the wire."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number, 1 or more")
    return value


def text(argument: str) -> str:
    """A text argument; `-` is standard input, whose bytes must be UTF-8."""
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise invalid(
            "TEXT_NOT_UTF8",
            f"standard input is no UTF-8 text (at byte {error.start}); convert it, e.g. by iconv",
        ) from None


def words(text: str) -> list[str]:
    """A comma-separated list of at least one."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    return found or [given("")]


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1", "yes")
