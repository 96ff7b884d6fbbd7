"""Whether containers have the GPUs that they use, and a lens decoder room for the head of its model."""

from command_line import config_maps, settings
from manifests import Manifest, pod_templates

# Vocabulary and hidden size of the models that overlays name, by file or folder.
HEADS = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": (49_152, 576),
    "Llama-3.1-70B-Instruct": (128_256, 8_192),
}
# For the process, gRPC and the batches that the streams hold.
BESIDE_THE_HEAD = 512 << 20
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def bytes_of(quantity: str) -> int:
    """Of a Kubernetes quantity with a binary unit, as all of ours have."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def gpu_problems(manifests: list[Manifest]) -> list[str]:
    """One GPU a rank and a decoder where --device says so, an image that can use it, a node that has it; else none."""
    found = []
    for pod in pod_templates(manifests):
        for container in pod.containers():
            given, _ = settings(container, config_maps(manifests))
            used = 0
            if given.get("device", "cpu") != "cpu":
                # A LeaderWorkerSet's groups are pairs of pods here.
                used = int(given.get("ranks", 1)) // (2 if "nodes" in given else 1)
                if not container["image"].rpartition(":")[0].endswith("sextant-gpu"):
                    found.append(f"{pod.name}: image {container['image']} has no CUDA")
                if not any(t["key"] == "nvidia.com/gpu" for t in pod.spec.get("tolerations", [])):
                    found.append(f"{pod.name}: does not tolerate the nodes that have GPUs")
            asked = container["resources"]["limits"].get("nvidia.com/gpu", 0)
            if asked != used:
                found.append(f"{pod.name}: asks for {asked} GPUs and uses {used}")
    for manifest in (m for m in manifests if m["kind"] == "Deployment"):
        surge = manifest["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge")
        if any("nvidia.com/gpu" in container["resources"]["limits"] for container in manifest["spec"]["template"]["spec"]["containers"]) and surge != 0:
            found.append(f"{manifest['metadata']['name']}: an upgrade wants a GPU more than there are pods (maxSurge)")
    return found


def size_problems(manifests: list[Manifest]) -> list[str]:
    """All of them, in words; empty when every decoder holds its head, in bfloat16 or float32, and something beside it."""
    found = gpu_problems(manifests)
    for pod in (p for p in pod_templates(manifests) if p.component == "lens-decoder"):
        for container in pod.containers():
            given, _ = settings(container, config_maps(manifests))
            model = given["model"].rpartition("/")[2]
            if model not in HEADS:
                found.append(f"{pod.name}: nobody knows the head of {model}")
                continue
            vocabulary, hidden = HEADS[model]
            needed = vocabulary * hidden * (4 if given.get("dtype") == "float32" else 2) + BESIDE_THE_HEAD
            limit = container["resources"]["limits"]["memory"]
            if bytes_of(limit) < needed:
                found.append(f"{pod.name}: {limit} of memory, and the head of {model} wants {needed / (1 << 30):.1f} GiB")
    return found
