"""deploy/setup as its users meet it: what it says while pip is at work, when pip fails, and what apt finds and leaves."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import textwrap
import threading
from collections.abc import Iterator

import pytest
from suite import ROOT

PATIENCE = 60
PIP = """\
    #!/bin/bash
    [ "$3" = install ] || exit 0
    echo "Collecting numpy>=1.26 (from sextant==0.1.0)"
    echo "  Installing build dependencies: started"
    echo "  Downloading numpy-2.4.6-cp311-manylinux_2_27_x86_64.whl (16.9 MB)"
    echo "  WARNING: Retrying (Retry(total=4)) after connection broken"
    while [ ! -e {gate} ]; do sleep 0.01; done
    {end}
    """
# Stands for every tool of Debian's that the step calls: one package is missing, and installing it runs INSTALL.
DEBIAN = """\
    #!/bin/bash
    case "${0##*/} $1" in
      "sudo "*) shift; exec "$@" ;;
      "apt-get install") eval "$INSTALL" ;;
      "dpkg-query "*) [ -n "$INSTALL" ] || echo installed ;;
    esac
    """


@pytest.fixture
def clone(tmp_path) -> pathlib.Path:
    """A tree with deploy/setup in it and a Python whose pip waits for the file `gate`."""
    for name in ("deploy/packages", "protos", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / "deploy/setup", tmp_path / "deploy")
    (tmp_path / "deploy/packages/python").write_text("")
    return tmp_path


@contextlib.contextmanager
def started(clone: pathlib.Path, end: str) -> Iterator[subprocess.Popen]:
    """The step at work; ended with all it has started when it takes longer than PATIENCE, and when the test fails."""
    python = clone / ".venv/bin/python"
    python.write_text(textwrap.dedent(PIP).format(gate=clone / "gate", end=end))
    python.chmod(0o755)
    words = [clone / "deploy/setup", "venv"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        timer = threading.Timer(PATIENCE, os.killpg, (running.pid, signal.SIGKILL))
        timer.start()
        try:
            yield running
            running.wait()
        finally:
            timer.cancel()
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)


def test_pip_is_not_silent_while_it_works(clone) -> None:
    with started(clone, 'echo "Installing collected packages: numpy"') as running:
        said = [running.stderr.readline().strip() for _ in range(4)]
        (clone / "gate").touch()  # All of that came while pip was still busy.
        rest = running.stderr.read()
    assert running.returncode == 0, rest
    assert said[1:] == ["python: Installing build dependencies", "python: downloading numpy 2.4.6 (16.9 MB)",
                        "pip: warning: Retrying (Retry(total=4)) after connection broken"]
    assert rest.strip() == "python: unpacking" and (clone / ".venv/.installed").exists()


def test_a_failing_pip_fails_the_step(clone) -> None:
    (clone / "gate").touch()
    with started(clone, 'echo "ERROR: No matching distribution found for numpy" >&2; exit 1') as running:
        said = running.stderr.read()
    assert running.returncode == 1 and not (clone / ".venv/.installed").exists()
    assert "pip: No matching distribution found for numpy" in said
    assert "error: pip install failed" in said and f"{clone / 'build/pip.log'}\n" in said


@pytest.fixture
def policy(clone) -> pathlib.Path:
    """What stands for /usr/sbin/policy-rc.d in a clone beside whose tools of Debian's lie stand-ins."""
    (clone / "deploy/packages/build").write_text("a-daemon\n")
    (clone / "tools").mkdir()
    for name in ("sudo", "apt-get", "dpkg-query", "dpkg", "systemctl"):
        (clone / "tools" / name).write_text(textwrap.dedent(DEBIAN))
        (clone / "tools" / name).chmod(0o755)
    return clone / "policy-rc.d"


def install(clone: pathlib.Path, policy: pathlib.Path, command: str) -> subprocess.CompletedProcess:
    """The step with `command` for apt-get's work; with none, every package is installed already."""
    path = f"{clone / 'tools'}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SEXTANT_POLICY_FILE": str(policy), "INSTALL": command}
    return subprocess.run([clone / "deploy/setup", "packages"], env=environment, capture_output=True, text=True, timeout=PATIENCE)


def test_no_daemon_starts_while_packages_are_installed(clone, policy) -> None:
    ended = install(clone, policy, f"{policy}; echo $? >{clone}/said")
    assert ended.returncode == 0 and (clone / "said").read_text() == "101\n", ended.stderr
    assert not policy.exists()


@pytest.mark.parametrize("command", ["true", ""], ids=["installing", "all installed"])
def test_what_a_killed_run_leaves_goes_with_the_next(clone, policy, command) -> None:
    killed = install(clone, policy, "kill -KILL $PPID")
    assert killed.returncode == -signal.SIGKILL and policy.exists()
    ended = install(clone, policy, command)
    assert ended.returncode == 0 and not policy.exists(), ended.stderr


@pytest.mark.parametrize("command", ["true", ""], ids=["installing", "all installed"])
def test_an_administrators_policy_stays(clone, policy, command) -> None:
    policy.write_text("#!/bin/sh\nexit 101\n")
    ended = install(clone, policy, command)
    assert ended.returncode == 0 and policy.read_text() == "#!/bin/sh\nexit 101\n", ended.stderr
