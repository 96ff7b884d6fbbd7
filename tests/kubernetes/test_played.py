"""The cpu image, built from nothing, and the suite of k8s/overlays/cpu, played with podman and used from outside.

Only in tests/run --long: building takes minutes. Needs root, buildah, podman and debootstrap, no registry and no daemon.
"""

import ipaddress
import os
import pathlib
import signal
import time
import urllib.request
from collections.abc import Iterator

import exposition
import pytest
import yaml
from adapt import Adapter, PlayedPod
from container_tools import ContainerTools
from manifests import K8S, render
from outside import MODEL, check_capital, check_readings, generate, wait_until

NETWORK = "sextant-played"
SUBNET = ipaddress.IPv4Network("10.127.70.0/24")
# From the right of the suite to its left, so that little is asked for in vain.
ORDER = ["steering-registry", "capture", "shard-worker", "lens-decoder", "gateway"]


def answers(pod: PlayedPod, probe: str) -> bool:
    try:
        with urllib.request.urlopen(pod.url(probe), timeout=pod.probes[probe].get("timeoutSeconds", 1)) as response:
            return response.status == 200
    except OSError:
        return False


class Played:
    """The suite's pods as podman runs them."""

    def __init__(self, tools: ContainerTools, adapter: Adapter) -> None:
        self.tools = tools
        self.adapter = adapter
        self.pods: dict[str, PlayedPod] = {}

    def _file(self, pod: PlayedPod) -> str:
        return str(self.tools.folder / f"{pod.name}.yaml")

    def start(self, pod: PlayedPod) -> None:
        self.pods[pod.name] = pod
        pathlib.Path(self._file(pod)).write_text(yaml.safe_dump_all(pod.documents, sort_keys=False))
        self.tools.podman("kube", "play", "--network", NETWORK, "--ip", pod.address, self._file(pod))

    def stop(self, pod: PlayedPod) -> None:
        self.tools.podman("kube", "down", self._file(pod))
        del self.pods[pod.name]

    def gateway(self, name: str = "gateway-0") -> str:
        """Its address."""
        return f"{self.pods[name].address}:7700"

    def inspect(self, pod: PlayedPod, form: str) -> str:
        container = pod.documents[-1]["spec"]["containers"][0]["name"]
        return self.tools.podman("inspect", f"--format={{{{{form}}}}}", f"{pod.name}-{container}").strip()

    def logs(self) -> str:
        texts = []
        for pod in self.pods.values():
            container = pod.documents[-1]["spec"]["containers"][0]["name"]
            texts.append(f"== {pod.name}\n" + self.tools.podman("logs", "--tail", "20", f"{pod.name}-{container}"))
        return "\n".join(texts)


def metric(pod: PlayedPod, name: str) -> float:
    port = next(number for key, number in pod.ports.items() if key.startswith("http"))
    return exposition.value(exposition.scrape(port, str(pod.address)), name)


@pytest.fixture(scope="module")
def played(tools: ContainerTools, cpu_image: str) -> Iterator[Played]:
    adapter = Adapter(render(K8S / "overlays/cpu"), SUBNET, MODEL.parent)
    # What an interrupted run has left.
    tools.podman("pod", "rm", "--all", "--force", "--time", "1")
    tools.podman("volume", "prune", "--force")
    tools.podman("network", "rm", "--force", NETWORK)
    tools.podman("network", "create", "--disable-dns", "--subnet", str(SUBNET), NETWORK)
    suite = Played(tools, adapter)
    try:
        for workload in ORDER:
            for pod in adapter.pods(workload):
                suite.start(pod)
        yield suite
    finally:
        tools.podman("pod", "rm", "--all", "--force", "--time", "20", timeout_s=300)
        tools.podman("volume", "prune", "--force")
        tools.podman("network", "rm", "--force", NETWORK)


def test_every_pod_becomes_ready(played) -> None:
    for text in played.adapter.changes:
        print(f"\nchanged for podman: {text}", end="")
    for pod in played.pods.values():
        budget = pod.probes.get("startupProbe", {}).get("failureThreshold", 60) * pod.probes.get("startupProbe", {}).get("periodSeconds", 2)
        waited = wait_until(f"{pod.name} is ready\n{played.logs()}", lambda pod=pod: answers(pod, "readinessProbe"), min(budget, 300))
        print(f"\n{pod.name}: ready after {waited:.1f} s more", end="")
        assert answers(pod, "livenessProbe")


def test_containers_are_as_the_manifests_say(played) -> None:
    for pod in played.pods.values():
        assert played.inspect(pod, ".Config.User") == "10001:10001"
        assert played.inspect(pod, ".HostConfig.ReadonlyRootfs") == "true"
        limits = pod.documents[-1]["spec"]["containers"][0]["resources"]["limits"]
        assert int(played.inspect(pod, ".HostConfig.Memory")) == int(limits["memory"].removesuffix("Gi").removesuffix("Mi")) << (30 if "Gi" in limits["memory"] else 20)
        status = pathlib.Path(f"/proc/{played.inspect(pod, '.State.Pid')}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["10001"] * 4 and int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"] == "1", pod.name


@pytest.mark.parametrize("gateway", ["gateway-0", "gateway-1"])
def test_a_client_outside_gets_readings(played, gateway: str) -> None:
    check_capital(generate(played.gateway(gateway)))


def test_a_decoder_pod_comes_and_goes(played) -> None:
    second = played.adapter.pod("lens-decoder", 1)
    played.start(second)
    waited = wait_until("the second decoder is ready", lambda: answers(second, "readinessProbe"), 120)
    print(f"\na second decoder is ready after {waited:.1f} s", end="")

    def second_has_worked() -> bool:
        # Many more rows than one decoder holds at a time.
        check_readings(generate(played.gateway(), prompt="The capital of France is Paris. " * 40))
        return metric(second, "sextant_lens_rows_total") > 0

    wait_until("the second decoder gets work", second_has_worked, 120)
    played.stop(second)
    check_readings(generate(played.gateway()))


def test_an_engine_that_is_killed_comes_back(played) -> None:
    engine = played.pods["shard-worker-0"]
    before, pid = played.inspect(engine, ".RestartCount"), int(played.inspect(engine, ".State.Pid"))
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_until("the engine's container is started again", lambda: played.inspect(engine, ".RestartCount") != before, 60)
    wait_until(f"the engine is ready again\n{played.logs()}", lambda: answers(engine, "readinessProbe"), 300)
    for gateway in ("gateway-0", "gateway-1"):
        wait_until(f"{gateway} is ready again", lambda gateway=gateway: answers(played.pods[gateway], "readinessProbe"), 60)
    print(f"\nthe suite serves again {time.monotonic() - start:.1f} s after an engine was killed", end="")
    assert int(played.inspect(engine, ".State.Pid")) != pid
    check_readings(generate(played.gateway()))
