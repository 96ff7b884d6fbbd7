"""deploy/compose.yaml keeps to the specification, to our policy, and to what the binaries and its own services know."""

import copy

import jsonschema
import pytest
import yaml
from command_line import ADDRESS_FLAGS, BINARIES, known_flags, opened_ports, settings
from manifests import ROOT
from policy import seconds
from schema import FIXTURES

COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SCRAPES = yaml.safe_load((ROOT / "deploy/prometheus/compose.yml").read_text())


def own(compose: dict) -> dict[str, tuple[str, dict[str, str], list[str]]]:
    """Our services: binary, flags, and what is wrong with the form of those."""
    services = {name: s for name, s in compose["services"].items() if s.get("command", [""])[0] in BINARIES}
    forms = {name: settings({"args": s["command"][1:], "env": [{"name": k, "value": str(v)} for k, v in s["environment"].items()]}, {}) for name, s in services.items()}
    return {name: (services[name]["command"][0], given, wrong) for name, (given, wrong) in forms.items()}


def service_problems(name: str, service: dict, compose: dict) -> list[str]:
    found = []
    if service.get("read_only") is not True or service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
        found.append("may do more than it needs")
    if service["image"].rpartition(":")[2] in ("latest", service["image"]):
        found.append("its image has no fixed tag")
    found += [f"port {port} is open to other machines" for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    # They replace the host's ports; a service's own SEXTANT_PORT is its --port.
    found += [f"port {port} hangs on a service's own variable" for port in service.get("ports", []) if "${SEXTANT_" in port]
    sources = [v.split(":")[0] for v in service.get("volumes", []) if isinstance(v, str)]
    found += [f"volume {s} is not declared" for s in sources if "/" not in s and s not in compose["volumes"]]
    found += [f"there is no {s}" for s in sources if s.startswith("./") and not (ROOT / "deploy" / s).exists()]
    return [f"{name}: {text}" for text in found]


def problems(compose: dict, scrapes: dict) -> list[str]:
    found = [f"{e.json_path}: {e.message}" for e in jsonschema.Draft202012Validator(FIXTURES["compose"]).iter_errors(compose)]
    for name, service in compose["services"].items():
        found += service_problems(name, service, compose)
    built = [service["image"] for service in compose["services"].values() if "build" in service]
    services = own(compose)
    if built != list({compose["services"][name]["image"] for name in services}):
        found.append("the image of our services is not built by exactly one of them")
    found += [f"{name}: its image might be pulled" for name in services if compose["services"][name].get("pull_policy") != "never"]
    if {binary for binary, _, _ in services.values()} != BINARIES:
        found.append("not all five services are there")
    ports: dict[str, set[int]] = {}
    for name, (binary, given, wrong) in services.items():
        unknown = [f"{name}: {binary} knows no flag --{flag}" for flag in given if flag not in known_flags(binary)]
        found += unknown + [f"{name}: {text}" for text in wrong]
        ports[name] = set() if unknown else opened_ports(binary, given)
        grace = seconds(compose["services"][name]["stop_grace_period"])
        if grace <= seconds(given.get("drain", "0s")) + 5:
            found.append(f"{name}: {grace} s of grace for a drain of {given['drain']}")
    for name, (_, given, _) in services.items():
        for flag in ADDRESS_FLAGS & given.keys():
            host, _, port = given[flag].rpartition(":")
            if int(port) not in ports.get(host, set()):
                found.append(f"{name}: --{flag}={given[flag]} is nobody's address")
    scraped = {target for job in scrapes["scrape_configs"] for group in job["static_configs"] for target in group["targets"]}
    scraped |= {f"{n}:{dns['port']}" for job in scrapes["scrape_configs"] for dns in job["dns_sd_configs"] for n in dns["names"]}
    wanted = {f"{name}:{port}" for name in services for port in ports[name] if port >= 8000}
    return found + [f"Prometheus and the suite differ in {target}" for target in sorted(scraped ^ wanted)]


def test_compose() -> None:
    assert not problems(COMPOSE, SCRAPES)


BROKEN = {
    "unknown key": ("comand", lambda c: c["services"]["gateway"].update(comand=[])),
    "unknown flag": ("no flag --dreams", lambda c: c["services"]["gateway"]["command"].append("--dreams=1")),
    "open port": ("open to other machines", lambda c: c["services"]["gateway"].update(ports=["7700:7700"])),
    "latest": ("no fixed tag", lambda c: c["services"]["grafana"].update(image="grafana/grafana")),
    "address": ("nobody's address", lambda c: c["services"]["lens-decoder"].update(command=["lens_decoder", "--capture=capture:7721"])),
    "writable": ("more than it needs", lambda c: c["services"]["capture"].update(read_only=False)),
    "another rank": ("Prometheus and the suite differ in shard-worker:8713", lambda c: c["services"]["shard-worker"]["command"].append("--ranks=3")),
    "short grace": ("of grace for a drain", lambda c: c["services"]["capture"].update(stop_grace_period="10s")),
    "nothing to mount": ("there is no ./dashboards", lambda c: c["services"]["grafana"]["volumes"].append("./dashboards:/d:ro")),
    "undeclared volume": ("is not declared", lambda c: c["volumes"].pop("captures")),
    "built twice": ("by exactly one", lambda c: c["services"]["capture"].update(build=c["services"]["gateway"]["build"])),
    "pulled": ("lens-decoder: its image might be pulled", lambda c: c["services"]["lens-decoder"].pop("pull_policy")),
    "a service's own port": ("own variable", lambda c: c["services"]["gateway"].update(ports=["127.0.0.1:${SEXTANT_PORT:-7700}:7700"])),
    "a service is missing": ("not all five", lambda c: c["services"].pop("steering-registry")),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(case: str) -> None:
    words, change = BROKEN[case]
    compose = copy.deepcopy(COMPOSE)
    change(compose)
    assert any(words in problem for problem in problems(compose, SCRAPES)), problems(compose, SCRAPES)
