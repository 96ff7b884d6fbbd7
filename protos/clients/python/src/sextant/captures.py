"""Kept captures: list, read back, delete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from sextant.activations import Activations
from sextant.errors import invalid
from sextant.following import Following
from sextant.model import dtype_name, to_datetime
from sextant.selection import site_name
from sextant.settings import Capture
from sextant.v1 import capture_pb2, capture_pb2_grpc

if TYPE_CHECKING:
    from sextant.client import Client


@dataclass(frozen=True)
class CaptureInfo:
    """One capture. state: "open", "complete" or "incomplete" (then `gaps` holds half-open windows).

    rows: the recorded (site, layer) pairs of each position. dtype: as stored, "f32" or "bf16".
    """

    name: str
    state: str
    label: str
    model: str
    model_sha256: str
    create_time: datetime | None
    expire_time: datetime | None
    rows: tuple[tuple[str, int], ...]
    hidden_size: int
    dtype: str
    record: str
    position_count: int
    positions: tuple[int, ...]
    gaps: tuple[tuple[int, int], ...]
    end_known: bool
    stored_bytes: int
    prompt_token_ids: tuple[int, ...]
    reading_count: int
    failed_reading_count: int

    @property
    def id(self) -> str:
        """The 32 hex digits after `captures/`."""
        return self.name.rpartition("/")[2]


def capture_name(reference: str | CaptureInfo) -> str:
    """`captures/{id}` of an id, a name or a CaptureInfo."""
    text = reference.name if isinstance(reference, CaptureInfo) else str(reference)
    identifier = text.removeprefix("captures/")
    if not re.fullmatch(r"[0-9a-f]{32}", identifier):
        raise invalid(
            "BAD_CAPTURE_NAME", f"{text!r} is no capture: an id is 32 hex digits; see `sextant capture list`"
        )
    return f"captures/{identifier}"


class Captures:
    """`client.captures`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stub = capture_pb2_grpc.CaptureServiceStub(client.channel)

    def list(self) -> list[CaptureInfo]:
        """Every kept capture."""
        found: list[CaptureInfo] = []
        token = ""
        while True:
            request = capture_pb2.ListCapturesRequest(page_size=1000, page_token=token)
            page = self._client.call(self._stub.ListCaptures, request)
            found.extend(capture_info(capture) for capture in page.captures)
            token = page.next_page_token
            if not token:
                return found

    def info(self, reference: str | CaptureInfo) -> CaptureInfo:
        """What is known of one capture, without its rows."""
        request = capture_pb2.GetCaptureRequest(name=capture_name(reference))
        return capture_info(self._client.call(self._stub.GetCapture, request))

    def get(self, reference: str | CaptureInfo, asked: Capture | None = None) -> Activations:
        """The rows of one capture, fetched as they are asked for; `.info` says what there is.

        asked: only the rows of these settings; a capture also holds what a lens of the same call read.
        """
        info = self.info(reference)
        if asked is not None:
            settings = asked.to_proto()
            sites = {site_name(site) for site in settings.sites}
            layers = set(settings.layers) or {layer for _, layer in info.rows}
            info = replace(info, rows=tuple(row for row in info.rows if row[0] in sites and row[1] in layers))
        return Activations(self, info)

    def delete(self, reference: str | CaptureInfo) -> None:
        """Frees a capture. FAILED_PRECONDITION / CAPTURE_OPEN while it is being written."""
        self._client.call(
            self._stub.DeleteCapture, capture_pb2.DeleteCaptureRequest(name=capture_name(reference))
        )

    def follow(self, reference: str | CaptureInfo, *, timeout: float | None = None) -> Following:
        """The readings of a capture from the first on, waiting for those that lens decoders still owe.

        Resumes a generation that ended with `stats.missing_reading_count` above 0: iterate what comes, or
        read `.lens`, which waits for all of it. timeout: seconds for all of it, None waits until it ends.
        """
        info = self.info(reference)
        request = capture_pb2.FollowReadingsRequest(name=info.name)
        responses = self._client.stream(self._stub.FollowReadings, request, timeout)
        return Following(self._client, info, responses)

    def read(
        self, request: capture_pb2.ReadActivationsRequest
    ) -> Iterator[capture_pb2.ReadActivationsResponse]:
        """The slices of a selection, as the server sends them."""
        return self._client.stream(self._stub.ReadActivations, request)


def capture_info(capture: capture_pb2.Capture) -> CaptureInfo:
    """CaptureInfo of the wire's Capture."""
    rows = zip(capture.sites, capture.layers, strict=True)
    return CaptureInfo(
        name=capture.name,
        state=capture_pb2.CaptureState.Name(capture.state).removeprefix("CAPTURE_STATE_").lower(),
        label=capture.label,
        model=capture.model,
        model_sha256=capture.model_sha256,
        create_time=to_datetime(capture, "create_time"),
        expire_time=to_datetime(capture, "expire_time"),
        rows=tuple((site_name(site), layer) for site, layer in rows),
        hidden_size=capture.hidden_size,
        dtype=dtype_name(capture.dtype),
        record="before_steering" if capture.record == 2 else "after_steering",
        position_count=capture.position_count,
        positions=tuple(capture.positions),
        gaps=tuple((window.begin, window.end) for window in capture.gaps),
        end_known=capture.end_known,
        stored_bytes=capture.stored_bytes,
        prompt_token_ids=tuple(capture.prompt_token_ids),
        reading_count=capture.reading_count,
        failed_reading_count=capture.failed_reading_count,
    )
