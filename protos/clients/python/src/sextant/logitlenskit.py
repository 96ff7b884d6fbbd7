"""Readings as logitlenskit v2 JSON, so that its viewers open them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from sextant.readings import ReadingArrays
from sextant.refusals import writing
from sextant.transcript import Transcript
from sextant.vocabulary import Vocabulary

_DECIMALS = 5  # The format's own precision.


def save_v2(
    path: Path,
    transcript: Transcript,
    arrays: ReadingArrays,
    vocabulary: Vocabulary,
    model: str,
    site: int,
    partial: str = "",
) -> Path:
    """Writes one site. `entropy` [layer][position], `meta.site` and `meta.partial` (why readings are missing)
    are additions that viewers pass over."""
    texts = vocabulary.texts(_all_ids(arrays))
    positions = range(arrays.entropy.shape[2])
    document = {
        "meta": {
            "version": 2,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": model,
            "site": arrays.sites[site] if arrays.sites else "",
            **({"partial": partial} if partial else {}),
        },
        "layers": arrays.layers,
        "input": transcript.input_texts(vocabulary),
        "tracked": [_tracked(arrays, site, p, texts) for p in positions],
        "topk": [
            [[texts[int(i)] for i in arrays.top_ids[site, layer, p] if i >= 0] for p in positions]
            for layer in range(len(arrays.layers))
        ],
        "entropy": [[_round(value) for value in row] for row in arrays.entropy[site].tolist()]
        if arrays.sites
        else [],
    }
    with writing(path):
        path.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return path


def _all_ids(arrays: ReadingArrays) -> np.ndarray:
    parts = [arrays.top_ids.ravel(), *(tracked.ids for tracked in arrays.tracked.values())]
    return np.concatenate(parts)


def _tracked(
    arrays: ReadingArrays, site: int, position: int, texts: dict[int, str]
) -> dict[str, list[float | None]]:
    """Text to its probability at each layer. Ids that share a text (parts of characters) get `#id`."""
    if position in arrays.tracked:
        ids = arrays.tracked[position].ids
        logprobs = arrays.tracked[position].logprobs[site]  # [layer, id]
    else:
        top = arrays.top_ids[site, :, position]  # [layer, k]
        ids = np.unique(top[top >= 0])
        logprobs = np.full((len(arrays.layers), len(ids)), np.nan, np.float32)
        for layer, row in enumerate(top):
            there = row >= 0
            logprobs[layer, np.searchsorted(ids, row[there])] = arrays.top_logprobs[site, layer, position][
                there
            ]
    found: dict[str, list[float | None]] = {}
    for column, identifier in enumerate(ids):
        text = texts[int(identifier)]
        key = f"{text}#{identifier}" if text in found else text
        found[key] = [_round(value) for value in np.exp(logprobs[:, column]).tolist()]
    return found


def _round(value: float) -> float | None:
    return None if value != value else round(value, _DECIMALS)
