"""Renders kustomizations and finds the pods in them."""

import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"
# Overlays that are whole suites, and additions that are applied beside one.
SUITES = ["cpu", "gpu", "gpu-multi-node"]
ADDITIONS = ["keda", "hpa", "monitoring"]

Manifest = dict
COMPONENT = "app.kubernetes.io/component"


def render(folder: pathlib.Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    result = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        raise ValueError(f"{folder}: {result.stderr.strip()}")
    return [document for document in yaml.safe_load_all(result.stdout) if document]


@dataclasses.dataclass(frozen=True)
class PodTemplate:
    """A pod as some workload would make it."""

    name: str
    kind: str
    labels: dict
    spec: dict
    replicas: int

    @property
    def component(self) -> str:
        return self.labels.get(COMPONENT, "")

    def containers(self) -> list[dict]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pod_templates(manifests: list[Manifest]) -> Iterator[PodTemplate]:
    """Every pod template, of workloads and of LeaderWorkerSets, and bare pods."""
    for manifest in manifests:
        kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest.get("spec", {})
        if kind == "Pod":
            yield PodTemplate(name, kind, manifest["metadata"].get("labels", {}), spec, 1)
        elif kind == "LeaderWorkerSet":
            group = spec["leaderWorkerTemplate"]
            for part in ("leaderTemplate", "workerTemplate"):
                if part in group:
                    template = group[part]
                    yield PodTemplate(f"{name}/{part}", kind, template["metadata"].get("labels", {}), template["spec"], spec.get("replicas", 1))
        elif "template" in spec:
            yield PodTemplate(name, kind, spec["template"]["metadata"].get("labels", {}), spec["template"]["spec"], spec.get("replicas", 1))


def matches(selector: dict, labels: dict) -> bool:
    """Whether a LabelSelector (matchLabels and matchExpressions) accepts `labels`."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        present, value = rule["key"] in labels, labels.get(rule["key"])
        accepted = {"In": value in rule.get("values", []), "NotIn": value not in rule.get("values", []), "Exists": present, "DoesNotExist": not present}
        if not accepted[rule["operator"]]:
            return False
    return True
