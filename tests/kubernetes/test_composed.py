"""deploy/compose.yaml, brought up with podman-compose, used from outside, watched by its Prometheus, and taken down.

Only in tests/run --long: it wants the cpu image. The lines "changed for this machine" say what stands in for what.
"""

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest
import yaml
from container_tools import PODMAN_COMPOSE, PROMETHEUS_IMAGE, ROOT, ContainerError, ContainerTools
from outside import MODEL, check_capital, generate, wait_until
from suite import free_base_port

COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
RULES = [rule for path in (ROOT / "deploy/prometheus/rules").iterdir() for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
CHECKED = [name for name, service in COMPOSE["services"].items() if "healthcheck" in service]
SCRAPES = yaml.safe_load((ROOT / "deploy/prometheus/compose.yml").read_text())["scrape_configs"]
# Every process but lens decoders, whose names are addresses.
NAMED = {target for job in SCRAPES for group in job["static_configs"] for target in group["targets"]}
TIMEOUT_S = 300
FIRST_PORT = 26200
PROMETHEUS_OFFSET = 2000
CHANGES = ["grafana: not started (no package of it to make an image of)",
           "prometheus: an image made of Debian's package of it, an older release",
           "ports: free ones instead of 7700 and 9090",
           "healthchecks: run by this test, at its own times (podman has systemd's timers do it)"]


class Composed:
    """The suite as podman-compose runs it."""

    def __init__(self, tools: ContainerTools) -> None:
        self.tools = tools
        self.port = free_base_port(FIRST_PORT, (PROMETHEUS_OFFSET,))
        changed = tools.folder / "composed.yaml"
        changed.write_text(yaml.safe_dump({"services": {"prometheus": {"image": PROMETHEUS_IMAGE}}}))
        self.files = [ROOT / "deploy/compose.yaml", changed]
        self.variables = {"SEXTANT_MODELS": str(MODEL.parent), "GATEWAY_PORT": str(self.port), "PROMETHEUS_PORT": str(self.port + PROMETHEUS_OFFSET)}

    def up(self, *options: str) -> None:
        services = [name for name in COMPOSE["services"] if name != "grafana"]
        self.tools.compose(self.variables, self.files, "up", "--detach", "--no-build", *options, *services)

    def down(self) -> None:
        # podman-compose takes what was scaled up for orphans; Docker's does not.
        self.tools.compose(self.variables, self.files, "down", "--volumes", "--remove-orphans")

    def generate(self) -> None:
        check_capital(generate(f"127.0.0.1:{self.port}"))

    def prometheus(self, path: str, **parameters: str) -> dict:
        url = f"http://127.0.0.1:{self.port + PROMETHEUS_OFFSET}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def scraped(self) -> list[str]:
        """The hosts of the targets whose last scrape went well."""
        try:
            targets = self.prometheus("targets")["activeTargets"]
        except OSError:
            return []
        return [target["labels"]["instance"] for target in targets if target["health"] == "up"]

    def wait_scraped(self, decoders: int) -> None:
        """Waits until every process is scraped, and so many lens decoders."""

        def all_scraped() -> bool:
            up = self.scraped()
            return set(up) > NAMED and len(up) == len(NAMED) + decoders

        wait_until(f"every process is scraped, {decoders} of them lens decoders", all_scraped, TIMEOUT_S)

    def recorded(self, name: str) -> float:
        """The sum of what a rule has recorded; 0 before it has."""
        try:
            return sum(float(series["value"][1]) for series in self.prometheus("query", query=name)["result"])
        except OSError:
            return 0

    def rules(self) -> dict[str, str]:
        """Every rule's health by its name; none while Prometheus does not answer."""
        try:
            groups = self.prometheus("rules")["groups"]
        except OSError:
            return {}
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def healthy(self, service: str) -> bool:
        try:
            self.tools.podman("healthcheck", "run", f"sextant_{service}_1")
        except ContainerError:
            return False
        return f"sextant_{service}_1" in self.tools.podman("ps", "--filter=health=healthy", "--format={{.Names}}").split()

    def left(self) -> list[str]:
        kinds = {"ps": "{{.Names}}", "volume": "{{.Name}}", "network": "{{.Name}}", "pod": "{{.Name}}"}
        listed = {kind: ["ps", "--all"] if kind == "ps" else [kind, "ls"] for kind in kinds}
        names = [name for kind, form in kinds.items() for name in self.tools.podman(*listed[kind], f"--format={form}").split()]
        return [name for name in names if "sextant" in name]


@pytest.fixture(scope="module")
def composed(tools: ContainerTools, cpu_image: str) -> Iterator[Composed]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (deploy/setup packages test)")
    if not PODMAN_COMPOSE.exists():
        pytest.skip("podman-compose is not installed (deploy/setup venv test)")
    tools.make_prometheus()
    suite = Composed(tools)
    suite.down()  # what an interrupted run has left
    for text in CHANGES:
        print(f"\nchanged for this machine: {text}", end="")
    try:
        suite.up()
        yield suite
    finally:
        suite.down()


def test_every_healthcheck_passes_and_could_fail(composed) -> None:
    assert len(CHECKED) == 5
    for service in CHECKED:
        waited = wait_until(f"{service} is healthy", lambda service=service: composed.healthy(service), TIMEOUT_S)
        print(f"\n{service}: healthy after {waited:.1f} s more", end="")
        with pytest.raises(ContainerError):
            composed.tools.podman("exec", "--env=SEXTANT_HTTP_PORT=1", f"sextant_{service}_1", *COMPOSE["services"][service]["healthcheck"]["test"][1:])


def test_volumes_belong_to_the_services(composed) -> None:
    for service in CHECKED:
        for volume in (v for v in COMPOSE["services"][service]["volumes"] if isinstance(v, str)):
            composed.tools.podman("exec", f"sextant_{service}_1", "test", "-O", volume.split(":")[1])


def test_a_client_outside_gets_readings(composed) -> None:
    composed.generate()


def test_prometheus_scrapes_every_process_and_records(composed) -> None:
    composed.wait_scraped(decoders=1)
    # Only what rises between two scrapes has a rate.
    composed.generate()
    wait_until("a rate is recorded", lambda: composed.recorded("sextant:generate_requests:rate5m") > 0, TIMEOUT_S)
    rules: dict[str, str] = {}

    def evaluated() -> bool:
        rules.update(composed.rules())
        return bool(rules) and "unknown" not in rules.values()

    wait_until("every rule has been evaluated", evaluated, TIMEOUT_S)
    assert rules == {rule.get("record", rule.get("alert")): "ok" for rule in RULES}


def test_a_second_decoder_comes_and_is_scraped(composed) -> None:
    composed.wait_scraped(decoders=1)
    composed.up("--scale=lens-decoder=2")
    composed.wait_scraped(decoders=2)
    composed.generate()


def test_down_leaves_nothing(composed) -> None:
    assert composed.left()
    composed.down()
    assert composed.left() == []
