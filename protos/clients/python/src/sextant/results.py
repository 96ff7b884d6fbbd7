"""Results of a generation, the same for the blocking and the awaitable client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sextant.errors import SextantError
from sextant.events import WarningEvent
from sextant.lens import LensResult
from sextant.transcript import Stats, Transcript

if TYPE_CHECKING:
    from sextant.client import Client


class Results:
    """What came out of a generation.

    Each property first makes sure that what it reads is complete (`_need_text`, `_need_all`): the blocking
    client waits there, the awaitable one refuses until it was awaited.
    """

    def __init__(self, transcript: Transcript, client: Client) -> None:
        self._transcript = transcript
        self._client = client

    def _need_text(self) -> None:
        raise NotImplementedError

    def _need_all(self) -> None:
        raise NotImplementedError

    @property
    def received(self) -> Transcript:
        """What has arrived so far, without waiting: of a running, cancelled or failed generation too."""
        return self._transcript

    @property
    def request_id(self) -> str:
        """The id under which every service logs this call."""
        return self._transcript.request_id

    @property
    def text(self) -> str:
        """The generated text, without the stop string."""
        self._need_text()
        return self._transcript.text

    @property
    def token_ids(self) -> np.ndarray:
        """int32 [generated]."""
        self._need_text()
        return np.array(self._transcript.token_ids, np.int32)

    @property
    def logprobs(self) -> np.ndarray:
        """float32 [generated]: of each generated token, before temperature and truncation."""
        self._need_text()
        return np.array(self._transcript.logprobs, np.float32)

    @property
    def prompt_token_ids(self) -> np.ndarray:
        """int32 [prompt]."""
        self._need_text()
        return np.array(self._transcript.prompt_token_ids, np.int32)

    @property
    def prompt_logprobs(self) -> np.ndarray:
        """float32 [prompt]: of each given those before it, the first NaN; needs prompt_logprobs=True."""
        self._need_all()
        if not self._transcript.options.prompt_logprobs:
            raise _not_asked_for("PROMPT_LOGPROBS_NOT_REQUESTED", "generate(..., prompt_logprobs=True)")
        return self._transcript.prompt_logprobs

    @property
    def finish_reason(self) -> str:
        """ "length" or "stop"; "cancelled" after `cancel()`."""
        self._need_text()
        return self._transcript.finish_reason

    @property
    def warnings(self) -> list[WarningEvent]:
        """What the server wanted to be known."""
        self._need_all()
        return self._transcript.warnings

    @property
    def stats(self) -> Stats:
        """Counts, times and what is missing."""
        self._need_all()
        return self._transcript.stats

    @property
    def lens(self) -> LensResult:
        """What the lens said. Raises FAILED_PRECONDITION when no lens was asked for."""
        if not self._transcript.options.lens:
            raise _not_asked_for("LENS_NOT_REQUESTED", "generate(..., lens=sextant.Lens())")
        self._need_all()
        return LensResult(self._transcript, self._client)

    @property
    def capture(self) -> str:
        """`captures/{id}` of the kept capture, or of the lens's own; "" without either."""
        self._need_text()
        return self._transcript.capture

    def _need_capture(self) -> str:
        if not self._transcript.options.capture:
            raise _not_asked_for(
                "CAPTURE_NOT_REQUESTED", "generate(..., capture=sextant.Capture(sites=['resid_post']))"
            )
        self._need_all()
        return self._transcript.capture


def _not_asked_for(reason: str, how: str) -> SextantError:
    return SextantError("FAILED_PRECONDITION", reason, f"this generation was not asked for it; use {how}")
