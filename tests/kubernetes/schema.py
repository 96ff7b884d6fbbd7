"""Validates manifests: Kubernetes' own kinds against its published schemas, others against the fixtures in schemas/."""

import json
import pathlib

import jsonschema
import kubernetes_validate

from manifests import Manifest

# The newest release that the validator knows is what the manifests are held to.
VERSION = kubernetes_validate.latest_version()
FIXTURES = {path.stem: json.loads(path.read_text()) for path in (pathlib.Path(__file__).parent / "schemas").glob("*.json")}


def _kubernetes_problem(manifest: Manifest) -> str | None:
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return error.message
    return None


def _templates_within(manifest: Manifest) -> list[Manifest]:
    """Pod templates in a kind that is not Kubernetes' own, each as an object that it can check."""
    group = manifest.get("spec", {}).get("leaderWorkerTemplate", {})
    parts = [group[name] for name in ("leaderTemplate", "workerTemplate") if name in group]
    return [{"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "part"}, "template": part} for part in parts]


def schema_problems(manifests: list[Manifest]) -> list[str]:
    """What no API server would accept, in words."""
    found = []
    for manifest in manifests:
        where = f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"
        if manifest.get("kind") in FIXTURES:
            checker = jsonschema.Draft202012Validator(FIXTURES[manifest["kind"]])
            found += [f"{where}: {error.json_path}: {error.message}" for error in checker.iter_errors(manifest)]
            parts = _templates_within(manifest)
        else:
            parts = [manifest]
        found += [f"{where}: {problem}" for problem in map(_kubernetes_problem, parts) if problem]
    return found
