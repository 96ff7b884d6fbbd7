"""Shows of every process of a suite that it keeps nothing of the calls it has answered, under load for long or of one kind of call at a time."""

import contextlib
import json
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import bad_clients
import growth
import grpc
import held_memory
import plots
from sextant.v1 import capture_pb2, capture_pb2_grpc
from suite_load import BROKEN, GOOD, ClusterError, commit, machine, run_load, scenario_path

SAMPLE_S = 1.0
# Of the samples of a run, so many are kept in the report.
KEPT_SAMPLES = 120
# Beside the load, one bad client of each kind comes and, so long after the last of them has gone, the next.
BAD_CLIENTS_S = 0.5
# Requests a second of the kinds that the generator makes: few enough to be answered, and more than ever can be.
MODEST_RATE, FLOOD_RATE = 100, 2000
COUNTS = ("planned", "completed", "tokens", "readings", "kept_rows", "refused", "unserved")


class Broken(Exception):
    """Something that must hold does not."""


class Samples:
    """Resident memory of every process, once a second from a thread of its own, for the picture."""

    def __init__(self, cluster) -> None:
        self.pids = {name: pid for name, (pid, _) in held_memory.processes(cluster).items()}
        self.points: dict[str, list[tuple[float, float]]] = {name: [] for name in self.pids}
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Samples":
        self.start = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.done.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.done.wait(SAMPLE_S):
            for name, pid in self.pids.items():
                with contextlib.suppress(OSError):
                    self.points[name].append((time.monotonic() - self.start, held_memory.resident_bytes(pid) / 2**20))

    def thinned(self) -> dict[str, list[tuple[int, float]]]:
        return {name: [(round(t), round(mib, 3)) for t, mib in points[:: max(1, len(points) // KEPT_SAMPLES)]]
                for name, points in self.points.items()}


class BadClients:
    """One of each kind at intervals for the time of a `with`, from a thread of their own. `calls` are those made; a fault is raised at the end."""

    def __init__(self, address: str) -> None:
        self.address, self.calls, self.fault = address, 0, None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> "BadClients":
        self.thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.done.set()
        self.thread.join()
        if self.fault is not None:
            raise ClusterError(f"a call beside the load ended as it should not: {self.fault!r}") from self.fault

    def _run(self) -> None:
        try:
            with grpc.insecure_channel(self.address) as channel:
                while not self.done.wait(BAD_CLIENTS_S):
                    self.calls += sum(once(self.address, channel) for once in bad_clients.KINDS.values())
        except Exception as fault:  # raised where the load ends
            self.fault = fault


def tidy(address: str) -> None:
    """Deletes kept captures that a full suite did not let the generator delete: they are data, not leaks."""
    with grpc.insecure_channel(address) as channel:
        stub = capture_pb2_grpc.CaptureServiceStub(channel)
        while kept := stub.ListCaptures(capture_pb2.ListCapturesRequest(), timeout=bad_clients.TIMEOUT_S).captures:
            for capture in kept:
                stub.DeleteCapture(capture_pb2.DeleteCaptureRequest(name=capture.name), timeout=bad_clients.TIMEOUT_S)


def readings(cluster, work: Callable[[int], int]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """For each process what it holds after each of growth.READINGS rounds, against the calls so far. `work(n)` does round n and says how many calls it was."""
    calls, found = 0, {}
    for number in range(growth.READINGS):
        calls += work(number)
        tidy(cluster.address)
        for name, held in held_memory.at_rest(cluster).items():
            points = found.setdefault(name, {"heap": [], "resident": [], "descriptors": []})
            for what in points:
                if (amount := getattr(held, what)) is not None:
                    points[what].append((calls, amount))
    return found


def lines(found: dict[str, dict[str, list[tuple[float, float]]]]) -> dict[str, dict[str, growth.Line]]:
    return {name: {what: growth.fit(points) for what, points in amounts.items() if points} for name, amounts in found.items()}


def faults(fits: dict[str, dict[str, growth.Line]]) -> list[str]:
    """What has not been shown to stay as it is, a line each."""
    found = [growth.fault(f"{what} of {name}", line) for name, amounts in fits.items() for what, line in amounts.items() if what == "heap"]
    return [fault for fault in found if fault]


def table(fits: dict[str, dict[str, growth.Line]]) -> str:
    rows = [f"{'':<22}{'heap, MiB':>10}{'bytes a call':>18}{'resident, MiB':>15}{'bytes a call':>18}{'descriptors':>13}"]
    for name, amounts in fits.items():
        cells = [f"{name:<22}"]
        for what, width in (("heap", 10), ("resident", 15)):
            line = amounts.get(what)
            cells += [f"{'-':>{width}}{'-':>18}"] if line is None else [f"{line.mean / 2**20:>{width}.1f}{f'{line.per_call:+.1f} ± {line.bound:.1f}':>18}"]
        rows.append("".join(cells) + f"{amounts['descriptors'].mean:>13.1f}")
    return "\n".join(rows)


def as_json(fits: dict[str, dict[str, growth.Line]]) -> dict:
    return {name: {what: vars(line) for what, line in amounts.items()} for name, amounts in fits.items()}


def generate(cluster, scenario: pathlib.Path, out: pathlib.Path, number: int, flags: list[str], totals: dict, progress=None) -> int:
    """One run of the generator, whose ledger must hold; adds to `totals` and returns how many requests it made."""
    code, report = run_load(cluster, scenario, out, f"round-{number}", flags, progress)
    if code != GOOD:
        raise Broken(f"round {number}: the generator's ledger does not hold, see {out}/round-{number}.txt")
    for name in COUNTS:
        totals[name] = totals.get(name, 0) + report["ledger"].get(name, 0)
    return report["ledger"]["planned"]


def run(cluster, scenario: pathlib.Path, out: pathlib.Path, seconds: float, flags: list[str], seed: int = 1, say=lambda text: None, progress=None) -> int:
    """GOOD when every ledger holds and every process is shown to be flat; the load is the scenario's, and bad clients."""
    totals: dict[str, int] = {}

    def work(number: int) -> int:
        with BadClients(cluster.address) as others:
            made = generate(cluster, scenario, out, number,
                            [*flags, f"--duration={seconds / growth.READINGS}s", f"--seed={seed + number}"], totals, progress)
        totals["bad_clients"] = totals.get("bad_clients", 0) + others.calls
        return made + others.calls

    begin = time.monotonic()
    try:
        with Samples(cluster) as samples:
            found = readings(cluster, work)
    except Broken as broken:
        say(f"BROKEN: {broken}")
        return BROKEN
    fits = lines(found)
    wrong = faults(fits)
    say(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in totals.items()))
    say(table(fits))
    for line in wrong:
        say(f"BROKEN: {line}")
    report = {"scenario": scenario.stem, "seconds": time.monotonic() - begin, "machine": machine(), "commit": commit(), "totals": totals,
              "most_bytes_per_call": growth.MOST_BYTES_PER_CALL, "wrong": wrong, "fits": as_json(fits), "at_rest": found,
              "resident_mib": samples.thinned()}
    (out / "memory.json").write_text(json.dumps(report) + "\n")
    plots.memory(report, out / "memory.svg")
    return BROKEN if wrong else GOOD


def kinds(cluster, scenario: pathlib.Path, out: pathlib.Path, calls: int) -> Iterator[tuple[str, Callable[[int], int]]]:
    """Each kind of call alone: its name, and a round of `calls` / growth.READINGS of them."""
    each = max(1, calls // growth.READINGS)

    def generator(name: str, path: pathlib.Path, rate: float, *flags: str) -> tuple[str, Callable[[int], int]]:
        return name, lambda number: generate(cluster, path, out / name, number,
                                             [f"--rate={rate}", f"--duration={each / rate}s", "--warmup=0s", f"--seed={number + 1}", *flags], {})

    yield generator(scenario.stem, scenario, MODEST_RATE)
    yield generator("short", scenario_path("saturation"), MODEST_RATE)
    yield generator("flood", scenario_path("saturation"), FLOOD_RATE, "--retries=0")
    for name, once in bad_clients.KINDS.items():
        def work(_: int, once=once) -> int:
            with grpc.insecure_channel(cluster.address) as channel:
                return sum(once(cluster.address, channel) for _ in range(each // 10))
        yield name, work


def run_kinds(cluster, scenario: pathlib.Path, out: pathlib.Path, calls: int, say=lambda text: None) -> int:
    """Of each kind of call alone what every process keeps of it: `calls` from the generator, a tenth of bad clients."""
    report, wrong = {}, []
    for name, work in kinds(cluster, scenario, out, calls):
        begin = time.monotonic()
        found = readings(cluster, work)
        fits = lines(found)
        made = next(iter(found.values()))["resident"][-1][0]
        say(f"{name}: {made:.0f} calls in {time.monotonic() - begin:.0f} s\n{table(fits)}")
        wrong += [f"{name}: {fault}" for fault in faults(fits)]
        report[name] = {"calls": made, "fits": as_json(fits), "at_rest": found}
        (out / "kinds.json").write_text(json.dumps({"machine": machine(), "commit": commit(), "kinds": report, "wrong": wrong}) + "\n")
    for line in wrong:
        say(f"BROKEN: {line}")
    return BROKEN if wrong else GOOD
