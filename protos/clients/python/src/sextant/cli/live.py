"""The heatmap in the terminal, redrawn while tokens and readings arrive."""

from __future__ import annotations

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.style import Style
from rich.text import Text

import sextant
from sextant.heatmap.palette import METRICS, ink, ramp
from sextant.heatmap.visible import visible

_CELL = 10
_AXIS = 5
_FRAMES_PER_SECOND = 8
_SHADES = [Style(bgcolor=c, color=ink(c)) for c in ramp(METRICS[0], "dark")]
_DIM = Style(dim=True)


class LiveHeatmap:
    """Runs a generation to its end, showing the latest positions that fit; the last frame stays."""

    def __init__(
        self, client: sextant.Client, out: sextant.Generation, console: Console, prefix: str
    ) -> None:
        self._client = client
        self._out = out
        self._console = console
        self._prefix = prefix

    def run(self) -> None:
        """Consumes the generation. Raises what iterating it raises."""
        with Live(
            get_renderable=self.frame,
            console=self._console,
            refresh_per_second=_FRAMES_PER_SECOND,
            vertical_overflow="crop",
            auto_refresh=False,
        ) as live:
            drawn = 0.0
            for event in self._out:
                if isinstance(event, sextant.WarningEvent):  # Above the heatmap, at once.
                    live.console.print(Text(f"warning {event.reason}: {event.message}", "yellow"))
                now = self._console.get_time()
                if now - drawn > 1 / _FRAMES_PER_SECOND:
                    live.refresh()
                    drawn = now
            live.refresh()

    def frame(self) -> RenderableType:
        """The text so far above the heatmap so far."""
        received = self._out.received
        text = Text(self._prefix, _DIM)
        text.append(received.text, Style(bold=True, dim=False))
        lines: list[RenderableType] = [text, Text()]
        if received.log.rows:
            lines.extend(self._grid())
        return Group(*lines)

    def _grid(self) -> list[Text]:
        received = self._out.received
        arrays = received.readings
        width, height = self._console.size
        columns = max(1, (width - _AXIS) // _CELL)
        last = arrays.entropy.shape[2]
        shown = range(max(0, last - columns), last)
        layers = _thin(len(arrays.layers), height - 9)
        inputs = received.input_texts(self._client.vocabulary)
        top = arrays.top_ids[0][layers][:, shown.start : shown.stop]
        texts = self._client.vocabulary.texts(top[..., :1])
        lines = []
        for row, layer in reversed(list(enumerate(layers))):
            line = Text(f"{arrays.layers[layer]:>{_AXIS - 1}} ", _DIM, no_wrap=True, overflow="crop")
            for column, position in enumerate(shown):
                if not arrays.present[position] or np.isnan(arrays.top_logprobs[0, layer, position, 0]):
                    line.append(_fit("·"), _DIM)
                    continue
                p = float(np.exp(arrays.top_logprobs[0, layer, position, 0]))
                line.append(_fit(texts[int(top[row, column, 0])]), _SHADES[round(p * (len(_SHADES) - 1))])
            lines.append(line)
        foot = Text(" " * _AXIS, no_wrap=True, overflow="crop")
        for position in shown:
            generated = position >= len(received.prompt_token_ids)
            token = inputs[position] if position < len(inputs) else ""
            foot.append(_fit(token), Style(color="green", bold=True) if generated else _DIM)
        legend = Text(" " * _AXIS + "probability 0 ", _DIM)
        for shade in _SHADES[:: len(_SHADES) // 16]:
            legend.append(" ", shade)
        legend.append(f" 1   {arrays.sites[0]}, first candidate of each layer; tokens below go in", _DIM)
        return [*lines, foot, legend]


def _thin(count: int, room: int) -> list[int]:
    """At most `room` of `count` indices, evenly spread, the last one among them."""
    if count <= max(2, room):
        return list(range(count))
    return sorted({round(i) for i in np.linspace(0, count - 1, max(2, room))})


def _fit(text: str) -> str:
    """A token in exactly one cell's width, with what cannot be seen made visible."""
    shown = " " + visible(text)
    if cell_len(shown) > _CELL - 1:
        shown = set_cell_size(shown, _CELL - 2) + "…"
    return set_cell_size(shown, _CELL)
