"""Whether a lens decoder's container has room for the head of its model."""

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


def size_problems(manifests: list[Manifest]) -> list[str]:
    """All of them, in words; empty when every decoder holds its head, in bfloat16 or float32, and something beside it."""
    found = []
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
