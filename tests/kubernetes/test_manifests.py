"""Every overlay is rendered and held to schemas, to our policy, to the network's edges and to what the binaries know.

Each check is also shown a broken manifest that it must refuse.
"""

import copy
import runpy
import shutil
from collections.abc import Callable

import pytest
import yaml
from command_line import command_line_problems
from manifests import ADDITIONS, K8S, SUITES, Manifest, pod_templates, render
from network import ADDED_EDGES, EDGES, open_connections
from policy import policy_problems
from schema import schema_problems
from sizes import size_problems

OVERLAYS = K8S / "overlays"


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    return {name: render(OVERLAYS / name) for name in [*SUITES, *ADDITIONS]}


@pytest.fixture(scope="session")
def overlays(rendered) -> dict[str, list[Manifest]]:
    """Every suite alone, and with each addition that is applied beside it."""
    pairs = {f"{suite}+{added}": rendered[suite] + rendered[added] for suite in SUITES for added in ADDITIONS}
    return {name: rendered[name] for name in SUITES} | pairs


def network_problems(manifests: list[Manifest], added: str | None = None) -> list[str]:
    found, wanted = open_connections(manifests), EDGES | ADDED_EDGES.get(added, set())
    return [f"open: {edge}" for edge in sorted(found - wanted)] + [f"closed: {edge}" for edge in sorted(wanted - found)]


