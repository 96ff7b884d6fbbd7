"""Reads NetworkPolicies as the graph of connections that they leave open."""

from manifests import Manifest, matches, pod_templates

# Who may open a connection to whom on which port; everything else is closed. "*" is anybody, and ns: another
# namespace, or of it the pods with a label.
EDGES = {
    ("*", "gateway", 7700),
    ("gateway", "shard-worker", 7710),
    ("gateway", "capture", 7720),
    ("gateway", "steering-registry", 7730),
    ("shard-worker", "capture", 7720),
    ("lens-decoder", "capture", 7720),
    ("gateway", "ns:kube-system/k8s-app=kube-dns", 53),
    ("shard-worker", "ns:kube-system/k8s-app=kube-dns", 53),
    ("lens-decoder", "ns:kube-system/k8s-app=kube-dns", 53),
}
# What an overlay opens beside them; 0 is every port.
ADDED_EDGES = {
    "gpu-multi-node": {("shard-worker", "shard-worker", 0)},
    "keda": {("ns:keda/app=keda-operator", "capture", 7720)},
    "hpa": set(),
    "monitoring": {
        ("ns:monitoring/app.kubernetes.io/name=prometheus", "gateway", 8700),
        ("ns:monitoring/app.kubernetes.io/name=prometheus", "shard-worker", 8711),
        ("ns:monitoring/app.kubernetes.io/name=prometheus", "shard-worker", 8712),
        ("ns:monitoring/app.kubernetes.io/name=prometheus", "capture", 8720),
        ("ns:monitoring/app.kubernetes.io/name=prometheus", "steering-registry", 8730),
        ("ns:monitoring/app.kubernetes.io/name=prometheus", "lens-decoder", 8740),
    },
}

Edge = tuple[str, str, int]


def open_connections(manifests: list[Manifest]) -> set[Edge]:
    """The edges that both ends allow. A pod that no policy selects in a direction is open in it, as Kubernetes has it."""
    policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
    templates = list(pod_templates(manifests))
    pods = {pod.component: pod for pod in templates}

    def numbers(component: str, port: dict) -> set[int]:
        """A named port is that of the pods that have it."""
        if isinstance(port["port"], int):
            return set(range(port["port"], port.get("endPort", port["port"]) + 1))
        containers = [c for pod in templates if pod.component == component for c in pod.containers()]
        return {p["containerPort"] for c in containers for p in c.get("ports", []) if p["name"] == port["port"]}

    def peers(rule_peers: list[dict] | None) -> set[str]:
        if not rule_peers:
            return {"*"}
        found = set()
        for peer in rule_peers:
            if "namespaceSelector" in peer:
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                chosen = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
                found.add("ns:" + peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] + (f"/{chosen}" if chosen else ""))
            else:
                found |= {name for name, pod in pods.items() if matches(peer["podSelector"], pod.labels)}
        return found

    def allowed(component: str, direction: str) -> set[tuple[str, int]]:
        """(peer, port) pairs; ("*", 0) when nothing restricts this direction. Port 0 is every port."""
        own = [p for p in policies if matches(p["podSelector"], pods[component].labels) and direction in p["policyTypes"]]
        if not own:
            return {("*", 0)}
        side = "from" if direction == "Ingress" else "to"
        pairs = set()
        for rule in (rule for policy in own for rule in policy.get(direction.lower(), [])):
            for peer in peers(rule.get(side)):
                # Ports are the receiver's.
                receiver = component if direction == "Ingress" else peer
                pairs |= {(peer, number) for port in rule.get("ports", [{"port": 0}]) for number in numbers(receiver, port)}
        return pairs

    def permits(pairs: set[tuple[str, int]], peer: str, port: int) -> bool:
        return any(p in (peer, "*") and n in (port, 0) for p, n in pairs)

    incoming = {name: allowed(name, "Ingress") for name in pods}
    outgoing = {name: allowed(name, "Egress") for name in pods}
    edges = set()
    for name in pods:
        for peer, port in incoming[name]:
            sources = pods if peer == "*" else [peer]
            edges |= {(source, name, port) for source in sources if source.startswith("ns:") or permits(outgoing[source], name, port)}
            if peer == "*":
                edges.add(("*", name, port))
        edges |= {(name, peer, port) for peer, port in outgoing[name] if peer == "*" or peer.startswith("ns:")}
    return {edge for edge in edges if edge[0] == "*" or ("*", *edge[1:]) not in edges}
