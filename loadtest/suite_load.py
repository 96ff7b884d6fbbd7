"""A suite of its own on this machine under the load generator: starting, loading, restarting parts, ending."""

import contextlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
for folder in ("deploy/local", "tests/support"):
    sys.path.insert(0, str(ROOT / folder))

from cluster import Cluster, ClusterError, Process  # noqa: E402

SCENARIOS = ROOT / "loadtest/scenarios"
GENERATOR = ROOT / "build/bin/sextant_load"
GOOD, FAILED, BROKEN, INTERRUPTED = 0, 1, 2, 130
# A service that is told to end has this long, and as long again to serve anew.
RESTART_TIMEOUT_S = 120


class Broken(Exception):
    """Something that must hold does not."""


def scenario_path(name: str) -> pathlib.Path:
    """The file of a shipped scenario's name, or of a path."""
    path = SCENARIOS / f"{name}.scenario"
    if not path.exists():
        path = pathlib.Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SCENARIOS.glob("*.scenario")))
        raise ClusterError(f"no scenario {name!r}: name one of {known}, or a file")
    return path


def check_generator() -> None:
    """ClusterError without the load generator, so that nobody starts a suite for nothing."""
    if not GENERATOR.exists():
        raise ClusterError(f"{GENERATOR} is missing: run `deploy/setup build all`")


@contextlib.contextmanager
def suite(folder: pathlib.Path, model: pathlib.Path, ranks: int, decoders: int, port: int, dtype: str = "bfloat16",
          extra: dict[str, list[str]] | None = None, environment: dict[str, str] | None = None, say=lambda text: None):
    """A running suite for the time of a `with`, started with `environment` besides this process's; ended whatever happens in it."""
    cluster = Cluster(folder, port=port, environment=environment)
    cluster.up(model.resolve(), ranks, decoders, "cpu", dtype, say=say, extra=extra)
    try:
        yield cluster
    finally:
        cluster.down()


class Load:
    """One run of the generator. Its files lie in `folder`: NAME.json, NAME.ledger.jsonl, NAME.txt."""

    def __init__(self, target: str, scenario: pathlib.Path, folder: pathlib.Path, name: str = "load",
                 flags: list[str] | None = None, progress=None) -> None:
        check_generator()
        folder.mkdir(parents=True, exist_ok=True)
        self.json, self.ledger, self.text = (folder / f"{name}{end}" for end in (".json", ".ledger.jsonl", ".txt"))
        self.json.unlink(missing_ok=True)
        with open(self.text, "wb") as out:
            # A group of its own: Ctrl-C here is passed on by stop(), once.
            self.process = subprocess.Popen(
                [GENERATOR, f"--target={target}", f"--scenario={scenario}", f"--json={self.json}", f"--ledger={self.ledger}",
                 *(flags or [])], stdin=subprocess.DEVNULL, stdout=out, stderr=progress or out, start_new_session=True)

    def stop(self) -> None:
        """No further request starts; those under way end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> int:
        """The generator's exit status. Past the time, or on Ctrl-C, what is under way is cancelled."""
        try:
            return self.process.wait(timeout_s)
        except BaseException:
            for _ in range(2):
                self.stop()
                time.sleep(0.3)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            raise

    def report(self) -> dict:
        """What it measured. ClusterError when it could not run."""
        if not self.json.exists():
            raise ClusterError(f"the generator wrote no report; it said: {self.text.read_text()[-2000:]}")
        return json.loads(self.json.read_text())


def run_load(cluster: Cluster, scenario: pathlib.Path, folder: pathlib.Path, name: str = "load",
             flags: list[str] | None = None, progress=None, timeout_s: float = 3600) -> tuple[int, dict]:
    """One run to its end: exit status and report."""
    load = Load(cluster.address, scenario, folder, name, flags, progress)
    code = load.wait(timeout_s)
    if code not in (GOOD, BROKEN, INTERRUPTED):
        raise ClusterError(f"the generator failed: {load.text.read_text()[-2000:]}")
    return code, load.report()


def restart(cluster: Cluster, process: Process, drain_s: float = RESTART_TIMEOUT_S) -> float:
    """An upgrade of one service: SIGTERM, its drain, and a new process with the same flags until the suite is ready.

    Returns the seconds it took. ClusterError when it did not end by itself in time.
    """
    command = pathlib.Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")[1:-1]
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    while process.alive():
        if time.monotonic() - begin > drain_s:
            raise ClusterError(f"{process.name} has not ended {drain_s:.0f} s after SIGTERM")
        time.sleep(0.02)
    cluster.processes.remove(process)
    cluster.start(process.name, process.binary, process.http, [f for f in command if not f.startswith("--http_port=")],
                  nice=10 if process.binary == "lens_decoder" else 0)
    cluster.wait_ready(timeout_s=RESTART_TIMEOUT_S)
    return time.monotonic() - begin


def machine() -> str:
    """One line on this machine and how busy it is: figures without it mean nothing."""
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {model}, load average {os.getloadavg()[0]:.1f}"


def commit() -> str:
    """Which sources these are, "-dirty" if they were changed since; "" outside of a clone."""
    found = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()
