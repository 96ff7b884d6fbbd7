"""A live suite under a real Prometheus, worked until every metric that can be moved has moved."""

import dataclasses
import pathlib
import shutil
import time

import metrics_table
import pytest
import sextant
import workload
from cluster import Cluster
from prometheus import Prometheus
from suite import MODELS, free_base_port

# None of its ports is one that make_cluster tries first.
FIRST_PORT = 23800
PROMETHEUS_OFFSET = 2000
FLAGS = {"gateway": ["--max_concurrent_calls=6"], "shard_worker": ["--max_sequences=2"], "capture": ["--lease_seconds=1"]}


@dataclasses.dataclass
class Operated:
    """The suite, still up, its Prometheus, and how many calls the gateway refused."""

    cluster: Cluster
    prometheus: Prometheus
    refused: int


def scrapes(cluster: Cluster) -> list[str]:
    return [metrics_table.scrape(port) for port in cluster.http_ports()]


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory):
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (deploy/setup packages test)")
    folder: pathlib.Path = tmp_path_factory.mktemp("operated")
    cluster = Cluster(folder / "cluster", port=free_base_port(FIRST_PORT, (PROMETHEUS_OFFSET,)))
    prometheus = None
    try:
        cluster.up(MODELS / "llama31_tiny", 2, 1, "cpu", "float32", extra=FLAGS)
        prometheus = Prometheus(folder / "prometheus", cluster.folder / "targets.json", cluster.port + PROMETHEUS_OFFSET)
        workload.until(lambda: set(prometheus.targets_up().values()) == {"up"}, "a first scrape of every process")
        with sextant.Client(cluster.address) as client:
            workload.vectors(client)
            workload.generations(client, 4)
            workload.crowd(client, 6, lambda: prometheus.greatest("sextant_worker_waiting_sequences"))
            refused = workload.overload(client, 12)
            workload.backlog(cluster, client, lambda: prometheus.greatest("sextant_capture_held_bytes"))
            workload.hanging_decoder(cluster, client)
            workload.dying_decoder(cluster, client)
            starved = ("sextant_worker_sealing_sequences", "sextant_worker_capture_waiting_sequences")
            workload.paused_capture(cluster, client, lambda: all(prometheus.greatest(name) for name in starved))
            workload.lost_rank(cluster)
        with sextant.Client(cluster.address) as client:
            workload.vectors(client)
            # A gauge may rise and fall between two scrapes.
            gauges = [name for name, metric in metrics_table.merge(scrapes(cluster)).items() if metric.type == "gauge"]
            workload.generations_until(client, 4, lambda: all(prometheus.greatest(name) for name in gauges))
        end = time.time()
        workload.until(lambda: prometheus.scraped_since(end, cluster.http_ports()), "a scrape of every process after the last call")
        yield Operated(cluster, prometheus, refused)
    finally:
        if prometheus is not None:
            prometheus.stop()
        cluster.down()
