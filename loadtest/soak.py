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
from suite_load import BROKEN, GOOD, Broken, ClusterError, commit, machine, run_load, scenario_path

SAMPLE_S = 1.0
# Of the samples of a run, so many are kept in the report.
KEPT_SAMPLES = 120
# Beside the load, one bad client of each kind comes and, so long after the last of them has gone, the next.
BAD_CLIENTS_S = 0.5
# Requests a second of the kinds that the generator makes: few enough to be answered, and more than ever can be.
MODEST_RATE, FLOOD_RATE = 100, 2000
# Of bad clients that much fewer calls are made, one a round at least.
BAD_SHARE = 10
FEWEST_CALLS = BAD_SHARE * growth.READINGS
COUNTS = ("planned", "completed", "tokens", "readings", "kept_rows", "refused", "unserved")
# What the generator has left is deleted within this time, however busy the suite is.
TIDY_TIMEOUT_S = 60.0
TIDY_AGAIN_S = 0.1

# By process and by what is held ("heap", "resident", "descriptors"): (calls so far, amount) after each round.
Found = dict[str, dict[str, list[tuple[float, float]]]]


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
    """One of each kind at intervals for the time of a `with`, from a thread of their own. `calls` are those made; a fault is raised at the end, as Broken."""

    def __init__(self, address: str) -> None:
        self.address, self.calls, self.fault = address, 0, None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> "BadClients":
        self.thread.start()
        return self

    def __exit__(self, kind, *error) -> None:
        self.done.set()
        self.thread.join()
        if self.fault is not None and kind is not KeyboardInterrupt:
            raise Broken(f"a call beside the load ended as it should not: {self.fault!r}") from self.fault

    def _run(self) -> None:
        try:
            with grpc.insecure_channel(self.address) as channel:
                while not self.done.wait(BAD_CLIENTS_S):
                    self.calls += sum(once(self.address, channel) for once in bad_clients.KINDS.values())
        except Exception as fault:  # raised where the load ends
            self.fault = fault


def tidy(address: str) -> None:
    """Deletes kept captures that a full suite did not let the generator delete: they are data, not leaks. Broken when that takes too long."""
    deadline = time.monotonic() + TIDY_TIMEOUT_S
    with grpc.insecure_channel(address) as channel:
        stub = capture_pb2_grpc.CaptureServiceStub(channel)
        while (left_s := deadline - time.monotonic()) > 0:
            listed = bad_clients.borne(bad_clients.BUSY, lambda: stub.ListCaptures(capture_pb2.ListCapturesRequest(), timeout=left_s))
            if listed is None:
                time.sleep(TIDY_AGAIN_S)
                continue
            if not listed.captures:
                return
            for capture in listed.captures:
                # Its generator may have deleted it meanwhile.
                bad_clients.borne(bad_clients.BUSY | {grpc.StatusCode.NOT_FOUND}, lambda: stub.DeleteCapture(
                    capture_pb2.DeleteCaptureRequest(name=capture.name), timeout=max(deadline - time.monotonic(), TIDY_AGAIN_S)))
    raise Broken(f"captures are left that could not be listed or deleted in {TIDY_TIMEOUT_S:.0f} s")


def one_round(cluster, started: dict[str, tuple[int, int | None]], work: Callable[[], int]) -> tuple[int, dict[str, held_memory.Held]]:
    """How many calls `work` was, and what every process holds after it. Broken when one of those that were `started` has died, or a call ended wrongly."""
    try:
        made = work()
        held_memory.check_alive(cluster, started)
        tidy(cluster.address)
        held = held_memory.at_rest(cluster)
    except (Broken, ClusterError, OSError, grpc.RpcError) as error:
        held_memory.check_alive(cluster, started)  # which would be why
        if isinstance(error, grpc.RpcError):
            raise Broken(f"a call ended as it should not: {error!r}") from error
        raise
    held_memory.check_alive(cluster, started)
    if made == 0:
        raise ClusterError("a round made no call: let it run longer, or with a higher --rate")
    return made, held


def readings(cluster, work: Callable[[int], int], keep: Callable[[Found], None] = lambda found: None) -> Found:
    """What each process holds after each of growth.READINGS rounds. `work(n)` does round n and says how many calls it was;
    `keep` is given what there is after every round, since the next may fail."""
    calls, found = 0, {}
    started = held_memory.processes(cluster)
    for number in range(growth.READINGS):
        made, at_rest = one_round(cluster, started, lambda: work(number))
        calls += made
        for name, held in at_rest.items():
            points = found.setdefault(name, {"heap": [], "resident": [], "descriptors": []})
            for what in points:
                if (amount := getattr(held, what)) is not None:
                    points[what].append((calls, amount))
        keep(found)
    return found


