"""Fixtures: whole suites as processes on free ports, shared by the tests of one session."""

import contextlib
import pathlib
import shutil
import socket
import sys
import time
from collections.abc import Sequence

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/local"))

import sextant  # noqa: E402
from cluster import Cluster  # noqa: E402

MODELS = ROOT / "tests/golden/models"
QUICKSTART_MODEL = ROOT / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
# Offsets a cluster uses from its base port.
OFFSETS = (0, 10, 20, 30, 1000, 1010, 1011, 1012, 1013, 1020, 1030, 1040, 1041, 1042, 1043)


def until(condition, what: str, timeout_s: float = 60) -> None:
    """Waits for a condition; the test fails when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def process(cluster: Cluster, binary: str):
    """The first process of that service."""
    return next(p for p in cluster.processes if p.binary == binary)


def free_base_port(first: int, further: tuple[int, ...] = ()) -> int:
    """A base port from `first` on whose cluster ports, and those at the offsets `further`, are all free."""
    for base in range(first, 40000, 50):
        try:
            for offset in OFFSETS + further:
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports")


def emulated_binaries(folder: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path:
    """Puts the suite's binaries into `folder`; those of `names` compute on emulated GPUs if --device says cuda."""
    for name in ("gateway", "capture", "steering_registry", "shard_worker", "lens_decoder"):
        built = ROOT / "build/tests" / f"{name}_emulated" if name in names else ROOT / "build/bin" / name
        (folder / name).symlink_to(built)
    return folder


@contextlib.contextmanager
def clusters(tmp_path_factory, binaries: pathlib.Path, first_ports: Sequence[int], worker: Sequence[str] = ()):
    """Gives make(model, ranks=..., decoders=..., extra=...), which starts a suite, on the first free ports from one of
    `first_ports` on, with the flags `worker` for its worker before those of `extra`. All are stopped at the end."""
    started = []

    def make(model: pathlib.Path, ranks: int = 1, decoders: int = 1, dtype: str = "float32", extra=None) -> Cluster:
        port = free_base_port(first_ports[len(started) % len(first_ports)])
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), binaries, port)
        started.append(cluster)
        flags = dict(extra or {})
        if worker:
            flags["shard_worker"] = [*worker, *flags.get("shard_worker", [])]
        cluster.up(model, ranks, decoders, "cpu", dtype, extra=flags)
        return cluster

    yield make
    for cluster in started:
        cluster.down()


@pytest.fixture(scope="session")
def make_cluster(tmp_path_factory):
    """make_cluster(model, ranks=..., decoders=..., extra=...) starts a suite that is stopped after the session."""
    with clusters(tmp_path_factory, ROOT / "build/bin", range(20000, 35000, 2500)) as make:
        yield make


@pytest.fixture(scope="session")
def llama(make_cluster) -> Cluster:
    """Tiny Llama-3.1, fp32, two ranks, one lens decoder."""
    return make_cluster(MODELS / "llama31_tiny", ranks=2)


@pytest.fixture(scope="session")
def client(llama):
    with sextant.Client(llama.address) as client:
        yield client


@pytest.fixture(scope="session")
def old_spelling(tmp_path_factory) -> pathlib.Path:
    """The tiny Llama-3.1 folder with its config in the older spelling."""
    folder = tmp_path_factory.mktemp("model") / "llama31_old"
    shutil.copytree(MODELS / "llama31_tiny", folder)
    (folder / "config.rope_scaling.json").rename(folder / "config.json")
    return folder
