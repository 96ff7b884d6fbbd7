"""What a heatmap shows, gathered from a transcript: texts, values on [layer, position], notes on steering."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sextant.heatmap.palette import METRICS, ink, ramp
from sextant.readings import ReadingArrays
from sextant.selection import parse_layers
from sextant.settings import Steer
from sextant.transcript import Transcript
from sextant.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sextant.vectors import Vector

_MILLI = 1000  # Values travel as whole thousandths: shorter, and finer than any screen.


@dataclass(frozen=True)
class Document:
    """Everything a page or a picture draws."""

    title: str
    model: str
    arrays: ReadingArrays
    site: int  # Shown first.
    inputs: list[str]  # [position]
    following: list[int]  # [position]: id of the token that came next, -1 if none did.
    prompt_count: int
    texts: dict[int, str]  # Of every id that appears.
    steering: list[str]
    steered_layers: dict[str, list[int]]  # By site; an empty list is "the vector's own", unknown here.
    missing_count: int
    partial: str  # Why this is not all that was asked for; "" when it is.

    @property
    def position_count(self) -> int:
        """Length of the position axis."""
        return self.arrays.entropy.shape[2]


def gather(
    transcript: Transcript,
    arrays: ReadingArrays,
    vocabulary: Vocabulary,
    model: str,
    site: int,
    title: str,
    stored: Callable[[str], Vector | None],
    partial: str = "",
) -> Document:
    """Asks the server for the texts that are not known yet, and puts everything in one place.

    stored: what is known of a vector given by name, which says where it steers; None when nothing is.
    """
    count = arrays.entropy.shape[2]
    sequence = transcript.prompt_token_ids + transcript.token_ids
    ids = [arrays.top_ids.ravel(), np.array(sequence, np.int64), *(t.ids for t in arrays.tracked.values())]
    texts = vocabulary.texts(np.concatenate(ids))
    touched = transcript.stats.touched_row_counts
    places = [_place(steer, stored) for steer in transcript.options.steer]
    steered: dict[str, list[int]] = {}
    for where, layers in places:
        steered.setdefault(where, []).extend(layers)
    return Document(
        title=title,
        model=model,
        arrays=arrays,
        site=site,
        inputs=transcript.input_texts(vocabulary)[:count],
        following=[sequence[p + 1] if p + 1 < len(sequence) else -1 for p in range(count)],
        prompt_count=len(transcript.prompt_token_ids),
        texts=texts,
        steering=[
            _describe(steer, *places[index], touched[index] if index < len(touched) else None)
            for index, steer in enumerate(transcript.options.steer)
        ],
        steered_layers=steered,
        missing_count=transcript.stats.missing_reading_count,
        partial=partial,
    )


def _describe(steer: Steer, site: str, layers: list[int], touched: int | None) -> str:
    """One line about an intervention."""
    parts = [f"{steer.label} × {steer.strength:g}"]
    if steer.operator != "add":
        parts.append(steer.operator)
    if site:
        parts.append(site)
    if layers:
        parts.append(f"layer{'s' if len(layers) > 1 else ''} {spans(layers)}")
    if isinstance(steer.positions, str):
        parts.append(f"{steer.positions} positions")
    if touched is not None:
        parts.append(f"{touched:,} rows touched")
    return " · ".join(parts)


def _place(steer: Steer, stored: Callable[[str], Vector | None]) -> tuple[str, list[int]]:
    """(site, layers) at which an intervention acts: its own, else its vector's; "" and [] when unknown."""
    site, layers = steer.site or "", parse_layers(steer.layers)
    if not (site and layers):
        vector = stored(steer.vector) if isinstance(steer.vector, str) else steer.vector
        site = site or getattr(vector, "site", "")
        layers = layers or list(getattr(vector, "layers", ()))
    return site, layers


def spans(numbers: list[int]) -> str:
    """ "3, 10–14" of [3, 10, 11, 12, 13, 14]."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}–{b}" if a != b else str(a) for a, b in runs)


def to_json(document: Document) -> str:
    """The page's data. Safe inside a script element: no `<`, `>` or `&` is left in it."""
    a = document.arrays
    # One for each id, not for each text: texts may be alike.
    strings = list(document.texts.values())
    by_id = {identifier: number for number, identifier in enumerate(document.texts)}
    values = {
        "title": document.title,
        "model": document.model,
        "site": document.site,
        "sites": a.sites,
        "layers": a.layers,
        "inputs": document.inputs,
        "next": [document.texts[i] if i >= 0 else None for i in document.following],
        "nextIndex": [by_id[i] if i >= 0 else -1 for i in document.following],
        "promptCount": document.prompt_count,
        "steering": document.steering,
        "steered": document.steered_layers,
        "missing": document.missing_count,
        "partial": document.partial,
        "strings": strings,
        "topK": a.top_ids.shape[3],
        "readings": [_site_json(document, site, by_id) for site in range(len(a.sites))],
        "metrics": [
            {
                "key": metric.key,
                "title": metric.title,
                "explanation": metric.explanation,
                **{theme: [[c, ink(c)] for c in ramp(metric, theme)] for theme in ("light", "dark")},
            }
            for metric in METRICS
        ],
    }
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _site_json(document: Document, site: int, by_id: dict[int, int]) -> dict[str, object]:
    """Flat lists of one site: [layer, position] and [layer, position, k], thousandths, null where missing."""
    a = document.arrays
    own_target = a.target_ids.shape[1] == 1
    tracked = {
        position: {
            "ids": [by_id[int(i)] for i in found.ids],
            "logprobs": [_thousandths(row) for row in found.logprobs[site]],
        }
        for position, found in a.tracked.items()
    }
    return {
        "top": [by_id[int(i)] for i in a.top_ids[site].ravel()],
        "logprob": _thousandths(a.top_logprobs[site]),
        "entropy": _thousandths(a.entropy[site]),
        "kl": _thousandths(a.kl_final[site]),
        "rank": [int(r) if r > 0 else None for r in a.target_rank[site, :, :, 0].ravel()]
        if own_target
        else [],
        "targetLogprob": _thousandths(a.target_logprob[site, :, :, 0]) if own_target else [],
        "depth": [int(d) for d in a.prediction_depth[site]],
        "tracked": tracked,
    }


def _thousandths(values: np.ndarray) -> list[int | None]:
    return [
        None if v != v else round(v * _MILLI) if abs(v) < 1e6 else -(10**9) for v in values.ravel().tolist()
    ]
