"""The heading of a heatmap's picture: title, colour scale and its meaning, marks, notes. In inches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sextant.heatmap.layout import EDGE, LINE, Layout, ends
from sextant.heatmap.palette import ramp

_BYTE = re.compile("<0x[0-9A-F]{2}>")
Piece = tuple[str, str, str]  # Text, colour by its name in the theme, weight.


def heading_lines(figure: Any, layout: Layout) -> list[list[Piece]]:
    """What stands under the title, broken to the picture's width; the first line has the colour scale."""
    document, metric = layout.document, layout.metric
    a = document.arrays
    generated = max(0, document.position_count - document.prompt_count)
    sites = a.sites[document.site] if a.sites else "no readings"
    facts = (
        f"{sites}; layers: {len(a.layers)}; positions: {document.position_count - generated} of the prompt"
    )
    facts += f", {generated} generated" if generated else ""
    marks: list[list[Piece]] = [
        [("word ", "ink", "bold"), ("the first candidate came next", "soft", "normal")],
        [("━ ", "depth", "bold"), ("from here up it stays the final layer's", "soft", "normal")],
    ]
    shown = _shown_texts(layout)
    if any(text.startswith(" ") and text.strip(" ") for text in shown):
        marks.append([("·word ", "ink", "normal"), ("a space before it", "soft", "normal")])
    if any(_BYTE.search(text) for text in shown):
        marks.append([("<0xE2> ", "ink", "normal"), ("a byte of a character", "soft", "normal")])
    if layout.slots > 1:
        marks.append([(f"{layout.slots} candidates a cell, best first", "soft", "normal")])
    if generated:
        marks.append([("token ", "new", "bold"), ("generated", "soft", "normal")])
    if any(document.steered_layers.values()):
        marks.append([("◆ ", "depth", "bold"), ("steered layer", "soft", "normal")])
    if np.isnan(a.entropy).any():
        marks.append([("╱ ", "soft", "normal"), ("no reading", "soft", "normal")])
    explained = [[(f"{metric.title.lower()} {metric.explanation}", "soft", "normal")]]
    notes = [[[(f"◆ steered: {note}", "depth", "normal")]] for note in document.steering]
    if document.missing_count and not document.partial:
        notes.append([[(f"{document.missing_count} positions without readings", "depth", "bold")]])
    if document.partial:
        notes.append([[(f"partial: {document.partial}", "depth", "bold")]])
    room = layout.width - 2 * EDGE
    lines = [
        line
        for groups in ([[(facts, "soft", "normal")]], marks, *notes)
        for line in _broken(figure, groups, room)
    ]
    return [*explained, *lines]


def _shown_texts(layout: Layout) -> set[str]:
    """Of every token that the picture draws."""
    document = layout.document
    drawn = np.unique(document.arrays.top_ids[document.site, ..., : layout.slots])
    ids = {*drawn.tolist(), *document.following} - {-1}
    return {*document.inputs, *(document.texts[i] for i in ids)}


def _broken(figure: Any, groups: Sequence[list[Piece]], room: float) -> list[list[Piece]]:
    """Groups of pieces one after another, in lines of at most `room`."""
    lines: list[list[Piece]] = []
    used = room
    for group in groups:
        length = sum(_length(figure, piece) for piece in group) + 0.3
        if used + length > room + 0.3:
            lines.append([])
            used = 0.0
        elif lines[-1]:
            lines[-1].append(("      ", "soft", "normal"))
        lines[-1].extend(group)
        used += length
    return lines


def _length(figure: Any, piece: Piece) -> float:
    """Width of a piece of the heading."""
    text = figure.text(0, 0, piece[0].replace(" ", "\u00a0"), size=8, weight=piece[2])
    width = text.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi
    text.remove()
    return width


def write_heading(figure: Any, layout: Layout, lines: list[list[Piece]], height: float) -> None:
    """Draws it at the top of a figure of this height."""
    look, document = layout.look, layout.document

    def write(x: float, y: float, text: str, **style: Any) -> None:
        place = {"transform": figure.dpi_scale_trans, "va": "center"}
        figure.text(x, height - y, text.replace(" ", "\u00a0"), **place, **style)

    title = document.title or f"Lens of {document.model}"
    write(EDGE, 0.3, title, size=13, weight="bold", color=look["ink"])
    colours = ramp(layout.metric, layout.theme)  # type: ignore[arg-type]
    shades = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours]
    low, high = ends(document, layout.metric)
    x, y = EDGE, 0.34 + LINE
    write(x, y, low, size=8, color=look["ink"])
    x += _length(figure, (low, "ink", "normal")) + 0.08
    bar = figure.add_axes((x / layout.width, 1 - (y + 0.06) / height, 1.5 / layout.width, 0.12 / height))
    bar.imshow([shades], aspect="auto", interpolation="nearest")
    bar.set_xticks([])
    bar.set_yticks([])
    for side in bar.spines.values():
        side.set(color=look["soft"], lw=0.5)
    x += 1.5 + 0.08
    write(x, y, high, size=8, color=look["ink"])
    x += _length(figure, (high, "ink", "normal")) + 0.15
    for line in lines:
        for text, colour, weight in line:
            write(x, y, text, size=8, color=look[colour], weight=weight)
            x += _length(figure, (text, colour, weight))
        x, y = EDGE, y + LINE
