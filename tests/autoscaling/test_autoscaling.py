"""The capture service as an external scaler, as another program sees it, and decoders that come and go by it."""

import os
import queue
import subprocess
import threading
import time

import grpc
import plots
import pytest
import stepped_load
from autoscaler import SERVICE, Scaler
from suite import QUICKSTART_MODEL, ROOT, free_base_port
from wire import Wire


@pytest.fixture(scope="module")
def capture_address():
    """A capture service by itself."""
    port = free_base_port(31000)
    process = subprocess.Popen([ROOT / "build/bin/capture", f"--port={port}", "--http_port=0"], stderr=subprocess.DEVNULL)
    address = f"127.0.0.1:{port}"
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
    yield address
    process.terminate()
    assert process.wait(timeout=30) == 0


@pytest.fixture
def scaler(capture_address):
    scaler = Scaler(capture_address, {"rowsPerDecoder": "2500"})
    yield scaler
    scaler.close()


def test_metrics_have_targets_and_values(scaler) -> None:
    assert scaler.targets() == {"sextant-lens-rows": 2500.0, "sextant-lens-age": 30.0}
    assert {name: scaler.value(name) for name in scaler.targets()} == {"sextant-lens-rows": 0.0, "sextant-lens-age": 0.0}
    assert scaler.is_active() is False


def test_activity_is_said_at_once_and_ends_with_the_watcher(scaler) -> None:
    stream = scaler.stream_is_active()
    said: queue.Queue = queue.Queue()

    def listen() -> None:
        try:
            for message in stream:
                said.put(message.result)
        except grpc.RpcError as error:
            said.put(error.code())

    listener = threading.Thread(target=listen)
    listener.start()
    assert said.get(timeout=10) is False
    stream.cancel()
    assert said.get(timeout=10) == grpc.StatusCode.CANCELLED
    listener.join()


def test_the_metadata_is_checked(capture_address) -> None:
    scaler = Scaler(capture_address, {"rowsPerDecoder": "-1"})
    for call in (scaler.is_active, scaler.targets, lambda: scaler.value("sextant-lens-rows"), lambda: next(scaler.stream_is_active())):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "rowsPerDecoder must be a number from 1" in refused.value.details()
        assert b"SCALER_METADATA" in dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
    scaler.close()


def test_calls_of_later_contracts_are_unimplemented(capture_address) -> None:
    """KEDA asks for StreamMetricSpec, which is optional, and goes on without it only on this very code."""
    trigger = Wire("externalscaler/externalscaler.proto").message("externalscaler.ScaledObjectRef")
    with grpc.insecure_channel(capture_address) as channel:
        call = channel.unary_stream(f"/{SERVICE}/StreamMetricSpec", request_serializer=lambda m: m.SerializeToString())
        with pytest.raises(grpc.RpcError) as refused:
            next(call(trigger))
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_decoders_follow_a_stepped_load(make_cluster, tmp_path) -> None:
    """1 -> 4 -> 0 -> 2 decoders, real processes; every position in the result exactly once."""
    if not QUICKSTART_MODEL.exists():
        pytest.skip(f"{QUICKSTART_MODEL} is absent: deploy/setup model fetches it")
    long = os.environ.get("SEXTANT_TEST_SET") == "long"
    cluster = make_cluster(QUICKSTART_MODEL, ranks=1, decoders=0, dtype="bfloat16")
    begin = time.monotonic()
    report = stepped_load.run(cluster, stepped_load.LONG if long else stepped_load.SHORT, gather=True)
    print(f"stepped load took {time.monotonic() - begin:.1f} s")
    assert not stepped_load.check(report), report["steps"]
    assert all(step["wake_ms"] is not None for step in report["steps"])
    picture = tmp_path / "autoscale.svg"
    plots.autoscale(report, picture)
    first = picture.read_bytes()
    plots.autoscale(report, picture)
    assert picture.read_bytes() == first and b"<svg" in first


def test_a_lost_position_would_be_noticed() -> None:
    step = {"name": "s", "wrong_generations": [], "most_wanted": 2, "most_running": 2, "expected_decoders": 2}
    good = {"steps": [step], "failed_positions": 0.0, "samples": [[0.0, 0.0, 0]]}
    assert stepped_load.check(good) == []
    for bad in ({"steps": [{**step, "wrong_generations": [3]}]}, {"steps": [{**step, "most_wanted": 1}]}, {"steps": [{**step, "most_running": 1}]},
                {"failed_positions": 1.0}, {"samples": [[0.0, 0.0, 1]]}):
        assert len(stepped_load.check({**good, **bad})) == 1
