"""Texts of single token ids, asked of the server once each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

_BATCH = 65_536  # Ids a request: a few hundred kilobytes of text, well under the message limit.
_LOSSY = "\ufffd"  # What the server puts for bytes that are no whole characters.
_STRAY = re.compile("[\udc80-\udcff]")


class Vocabulary:
    """Id to text, filled on demand by `fetch`, which maps a list of ids to their texts."""

    def __init__(self, fetch: Callable[[list[int]], list[str]]) -> None:
        self._fetch = fetch
        self._texts: dict[int, str] = {-1: ""}

    def add(self, ids: Iterable[int], texts: Iterable[str]) -> None:
        """Remembers texts that came some other way, but none whose bytes would have to be asked for."""
        self._texts.update((i, text) for i, text in zip(ids, texts, strict=False) if _LOSSY not in text)

    def texts(self, ids: Iterable[int] | np.ndarray) -> dict[int, str]:
        """Text of every id in `ids` (any shape); -1 is "". Bytes that are no whole character are `<0xE2>`."""
        wanted = np.unique(np.fromiter(ids, np.int64) if not isinstance(ids, np.ndarray) else ids)
        missing = [int(i) for i in wanted if int(i) not in self._texts]
        for begin in range(0, len(missing), _BATCH):
            batch = missing[begin : begin + _BATCH]
            self._texts.update(zip(batch, self._fetch(batch), strict=True))
        return {int(i): self._texts[int(i)] for i in wanted}


def token_texts(texts: Sequence[str], token_bytes: Sequence[bytes]) -> list[str]:
    """`texts` with `<0xE2>` for every byte that is no part of a whole character.

    token_bytes: of each token, or nothing (a server that does not send them): then U+FFFD stays.
    """
    if len(token_bytes) != len(texts):
        return list(texts)
    return [
        _with_bytes(data) if _LOSSY in text else text for text, data in zip(texts, token_bytes, strict=True)
    ]


def _with_bytes(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    return _STRAY.sub(lambda stray: f"<0x{ord(stray[0]) - 0xDC00:02X}>", text)
