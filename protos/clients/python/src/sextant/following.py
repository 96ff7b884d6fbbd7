"""Readings of a capture that is there already: they go on where a generation stopped waiting."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sextant.errors import SextantError
from sextant.events import ReadingsEvent
from sextant.lens import LensResult
from sextant.settings import GenerateOptions, Lens
from sextant.transcript import Stats, Transcript
from sextant.v1 import capture_pb2, types_pb2

if TYPE_CHECKING:
    from sextant.captures import CaptureInfo
    from sextant.client import Client


class Following:
    """What `client.captures.follow` returns. Use from one thread at a time.

    Iterate for readings as they come, or read `lens`, which waits for the rest. `received` holds what has
    arrived; its generated tokens are known as far as readings name them as the token that came next.
    """

    def __init__(self, client: Client, info: CaptureInfo, responses: Generator[Any, None, None]) -> None:
        self.info = info
        self.failed_count = 0
        self._client = client
        self._responses = responses
        self._received = Transcript(GenerateOptions(lens=Lens()))
        self._received.capture = info.name
        self._received.prompt_token_ids = list(info.prompt_token_ids)
        texts = client.vocabulary.texts(np.array(info.prompt_token_ids, np.int64))
        self._received.prompt_token_texts = [texts[i] for i in info.prompt_token_ids]
        self._next: dict[int, int] = {}  # By position: the token that came next.

    def __iter__(self) -> Iterator[ReadingsEvent]:
        return self

    def __next__(self) -> ReadingsEvent:
        while True:
            response = next(self._responses)
            if response.HasField("end"):
                self._end(response.end)
            if len(response.readings.positions):
                return self._take(response.readings)

    @property
    def received(self) -> Transcript:
        """What has arrived so far, without waiting."""
        return self._received

    @property
    def lens(self) -> LensResult:
        """Every reading, once all are there. DATA_LOSS / READINGS_LOST when some can never come."""
        for _ in self:
            pass
        if self.failed_count:
            raise SextantError(
                "DATA_LOSS",
                "READINGS_LOST",
                f"the readings of {self.failed_count} positions can never come; `received` holds the others",
            )
        return LensResult(self._received, self._client)

    def cancel(self) -> None:
        """Stops following; the capture stays."""
        self._responses.close()

    def _take(self, readings: types_pb2.Readings) -> ReadingsEvent:
        self._received.log.append(readings)
        positions = list(readings.positions)
        targets = np.frombuffer(readings.target_ids, "<i4").reshape(len(positions), -1)
        if targets.shape[1] == 1:
            self._next.update(zip(positions, targets[:, 0].tolist(), strict=True))
        self._received.token_ids = self._tokens()
        # Their own texts come from the vocabulary; streamed ones belong to the call that is over.
        self._received.token_texts = [""] * len(self._received.token_ids)
        return ReadingsEvent(positions=tuple(positions))

    def _tokens(self) -> list[int]:
        """The generated tokens up to the first that no reading has named yet."""
        prompt = self._received.prompt_token_ids
        known = all(self._next.get(p, i) == i for p, i in enumerate(prompt[1:]))
        found: list[int] = []
        # Targets that contradict the prompt were chosen by the caller: they are not what came next.
        while known and (token := self._next.get(len(prompt) - 1 + len(found), -1)) >= 0:
            found.append(token)
        return found

    def _end(self, end: capture_pb2.FollowReadingsEnd) -> None:
        self.failed_count = end.failed_count
        self._received.finished = True
        self._received.stats = Stats(
            prompt_token_count=len(self._received.prompt_token_ids),
            generated_token_count=len(self._received.token_ids),
            lens_position_count=end.reading_count,
            missing_reading_count=end.failed_count,
        )
