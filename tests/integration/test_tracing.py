"""One request through all services: its ids are logged, passed on and returned, and logs are JSON."""

import json
import pathlib
import re
import time

import grpc
import pytest
from sextant.v1 import inference_pb2, inference_pb2_grpc, vector_pb2, vector_pb2_grpc
from suite import MODELS

SERVICES = ["gateway", "shard_worker", "capture", "lens_decoder", "steering_registry"]
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROMPT = "zebra quokka"


@pytest.fixture(scope="module")
def suite(make_cluster):
    return make_cluster(MODELS / "llama31_tiny", extra={name: ["--log-format=json", "--log-level=debug"] for name in SERVICES})


@pytest.fixture
def channel(suite):
    with grpc.insecure_channel(suite.address) as channel:
        yield channel


def generate(channel: grpc.Channel, metadata: list[tuple[str, str]], **fields) -> tuple[str, dict, dict]:
    """Runs a generation with a lens; the request's id, and the initial and trailing metadata."""
    request = inference_pb2.GenerateRequest(text=PROMPT, max_new_tokens=2, ignore_eos=True, **fields)
    request.lens.top_k = 1
    call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request, metadata=metadata, timeout=60)
    request_id = ""
    for event in call:
        request_id = event.started.request_id or request_id
    return request_id, dict(call.initial_metadata()), dict(call.trailing_metadata())


def lines(suite) -> list[dict]:
    """All log lines so far; each must be an object of JSON with what every line has."""
    found = []
    for name in {process.log for process in suite.processes}:
        for line in pathlib.Path(name).read_text().splitlines():
            entry = json.loads(line)
            assert {"time", "level", "service", "message"} <= set(entry), line
            found.append(entry)
    assert {entry["service"] for entry in found} == set(SERVICES)
    return found


def services_that_logged(suite, **fields: str) -> set[str]:
    return {entry["service"] for entry in lines(suite) if fields.items() <= entry.items()}


def eventually(condition) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_trace_is_passed_on_logged_and_returned(suite, channel) -> None:
    metadata = [("traceparent", f"00-{TRACE}-{SPAN}-01"), ("x-request-id", "my-request")]
    request_id, initial, trailing = generate(channel, metadata)
    assert request_id == initial["x-request-id"] == trailing["x-request-id"] == "my-request"
    assert initial["traceparent"] == trailing["traceparent"]
    trace, span, flags = TRACEPARENT.fullmatch(initial["traceparent"]).groups()
    assert trace == TRACE and span != SPAN and flags == "01", "the same trace, the gateway's own span"
    # The registry has no part in it; it has in what asks for a vector, and says the same ids when it refuses.
    with pytest.raises(grpc.RpcError) as refused:
        vector_pb2_grpc.VectorServiceStub(channel).GetVector(vector_pb2.GetVectorRequest(reference="none"), metadata=metadata)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert TRACE in dict(refused.value.trailing_metadata())["traceparent"]
    expected = set(SERVICES)
    assert eventually(lambda: services_that_logged(suite, trace_id=TRACE, request_id="my-request") == expected), \
        services_that_logged(suite, trace_id=TRACE)


def test_a_request_without_ids_is_given_some(suite, channel) -> None:
    ids = [generate(channel, []) for _ in range(2)]
    traces = [TRACEPARENT.fullmatch(initial["traceparent"]).group(1) for _, initial, _ in ids]
    assert traces[0] != traces[1] and ids[0][0] != ids[1][0]
    for trace, (request_id, _, _) in zip(traces, ids, strict=True):
        assert eventually(lambda: services_that_logged(suite, trace_id=trace, request_id=request_id)  # noqa: B023
                          == {"gateway", "shard_worker", "capture", "lens_decoder"})


@pytest.mark.parametrize("bad", ["", "rubbish", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01"])
def test_what_is_no_traceparent_begins_a_new_trace(channel, bad: str) -> None:
    _, initial, _ = generate(channel, [("traceparent", bad)])
    trace, span, _ = TRACEPARENT.fullmatch(initial["traceparent"]).groups()
    assert trace not in (TRACE, "0" * 32) and span != SPAN


def test_lines_have_both_ids_or_neither_and_no_prompt(suite, channel) -> None:
    generate(channel, [])
    for entry in lines(suite):
        assert ("request_id" in entry) == ("trace_id" in entry), entry
        assert PROMPT not in json.dumps(entry)
