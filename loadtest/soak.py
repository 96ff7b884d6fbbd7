"""Runs a suite for long at a modest load and fits a line to the memory of each of its processes."""

import json
import math
import pathlib
import threading
import time

import plots
from suite_load import BROKEN, GOOD, machine, run_load
from cluster import children  # after suite_load, which says where it is

SAMPLE_S = 1.0
# Left out of the fits: pools and caches fill.
WARMUP_PART = 0.4
# Of the samples, what is kept in the report.
KEPT_EACH_S = 10
# Memory is flat when, with 95 % confidence, it grows by less than this in an hour, or by less than a part of itself within the run.
MOST_MIB_PER_HOUR = 1.0
MOST_PART = 0.02


def resident_mib(pid: int) -> float | None:
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def processes(cluster) -> dict[str, int]:
    """Every process of the suite by name; a worker's ranks beside their supervisor."""
    found = {}
    for process in cluster.processes:
        found[process.name] = process.pid
        for rank, pid in enumerate(children(process.pid)):
            found[f"{process.name} rank {rank}"] = pid
    return found


def fit(points: list[tuple[float, float]]) -> dict:
    """Least squares: the slope in MiB an hour, and how much it may be off either way with 95 % confidence.

    Samples follow from each other, so the error is estimated from means of ten equal parts, which hardly do.
    """
    begin = points[-1][0] * WARMUP_PART
    kept = [p for p in points if p[0] >= begin]
    size = max(1, len(kept) // 10)
    means = [(sum(t for t, _ in part) / len(part), sum(m for _, m in part) / len(part))
             for part in (kept[i : i + size] for i in range(0, size * 10, size)) if part]
    n = len(means)
    middle_t, middle_m = sum(t for t, _ in means) / n, sum(m for _, m in means) / n
    spread = sum((t - middle_t) ** 2 for t, _ in means)
    slope = sum((t - middle_t) * (m - middle_m) for t, m in means) / spread if spread else 0.0
    rest = sum((m - middle_m - slope * (t - middle_t)) ** 2 for t, m in means)
    # 2.31: Student's t of 8 degrees of freedom.
    bound = 2.31 * math.sqrt(rest / max(1, n - 2) / spread) if spread else 0.0
    return {"from_s": begin, "at_start_mib": middle_m + slope * (begin - middle_t), "mean_mib": middle_m,
            "slope_mib_per_hour": slope * 3600, "bound_mib_per_hour": bound * 3600}


def grows(name: str, line: dict, seconds: float) -> str | None:
    """Why this is no flat memory, if it is not."""
    surely = line["slope_mib_per_hour"] - line["bound_mib_per_hour"]
    within = surely * seconds * (1 - WARMUP_PART) / 3600
    if surely <= MOST_MIB_PER_HOUR or within <= MOST_PART * line["mean_mib"]:
        return None
    return f"{name} grows by at least {surely:.1f} MiB an hour, {within:.1f} MiB of {line['mean_mib']:.0f} in this run"


def thinned(points: list[tuple[float, float]]) -> list[tuple[int, float]]:
    each = int(KEPT_EACH_S / SAMPLE_S)
    return [(round(t), round(mib, 3)) for t, mib in points[::each]]


def watch(cluster, samples: dict, done: threading.Event) -> None:
    start = time.monotonic()
    pids = processes(cluster)
    while not done.wait(SAMPLE_S):
        for name, pid in pids.items():
            if (mib := resident_mib(pid)) is not None:
                samples.setdefault(name, []).append((time.monotonic() - start, mib))


def run(cluster, scenario: pathlib.Path, out: pathlib.Path, seconds: float, flags: list[str], say=lambda text: None, progress=None) -> int:
    """GOOD when the ledger holds and no process's memory grows."""
    samples: dict[str, list[tuple[float, float]]] = {}
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(cluster, samples, done))
    watcher.start()
    try:
        code, report = run_load(cluster, scenario, out, "soak", [*flags, f"--duration={seconds}s"], progress, timeout_s=seconds + 600)
    finally:
        done.set()
        watcher.join()
    fits = {name: fit(points) for name, points in samples.items()}
    wrong = [why for name, line in fits.items() if (why := grows(name, line, seconds))]
    say((out / "soak.txt").read_text().rstrip())
    say(f"{'resident memory':<24}{'mean MiB':>10}{'MiB an hour':>20}")
    for name, line in fits.items():
        say(f"{name:<24}{line['mean_mib']:>10.1f}{line['slope_mib_per_hour']:>+12.2f} ± {line['bound_mib_per_hour']:.2f}")
    for line in wrong:
        say(f"BROKEN: {line}")
    (out / "memory.json").write_text(json.dumps({"scenario": scenario.stem, "seconds": seconds, "machine": machine(), "fits": fits, "wrong": wrong,
                                                 "ledger": report["ledger"],
                                                 "samples_mib": {name: thinned(points) for name, points in samples.items()}}) + "\n")
    plots.memory(samples, fits, out / "memory.svg")
    return BROKEN if wrong and code == GOOD else code
