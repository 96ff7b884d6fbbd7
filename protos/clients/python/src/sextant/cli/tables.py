"""Small words that tables share."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.table import Table


def table(*columns: str) -> Table:
    """A plain table with these headings; `>` before a name aligns it to the right."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        made.add_column(name.lstrip(">"), justify="right" if right else "left", overflow="fold")
    return made


def size(count: float) -> str:
    """Bytes for people: "1.2 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def until(time: datetime | None) -> str:
    """How long until a time: "42 min"; "" if there is none."""
    if time is None:
        return ""
    seconds = (time - datetime.now(UTC)).total_seconds()
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
