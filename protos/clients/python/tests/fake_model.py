"""A made-up model with a believable inside: words for tokens, and readings that settle layer by layer."""

from __future__ import annotations

import re

import numpy as np

from sextant.v1 import types_pb2 as pb

LAYERS = 6
HIDDEN = 8
STORY = [
    "",
    "there",
    "was",
    "a",
    "small",
    "ship",
    ",",
    "and",
    "the",
    "captain",
    "said",
    ":",
    "<",
    "/",
    "script",
    ">",
    "&",
    '"',
    "é",
    "'",
    "\n",
]
CONTINUATION = [" " + word if word.isalpha() else word for word in STORY if word] + [
    "\U0001f426",
    "</script>",
]
_WORD = re.compile(r" ?\w+|\s|[^\w\s]")


class Vocabulary:
    """Ids in order of appearance; 0 is the end of text."""

    def __init__(self) -> None:
        self.texts = ["<|end|>", "�"]
        self.bytes = {1: b"\xe2"}  # Where they are not the text's own.
        self._ids = {text: number for number, text in enumerate(self.texts)}
        for text in CONTINUATION + [f" word{i}" for i in range(200)]:
            self.id(text)

    def id(self, text: str) -> int:
        if text not in self._ids:
            self._ids[text] = len(self.texts)
            self.texts.append(text)
        return self._ids[text]

    def token_bytes(self, ids: list[int]) -> list[bytes]:
        return [self.bytes.get(i, self.texts[i].encode()) for i in ids]

    def encode(self, text: str) -> list[int]:
        return [self.id(piece) for piece in _WORD.findall(text)]


def activation(site: int, layer: int, position: int) -> np.ndarray:
    """float32 [HIDDEN], exactly representable in bfloat16 and different for every row."""
    return (np.arange(HIDDEN) + 16 * (layer + LAYERS * position) % 128 + 0.5 * site).astype(np.float32)


def reading_columns(
    rows: list[tuple[int, int]],
    positions: list[int],
    targets: list[list[int]],
    settings: pb.LensSettings,
    vocab_size: int,
    layers: int = LAYERS,
) -> pb.Readings:
    """Readings of `positions` x `rows`: probability of the first target grows with the layer.

    Values are functions of (site, layer, position) alone, so that any grouping of positions gives the same.
    """
    k, t = settings.top_k or 5, len(targets[0])
    shape = (len(positions), len(rows))
    top_ids, top_lp = np.zeros((*shape, k), "<i4"), np.zeros((*shape, k), "<f4")
    entropy, kl = np.zeros(shape, "<f4"), np.zeros(shape, "<f4")
    target_lp, target_rank = np.full((*shape, t), np.nan, "<f4"), np.full((*shape, t), -1, "<i4")
    sites = list(dict.fromkeys(site for site, _ in rows))
    depths = np.full((len(positions), len(sites)), -1, "<i4")
    counts: list[int] = []
    tracked_ids, tracked_lp = b"", b""
    for i, position in enumerate(positions):
        sharpness = 0.5 + np.random.default_rng(position).random()
        for j, (site, layer) in enumerate(rows):
            rng = np.random.default_rng([position, layer, site])
            depth = (layer + 1) / layers
            target = targets[i][0]
            best = float(
                np.clip(depth**2.2 * sharpness * (0.75 if site == pb.SITE_RESID_POST else 0.4), 0.01, 0.97)
            )
            others = [int(x) for x in rng.permutation(vocab_size)[: k + 1] if x != target][:k]
            settled = target >= 0 and best > 0.25
            ids = ([target, *others] if settled else others)[:k]
            rest = (
                min(0.3 * (1 - best), 0.04 + 0.2 * depth)
                * (np.arange(1, k + 1) ** -1.5)
                * (0.4 + 0.6 * rng.random())
            )
            p = np.concatenate([[best], rest])[:k] if settled else rest[:k]
            order = np.argsort(-p, kind="stable")
            top_ids[i, j], top_lp[i, j] = np.array(ids)[order], np.log(p[order])
            entropy[i, j] = 10.0 * (1 - depth) * (1.2 - best)
            kl[i, j] = 9.0 * (1 - depth) ** 1.5 * (0.6 + 0.4 * rng.random())
            for n, wanted in enumerate(targets[i]):
                if wanted >= 0:
                    target_lp[i, j, n] = np.log(best)
                    target_rank[i, j, n] = 1 if settled else int(2 + 1000 * (1 - depth) ** 2)
            if settled and depths[i, sites.index(site)] < 0:
                depths[i, sites.index(site)] = layer
        if settings.tracked:
            union = np.unique(top_ids[i])
            counts.append(len(union))
            tracked_ids += union.astype("<i4").tobytes()
            for j in range(len(rows)):
                row = np.full(len(union), -9.0, "<f4")
                row[np.searchsorted(union, top_ids[i, j])] = top_lp[i, j]
                tracked_lp += row.tobytes()
    return pb.Readings(
        positions=positions,
        sites=[site for site, _ in rows],
        layers=[layer for _, layer in rows],
        top_k=k,
        target_count=t,
        top_ids=top_ids.tobytes(),
        top_logprobs=top_lp.tobytes(),
        entropy_nats=entropy.tobytes(),
        kl_final_nats=kl.tobytes(),
        target_ids=np.array(targets, "<i4").tobytes(),
        target_logprobs=target_lp.tobytes(),
        target_ranks=target_rank.tobytes(),
        prediction_depths=depths.tobytes(),
        tracked_counts=counts,
        tracked_ids=tracked_ids,
        tracked_logprobs=tracked_lp,
    )
