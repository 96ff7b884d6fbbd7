"""Texts of tokens with what cannot be seen made visible, as grid.js shows them too."""

from __future__ import annotations

import unicodedata

_NAMED = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
# Printable by their category, but they draw nothing of themselves.
_BLANK = {chr(code) for code in (*range(0xFE00, 0xFE10), 0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800)}


def visible(text: str) -> str:
    """`text` on one line without blanks around it; "␣" for spaces alone and "∅" for no text."""
    seen = "".join(_NAMED.get(c) or (_code(c) if c in _BLANK or not c.isprintable() else c) for c in text)
    seen = seen.strip(" ") or ("␣" if seen else "∅")
    return "◌" + seen if unicodedata.category(seen[0]).startswith("M") else seen


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
