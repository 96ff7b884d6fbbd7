"""Texts of single token ids, asked of the server once each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

_BATCH = 65_536  # Ids a request: a few hundred kilobytes of text, well under the message limit.


class Vocabulary:
    """Id to text, filled on demand by `fetch`, which maps a list of ids to their texts."""

    def __init__(self, fetch: Callable[[list[int]], list[str]]) -> None:
        self._fetch = fetch
        self._texts: dict[int, str] = {-1: ""}

    def add(self, ids: Iterable[int], texts: Iterable[str]) -> None:
        """Remembers texts that came some other way."""
        self._texts.update(zip(ids, texts, strict=False))

    def texts(self, ids: Iterable[int] | np.ndarray) -> dict[int, str]:
        """Text of every id in `ids` (any shape); -1 is "". Bytes that are not UTF-8 alone show as U+FFFD."""
        wanted = np.unique(np.fromiter(ids, np.int64) if not isinstance(ids, np.ndarray) else ids)
        missing = [int(i) for i in wanted if int(i) not in self._texts]
        for begin in range(0, len(missing), _BATCH):
            batch = missing[begin : begin + _BATCH]
            self.add(batch, self._fetch(batch))
        return {int(i): self._texts[int(i)] for i in wanted}
