"""Compares what manifests pass to a binary, and the ports they name, with what the binary knows and opens."""

import functools
import re
import subprocess

from manifests import ROOT, Manifest, PodTemplate, pod_templates

BINARIES = {"gateway", "shard_worker", "capture", "lens_decoder", "steering_registry"}
ADDRESS_FLAGS = {"workers", "capture", "registry"}
SET_BY_SUPERVISOR = {"rank", "group_fd", "epoch", "restarts"}


@functools.cache
def known_flags(binary: str) -> dict[str, str]:
    """Flags of a built binary with their defaults, as its --help tells them."""
    path = ROOT / "build/bin" / binary
    text = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=30).stdout
    return {name: default.strip().strip('"') for name, default in re.findall(r"^ +--(\w+) \(.*?\);\s+default:\s(.*?);", text, re.MULTILINE | re.DOTALL)}


def config_maps(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    return {m["metadata"]["name"]: m.get("data", {}) for m in manifests if m["kind"] == "ConfigMap"}


def settings(container: dict, maps: dict[str, dict[str, str]]) -> tuple[dict[str, str], list[str]]:
    """Flags that a container gets, from the environment and then the command line, and what is wrong with their form."""
    given, wrong = {}, []
    variables = {}
    for source in container.get("envFrom", []):
        name = source.get("configMapRef", {}).get("name")
        if name not in maps:
            wrong.append(f"there is no ConfigMap {name}")
        variables |= maps.get(name, {})
    variables |= {v["name"]: v.get("value", "") for v in container.get("env", [])}
    given |= {name.removeprefix("SEXTANT_").lower(): value for name, value in variables.items() if name.startswith("SEXTANT_")}
    for argument in container.get("args", []):
        form = re.fullmatch(r"--(\w+)=(.*)", argument, re.DOTALL)
        if form is None:
            wrong.append(f"argument {argument!r} is not --name=value")
        else:
            given[form[1]] = form[2]
    return given, wrong


def opened_ports(binary: str, given: dict[str, str]) -> set[int]:
    """The ports a service listens on with these flags."""
    values = known_flags(binary) | given
    ports = {int(values["port"])} if "port" in values else set()
    http = int(values["http_port"])
    if http == -1:
        http = int(values["port"]) + 1000
    ranks, hosts, host = (int(values.get(name, default)) for name, default in (("ranks", 1), ("nodes", 1), ("node_rank", 0)))
    own = range(ranks * host // hosts, ranks * (host + 1) // hosts)
    if hosts > 1:
        # Host 0 serves, and listens for the others at two ports.
        first = int(values["leader"].rpartition(":")[2])
        ports = ports | {first, first + 1} if host == 0 else set()
    return ports | {http + rank for rank in own}


def placed_in_group(pod: PodTemplate, arguments: dict[str, str]) -> dict[str, str]:
    """With the variables that a LeaderWorkerSet of two pods gives to the first pod of a group, or to the second."""
    index = "0" if pod.name.endswith("/leaderTemplate") else "1"
    values = {"$(LWS_GROUP_SIZE)": "2", "$(LWS_WORKER_INDEX)": index, "$(LWS_LEADER_ADDRESS)": "leader"}
    for variable, value in values.items():
        arguments = {name: text.replace(variable, value) for name, text in arguments.items()}
    return arguments


def address_problems(name: str, value: str, manifests: list[Manifest]) -> list[str]:
    """An address in a flag is the name of a Service, or of a pod of a headless one, with a port that it has."""
    services = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "Service"}
    sets = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] in ("StatefulSet", "LeaderWorkerSet")}
    # Their controller makes a headless Service of the same name.
    for name in (m["metadata"]["name"] for m in manifests if m["kind"] == "LeaderWorkerSet"):
        services[name] = {"clusterIP": "None", "ports": [{"port": 7710}]}
    found, pods = [], set()
    for address in value.split(","):
        host, _, port = address.rpartition(":")
        pod, _, service = host.rpartition(".")
        if service not in services:
            found.append(f"--{name}: there is no Service for {address}")
        elif int(port) not in [p["port"] for p in services[service]["ports"]]:
            found.append(f"--{name}: Service {service} has no port {port}")
        elif pod and services[service].get("clusterIP") != "None":
            found.append(f"--{name}: {address} needs a headless Service")
        pods.add(pod)
    if name == "workers" and "shard-worker" in sets:
        wanted = {f"shard-worker-{i}" for i in range(sets["shard-worker"].get("replicas", 1))}
        if pods != wanted:
            found.append(f"--workers names {sorted(pods)}; the pods are {sorted(wanted)}")
    return found


def container_problems(pod: PodTemplate, container: dict, manifests: list[Manifest]) -> list[str]:
    binary = container.get("command", [""])[0]
    if binary not in BINARIES:
        return [] if pod.component == "model-loader" else [f"{binary!r} is no service"]
    flags = known_flags(binary)
    given, found = settings(container, config_maps(manifests))
    if pod.kind == "LeaderWorkerSet":
        given = placed_in_group(pod, given)
    found += [f"{binary} knows no flag --{name}" for name in given if name not in flags or name in SET_BY_SUPERVISOR]
    if found:
        return found
    named = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
    opened = opened_ports(binary, given)
    if set(named.values()) != opened:
        found.append(f"names ports {sorted(named.values())} and opens {sorted(opened)}")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in container:
            port = container[probe]["httpGet"]["port"]
            if named.get(port, port) not in opened or not str(port).startswith("http"):
                found.append(f"{probe} asks port {port}, which speaks no HTTP")
    for name in ADDRESS_FLAGS & given.keys():
        found += address_problems(name, given[name], manifests)
    mounts = [m["mountPath"] for m in container.get("volumeMounts", [])]
    for name in ("model", "data_dir", "digest_cache_dir", "group_token_file"):
        if given.get(name) and not any(given[name] == m or given[name].startswith(m + "/") for m in mounts):
            found.append(f"--{name}={given[name]} is on no volume")
    return found


def service_problems(manifests: list[Manifest]) -> list[str]:
    """A Service's target is a port that its pods name."""
    pods = list(pod_templates(manifests))
    found = []
    for service in (m for m in manifests if m["kind"] == "Service"):
        for port in service["spec"]["ports"]:
            for pod in (p for p in pods if service["spec"]["selector"].items() <= p.labels.items()):
                names = {p["name"]: p["containerPort"] for c in pod.containers() for p in c.get("ports", [])}
                target = port.get("targetPort", port["port"])
                if names.get(target, target) not in names.values():
                    found.append(f"Service {service['metadata']['name']}: {pod.name} has no port {target}")
    return found


def command_line_problems(manifests: list[Manifest]) -> list[str]:
    """All of them, in words; empty when every flag is known, every port opened and every address somebody's."""
    found = []
    for pod in pod_templates(manifests):
        for container in pod.containers():
            found += [f"{pod.kind} {pod.name}: {text}" for text in container_problems(pod, container, manifests)]
    return found + service_problems(manifests)
