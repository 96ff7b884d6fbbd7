"""What one generation has said so far: tokens, readings, warnings and statistics, kept as events arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sextant.events import Event, FinishedEvent, ReadingsEvent, StartedEvent, TokenEvent, WarningEvent
from sextant.readings import ReadingArrays, ReadingsLog
from sextant.settings import GenerateOptions, Lens
from sextant.v1 import inference_pb2
from sextant.vocabulary import Vocabulary

_FINISH_REASONS: Mapping[int, str] = {1: "length", 2: "stop"}


@dataclass(frozen=True)
class Stats:
    """What the generation cost and what it left out.

    touched_row_counts: rows touched by each intervention, in the order asked for.
    missing_reading_count: positions the lens was to decode and had not when the call ended.
    """

    prompt_token_count: int = 0
    generated_token_count: int = 0
    recorded_position_count: int = 0
    lens_position_count: int = 0
    touched_row_counts: tuple[int, ...] = ()
    queue_ns: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0
    captured_bytes: int = 0
    missing_reading_count: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens after the first, over the time they took; NaN when there are none."""
        steps = self.generated_token_count - 1
        return steps / (self.decode_ns * 1e-9) if steps > 0 and self.decode_ns > 0 else float("nan")


class Transcript:
    """The state behind a generation. `apply` takes events in stream order; nothing here waits."""

    def __init__(self, options: GenerateOptions) -> None:
        self.options = options
        self.request_id = ""
        self.capture = ""
        self.prompt_token_ids: list[int] = []
        self.prompt_token_texts: list[str] = []
        self.token_ids: list[int] = []
        self.token_texts: list[str] = []
        self.logprobs: list[float] = []
        self.tail = ""
        self.finished = False
        self.finish_reason = ""
        self.stop = ""
        self.warnings: list[WarningEvent] = []
        self.stats = Stats()
        self.prompt_logprobs = np.zeros(0, np.float32)
        lens = Lens() if options.lens is True else options.lens
        targets = 1 if not lens or isinstance(lens.targets, str) else len(lens.targets)
        self.log = ReadingsLog(lens.top_k if lens else 1, targets)

    @property
    def text(self) -> str:
        """The generated text so far."""
        return "".join(self.token_texts) + self.tail

    @property
    def position_count(self) -> int:
        """Input positions so far: the prompt's and every generated token's but the last one's."""
        return len(self.prompt_token_ids) + max(0, len(self.token_ids) - 1)

    @property
    def readings(self) -> ReadingArrays:
        """The readings so far, on axes of `position_count` positions."""
        return self.log.arrays(self.position_count)

    def input_texts(self, vocabulary: Vocabulary) -> list[str]:
        """Each input position's token on its own, [position]; streamed texts may be empty."""
        vocabulary.add(self.prompt_token_ids, self.prompt_token_texts)
        inputs = self.prompt_token_ids + self.token_ids[:-1]
        texts = vocabulary.texts(inputs)
        return [texts[i] for i in inputs]

    def apply(self, response: inference_pb2.GenerateResponse) -> Event:
        """Takes the next message of the stream and says what it was."""
        kind = response.WhichOneof("event")
        if kind == "started":
            return self._started(response.started)
        if kind == "token":
            token = response.token
            self.token_ids.append(token.id)
            self.token_texts.append(token.text)
            self.logprobs.append(token.logprob)
            return TokenEvent(token.text, token.index, token.id, token.logprob)
        if kind == "readings":
            self.log.append(response.readings)
            return ReadingsEvent(positions=tuple(response.readings.positions))
        if kind == "warning":
            warning = WarningEvent(reason=response.warning.reason, message=response.warning.message)
            self.warnings.append(warning)
            return warning
        if kind == "finished":
            return self._finished(response.finished)
        return Event()  # A newer server's event: it is not ours to fail on.

    def _started(self, started: inference_pb2.Started) -> Event:
        self.request_id = started.request_id or self.request_id
        self.capture = started.capture
        self.prompt_token_ids = list(started.prompt_token_ids)
        self.prompt_token_texts = list(started.prompt_token_texts)
        self.log.expect(started.lens_sites, started.lens_layers)
        return StartedEvent(request_id=self.request_id, capture=self.capture)

    def _finished(self, finished: inference_pb2.Finished) -> Event:
        """A second `finished` closes a call that ended without all its readings; it only counts them."""
        text = "" if self.finished else finished.text
        self.tail += text
        self.finished = True
        self.finish_reason = _FINISH_REASONS.get(finished.reason, "") or self.finish_reason
        self.stop = finished.stop or self.stop
        s = finished.statistics
        if s.prompt_token_count or not self.stats.prompt_token_count:
            self.prompt_logprobs = np.array(s.prompt_logprobs, np.float32)
            self.stats = Stats(
                s.prompt_token_count,
                s.generated_token_count,
                s.recorded_position_count,
                s.lens_position_count,
                tuple(s.touched_row_counts),
                s.queue_ns,
                s.prefill_ns,
                s.decode_ns,
                s.captured_bytes,
                s.missing_reading_count,
            )
        return FinishedEvent(text, self.finish_reason)
