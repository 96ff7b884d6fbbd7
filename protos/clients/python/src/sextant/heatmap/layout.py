"""Sizes of a heatmap's picture, its themes, and how values become shades. Lengths are inches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sextant.heatmap.document import Document
from sextant.heatmap.palette import Metric

CELL, ROW = 0.72, 0.235
LEFT, RIGHT, EDGE = 0.95, 0.25, 0.25
LEAST_WIDTH = 7.2  # The heading's lines fit; few positions share the room that is left.
SLOT = 1.05  # Of one candidate with its probability, where a cell has room for more than a word.
LINE = 0.21  # Of the heading.
ABOVE, BELOW, GAP = 1.15, 2.1, 0.8  # Rows around a panel's cells.
THEMES = {
    "light": {"page": "#fbfbfc", "ink": "#171a21", "soft": "#5d6472", "new": "#0b7a5c", "depth": "#e0592a"},
    "dark": {"page": "#101216", "ink": "#eceef2", "soft": "#a2a9b6", "new": "#57d3a9", "depth": "#ff9a6b"},
}


@dataclass(frozen=True)
class Layout:
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
        """Colours by their use."""
        return THEMES[self.theme]

    @property
    def panel_height(self) -> float:
        """Of one line of positions with all that stands around it."""
        return ROW * (len(self.document.arrays.layers) + ABOVE + BELOW + GAP)


def lay_out(document: Document, metric: Metric, theme: str, columns: int) -> Layout:
    """columns: positions a line at most; lines are evenly filled."""
    count = max(document.position_count, 1)
    columns = -(-count // -(-count // columns))  # Even lines: 50 by 24 are 17, 17, 16.
    panels = [range(begin, min(count, begin + columns)) for begin in range(0, count, columns)]
    room = LEAST_WIDTH - LEFT - RIGHT
    cell = max(CELL, room / columns)
    slots = max(1, min(document.arrays.top_ids.shape[3], int(cell / SLOT)))
    return Layout(document, metric, theme, LEFT + cell * columns + RIGHT, cell, slots, panels)


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


def ends(document: Document, metric: Metric) -> tuple[str, str]:
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
