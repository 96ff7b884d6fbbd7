"""The tools of the container tests: what they leave of a command that takes too long, what they refuse to begin."""

import runpy
import subprocess
import sys

import container_tools
import pytest
from outside import wait_until
from suite import ROOT

CLUSTER = runpy.run_path(str(ROOT / "deploy/local/cluster.py"))
HANGS = """\
#!/bin/bash
sleep 600 &
echo $! >{pid}.part && mv {pid}.part {pid}
wait
"""


def test_a_command_too_slow_is_ended_with_what_it_started(tmp_path, monkeypatch) -> None:
    pid = tmp_path / "pid"
    (tmp_path / "podman").write_text(HANGS.format(pid=pid))
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tools = container_tools.ContainerTools(tmp_path / "containers")
    with pytest.raises(subprocess.TimeoutExpired):
        tools.podman("build", timeout_s=5)
    wait_until("its child has ended", lambda: CLUSTER["start_time"](int(pid.read_text())) == 0, 20)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["gpu"], 1, "no toolkit here\n"),
        (["tpu"], 2, "there is no target tpu: cpu or gpu\n"),
    ],
)
def test_what_cannot_be_built_is_refused_before_any_step(monkeypatch, capsys, words, status, said) -> None:
    monkeypatch.setattr(sys, "argv", ["container_tools.py", *words])
    monkeypatch.setattr(container_tools, "missing", lambda: None)
    monkeypatch.setattr(container_tools, "missing_toolkit", lambda: "no toolkit here")
    monkeypatch.setattr(container_tools, "ContainerTools", lambda folder: pytest.fail("it has begun"))
    assert container_tools.main() == status
    assert capsys.readouterr().err == said
