"""What each process of a suite holds: heap in use, resident memory, descriptors; read while nothing is under way."""

import dataclasses
import pathlib
import re
import time

from suite_load import Broken, Cluster  # First: it says where others are.

import exposition

# After its last call a suite is at rest within this time: rows are read, streams have ended, connections are closed.
REST_TIMEOUT_S = 60
# Probes and scrapes allocate as well: of several scrapes the least is what stays.
SCRAPES = 8
SCRAPE_S = 0.1
# malloc counts what it keeps for each thread (some hundred KiB, filled in days) as in use. Processes started with this
# have no such caches, so that their account is exact.
EXACT = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
RESIDENT = re.compile(r"^(?:RssAnon|RssShmem):\s+(\d+) kB$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Held:
    """Of one process. `heap` is None where there is no /metrics: a worker's supervisor."""

    heap: float | None
    resident: float
    descriptors: int


def processes(cluster: Cluster) -> dict[str, tuple[int, int | None]]:
    """Process id and HTTP port of every process by name, a worker's ranks beside their supervisor."""
    found: dict[str, tuple[int, int | None]] = {}
    for process in cluster.processes:
        ranks = process.ranks()
        found[process.name] = process.pid, None if ranks else process.http
        for rank, pid in ranks:
            found[f"{process.name} rank {rank}"] = pid, process.http + rank
    return found


def check_alive(cluster: Cluster, started: dict[str, tuple[int, int | None]]) -> None:
    """Broken unless all of the processes that `processes` has named once are still there, and no others."""
    if dead := [f"{p.name} has died: {p.last_error() or 'it said nothing'} (log: {p.log})" for p in cluster.processes if not p.alive()]:
        raise Broken("; ".join(dead))
    now = processes(cluster)
    if other := sorted(name for name in started.keys() | now.keys() if started.get(name) != now.get(name)):
        raise Broken(f"{', '.join(other)}: not the process that it was at the start, so it has died")


def metric(who: str, text: str, name: str) -> float:
    """What the exposition of `who` says of that name. Broken when it does not say it."""
    try:
        return exposition.known(text, name)
    except LookupError as error:
        raise Broken(f"{who}: {error}") from error


def resident_bytes(pid: int) -> int:
    """Memory that is in use and not a file's, which the kernel can drop."""
    return 1024 * sum(int(kib) for kib in RESIDENT.findall(pathlib.Path(f"/proc/{pid}/status").read_text()))


def under_way(cluster: Cluster) -> dict[str, float]:
    """What keeps the suite from being at rest."""
    names = {"gateway": ["sextant_gateway_requests_in_flight"],
             "capture": ["sextant_capture_captures", "sextant_capture_followers", "sextant_capture_leases"],
             "shard_worker": ["sextant_worker_running_sequences", "sextant_worker_waiting_sequences", "sextant_worker_sealing_sequences",
                              "sextant_worker_ring_used_bytes"]}
    found = {}
    for process in cluster.processes:
        if process.binary in names:
            text = exposition.scrape(process.http)
            found |= {name: metric(process.name, text, name) for name in names[process.binary]}
    return {name: value for name, value in found.items() if value}


def at_rest(cluster: Cluster) -> dict[str, Held]:
    """What every process holds once nothing is under way. Broken when that does not come, or a process does not say it."""
    deadline = time.monotonic() + REST_TIMEOUT_S
    while left := under_way(cluster):
        if time.monotonic() > deadline:
            raise Broken(f"the suite is not at rest {REST_TIMEOUT_S} s after its last call: {left}")
        time.sleep(0.05)
    heaps: dict[str, list[float]] = {}
    found = processes(cluster)
    for _ in range(SCRAPES):
        for name, (_, port) in found.items():
            if port is not None:
                heaps.setdefault(name, []).append(metric(name, exposition.scrape(port), "process_heap_bytes"))
        time.sleep(SCRAPE_S)
    return {name: Held(min(heaps[name]) if name in heaps else None, resident_bytes(pid), len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())))
            for name, (pid, _) in found.items()}
