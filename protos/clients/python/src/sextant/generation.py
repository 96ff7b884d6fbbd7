"""A running generation of the blocking client: an iterator of events whose results wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from sextant.activations import Activations
from sextant.errors import SextantError, from_rpc
from sextant.events import Event
from sextant.interrupts import StreamApart
from sextant.results import Results
from sextant.transcript import Transcript

if TYPE_CHECKING:
    from sextant.client import Client


class Generation(Results):
    """One call of `Client.generate`. Use from one thread at a time.

    Iterate for events as they come, or read a result, which waits for what it needs; both may be mixed.
    The work on the server is cancelled by `cancel()`, by leaving a `with` block early, by Ctrl-C while
    waiting, and when the last reference goes away. After `cancel()`, results hold what had arrived.
    """

    def __init__(self, client: Client, call: grpc.Call, transcript: Transcript) -> None:
        super().__init__(transcript, client)
        self._call = call
        self._responses = StreamApart(call)
        self._ended = False
        self._error: SextantError | None = None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self._pull()
        if event is None:
            if self._error:
                raise self._error
            raise StopIteration
        return event

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_ended"):
            self.cancel()
            self._responses.close()

    def __repr__(self) -> str:
        state = "failed" if self._error else "complete" if self._ended else "running"
        return f"<Generation {self.request_id or '?'} {state} text={self._transcript.text!r}>"

    def cancel(self) -> None:
        """Stops the work on the server; harmless when it has ended. What had arrived stays readable."""
        if not self._ended:
            self._ended = True
            self._transcript.finish_reason = self._transcript.finish_reason or "cancelled"
            self._call.cancel()

    close = cancel

    def wait(self) -> Generation:
        """Waits until the call has ended and everything has arrived; the generation itself, for chaining."""
        self._need_all()
        return self

    @property
    def activations(self) -> Activations:
        """The kept capture's rows, fetched as they are asked for."""
        return self._client.captures.get(self._need_capture(), self._transcript.options.capture)

    def _need_text(self) -> None:
        while not self._transcript.finished and self._pull() is not None:
            pass
        if self._error and not self._transcript.finished:
            raise self._error

    def _need_all(self) -> None:
        while self._pull() is not None:
            pass
        if self._error:
            raise self._error

    def _pull(self) -> Event | None:
        """The next event; None when the stream is over (`_error` says if badly)."""
        if self._ended:
            return None
        try:
            return self._transcript.apply(next(self._responses))
        except StopIteration:
            self._ended = True
        except grpc.RpcError as error:
            self._ended = True
            self._error = from_rpc(error, self._client.address, self._transcript.request_id)
        except BaseException:  # Ctrl-C: nobody will read on, so the server may stop.
            self.cancel()
            raise
        return None
