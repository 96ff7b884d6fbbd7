"""Rewrites a rendered suite into what `podman kube play` knows: pods, claims and ConfigMaps. Says what it changed."""

import copy
import dataclasses
import ipaddress
import pathlib

from manifests import Manifest

DROPPED_FROM_PODS = ("topologySpreadConstraints", "automountServiceAccountToken", "enableServiceLinks")
# In some form or other.
PLAYED_KINDS = ("ConfigMap", "Deployment", "PersistentVolumeClaim", "Service", "StatefulSet")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@dataclasses.dataclass
class PlayedPod:
    """One pod to play: `documents` are its manifest and what it needs, `probes` what a kubelet would ask its container."""

    name: str
    component: str
    address: str
    documents: list[Manifest]
    probes: dict[str, dict]
    ports: dict[str, int]

    def url(self, probe: str) -> str:
        get = self.probes[probe]["httpGet"]
        return f"http://{self.address}:{self.ports.get(get['port'], get['port'])}{get['path']}"


class Adapter:
    """Gives every pod an address of `network` and every volume a place; `models` stands for the claim of that name."""

    def __init__(self, manifests: list[Manifest], network: ipaddress.IPv4Network, models: pathlib.Path) -> None:
        self.manifests = manifests
        self.models = models
        self.changes: dict[str, None] = {}
        left_out = sorted({m["kind"] for m in manifests} - set(PLAYED_KINDS))
        self._changed(f"{', '.join(left_out)}: not played (podman enforces none of them)")
        # The first address is the bridge's own.
        self._free = iter(list(network.hosts())[9:])
        self._addresses: dict[str, str] = {}
        self.workloads = {m["metadata"]["name"]: m for m in manifests if m["kind"] in ("Deployment", "StatefulSet")}
        for name, workload in self.workloads.items():
            for index in range(workload["spec"].get("replicas", 1)):
                self.address(f"{name}-{index}")

    def address(self, pod: str) -> str:
        if pod not in self._addresses:
            self._addresses[pod] = str(next(self._free))
        return self._addresses[pod]

    def _changed(self, text: str) -> None:
        self.changes[text] = None

    def _host_aliases(self) -> list[dict]:
        """What a cluster's DNS would answer: one address a Service, and the pods' own names behind a headless one."""
        aliases = []
        for service in (m for m in self.manifests if m["kind"] == "Service"):
            name = service["metadata"]["name"]
            behind = [pod for pod in self._addresses if pod.rsplit("-", 1)[0] == name]
            if service["spec"].get("clusterIP") == "None":
                aliases += [{"ip": self._addresses[pod], "hostnames": [f"{pod}.{name}"]} for pod in behind]
            elif behind:
                aliases.append({"ip": self._addresses[behind[0]], "hostnames": [name]})
        self._changed("Services: their names are in each pod's hostAliases, for the first pod behind them (podman has no Services)")
        return aliases

    def _volume(self, volume: dict, pod: str, claims: list[Manifest]) -> dict:
        name = volume["name"]
        if volume.get("persistentVolumeClaim", {}).get("claimName") == "models":
            self._changed(f"claim models: the folder {self.models}")
            return {"name": name, "hostPath": {"path": str(self.models), "type": "Directory"}}
        if "emptyDir" in volume:
            self._changed("emptyDir: a claim of the pod's own (this podman has no emptyDir)")
            claims.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"{name}-{pod}"},
                           "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}})
            return {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{pod}"}}
        return volume

    def pods(self, workload: str) -> list[PlayedPod]:
        return [self.pod(workload, index) for index in range(self.workloads[workload]["spec"].get("replicas", 1))]

    def pod(self, workload: str, index: int) -> PlayedPod:
        """The pod of that number of a workload, as its controller would make it."""
        manifest = self.workloads[workload]
        name = f"{workload}-{index}"
        self._changed(f"{manifest['kind']}: its pods, written out")
        spec = copy.deepcopy(manifest["spec"]["template"]["spec"])
        metadata = copy.deepcopy(manifest["spec"]["template"]["metadata"]) | {"name": name}
        metadata.pop("namespace", None)
        claims: list[Manifest] = []
        volumes = [self._volume(volume, name, claims) for volume in spec.get("volumes", [])]
        for template in manifest["spec"].get("volumeClaimTemplates", []):
            claim = f"{template['metadata']['name']}-{name}"
            claims.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": template["spec"]})
            volumes.append({"name": template["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}})
        spec["volumes"] = volumes
        spec["hostAliases"] = self._host_aliases()
        spec["hostname"] = name
        for key in [key for key in DROPPED_FROM_PODS if key in spec]:
            del spec[key]
            self._changed(f"{key}: left out (no scheduler, no API server)")
        container = spec["containers"][0]
        container["image"] = f"localhost/{container['image']}"
        probes = {probe: container.pop(probe) for probe in PROBES if probe in container}
        self._changed("probes: asked by this test as a kubelet would (podman runs them with curl inside the image and systemd timers)")
        if container.pop("lifecycle", None):
            self._changed("preStop: left out (podman has no hooks)")
        ports = {p["name"]: p["containerPort"] for p in container.pop("ports", [])}
        self._changed("container ports: left out (podman would open them on this machine; the pods have addresses)")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        maps = [m for m in self.manifests if m["kind"] == "ConfigMap"]
        return PlayedPod(name, workload, self.address(name), [*maps, *claims, pod], probes, ports)
