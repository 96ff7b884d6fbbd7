"""Heatmaps as pictures: the page's look, by matplotlib. Lengths are inches, heights count from the top."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sextant.errors import SextantError, invalid
from sextant.heatmap.document import Document
from sextant.heatmap.heading import heading_lines, write_heading
from sextant.heatmap.layout import ABOVE, EDGE, LEFT, LINE, ROW, SLOT, THEMES, Layout, lay_out, strength
from sextant.heatmap.palette import METRICS, ink, ramp
from sextant.heatmap.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LETTER = 0.078
_DPI = 160
_MAX_PIXELS = 30_000  # A side; beyond it the resolution goes down instead.
_FONTS = ["Noto Sans", "DejaVu Sans", "Noto Sans CJK JP"]


def draw(document: Document, path: Path, *, theme: str, metric: str, columns: int) -> Path:
    """Writes the document's first-shown site. Raises SextantError when matplotlib is missing."""
    chosen = next((m for m in METRICS if m.key == metric), None)
    if chosen is None or theme not in THEMES or columns < 1:
        known = ", ".join(m.key for m in METRICS)
        raise invalid("BAD_PICTURE", f"theme is light or dark, metric one of {known}, columns at least 1")
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = lay_out(document, chosen, theme, columns)
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
        lines = heading_lines(figure, layout)
        header = 0.34 + LINE * (len(lines) + 1)
        height = header + layout.panel_height * len(layout.panels)
        figure.set_size_inches(layout.width, height)
        write_heading(figure, layout, lines, height)
        for number, panel in enumerate(layout.panels):
            top = height - header - number * layout.panel_height - ROW * ABOVE
            rows = ROW * len(document.arrays.layers)
            place = (LEFT, top - rows, layout.cell * len(panel), rows)
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


def _panel(axes: Axes, layout: Layout, positions: range) -> None:
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
        came = document.following[position]
        word = "–" if came < 0 else _fitting(document.texts[came], letters)
        _word(axes, middle, layers + 0.55, word, look["soft"], "normal", 6.6)
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


def _captions(axes: Axes, layout: Layout) -> None:
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
    where = -(LEFT - EDGE) / layout.cell
    write(where, len(layers) / 2, "layer", 7, "soft", ha="center", rotation=90, style="italic")


def _cell(axes: Axes, layout: Layout, layer: int, column: int, position: int, colour: str) -> None:
    """The candidates of a cell that it has room for."""
    document, a = layout.document, layout.document.arrays
    identifiers = a.top_ids[document.site, layer, position, : layout.slots]
    logprobs = a.top_logprobs[document.site, layer, position, : layout.slots]
    if identifiers.size == 0 or identifiers[0] < 0:
        _word(axes, column + 0.5, layer + 0.5, "╱", colour, "normal", 6.6)
        return
    width = layout.cell / layout.slots
    roomy = width >= SLOT
    for slot, (identifier, logprob) in enumerate(zip(identifiers, logprobs, strict=True)):
        if identifier < 0:
            continue
        text = document.texts[int(identifier)]
        weight = "bold" if identifier == document.following[position] else "normal"
        word = _fitting(text, int(width / _LETTER) - (5 if roomy else 0))
        if roomy:
            word += f"  {np.exp(logprob):.0%}" if logprob > np.log(0.005) else "  <1%"
        x = column + (slot + 0.5) / layout.slots
        _word(axes, x, layer + 0.5, word, colour, weight, 6.6)


def _fitting(text: str, letters: int) -> str:
    """A token's visible text in at most `letters` characters."""
    seen = visible(text)
    return seen if len(seen) <= letters else seen[: letters - 1] + "…"


def _word(axes: Axes, x: float, y: float, text: str, colour: str, weight: str, size: float) -> None:
    axes.text(
        x, y, text, size=size, color=colour, weight=weight, ha="center", va="center", clip_on=False, zorder=2
    )
