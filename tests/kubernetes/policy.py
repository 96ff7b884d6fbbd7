"""What every pod of ours must have: probes, limits, a security context, a way to end; and selectors that find something."""

import re

from manifests import COMPONENT, Manifest, PodTemplate, matches, pod_templates

# They only serve a person's `kubectl cp`: nothing to probe.
WITHOUT_PROBES = {"model-loader"}
LOADS_A_MODEL = {"shard-worker"}
SECRET_WORD = re.compile(r"TOKEN|PASSWORD|SECRET|CREDENTIAL|API_KEY", re.IGNORECASE)


def seconds(text: str) -> float:
    """Of an absl duration as flags spell it: 90s, 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration")
    return sum(float(number) * units[unit] for number, unit in parts)


def flags(container: dict) -> dict[str, str]:
    """--name=value arguments by name."""
    pairs = (argument.lstrip("-").split("=", 1) for argument in container.get("args", []))
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def container_problems(pod: PodTemplate, container: dict) -> list[str]:
    found = []
    where = f"{pod.kind} {pod.name}, container {container['name']}"
    wanted = [] if pod.component in WITHOUT_PROBES else ["readinessProbe", "livenessProbe"]
    if pod.component in LOADS_A_MODEL:
        wanted.append("startupProbe")
    found += [f"{where}: no {probe}" for probe in wanted if probe not in container]
    resources = container.get("resources", {})
    for bound in ("requests", "limits"):
        for what in ("cpu", "memory"):
            if what not in resources.get(bound, {}):
                found.append(f"{where}: no {bound} of {what}")
    # Memory that is not promised is memory that the node takes back by killing.
    if resources.get("requests", {}).get("memory") != resources.get("limits", {}).get("memory"):
        found.append(f"{where}: memory requests and limits differ")
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        found.append(f"{where}: may gain privileges")
    if security.get("readOnlyRootFilesystem") is not True:
        found.append(f"{where}: may write to its image")
    if security.get("capabilities", {}).get("drop") != ["ALL"] or security.get("capabilities", {}).get("add"):
        found.append(f"{where}: keeps capabilities")
    tag = container["image"].rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest") and "@sha256:" not in container["image"]:
        found.append(f"{where}: image {container['image']} has no fixed tag")
    for variable in container.get("env", []):
        if "value" in variable and SECRET_WORD.search(variable["name"]):
            found.append(f"{where}: {variable['name']} is written out; refer to a Secret")
    return found


def pod_problems(pod: PodTemplate) -> list[str]:
    found = []
    where = f"{pod.kind} {pod.name}"
    security = pod.spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        found.append(f"{where}: may run as root")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append(f"{where}: no seccomp profile")
    if pod.spec.get("automountServiceAccountToken") is not False:
        found.append(f"{where}: gets a token of the API server that it does not need")
    if pod.spec.get("enableServiceLinks") is not False:
        found.append(f"{where}: variables of Services may be taken for flags")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            found.append(f"{where}: {key}")
    volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
    for container in pod.containers():
        found += container_problems(pod, container)
        used = {mount["name"] for mount in container.get("volumeMounts", [])}
        if pod.kind != "StatefulSet" and used - volumes:
            found.append(f"{where}: mounts {sorted(used - volumes)}, which are no volumes")
        found += grace_problems(pod, container)
    return found


def grace_problems(pod: PodTemplate, container: dict) -> list[str]:
    """Ending takes preStop, then --drain, then for a group the supervisor's five seconds more."""
    drain = flags(container).get("drain")
    if drain is None:
        return []
    before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    needed = seconds(drain) + (float(before[1]) if before[:1] == ["sleep"] else 0) + 5
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    return [] if grace > needed else [f"{pod.kind} {pod.name}: {grace} s of grace for {needed} s of draining"]


def selector_problems(manifests: list[Manifest], pods: list[PodTemplate]) -> list[str]:
    """A selector that finds nothing is a policy, a Service or a budget that does nothing."""
    found = []

    def check(where: str, selector: dict) -> None:
        if not any(matches(selector, pod.labels) for pod in pods):
            found.append(f"{where}: its selector {selector} finds no pod")

    for manifest in manifests:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        where = f"{kind} {manifest['metadata']['name']}"
        if kind == "Service":
            check(where, {"matchLabels": spec["selector"]})
        elif kind in ("Deployment", "StatefulSet"):
            if not matches(spec["selector"], spec["template"]["metadata"]["labels"]):
                found.append(f"{where}: does not select its own pods")
        elif kind in ("PodDisruptionBudget", "PodMonitor"):
            check(where, spec["selector"])
        elif kind in ("ScaledObject", "HorizontalPodAutoscaler"):
            target = spec["scaleTargetRef"]
            scaled = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (target["kind"], target["name"])]
            if not scaled:
                found.append(f"{where}: there is no {target['kind']} {target['name']}")
            found += [f"{where}: every kubectl apply would reset the replicas of {target['name']}" for m in scaled if "replicas" in m["spec"]]
        elif kind == "NetworkPolicy":
            check(where, spec["podSelector"])
            for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
                for peer in [*rule.get("from", []), *rule.get("to", [])]:
                    if "podSelector" in peer and "namespaceSelector" not in peer:
                        check(where, peer["podSelector"])
    for pod in pods:
        for constraint in pod.spec.get("topologySpreadConstraints", []):
            if not matches(constraint["labelSelector"], pod.labels):
                found.append(f"{pod.kind} {pod.name}: spreads pods that are not its own")
    return found


def budget_problems(manifests: list[Manifest], pods: list[PodTemplate]) -> list[str]:
    """What may have several pods is spread, and never evicted all at once."""
    budgets = [m["spec"]["selector"] for m in manifests if m["kind"] == "PodDisruptionBudget"]
    found = []
    for pod in pods:
        if pod.component not in ("gateway", "shard-worker", "lens-decoder"):
            continue
        if not any(matches(selector, pod.labels) for selector in budgets):
            found.append(f"{pod.kind} {pod.name}: no disruption budget")
        if pod.kind != "LeaderWorkerSet" and not pod.spec.get("topologySpreadConstraints"):
            found.append(f"{pod.kind} {pod.name}: no topology spread")
    return found


def policy_problems(manifests: list[Manifest]) -> list[str]:
    """All of them, in words; empty when all is well."""
    pods = list(pod_templates(manifests))
    found = [problem for pod in pods for problem in pod_problems(pod)]
    found += [f"{pod.kind} {pod.name}: no label {COMPONENT}" for pod in pods if not pod.component]
    return found + selector_problems(manifests, pods) + budget_problems(manifests, pods)
