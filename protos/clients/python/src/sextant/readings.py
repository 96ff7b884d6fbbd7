"""Columnar readings off the wire, gathered in any order and laid out as dense arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sextant.errors import SextantError
from sextant.selection import site_name
from sextant.v1 import types_pb2


@dataclass(frozen=True)
class Tracked:
    """The ids followed at one position and what every layer thinks of them.

    ids: int32 [id], ascending. logprobs: float32 [site, layer, id]; NaN where a row is missing.
    """

    ids: np.ndarray
    logprobs: np.ndarray


@dataclass(frozen=True)
class ReadingArrays:
    """Readings on dense axes; rows nobody asked for, or that are missing, are NaN and -1.

    sites: [site], in the server's order. layers: [layer], ascending.
    """

    sites: list[str]
    layers: list[int]
    top_ids: np.ndarray  # int32 [site, layer, position, k], best first
    top_logprobs: np.ndarray  # float32 [site, layer, position, k]
    entropy: np.ndarray  # float32 [site, layer, position]
    kl_final: np.ndarray  # float32 [site, layer, position]
    target_ids: np.ndarray  # int32 [position, target]
    target_logprob: np.ndarray  # float32 [site, layer, position, target]
    target_rank: np.ndarray  # int32 [site, layer, position, target]
    prediction_depth: np.ndarray  # int32 [site, position]
    present: np.ndarray  # bool [position]
    tracked: dict[int, Tracked]  # by position


class ReadingsLog:
    """Every Readings message of one call. Append as they come; `arrays` lays out what is there so far."""

    def __init__(self, top_k: int = 1, target_count: int = 1) -> None:
        self._least = (top_k, target_count)  # Lengths of the last axes when no message says otherwise.
        self.rows: list[tuple[str, int]] = []
        self.position_count = 0  # Positions with a reading.
        self._messages: list[types_pb2.Readings] = []
        self._cache: tuple[tuple[int, int], ReadingArrays] | None = None

    def expect(self, sites: list[int], layers: list[int]) -> None:
        """Names the rows that every message will hold, so that the axes are known before the first."""
        self._add_rows([(site_name(s), int(layer)) for s, layer in zip(sites, layers, strict=False)])

    def append(self, message: types_pb2.Readings) -> None:
        """Takes one message: a span of positions in any order."""
        self._add_rows(_rows(message))
        self.position_count += len(message.positions)
        self._messages.append(message)

    def _add_rows(self, rows: list[tuple[str, int]]) -> None:
        known = set(self.rows)
        self.rows.extend(row for row in rows if row not in known)

    def arrays(self, position_count: int) -> ReadingArrays:
        """Dense arrays of at least `position_count` positions.

        Raises SextantError DATA_LOSS / READINGS_MALFORMED when a message contradicts itself.
        """
        key = (len(self._messages), position_count)
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self._lay_out(position_count))
        return self._cache[1]

    def _lay_out(self, position_count: int) -> ReadingArrays:
        sites = list(dict.fromkeys(site for site, _ in self.rows))
        layers = sorted({layer for _, layer in self.rows})
        seen = [max(m.positions, default=-1) + 1 for m in self._messages]
        shape = (len(sites), len(layers), max([position_count, *seen]))
        top_k = max((m.top_k for m in self._messages), default=self._least[0])
        targets = max((m.target_count for m in self._messages), default=self._least[1])
        out = ReadingArrays(
            sites=sites,
            layers=layers,
            top_ids=np.full((*shape, top_k), -1, np.int32),
            top_logprobs=np.full((*shape, top_k), np.nan, np.float32),
            entropy=np.full(shape, np.nan, np.float32),
            kl_final=np.full(shape, np.nan, np.float32),
            target_ids=np.full((shape[2], targets), -1, np.int32),
            target_logprob=np.full((*shape, targets), np.nan, np.float32),
            target_rank=np.full((*shape, targets), -1, np.int32),
            prediction_depth=np.full((shape[0], shape[2]), -1, np.int32),
            present=np.zeros(shape[2], bool),
            tracked={},
        )
        for message in self._messages:
            try:
                _fill(out, message)
            except ValueError as error:
                raise SextantError(
                    "DATA_LOSS",
                    "READINGS_MALFORMED",
                    f"the server sent readings that contradict themselves: {error}",
                ) from error
        return out


def _rows(message: types_pb2.Readings) -> list[tuple[str, int]]:
    return [(site_name(site), layer) for site, layer in zip(message.sites, message.layers, strict=False)]


def _fill(out: ReadingArrays, message: types_pb2.Readings) -> None:
    """Copies one message into the dense arrays; ValueError when a column has the wrong length."""
    rows = _rows(message)
    p, r, k, t = len(message.positions), len(rows), message.top_k, message.target_count
    site = np.array([out.sites.index(name) for name, _ in rows], np.intp)[None, :]  # [1, row]
    layer = np.array([out.layers.index(number) for _, number in rows], np.intp)[None, :]
    positions = np.array(message.positions, np.intp)
    at = (site, layer, positions[:, None])  # [position, row]
    out.present[positions] = True

    def column(data: bytes, dtype: str, *shape: int) -> np.ndarray:
        return np.frombuffer(data, dtype).reshape(shape)

    if k:
        out.top_ids[*at, :k] = column(message.top_ids, "<i4", p, r, k)
        out.top_logprobs[*at, :k] = column(message.top_logprobs, "<f4", p, r, k)
    out.entropy[at] = column(message.entropy_nats, "<f4", p, r)
    out.kl_final[at] = column(message.kl_final_nats, "<f4", p, r)
    if t:
        out.target_ids[positions, :t] = column(message.target_ids, "<i4", p, t)
        out.target_logprob[*at, :t] = column(message.target_logprobs, "<f4", p, r, t)
        out.target_rank[*at, :t] = column(message.target_ranks, "<i4", p, r, t)
    if message.prediction_depths:
        names = list(dict.fromkeys(name for name, _ in rows))
        depths = column(message.prediction_depths, "<i4", p, len(names))
        out.prediction_depth[np.array([out.sites.index(n) for n in names])[None, :], positions[:, None]] = (
            depths
        )
    if len(message.tracked_counts):
        _fill_tracked(out, message, site[0], layer[0])


def _fill_tracked(
    out: ReadingArrays, message: types_pb2.Readings, site: np.ndarray, layer: np.ndarray
) -> None:
    ids = np.frombuffer(message.tracked_ids, "<i4")
    logprobs = np.frombuffer(message.tracked_logprobs, "<f4")
    begin = 0
    for position, count in zip(message.positions, message.tracked_counts, strict=True):
        span = logprobs[begin * len(site) : (begin + count) * len(site)].reshape(len(site), count)
        dense = np.full((len(out.sites), len(out.layers), count), np.nan, np.float32)
        dense[site, layer] = span
        out.tracked[position] = Tracked(ids[begin : begin + count].astype(np.int32), dense)
        begin += count