def of(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    return next(m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)


def container(manifests: list[Manifest], kind: str, name: str) -> dict:
    return of(manifests, kind, name)["spec"]["template"]["spec"]["containers"][0]


def test_every_overlay_is_looked_at() -> None:
    assert {path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml")} == {*SUITES, *ADDITIONS}


def test_schemas(rendered) -> None:
    problems = {name: schema_problems(manifests) for name, manifests in rendered.items()}
    assert not any(problems.values()), problems


def test_policy(overlays) -> None:
    problems = {name: policy_problems(manifests) for name, manifests in overlays.items()}
    assert not any(problems.values()), problems


def test_command_lines(overlays) -> None:
    problems = {name: command_line_problems(manifests) for name, manifests in overlays.items()}
    assert not any(problems.values()), problems


def test_decoders_hold_their_head_and_gpus_are_asked_for(overlays) -> None:
    problems = {name: size_problems(manifests) for name, manifests in overlays.items()}
    assert not any(problems.values()), problems


def test_network_allows_exactly_the_edges(overlays) -> None:
    problems = {name: network_problems(overlays[name], name) for name in SUITES}
    problems |= {f"cpu+{name}": network_problems(overlays[f"cpu+{name}"], name) for name in ADDITIONS}
    assert not any(problems.values()), problems


def test_rules_are_those_of_the_prometheus_folder() -> None:
    folder = OVERLAYS / "monitoring"
    made = runpy.run_path(str(folder / "generate.py"))["prometheus_rule"]()
    assert (folder / "prometheus-rule.yaml").read_text() == made, "run python k8s/overlays/monitoring/generate.py"
    alerts = {rule["alert"] for group in yaml.safe_load(made)["spec"]["groups"] for rule in group["rules"] if "alert" in rule}
    assert "SextantTargetDown" in alerts


def test_model_loader(overlays) -> None:
    loader = [m for m in yaml.safe_load_all((K8S / "model-loader/pod.yaml").read_text()) if m]
    assert not schema_problems(loader) + policy_problems(loader)
    assert loader[0]["metadata"]["namespace"] == of(overlays["cpu"], "Namespace", "sextant")["metadata"]["name"]
    claims = {m["metadata"]["name"] for m in overlays["cpu"] if m["kind"] == "PersistentVolumeClaim"}
    assert {v["persistentVolumeClaim"]["claimName"] for v in loader[0]["spec"]["volumes"]} <= claims
    assert {c["image"] for c in loader[0]["spec"]["containers"]} <= {c["image"] for p in pod_templates(overlays["cpu"]) for c in p.containers()}


@pytest.mark.parametrize("suite", SUITES)
def test_an_image_of_the_users_own_reaches_every_container(suite: str, tmp_path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    folder = tmp_path / "k8s/overlays" / suite
    images = [{"name": name, "newName": f"registry.example/{name}"} for name in ("sextant", "sextant-gpu")]
    (folder / "kustomization.yaml").write_text((folder / "kustomization.yaml").read_text() + yaml.safe_dump({"images": images}))
    used = {container["image"] for pod in pod_templates(render(folder)) for container in pod.containers()}
    assert used and all(image.startswith("registry.example/") for image in used), used


def drop(*path: str) -> Callable[[dict], None]:
    def change(container: dict) -> None:
        for key in path[:-1]:
            container = container[key]
        del container[path[-1]]

    return change


# What is wrong, in which check it must show, and how it is made.
BROKEN_CONTAINERS = {
    "no readiness": (policy_problems, "no readinessProbe", drop("readinessProbe")),
    "no liveness": (policy_problems, "no livenessProbe", drop("livenessProbe")),
    "no memory limit": (policy_problems, "no limits of memory", drop("resources", "limits", "memory")),
    "no security context": (policy_problems, "keeps capabilities", drop("securityContext")),
    "writable root": (policy_problems, "may write to its image", lambda c: c["securityContext"].update(readOnlyRootFilesystem=False)),
    "tag latest": (policy_problems, "no fixed tag", lambda c: c.update(image="sextant:latest")),
    "no tag": (policy_problems, "no fixed tag", lambda c: c.update(image="registry.example:5000/sextant")),
    "secret written out": (policy_problems, "refer to a Secret", lambda c: c.update(env=[{"name": "API_TOKEN", "value": "x"}])),
    "long drain": (policy_problems, "of grace for", lambda c: c["args"].append("--drain=5m")),
    "unknown field": (schema_problems, "readinesProbe", lambda c: c.update(readinesProbe={})),
    "wrong type": (schema_problems, "containerPort", lambda c: c["ports"][0].update(containerPort="grpc")),
    "unknown flag": (command_line_problems, "no flag --max_dreams", lambda c: c["args"].append("--max_dreams=1")),
    "unknown variable": (command_line_problems, "no flag --dreams", lambda c: c.update(env=[{"name": "SEXTANT_DREAMS", "value": "1"}])),
    "supervisor's flag": (command_line_problems, "no flag --rank", lambda c: c["args"].append("--rank=0")),
    "other port": (command_line_problems, "opens", lambda c: c["args"].append("--port=7999")),
    "probe of gRPC": (command_line_problems, "speaks no HTTP", lambda c: c["readinessProbe"]["httpGet"].update(port="grpc")),
    "data on no volume": (command_line_problems, "is on no volume", lambda c: c["args"].append("--digest_cache_dir=/nowhere")),
}


@pytest.mark.parametrize("case", BROKEN_CONTAINERS)
def test_a_broken_container_is_refused(overlays, case: str) -> None:
    check, words, change = BROKEN_CONTAINERS[case]
    manifests = copy.deepcopy(overlays["cpu"])
    change(container(manifests, "StatefulSet", "shard-worker"))
    assert any(words in problem for problem in check(manifests)), check(manifests)


def without_edge(manifests: list[Manifest]) -> None:
    manifests.remove(of(manifests, "NetworkPolicy", "lens-decoder"))


def without_deny(manifests: list[Manifest]) -> None:
    manifests.remove(of(manifests, "NetworkPolicy", "deny-all"))


def open_capture(manifests: list[Manifest]) -> None:
    of(manifests, "NetworkPolicy", "capture")["spec"]["ingress"][0].pop("from")


def open_to_all_of_keda(manifests: list[Manifest]) -> None:
    of(manifests, "NetworkPolicy", "keda")["spec"]["ingress"][0]["from"][0].pop("podSelector")


def rename_selected(manifests: list[Manifest]) -> None:
    of(manifests, "Service", "capture")["spec"]["selector"]["app.kubernetes.io/component"] = "captures"


def without_budget(manifests: list[Manifest]) -> None:
    manifests.remove(of(manifests, "PodDisruptionBudget", "gateway"))


def as_root(manifests: list[Manifest]) -> None:
    of(manifests, "Deployment", "gateway")["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] = False


def two_engines(manifests: list[Manifest]) -> None:
    of(manifests, "StatefulSet", "shard-worker")["spec"]["replicas"] = 2


def moved_service(manifests: list[Manifest]) -> None:
    of(manifests, "Service", "steering-registry")["spec"]["ports"][0]["port"] = 7731


def other_target(manifests: list[Manifest]) -> None:
    of(manifests, "ScaledObject", "lens-decoder")["spec"]["scaleTargetRef"]["name"] = "lens-decoders"


def fixed_replicas(manifests: list[Manifest]) -> None:
    of(manifests, "Deployment", "lens-decoder")["spec"]["replicas"] = 2


def wrong_trigger(manifests: list[Manifest]) -> None:
    del of(manifests, "ScaledObject", "lens-decoder")["spec"]["triggers"][0]["metadata"]["scalerAddress"]


def small_decoder(manifests: list[Manifest]) -> None:
    container(manifests, "Deployment", "lens-decoder")["resources"]["limits"]["memory"] = "512Mi"


def exact_decoder(manifests: list[Manifest]) -> None:
    container(manifests, "Deployment", "lens-decoder")["args"].append("--dtype=float32")


def decoder_without_gpu(manifests: list[Manifest]) -> None:
    del container(manifests, "Deployment", "lens-decoder")["resources"]["limits"]["nvidia.com/gpu"]


def decoder_with_surge(manifests: list[Manifest]) -> None:
    del of(manifests, "Deployment", "lens-decoder")["spec"]["strategy"]


def decoder_without_cuda(manifests: list[Manifest]) -> None:
    container(manifests, "Deployment", "lens-decoder")["image"] = "sextant:0.1.0"


BROKEN_SUITES = {
    "a decoder without its GPU": (size_problems, "lens-decoder: asks for 0 GPUs and uses 1", decoder_without_gpu),
    "an upgrade that wants a GPU more": (size_problems, "lens-decoder: an upgrade wants a GPU more", decoder_with_surge),
    "a decoder on a GPU with the CPU's image": (size_problems, "image sextant:0.1.0 has no CUDA", decoder_without_cuda),
    "a decoder without room": (size_problems, "512Mi of memory, and the head of Llama-3.1-70B-Instruct wants 2.5 GiB", small_decoder),
    "a decoder without room in float32": (size_problems, "4Gi of memory, and the head of Llama-3.1-70B-Instruct wants 4.4 GiB", exact_decoder),
    "nothing to scale": (policy_problems, "there is no Deployment lens-decoders", other_target),
    "replicas fixed": (policy_problems, "would reset the replicas", fixed_replicas),
    "a trigger without an address": (schema_problems, "scalerAddress", wrong_trigger),
    "an edge is closed": (network_problems, "closed: ('lens-decoder', 'capture', 7720)", without_edge),
    "capture may call out": (network_problems, "open: ('capture', '*', 0)", without_deny),
    "anybody may call capture": (network_problems, "open: ('*', 'capture', 7720)", open_capture),
    "a whole namespace may call capture": (network_problems, "open: ('ns:keda', 'capture', 7720)", open_to_all_of_keda),
    "a Service finds nothing": (policy_problems, "finds no pod", rename_selected),
    "no budget": (policy_problems, "no disruption budget", without_budget),
    "root": (policy_problems, "may run as root", as_root),
    "an engine no gateway knows": (command_line_problems, "--workers names", two_engines),
    "an address with another port": (command_line_problems, "has no port 7730", moved_service),
}


@pytest.mark.parametrize("case", BROKEN_SUITES)
def test_a_broken_suite_is_refused(overlays, case: str) -> None:
    check, words, change = BROKEN_SUITES[case]
    suites = {other_target: "cpu+keda", fixed_replicas: "cpu+keda", wrong_trigger: "cpu+keda", open_to_all_of_keda: "cpu+keda",
              small_decoder: "gpu", exact_decoder: "gpu", decoder_without_gpu: "gpu", decoder_without_cuda: "gpu",
              decoder_with_surge: "gpu"}
    manifests = copy.deepcopy(overlays[suites.get(change, "cpu")])
    change(manifests)
    assert any(words in problem for problem in check(manifests)), check(manifests)
