"""What a generation yields while it streams. Every event has `text`, so that printing it always works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Base of all events. text: what the output grew by, "" for events that say something else."""

    text: str = ""


@dataclass(frozen=True)
class StartedEvent(Event):
    """The request was admitted. capture: `captures/{id}` when a lens or a capture was asked for."""

    request_id: str = ""
    capture: str = ""


@dataclass(frozen=True)
class TokenEvent(Event):
    """One generated token. logprob: natural logarithm, before temperature and truncation."""

    index: int = 0
    id: int = 0
    logprob: float = 0.0


@dataclass(frozen=True)
class ReadingsEvent(Event):
    """Readings of these positions arrived; `Generation.received` holds them."""

    positions: Sequence[int] = ()


@dataclass(frozen=True)
class WarningEvent(Event):
    """Something the caller should know. reason: UPPER_SNAKE."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class FinishedEvent(Event):
    """The text is complete. finish_reason: "length" or "stop"."""

    finish_reason: str = ""