def write(report: dict, path: pathlib.Path) -> None:
    """In whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(report) + "\n")
    part.rename(path)


def lines(found: Found) -> dict[str, dict[str, growth.Line]]:
    return {name: {what: growth.fit(points) for what, points in amounts.items() if points} for name, amounts in found.items()}


def faults(fits: dict[str, dict[str, growth.Line]]) -> tuple[list[str], list[str]]:
    """What surely grows, and what this run does not show to be flat, a line each.

    Of memory the heap decides, and resident memory where nobody tells the heap: a worker's supervisor.
    """
    grows, not_shown = [], []
    for name, amounts in fits.items():
        what, limit = ("heap", growth.MOST_BYTES_PER_CALL) if "heap" in amounts else ("resident", growth.MOST_RESIDENT_PER_CALL)
        if fault := growth.fault(f"{what} of {name}", amounts[what], limit):
            (grows if amounts[what].surely_above(limit) else not_shown).append(fault)
        if fault := growth.descriptors_fault(name, amounts["descriptors"]):
            grows.append(fault)
    return grows, not_shown


def table(fits: dict[str, dict[str, growth.Line]]) -> str:
    rows = [f"{'':<22}{'heap, MiB':>10}{'bytes a call':>18}{'resident, MiB':>15}{'bytes a call':>18}{'descriptors':>13}"]
    for name, amounts in fits.items():
        cells = [f"{name:<22}"]
        for what, width in (("heap", 10), ("resident", 15)):
            line = amounts.get(what)
            cells += [f"{'-':>{width}}{'-':>18}"] if line is None else [f"{line.mean / 2**20:>{width}.1f}{f'{line.per_call:+.1f} ± {line.bound:.1f}':>18}"]
        rows.append("".join(cells) + f"{amounts['descriptors'].mean:>13.1f}")
    return "\n".join(rows)


def judge(found_faults: list[str], say) -> int:
    """Says each fault; GOOD without any."""
    for line in found_faults:
        say(f"BROKEN: {line}")
    return BROKEN if found_faults else GOOD


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
    """GOOD when every process is shown to be flat; the load is the scenario's, and bad clients. Broken when a ledger does not hold or a process dies:
    memory.json then has what was read until then."""
    totals: dict[str, int] = {}

    def work(number: int) -> int:
        with BadClients(cluster.address) as others:
            made = generate(cluster, scenario, out, number,
                            [*flags, f"--duration={seconds / growth.READINGS}s", f"--seed={seed + number}"], totals, progress)
        totals["bad_clients"] = totals.get("bad_clients", 0) + others.calls
        return made + others.calls

    def measured(found: Found) -> dict:
        return {"scenario": scenario.stem, "seconds": time.monotonic() - begin, "machine": machine(), "commit": commit(), "totals": totals,
                "most_bytes_per_call": growth.MOST_BYTES_PER_CALL, "at_rest": found, "resident_mib": samples.thinned()}

    begin = time.monotonic()
    with Samples(cluster) as samples:
        found = readings(cluster, work, lambda found: write(measured(found), out / "memory.json"))
    fits = lines(found)
    grows, not_shown = faults(fits)
    say(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in totals.items()))
    say(table(fits))
    verdict = judge(grows + not_shown, say)
    report = measured(found) | {"grows": grows, "not_shown": not_shown, "fits": as_json(fits)}
    write(report, out / "memory.json")
    plots.memory(report, out / "memory.svg")
    return verdict


def kinds(cluster, scenario: pathlib.Path, out: pathlib.Path, calls: int) -> Iterator[tuple[str, Callable[[int], int]]]:
    """Each kind of call alone: its name, and a round of `calls` / growth.READINGS of them. REQUIRES: at least FEWEST_CALLS."""
    each = calls // growth.READINGS

    def generator(name: str, path: pathlib.Path, rate: float, *flags: str) -> tuple[str, Callable[[int], int]]:
        return name, lambda number: generate(cluster, path, out / name, number,
                                             [f"--rate={rate}", f"--duration={each / rate}s", "--warmup=0s", f"--seed={number + 1}", *flags], {})

    yield generator(scenario.stem, scenario, MODEST_RATE)
    yield generator("short", scenario_path("saturation"), MODEST_RATE)
    yield generator("flood", scenario_path("saturation"), FLOOD_RATE, "--retries=0")
    for name, once in bad_clients.KINDS.items():
        def work(_: int, once=once) -> int:
            with grpc.insecure_channel(cluster.address) as channel:
                return sum(once(cluster.address, channel) for _ in range(each // BAD_SHARE))
        yield name, work


def run_kinds(cluster, scenario: pathlib.Path, out: pathlib.Path, calls: int, say=lambda text: None) -> int:
    """Of each kind of call alone what every process keeps of it: `calls` from the generator, a tenth of bad clients. Broken as `run`, with kinds.json."""
    report, grows, not_shown = {}, [], []

    def keep(name: str, found: Found, **more) -> None:
        report[name] = {"at_rest": found} | more
        write({"machine": machine(), "commit": commit(), "kinds": report, "grows": grows, "not_shown": not_shown}, out / "kinds.json")

    for name, work in kinds(cluster, scenario, out, calls):
        begin = time.monotonic()
        found = readings(cluster, work, lambda found, name=name: keep(name, found))
        fits = lines(found)
        made = next(iter(found.values()))["resident"][-1][0]
        say(f"{name}: {made:.0f} calls in {time.monotonic() - begin:.0f} s\n{table(fits)}")
        for told, of_this in zip((grows, not_shown), faults(fits)):
            told += [f"{name}: {fault}" for fault in of_this]
        keep(name, found, calls=made, fits=as_json(fits))
    return judge(grows + not_shown, say)
