"""Heatmaps of readings, layers by positions: a self-contained interactive page, or a picture."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from sextant.errors import invalid
from sextant.heatmap.document import Document, gather, to_json
from sextant.readings import ReadingArrays
from sextant.refusals import writing
from sextant.transcript import Transcript
from sextant.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sextant.vectors import Vector

__all__ = ["PAGES", "PICTURES", "Heatmap"]

# Suffixes of the files that can be written.
PAGES = (".html", ".htm")
PICTURES = (".png", ".svg", ".pdf")
_ROW_PIXELS, _FRAME_PIXELS = 24, 230


class Heatmap:
    """One generation's readings, ready to draw. A notebook shows it by itself."""

    def __init__(
        self,
        transcript: Transcript,
        arrays: ReadingArrays,
        vocabulary: Vocabulary,
        model: str,
        site: int = 0,
        title: str = "",
        stored: Callable[[str], Vector | None] = lambda reference: None,
        partial: str = "",
    ) -> None:
        self.document: Document = gather(transcript, arrays, vocabulary, model, site, title, stored, partial)

    def save(self, path: str | Path, **options: object) -> Path:
        """Writes `.html`, or `.png`, `.svg`, `.pdf` (see `picture` for their options)."""
        path = Path(path)
        if path.suffix in PAGES:
            with writing(path):
                path.write_text(self.html(), encoding="utf-8")
        elif path.suffix in PICTURES:
            self.picture(path, **options)  # type: ignore[arg-type]
        else:
            raise invalid(
                "UNKNOWN_FORMAT", f"cannot draw {path.name}; end it in .html, {', '.join(PICTURES)}"
            )
        return path

    def html(self) -> str:
        """The page: one file, no network (its own content policy forbids it), light and dark."""
        here = resources.files(__name__)
        page = (here / "page.html").read_text(encoding="utf-8")
        parts = {
            "{{title}}": html.escape(self.document.title or f"Lens of {self.document.model}"),
            "{{style}}": (here / "page.css").read_text(encoding="utf-8"),
            "{{script}}": "\n".join(
                (here / name).read_text(encoding="utf-8") for name in ("grid.js", "details.js", "page.js")
            ),
            "{{data}}": to_json(self.document),
        }
        # One pass: a title or a token may spell a mark itself.
        return re.sub(r"\{\{\w+\}\}", lambda mark: parts[mark[0]], page)

    def picture(
        self, path: str | Path, *, theme: str = "light", metric: str = "prob", columns: int = 40
    ) -> Path:
        """A still of one site by matplotlib (`sextant[plot]`).

        metric: "prob", "entropy", "kl" or "rank". columns: positions a line; longer sequences wrap.
        """
        from sextant.heatmap.picture import draw

        with writing(Path(path)):
            return draw(self.document, Path(path), theme=theme, metric=metric, columns=columns)

    def _repr_html_(self) -> str:
        height = _FRAME_PIXELS + _ROW_PIXELS * len(self.document.arrays.layers)
        return (
            f'<iframe sandbox="allow-scripts" style="width:100%;height:{height}px;border:0" '
            f'srcdoc="{html.escape(self.html(), quote=True)}"></iframe>'
        )
