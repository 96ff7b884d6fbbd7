"""The one exception of this package, and how it is read from a gRPC status."""

from __future__ import annotations

import re
from importlib import resources

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_DETAILS_KEY = "grpc-status-details-bin"
# What gRPC itself says of a message over a side's limit; it adds no details.
_TOO_LARGE = re.compile(
    r"(CLIENT: )?(?:SERVER: )?(Received|Sent) message larger than max \((\d+) vs\. (\d+)\)"
)


class SextantError(Exception):
    """What went wrong, in a form for people and for programs.

    code: the canonical gRPC code by name, e.g. "INVALID_ARGUMENT".
    reason: why, UPPER_SNAKE, e.g. "CAPTURE_STALLED"; "" when the server named none.
    message: what happened and what to do.
    retry_after: seconds after which a retry may succeed, or None.
    request_id: the id under which the services logged the call, or "".
    """

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.request_id = request_id
        super().__init__(code, reason, message, retry_after, request_id)

    def __str__(self) -> str:
        name = f"{self.code} / {self.reason}" if self.reason else self.code
        retry = f" (retry after {self.retry_after:g} s)" if self.retry_after is not None else ""
        return f"{name}: {self.message}{retry}"


def invalid(reason: str, message: str) -> SextantError:
    """The caller asked for something that cannot be; nothing was sent."""
    return SextantError("INVALID_ARGUMENT", reason, message)


def unimplemented(reason: str, message: str) -> SextantError:
    """The feature is typed but no server of today has it."""
    return SextantError("UNIMPLEMENTED", reason, message)


def from_rpc(error: grpc.RpcError, server: str, request_id: str = "") -> SextantError:
    """Reads code, reason and retry delay from a failed call on `server` (host:port)."""
    code = error.code() if callable(getattr(error, "code", None)) else grpc.StatusCode.UNKNOWN
    name = code.name if isinstance(code, grpc.StatusCode) else str(code)
    message = (
        error.details() if callable(getattr(error, "details", None)) else ""
    ) or "the server gave no reason"
    trailers = error.trailing_metadata() if callable(getattr(error, "trailing_metadata", None)) else None
    details = next((value for key, value in trailers or () if key == _DETAILS_KEY), None)
    if details is not None:
        reason, retry_after = _read_details(details)
        return SextantError(name, reason, message, retry_after, request_id)
    if name == "UNAVAILABLE" and not trailers:
        message = (
            f"no answer from a Sextant gateway at {server} ({message}); start one with deploy/local/up, "
            f"or name another with --server, SEXTANT_SERVER or Client(address)"
        )
        return SextantError(name, "SERVER_UNREACHABLE", message, None, request_id)
    if name == "DEADLINE_EXCEEDED":
        return SextantError(
            name, "DEADLINE_EXCEEDED", f"{server} took longer than the timeout", None, request_id
        )
    if too_large := _TOO_LARGE.search(message):
        return SextantError(name, "MESSAGE_TOO_LARGE", _too_large(*too_large.groups()), None, request_id)
    if name == "INTERNAL" and callable(getattr(error, "details", None)) and not error.details():
        # gRPC's own answer to bytes that are no such message.
        message = f"{server} could not read the request; is this client as new as the server?"
        return SextantError(name, "REQUEST_UNREADABLE", message, None, request_id)
    return SextantError(name, "", message, None, request_id)


def _too_large(side: str | None, verb: str, size: str, limit: str) -> str:
    request = (verb == "Received") != bool(side)
    advice = "send less text, fewer ids or a smaller vector" if request else "ask for less at a time"
    what = "request" if request else "answer"
    return f"the {what} has {int(size):,} bytes; one message may have {int(limit):,}: {advice}"


def _read_details(data: bytes) -> tuple[str, float | None]:
    """(reason, retry delay in seconds) of a serialized google.rpc.Status; ("", None) if it is not one."""
    reason, retry_after = "", None
    try:
        for packed in _STATUS.FromString(data).details:
            kind = packed.type_url.rpartition("/")[2]
            if kind == "google.rpc.ErrorInfo":
                reason = _ERROR_INFO.FromString(packed.value).reason
            elif kind == "google.rpc.RetryInfo":
                delay = _RETRY_INFO.FromString(packed.value).retry_delay
                retry_after = delay.seconds + delay.nanos / 1e9
    except ValueError:  # protobuf's DecodeError is one; a peer's trailer is not ours to trust.
        pass
    return reason, retry_after


def _private_messages() -> dict[str, type]:
    """google.rpc's messages in a pool of their own: the default pool may hold another package's file."""
    files = descriptor_pb2.FileDescriptorSet.FromString(
        (resources.files("sextant.v1") / "error_details.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}"))
        for name in ("Status", "ErrorInfo", "RetryInfo")
    }


_MESSAGES = _private_messages()
_STATUS, _ERROR_INFO, _RETRY_INFO = (_MESSAGES[name] for name in ("Status", "ErrorInfo", "RetryInfo"))
