"""deploy/setup as its users meet it: what it says while pip is at work, and when pip fails."""

import pathlib
import shutil
import subprocess
import textwrap

import pytest
from suite import ROOT

PIP = """\
    #!/bin/bash
    [ "$3" = install ] || exit 0
    echo "Collecting numpy>=1.26 (from sextant==0.1.0)"
    echo "  Installing build dependencies: started"
    echo "  Downloading numpy-2.4.6-cp311-manylinux_2_27_x86_64.whl (16.9 MB)"
    while [ ! -e {gate} ]; do sleep 0.01; done
    {end}
    """


@pytest.fixture
def clone(tmp_path) -> pathlib.Path:
    """A tree with deploy/setup in it and a Python whose pip waits for the file `gate`."""
    for name in ("deploy/packages", "protos", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / "deploy/setup", tmp_path / "deploy")
    (tmp_path / "deploy/packages/python").write_text("")
    return tmp_path


def start(clone: pathlib.Path, end: str) -> subprocess.Popen:
    python = clone / ".venv/bin/python"
    python.write_text(textwrap.dedent(PIP).format(gate=clone / "gate", end=end))
    python.chmod(0o755)
    return subprocess.Popen([clone / "deploy/setup", "venv"], stderr=subprocess.PIPE, text=True)


def test_pip_is_not_silent_while_it_works(clone) -> None:
    with start(clone, 'echo "Installing collected packages: numpy"') as running:
        said = [running.stderr.readline().strip() for _ in range(3)]
        (clone / "gate").touch()  # All of that came while pip was still busy.
        rest = running.stderr.read()
    assert running.returncode == 0, rest
    assert said[1:] == ["python: Installing build dependencies", "python: downloading numpy 2.4.6 (16.9 MB)"]
    assert rest.strip() == "python: unpacking" and (clone / ".venv/.installed").exists()


def test_a_failing_pip_fails_the_step(clone) -> None:
    (clone / "gate").touch()
    with start(clone, 'echo "ERROR: No matching distribution found for numpy" >&2; exit 1') as running:
        said = running.stderr.read()
    assert running.returncode == 1 and not (clone / ".venv/.installed").exists()
    assert "pip: No matching distribution found for numpy" in said and "error: pip install failed" in said
