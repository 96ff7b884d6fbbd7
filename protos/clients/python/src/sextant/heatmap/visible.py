"""Texts of tokens with what cannot be seen made visible, as grid.js shows them too."""

from __future__ import annotations

import unicodedata

_MOST_SPACES = 8
_NAMED = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
# Printable by their category, but they draw nothing of themselves.
_BLANK = {chr(code) for code in (*range(0xFE00, 0xFE10), 0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800)}


def visible(text: str) -> str:
    """`text` on one line: "·" for each space before it, "␣" for spaces alone, "∅" for no text."""
    seen = "".join(_NAMED.get(c) or (_code(c) if c in _BLANK or not c.isprintable() else c) for c in text)
    rest = seen.lstrip(" ")
    lead = len(seen) - len(rest)
    if not rest:
        return "␣" * min(lead, _MOST_SPACES) or "∅"
    return "·" * lead + ("◌" if unicodedata.category(rest[0]).startswith("M") else "") + rest


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
