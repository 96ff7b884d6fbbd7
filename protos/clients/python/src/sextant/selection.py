"""What people type to select sites, layers and positions, and how it reads on the wire."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sextant.errors import invalid
from sextant.v1 import types_pb2 as pb

SITES = ("resid_pre", "attn_in", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")
_SITE_NUMBERS = {name: number for number, name in enumerate(SITES, start=1)}
# attn_in and mlp_in have no TransformerLens twin: its ln hooks are taken before the norm's gain.
_HOOKED = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
_LAYER = r"\d{1,5}"  # More than any model has, less than a list of all of them would hurt.
_HOOK = re.compile(rf"blocks\.({_LAYER})\.(?:hook_)?(\w+)")
_DOTTED = re.compile(rf"(\w+)\.({_LAYER})")

Layers: TypeAlias = "str | int | Iterable[int]"
Clause: TypeAlias = "bool | str | int | slice | range | Iterable[int | slice | range] | PositionSet"
PositionsLike: TypeAlias = "str | int | slice | range | Iterable[int | slice | range] | Positions | None"


def site_number(site: str) -> int:
    """The wire number of a site; TransformerLens spellings (`hook_resid_post`) are read too."""
    name = str(site).removeprefix("hook_")
    if name not in _SITE_NUMBERS:
        raise invalid("UNKNOWN_SITE", f"no site is called {site!r}; the sites are {', '.join(SITES)}")
    return _SITE_NUMBERS[name]


def site_name(number: int) -> str:
    """The name of a site on the wire; `site_<n>` for one this client does not know."""
    return SITES[number - 1] if 1 <= number <= len(SITES) else f"site_{number}"


def site_numbers(sites: str | Sequence[str]) -> list[int]:
    """Wire numbers of one site or of several, in order, without repeats."""
    names = [sites] if isinstance(sites, str) else sites
    return list(dict.fromkeys(site_number(site) for site in names))


def hook_name(site: str, layer: int) -> str:
    """`blocks.{layer}.hook_{site}` as TransformerLens writes it; without `hook_` for attn_in and mlp_in."""
    return f"blocks.{layer}.{'hook_' if site in _HOOKED else ''}{site}"


def parse_row(key: str | tuple[str, int]) -> tuple[str, int]:
    """(site, layer) of `blocks.14.hook_resid_post`, `resid_post.14` or ("resid_post", 14)."""
    if isinstance(key, tuple) and len(key) == 2:
        with contextlib.suppress(TypeError, ValueError):
            return site_name(site_number(str(key[0]))), int(key[1])
    if isinstance(key, str):
        if match := _HOOK.fullmatch(key):
            return site_name(site_number(match[2])), int(match[1])
        if match := _DOTTED.fullmatch(key):
            return site_name(site_number(match[1])), int(match[2])
    raise invalid(
        "UNKNOWN_ROW", f"{key!r} names no row; write 'blocks.14.hook_resid_post' or ('resid_post', 14)"
    )


def parse_layers(layers: Layers | None) -> list[int]:
    """0-based layers, ascending and without repeats; empty means all.

    Reads "all", None, 14, [3, 5], range(3, 6), "10-14" (both ends included) and "0,4,10-14".
    """
    if layers is None or layers == "all":
        return []
    if isinstance(layers, str):
        found: list[int] = []
        for part in layers.split(","):
            match = re.fullmatch(rf"\s*({_LAYER})(?:\s*-\s*({_LAYER}))?\s*", part)
            if match is None or (match[2] and int(match[2]) < int(match[1])):
                raise _bad_layers(layers)
            found.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    else:
        try:
            found = [int(layer) for layer in ([layers] if not isinstance(layers, Iterable) else layers)]
        except (TypeError, ValueError, OverflowError):
            raise _bad_layers(layers) from None
    if not found or min(found) < 0:
        raise _bad_layers(layers)
    return sorted(set(found))


def _bad_layers(layers: object) -> Exception:
    return invalid(
        "BAD_LAYERS", f"{layers!r} selects no layers; write 'all', 14, [3, 5] or '10-14' (0-based)"
    )


@dataclass(frozen=True)
class PositionSet:
    """Positions within one phase: the union of the fields. All of them empty selects nothing.

    tokens: positions whose input token is one of these ids.
    positions: indices; in a prompt negative ones count from its end, in the generation 0 is the first token.
    windows: half-open (begin, end) pairs; end None is "to the end".
    """

    all: bool = False
    tokens: Sequence[int] = ()
    positions: Sequence[int] = ()
    windows: Sequence[tuple[int, int | None]] = ()

    def to_proto(self) -> pb.PositionSet:
        """The same on the wire."""
        windows = [pb.Window(begin=begin, end=end) for begin, end in self.windows]
        return pb.PositionSet(all=self.all, tokens=self.tokens, positions=self.positions, windows=windows)


@dataclass(frozen=True)
class Positions:
    """The position clause: (prompt and not exclude_prompt) or (generation and not exclude_generation).

    Each field is "all" or True, an index, a slice, a list of those, a PositionSet, or None for nothing.
    """

    prompt: Clause | None = None
    generation: Clause | None = None
    exclude_prompt: Clause | None = None
    exclude_generation: Clause | None = None

    def to_proto(self) -> pb.Positions:
        """The same on the wire."""
        fields = ("prompt", "generation", "exclude_prompt", "exclude_generation")
        given = {
            name: clause
            for name in fields
            if (clause := getattr(self, name)) is not None and clause is not False
        }
        return pb.Positions(**{name: _position_set(clause).to_proto() for name, clause in given.items()})


def _position_set(clause: Clause) -> PositionSet:
    if isinstance(clause, PositionSet):
        return clause
    if clause is True or clause == "all":
        return PositionSet(all=True)
    indices: list[int] = []
    windows: list[tuple[int, int | None]] = []
    if isinstance(clause, str):
        raise invalid(
            "BAD_POSITIONS", f"{clause!r} is no set of positions; write 'all', an index, a slice or a list"
        )
    for item in clause if isinstance(clause, Iterable) and not isinstance(clause, range) else [clause]:
        if isinstance(item, (slice, range)):
            if (item.step or 1) != 1:
                raise invalid("BAD_POSITIONS", f"{item!r} has a step; list the positions instead")
            windows.append((item.start or 0, item.stop))
        else:
            indices.append(int(item))
    return PositionSet(positions=indices, windows=windows)


def parse_positions(positions: PositionsLike) -> pb.Positions | None:
    """The clause on the wire; None when every position is meant.

    Reads "all", "prompt", "generation", a Positions, and indices or slices, which speak of the prompt
    (negative ones count from its end).
    """
    if positions is None or (isinstance(positions, str) and positions == "all"):
        return None
    if isinstance(positions, str):
        if positions not in ("prompt", "generation"):
            raise invalid(
                "BAD_POSITIONS",
                f"{positions!r} is no position clause; write 'all', 'prompt', 'generation' or indices",
            )
        positions = Positions(**{positions: "all"})
    elif not isinstance(positions, Positions):
        positions = Positions(prompt=positions)
    return positions.to_proto()
