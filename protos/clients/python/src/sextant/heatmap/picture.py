"""Heatmaps as pictures: the page's look, by matplotlib. Lengths are inches, heights count from the top."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sextant.errors import SextantError, invalid
from sextant.heatmap.document import Document
from sextant.heatmap.palette import METRICS, Metric, ink, ramp
from sextant.heatmap.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL, _ROW = 0.72, 0.235
_LEFT, _RIGHT, _EDGE = 0.95, 0.25, 0.25
_LEAST_WIDTH = 7.2  # The heading's lines fit; few positions share the room that is left.
_SLOT = 1.05  # Of one candidate with its probability, where a cell has room for more than a word.
_LETTER = 0.078
_LINE = 0.21  # Of the heading.
_ABOVE, _BELOW, _GAP = 1.15, 2.1, 0.8  # Rows around a panel's cells.
_DPI = 160
_MAX_PIXELS = 30_000  # A side; beyond it the resolution goes down instead.
_FONTS = ["Noto Sans", "DejaVu Sans", "Noto Sans CJK JP"]
_THEMES = {
    "light": {"page": "#fbfbfc", "ink": "#171a21", "soft": "#5d6472", "new": "#0b7a5c", "depth": "#e0592a"},
    "dark": {"page": "#101216", "ink": "#eceef2", "soft": "#a2a9b6", "new": "#57d3a9", "depth": "#ff9a6b"},
}

Piece = tuple[str, str, str]  # Text, colour by its name in the theme, weight.


@dataclass(frozen=True)
class _Layout:
    """Sizes that follow from how much there is to show."""

    document: Document
    metric: Metric
    theme: str
    width: float
    cell: float  # Width of a cell.
    slots: int  # Candidates a cell has room for.
    panels: list[range]  # The positions of each line.

    @property
    def look(self) -> dict[str, str]:
        return _THEMES[self.theme]

    @property
    def panel_height(self) -> float:
        return _ROW * (len(self.document.arrays.layers) + _ABOVE + _BELOW + _GAP)


def draw(document: Document, path: Path, *, theme: str, metric: str, columns: int) -> Path:
    """Writes the document's first-shown site. Raises SextantError when matplotlib is missing."""
    chosen = next((m for m in METRICS if m.key == metric), None)
    if chosen is None or theme not in _THEMES or columns < 1:
        known = ", ".join(m.key for m in METRICS)
        raise invalid("BAD_PICTURE", f"theme is light or dark, metric one of {known}, columns at least 1")
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = _lay_out(document, chosen, theme, columns)
    known_fonts = set(mpl.font_manager.get_font_names())
    settings = {
        "font.family": [f for f in _FONTS if f in known_fonts] or ["sans-serif"],
        "text.parse_math": False,
        "svg.fonttype": "none",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # A token may hold any character.
        figure = Figure((layout.width, 1), facecolor=layout.look["page"])
        FigureCanvasAgg(figure)
        lines = _heading_lines(figure, layout)
        header = 0.34 + _LINE * (len(lines) + 1)
        height = header + layout.panel_height * len(layout.panels)
        figure.set_size_inches(layout.width, height)
        _heading(figure, layout, lines, height)
        for number, panel in enumerate(layout.panels):
            top = height - header - number * layout.panel_height - _ROW * _ABOVE
            rows = _ROW * len(document.arrays.layers)
            place = (_LEFT, top - rows, layout.cell * len(panel), rows)
            sizes = (layout.width, height, layout.width, height)
            box = [length / whole for length, whole in zip(place, sizes, strict=True)]
            _panel(figure.add_axes(box), layout, panel)
        dpi = min(_DPI, _MAX_PIXELS / max(layout.width, height))
        figure.savefig(path, dpi=dpi, facecolor=figure.get_facecolor())
    return path


def require_matplotlib() -> None:
    """Raises SextantError FAILED_PRECONDITION / MATPLOTLIB_MISSING when no picture can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SextantError(
            "FAILED_PRECONDITION",
            "MATPLOTLIB_MISSING",
            "pictures need matplotlib: pip install 'sextant[plot]'",
        ) from error


def _lay_out(document: Document, metric: Metric, theme: str, columns: int) -> _Layout:
    count = max(document.position_count, 1)
    columns = -(-count // -(-count // columns))  # Even lines: 50 by 24 are 17, 17, 16.
    panels = [range(begin, min(count, begin + columns)) for begin in range(0, count, columns)]
    room = _LEAST_WIDTH - _LEFT - _RIGHT
    cell = max(_CELL, room / columns)
    slots = max(1, min(document.arrays.top_ids.shape[3], int(cell / _SLOT)))
    return _Layout(document, metric, theme, _LEFT + cell * columns + _RIGHT, cell, slots, panels)


def _heading_lines(figure: Any, layout: _Layout) -> list[list[Piece]]:
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
    room = layout.width - 2 * _EDGE
    lines = [
        line
        for groups in ([[(facts, "soft", "normal")]], marks, *notes)
        for line in _broken(figure, groups, room)
    ]
    return [*explained, *lines]


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


def _heading(figure: Any, layout: _Layout, lines: list[list[Piece]], height: float) -> None:
    look, document = layout.look, layout.document

    def write(x: float, y: float, text: str, **style: Any) -> None:
        place = {"transform": figure.dpi_scale_trans, "va": "center"}
        figure.text(x, height - y, text.replace(" ", "\u00a0"), **place, **style)

    title = document.title or f"Lens of {document.model}"
    write(_EDGE, 0.3, title, size=13, weight="bold", color=look["ink"])
    colours = ramp(layout.metric, layout.theme)  # type: ignore[arg-type]
    shades = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours]
    low, high = _ends(document, layout.metric)
    x, y = _EDGE, 0.34 + _LINE
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
        x, y = _EDGE, y + _LINE


def _panel(axes: Axes, layout: _Layout, positions: range) -> None:
    """One line of positions: cells, the tokens that went in below, those that came next above."""
    a, look, document = layout.document.arrays, layout.look, layout.document
    layers = len(a.layers)
    colours = ramp(layout.metric, layout.theme)  # type: ignore[arg-type]
    strengths = strength(document, layout.metric.key)
    axes.set_facecolor(look["page"])
    for side in axes.spines.values():
        side.set_visible(False)
    letters = int(layout.cell / _LETTER)
    pixels = np.ones((layers, len(positions), 4))
    for column, position in enumerate(positions):
        if position >= document.position_count:
            continue
        for layer in range(layers):
            value = strengths[layer, position]
            colour = look["page"] if np.isnan(value) else colours[round(float(value) * (len(colours) - 1))]
            pixels[layer, column, :3] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            _cell(axes, layout, layer, column, position, look["soft"] if np.isnan(value) else ink(colour))
        depth = int(a.prediction_depth[document.site, position])
        if depth in a.layers:
            y = a.layers.index(depth)
            axes.plot(
                [column, column + 1], [y, y], color=look["depth"], lw=1.6, solid_capstyle="butt", zorder=3
            )
        middle, new = column + 0.5, position >= document.prompt_count
        token = look["new" if new else "ink"]
        _word(axes, middle, -0.62, _fitting(document.inputs[position], letters), token, "bold", 7)
        _word(axes, middle, -1.4, str(position), look["soft"], "normal", 6)
        following = document.following[position]
        following = "–" if following is None else _fitting(following, letters)
        _word(axes, middle, layers + 0.55, following, look["soft"], "normal", 6.6)
        if position == document.prompt_count:
            axes.plot([column, column], [-1.8, layers + 1], color=look["new"], lw=1.2, clip_on=False)
    axes.imshow(
        pixels, extent=(0, len(positions), layers, 0), aspect="auto", interpolation="nearest", zorder=0
    )
    axes.set_xlim(0, len(positions))
    axes.set_ylim(0, layers)
    axes.hlines(range(1, layers), 0, len(positions), color=look["page"], lw=0.6, zorder=1)
    axes.vlines(range(1, len(positions)), 0, layers, color=look["page"], lw=0.6, zorder=1)
    axes.set_xticks([])
    axes.set_yticks([])
    _captions(axes, layout)


def _captions(axes: Axes, layout: _Layout) -> None:
    """Numbers of layers, and what each line around the cells is."""
    look, layers = layout.look, layout.document.arrays.layers
    steered = {layer for chosen in layout.document.steered_layers.values() for layer in chosen}
    x = -0.08 / layout.cell

    def write(x: float, y: float, text: str, size: float, colour: str, **style: Any) -> None:
        axes.text(x, y, text, size=size, color=look[colour], va="center", clip_on=False, **style)

    for row, number in enumerate(layers):
        mark = "◆ " if number in steered else ""
        write(x, row + 0.5, f"{mark}{number}", 6, "depth" if mark else "soft", ha="right")
    for y, caption in ((-0.62, "token in"), (-1.4, "position"), (len(layers) + 0.55, "came next")):
        write(x, y, caption, 6.6, "soft", ha="right", style="italic")
    where = -(_LEFT - _EDGE) / layout.cell
    write(where, len(layers) / 2, "layer", 7, "soft", ha="center", rotation=90, style="italic")


def _cell(axes: Axes, layout: _Layout, layer: int, column: int, position: int, colour: str) -> None:
    """The candidates of a cell that it has room for."""
    document, a = layout.document, layout.document.arrays
    identifiers = a.top_ids[document.site, layer, position, : layout.slots]
    logprobs = a.top_logprobs[document.site, layer, position, : layout.slots]
    if identifiers.size == 0 or identifiers[0] < 0:
        _word(axes, column + 0.5, layer + 0.5, "╱", colour, "normal", 6.6)
        return
    width = layout.cell / layout.slots
    roomy = width >= _SLOT
    for slot, (identifier, logprob) in enumerate(zip(identifiers, logprobs, strict=True)):
        if identifier < 0:
            continue
        text = document.texts[int(identifier)]
        weight = "bold" if text == document.following[position] else "normal"
        word = _fitting(text, int(width / _LETTER) - (5 if roomy else 0))
        if roomy:
            word += f"  {np.exp(logprob):.0%}" if logprob > np.log(0.005) else "  <1%"
        x = column + (slot + 0.5) / layout.slots
        _word(axes, x, layer + 0.5, word, colour, weight, 6.6)


def strength(document: Document, metric: str) -> np.ndarray:
    """float [layer, position] in 0..1 along the metric's ramp; NaN where there is nothing to say."""
    a, site = document.arrays, document.site
    missing = np.isnan(a.entropy[site])
    if metric == "prob":
        values = np.exp(a.top_logprobs[site, :, :, 0])
    elif metric == "rank":
        rank = (
            a.target_rank[site, :, :, 0].astype(float)
            if a.target_rank.shape[3]
            else np.full(missing.shape, -1.0)
        )
        values = np.where(rank > 0, 1 - np.clip(np.log10(np.maximum(rank, 1)) / 4, 0, 1), np.nan)
    else:
        values = a.entropy[site] if metric == "entropy" else a.kl_final[site]
        values = np.clip(values / _high(document, metric), 0, 1)
    return np.where(missing, np.nan, values)


def _ends(document: Document, metric: Metric) -> tuple[str, str]:
    """What the two ends of the ramp stand for."""
    if metric.key == "rank":
        return "10,000th", "1st"
    if metric.key == "prob":
        return "0", "1"
    return "0", f"{_high(document, metric.key):.1f} nats"


def _high(document: Document, metric: str) -> float:
    """Where the ramp of entropy or KL ends; KL at its 98th percentile."""
    values = (document.arrays.entropy if metric == "entropy" else document.arrays.kl_final)[document.site]
    if np.isnan(values).all():
        return 1e-3
    return max(1e-3, float(np.nanpercentile(values, 98 if metric == "kl" else 100)))


def _fitting(text: str, letters: int) -> str:
    """A token's visible text in at most `letters` characters."""
    seen = visible(text)
    return seen if len(seen) <= letters else seen[: letters - 1] + "…"


def _word(axes: Axes, x: float, y: float, text: str, colour: str, weight: str, size: float) -> None:
    axes.text(
        x, y, text, size=size, color=colour, weight=weight, ha="center", va="center", clip_on=False, zorder=2
    )
