"""Heatmaps as pictures: the page's look, by matplotlib."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sextant.errors import SextantError, invalid
from sextant.heatmap.document import Document
from sextant.heatmap.palette import METRICS, Metric, ink, ramp

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL_INCHES, _ROW_INCHES = 0.72, 0.235
_DPI = 160
_MAX_PIXELS = 30_000  # A side; beyond it the resolution goes down instead.
_FONTS = ["Noto Sans", "DejaVu Sans", "Noto Sans CJK JP"]
_THEMES = {
    "light": {"page": "#fbfbfc", "ink": "#171a21", "soft": "#5d6472", "new": "#0b7a5c", "depth": "#e0592a"},
    "dark": {"page": "#101216", "ink": "#eceef2", "soft": "#a2a9b6", "new": "#57d3a9", "depth": "#ff9a6b"},
}


def draw(document: Document, path: Path, *, theme: str, metric: str, columns: int) -> Path:
    """Writes the document's first-shown site. Raises SextantError when matplotlib is missing."""
    chosen = next((m for m in METRICS if m.key == metric), None)
    if chosen is None or theme not in _THEMES or columns < 1:
        known = ", ".join(m.key for m in METRICS)
        raise invalid("BAD_PICTURE", f"theme is light or dark, metric one of {known}, columns at least 1")
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SextantError(
            "FAILED_PRECONDITION",
            "MATPLOTLIB_MISSING",
            "pictures need matplotlib: pip install 'sextant[plot]'",
        ) from error
    count, layers = document.position_count, len(document.arrays.layers)
    columns = -(-max(count, 1) // -(-max(count, 1) // columns))  # Even lines: 50 by 24 are 17, 17, 16.
    panels = [range(begin, min(count, begin + columns)) for begin in range(0, max(count, 1), columns)]
    width = 0.75 + _CELL_INCHES * max(1, min(columns, count))
    header = 0.62 + 0.22 * len(document.steering)
    panel_height = _ROW_INCHES * (layers + 4.6)
    height = header + panel_height * len(panels)
    dpi = min(_DPI, _MAX_PIXELS / max(width, height))
    known_fonts = set(mpl.font_manager.get_font_names())
    settings = {
        "font.family": [f for f in _FONTS if f in known_fonts] or ["sans-serif"],
        "text.parse_math": False,
        "svg.fonttype": "none",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # A token may hold any character.
        figure = Figure((width, height), dpi=dpi, facecolor=_THEMES[theme]["page"])
        FigureCanvasAgg(figure)
        _heading(figure, document, chosen, theme, width, height)
        for number, panel in enumerate(panels):
            top = height - header - number * panel_height
            w = _CELL_INCHES * len(panel)
            place = (
                0.55 / width,
                (top - panel_height + 2.4 * _ROW_INCHES) / height,
                w / width,
                _ROW_INCHES * layers / height,
            )
            _panel(figure.add_axes(place), document, panel, chosen, theme)
        figure.savefig(path, facecolor=figure.get_facecolor())
    return path


def _heading(
    figure: Any, document: Document, metric: Metric, theme: str, width: float, height: float
) -> None:
    look = _THEMES[theme]
    sites = document.arrays.sites
    site = sites[document.site] if sites else ""
    line = 0.28
    left = 0.2 / width
    figure.text(
        left, 1 - line / height, document.title or document.model, size=12, weight="bold", color=look["ink"]
    )
    facts = f"{site}, {len(document.arrays.layers)} layers   coloured by {metric.title.lower()}"
    if document.missing_count:
        facts += f"   {document.missing_count} without readings"
    figure.text(left, 1 - (line + 0.22) / height, facts, size=8, color=look["soft"])
    bar = figure.add_axes((1 - 1.75 / width, 1 - (line + 0.02) / height, 1.2 / width, 0.1 / height))
    shades = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in ramp(metric, theme)]  # type: ignore[arg-type]
    bar.imshow([shades], aspect="auto", interpolation="nearest")
    bar.set_axis_off()
    low, high = _ends(document, metric)
    for x, text, side in ((1.8, low, "right"), (0.5, high, "left")):
        y = 1 - (line - 0.03) / height
        figure.text(1 - x / width, y, text, size=7, color=look["soft"], ha=side, va="center")
    for number, note in enumerate(document.steering):
        y = 1 - (line + 0.44 + 0.22 * number) / height
        figure.text(left, y, f"◆ steered: {note}", size=8, color=look["depth"])


def _panel(axes: Axes, document: Document, positions: range, metric: Metric, theme: str) -> None:
    """One line of positions: cells, the tokens that went in below, those that came next above."""
    a, look = document.arrays, _THEMES[theme]
    layers = len(a.layers)
    colours = ramp(metric, theme)  # type: ignore[arg-type]
    strengths = strength(document, metric.key)
    axes.set_xlim(0, len(positions))
    axes.set_ylim(0, layers)
    axes.set_facecolor(look["page"])
    for side in axes.spines.values():
        side.set_visible(False)
    pixels = np.ones((layers, len(positions), 4))
    for column, position in enumerate(positions):
        following = document.following[position]
        for layer in range(layers):
            value = strengths[layer, position]
            colour = look["page"] if np.isnan(value) else colours[round(float(value) * (len(colours) - 1))]
            pixels[layer, column, :3] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            identifier = int(a.top_ids[document.site, layer, position, 0])
            text = document.texts[identifier] if identifier >= 0 else "╱"
            weight = "bold" if identifier >= 0 and text == following else "normal"
            dim = look["soft"] if np.isnan(value) else ink(colour)
            _word(axes, column + 0.5, layer + 0.5, text, dim, weight, 6.6)
        depth = int(a.prediction_depth[document.site, position])
        if depth in a.layers:
            y = a.layers.index(depth)
            axes.plot(
                [column, column + 1], [y, y], color=look["depth"], lw=1.4, solid_capstyle="butt", zorder=3
            )
        new = position >= document.prompt_count
        _word(axes, column + 0.5, -0.62, document.inputs[position], look["new" if new else "ink"], "bold", 7)
        axes.text(column + 0.5, -1.45, str(position), size=5.5, color=look["soft"], ha="center", va="center")
        _word(axes, column + 0.5, layers + 0.6, following or "–", look["soft"], "normal", 6.6)
        if position == document.prompt_count:
            axes.plot([column, column], [-1.9, layers + 1], color=look["new"], lw=1.2, clip_on=False)
    axes.imshow(
        pixels, extent=(0, len(positions), layers, 0), aspect="auto", interpolation="nearest", zorder=0
    )
    axes.set_ylim(0, layers)
    axes.hlines(range(1, layers), 0, len(positions), color=look["page"], lw=0.6, zorder=1)
    axes.vlines(range(1, len(positions)), 0, layers, color=look["page"], lw=0.6, zorder=1)
    steered = {layer for chosen in document.steered_layers.values() for layer in chosen}
    for layer, number in enumerate(a.layers):
        mark = "◆ " if number in steered else ""
        axes.text(-0.12, layer + 0.5, f"{mark}{number}", size=6, color=look["soft"], ha="right", va="center")
    axes.set_xticks([])
    axes.set_yticks([])


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


def _word(axes: Axes, x: float, y: float, text: str, colour: str, weight: str, size: float) -> None:
    """A token in its cell, shortened to fit; what cannot be seen is made visible."""
    shown = text.replace("\n", "⏎").replace("\t", "⇥")
    shown = "".join(c if c.isprintable() else "�" for c in shown)
    shown = shown.strip(" ") or ("␣" if shown else "∅")
    if len(shown) > 9:
        shown = shown[:8] + "…"
    axes.text(
        x, y, shown, size=size, color=colour, weight=weight, ha="center", va="center", clip_on=False, zorder=2
    )
