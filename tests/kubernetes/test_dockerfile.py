"""hadolint finds nothing in deploy/Dockerfile, and would if there were something."""

import pathlib
import runpy
import subprocess
import sys

from manifests import ROOT

HADOLINT = pathlib.Path(sys.executable).parent / "hadolint"
CLUSTER = runpy.run_path(str(ROOT / "deploy/local/cluster.py"))
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


def findings(text: str) -> str:
    return subprocess.run([HADOLINT, "--no-color", "-"], input=text, capture_output=True, text=True, timeout=60).stdout


def test_hadolint_finds_nothing() -> None:
    assert findings(DOCKERFILE) == ""


def test_hadolint_would_find_something() -> None:
    assert "DL3002" in findings(DOCKERFILE + "USER root\n")
    assert "DL3007" in findings(DOCKERFILE.replace("ARG BASE=debian:bookworm-slim", "").replace("${BASE}", "debian:latest"))


def test_every_stage_that_runs_is_not_root() -> None:
    stages = DOCKERFILE.split("\nFROM ")[1:]
    users = {}
    for stage in stages:
        base, _, name = stage.splitlines()[0].partition(" AS ")
        own = [line.split()[1] for line in stage.splitlines() if line.startswith("USER ")]
        users[name] = own[-1] if own else users.get(base, "root")
    for target in ("cpu", "gpu"):
        assert users[target] == "10001:10001", users


def test_services_have_the_environment_that_they_have_without_containers() -> None:
    stages = {stage.splitlines()[0].partition(" AS ")[2]: stage for stage in DOCKERFILE.split("\nFROM ")[1:]}
    for name, value in CLUSTER["ENVIRONMENT"].items():
        assert f"\nENV {name}={value}\n" in stages["runtime"]
    assert all(stages[target].startswith("runtime AS ") for target in ("cpu", "gpu"))
