"""Clients that no service should remember: they come and go, change their minds, hang up, ask for what is not there."""

import contextlib
import itertools
import socket
from collections.abc import Callable, Collection
from typing import TypeVar

import grpc
from sextant.v1 import capture_pb2, capture_pb2_grpc, inference_pb2, inference_pb2_grpc, types_pb2
from suite_load import Broken

TIMEOUT_S = 60
# Each a connection of its own; otherwise gRPC would share one.
ALONE = [("grpc.use_local_subchannel_pool", 1)]
GENERATE = "/sextant.v1.InferenceService/Generate"
# A suite that is full, or on a machine that stalls, may refuse anybody or be late.
BUSY = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
# Expected of a refusal; anything else is a fault of the suite.
REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND} | BUSY


Answer = TypeVar("Answer")


def borne(codes: Collection[grpc.StatusCode], call: Callable[[], Answer]) -> Answer | None:
    """What the call answers; None when it ends with one of `codes`, Broken when with another."""
    try:
        return call()
    except grpc.RpcError as error:
        if error.code() not in codes:
            raise Broken(f"a call ended as it should not: {error.code()}: {error.details()}") from error
        return None


def _request(new_tokens: int) -> inference_pb2.GenerateRequest:
    request = inference_pb2.GenerateRequest(max_new_tokens=new_tokens, ignore_eos=True,
                                            lens=types_pb2.LensSettings(sites=[types_pb2.SITE_RESID_POST]))
    request.token_ids.ids.extend(range(5, 13))
    return request


def _begin(channel: grpc.Channel) -> grpc.Call:
    """A long generation with readings, after its first two events."""
    call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(_request(120), timeout=TIMEOUT_S)
    borne(BUSY, lambda: list(itertools.islice(call, 2)))
    return call


def connect(address: str, _: grpc.Channel) -> int:
    """A connection for one small call, and one that says nothing."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(TimeoutError):
        socket.create_connection((host, int(port)), TIMEOUT_S).close()
    with grpc.insecure_channel(address, ALONE) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        borne(BUSY, lambda: stub.GetModel(inference_pb2.GetModelRequest(), timeout=TIMEOUT_S))
    return 1


def cancel(_: str, channel: grpc.Channel) -> int:
    """A call that is cancelled under way."""
    _begin(channel).cancel()
    return 1


def hang_up(address: str, _: grpc.Channel) -> int:
    """A connection that is closed under its call."""
    with grpc.insecure_channel(address, ALONE) as channel:
        _begin(channel)
    return 1


def refuse(_: str, channel: grpc.Channel) -> int:
    """Four calls that cannot be answered: no such vector, no such capture, too much at once, bytes that are no message."""
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    unknown = _request(1)
    unknown.interventions.add(vector="no-such-vector", strength=1)
    raw = channel.unary_stream(GENERATE, request_serializer=bytes, response_deserializer=bytes)
    calls: list[Callable[[], object]] = [
        lambda: list(stub.Generate(unknown, timeout=TIMEOUT_S)),
        lambda: capture_pb2_grpc.CaptureServiceStub(channel).GetCapture(
            capture_pb2.GetCaptureRequest(name="captures/" + 32 * "0"), timeout=TIMEOUT_S),
        lambda: list(stub.Generate(_request(1 << 30), timeout=TIMEOUT_S)),
        lambda: list(raw(b"\xff\xff\xff", timeout=TIMEOUT_S)),
    ]
    for call in calls:
        if borne(REFUSED, call) is not None:
            raise Broken("a call was answered that cannot be answered")
    return len(calls)


# By name: what does it once, given an address and a connection that stays; returns how many calls that is.
KINDS: dict[str, Callable[[str, grpc.Channel], int]] = {"connect": connect, "cancel": cancel, "hang_up": hang_up, "refuse": refuse}
