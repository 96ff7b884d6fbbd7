"""Ranks on emulated GPUs keep the promises that ranks on a CPU keep, when one is lost: by the same tests."""

import os

import pytest
import sextant
import test_faults as faults
from suite import MODELS, clusters, emulated_binaries

LONG = os.environ.get("SEXTANT_TEST_SET") == "long"


@pytest.fixture(scope="module")
def make_cluster(tmp_path_factory):
    """As suite.make_cluster, with ranks on emulated GPUs."""
    binaries = emulated_binaries(tmp_path_factory.mktemp("bin"), ("shard_worker",))
    # Overrides what `up` passes: it counts real GPUs.
    with clusters(tmp_path_factory, binaries, [36000], ["--device=cuda:0", "--kv_cache_mb=8"]) as make:
        yield make


@pytest.fixture(scope="module")
def cluster(make_cluster):
    # Instrumented code on a busy machine must not look like a rank that hangs.
    cluster = make_cluster(MODELS / "qwen3_tiny", ranks=2, extra={"shard_worker": ["--step_deadline=30s"]})
    yield cluster
    cluster.down()


@pytest.fixture
def client(cluster):
    cluster.wait_ready(timeout_s=faults.DEADLINE_S)
    with sextant.Client(cluster.address) as client:
        yield client


@pytest.mark.parametrize(("moment", "victim"), [("prefill", 0), ("decode", 1)] + [("prefill", 1), ("decode", 0)] * LONG)
def test_a_rank_dies_at_work(cluster, client, moment: str, victim: int) -> None:
    faults.test_a_rank_dies_at_work(cluster, client, victim, moment)


def test_a_rank_dies_while_the_model_loads(cluster, client) -> None:
    faults.test_a_rank_dies_while_the_model_loads(cluster, client)


@pytest.mark.skipif(not LONG, reason="takes a step deadline and two starts more: tests/run --long")
@pytest.mark.parametrize("moment", ["idle, 0", "idle, 1", "stopped"])
def test_a_rank_dies_idle_or_stops(cluster, client, moment: str) -> None:
    if moment == "stopped":
        faults.test_a_stopped_rank_is_noticed(cluster, client)
    else:
        faults.test_a_rank_dies_idle(cluster, client, int(moment[-1]))


# The last: the other suite is no longer needed.
def test_a_rank_dies_while_the_worker_drains(cluster, make_cluster) -> None:
    cluster.down()
    faults.test_a_death_while_the_worker_drains(make_cluster, "rank")


@pytest.mark.skipif(not LONG, reason="another start: tests/run --long")
def test_sigterm_drains(make_cluster) -> None:
    faults.test_sigterm_drains(make_cluster)
