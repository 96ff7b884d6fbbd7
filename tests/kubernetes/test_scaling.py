"""The capture service understands what the KEDA overlay sends it, and has the metrics that the autoscaler's rule reads."""

import json
import re
import subprocess
from collections.abc import Iterator

import exposition
import grpc
import pytest
import yaml
from manifests import K8S, ROOT, Manifest, render
from wire import Wire


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Of a capture service that runs for this test."""
    command = [ROOT / "build/bin/capture", "--port=0", "--http_port=0", "--log_format=json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                entry = json.loads(line)
                if entry.get("message") == "serving":
                    yield {name: int(entry[name]) for name in ("port", "http_port")}
                    break
            else:
                pytest.fail("the capture service ended without serving")
        finally:
            process.terminate()


def trigger() -> dict[str, str]:
    scaled = next(m for m in render(K8S / "overlays/keda") if m["kind"] == "ScaledObject")
    return scaled["spec"]["triggers"][0]["metadata"]


def metric_names(port: int, metadata: dict[str, str]) -> list[str]:
    """GetMetricSpec as KEDA calls it."""
    wire = Wire("externalscaler/externalscaler.proto")
    scaled = wire.message("externalscaler.ScaledObjectRef", name="lens-decoder", namespace="sextant", scalerMetadata=metadata)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        specs = wire.method(channel, "externalscaler.ExternalScaler", "GetMetricSpec")(scaled, timeout=10).metricSpecs
    return [spec.metricName for spec in specs]


def test_capture_understands_the_trigger(ports) -> None:
    assert metric_names(ports["port"], trigger()) == ["sextant-lens-rows", "sextant-lens-age"]


@pytest.mark.parametrize("wrong", [{"rowsPerDecoders": "10"}, {"rowsPerDecoder": "many"}])
def test_capture_refuses_a_wrong_trigger(ports, wrong: dict[str, str]) -> None:
    with pytest.raises(grpc.RpcError) as error:
        metric_names(ports["port"], trigger() | wrong)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_adapters_rule_reads_metrics_that_there_are(ports) -> None:
    rule = yaml.safe_load((K8S / "overlays/hpa/prometheus-adapter-values.yaml").read_text())["rules"]["external"][0]
    there = set(exposition.families(exposition.scrape(ports["http_port"])))
    read = set(re.findall(r"\bsextant_\w+", rule["seriesQuery"] + rule["metricsQuery"]))
    assert read and read <= there
    scaler: Manifest = next(m for m in render(K8S / "overlays/hpa") if m["kind"] == "HorizontalPodAutoscaler")
    assert rule["name"]["as"] == scaler["spec"]["metrics"][0]["external"]["metric"]["name"]
