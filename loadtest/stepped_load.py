"""A stepped load on a suite whose lens decoders are started and stopped by the stand-in autoscaler: one decoder, then as
many as there may be, none, and two. Checks that every position of every generation is in the result exactly once, writes
what was seen as JSON and draws it.

loadtest/autoscale runs it by hand; tests/autoscaling runs the short form."""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable

# Decoders are started while calls are under way: gRPC has no part in the children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc  # noqa: E402
import plots  # noqa: E402
from suite_load import ROOT, commit, machine  # First: it says where others are.  # noqa: E402

from autoscaler import Autoscaler, Scaler  # noqa: E402
from cluster import DEFAULT_MODEL, Cluster  # noqa: E402
from sextant.v1 import inference_pb2, inference_pb2_grpc  # noqa: E402

REPORTS = ROOT / "loadtest/reports"
MOST_DECODERS = 4
GENERATED = 4
PHASE_DEADLINE_S = 300


@dataclasses.dataclass
class Step:
    """Generations sent together, and how many decoders they are to bring about."""

    name: str
    generations: int
    prompt_tokens: int
    decoders: int


@dataclasses.dataclass
class Plan:
    """Rows of one generation: its positions times the model's layers."""

    rows_per_decoder: int
    steps: list[Step]
    stabilization_s: float
    cooldown_s: float


# A generation of n prompt tokens records (n + GENERATED - 1) positions, on 30 layers of the quickstart's model.
SHORT = Plan(2000, [Step("one", 1, 40, 1), Step("burst", 8, 100, MOST_DECODERS), Step("two", 2, 50, 2)], 0.5, 0.5)
LONG = Plan(12_000, [Step("one", 1, 300, 1), Step("burst", 24, 400, MOST_DECODERS), Step("two", 2, 300, 2)], 5, 5)


def start(stub: inference_pb2_grpc.InferenceServiceStub, prompt: list[int]) -> grpc.Call:
    """Begins one generation, which waits for all of its readings."""
    request = inference_pb2.GenerateRequest(token_ids=inference_pb2.TokenIds(ids=prompt), max_new_tokens=GENERATED,
                                            ignore_eos=True, lens_wait_ms=600_000)
    request.lens.top_k = 3
    return stub.Generate(request, timeout=600)


def positions(call: grpc.Call) -> collections.Counter:
    """Follows a generation to its end. How often each position's readings came; raises when it fails."""
    seen: collections.Counter = collections.Counter()
    for event in call:
        if event.HasField("readings"):
            seen.update(event.readings.positions)
    return seen


class Recorder:
    """Samples the backlog and the decoders alive, twenty times a second."""

    def __init__(self, scaler: Scaler, cluster: Cluster) -> None:
        self._scaler, self._cluster = scaler, cluster
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.start = time.monotonic()
        self.samples: list[tuple[float, float, int]] = []
        self.failure: Exception | None = None

    def __enter__(self) -> "Recorder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(0.05):
                rows = self._scaler.value("sextant-lens-rows")
                self.samples.append((time.monotonic() - self.start, rows, decoders_alive(self._cluster)))
        except grpc.RpcError as error:
            self.failure = error

    def wait(self, what: str, condition: Callable[[tuple[float, float, int]], bool], watch: Callable[[], None]) -> None:
        """Until the condition holds of the newest sample. `watch` is called again and again, and may raise."""
        deadline = time.monotonic() + PHASE_DEADLINE_S
        while not (self.samples and condition(self.samples[-1])):
            watch()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {PHASE_DEADLINE_S} s: {what}; last (s, rows, decoders): {self.samples[-1:]}")
            time.sleep(0.02)


def decoders_alive(cluster: Cluster) -> int:
    return sum(p.binary == "lens_decoder" and p.alive() for p in list(cluster.processes))


def run_step(step: Step, stub, recorder: Recorder, autoscaler: Autoscaler, running: list[int], rows_first: float | None) -> dict:
    """One step, from its first request until nothing waits and no decoder is left. What it came to. `running` grows by the
    decoders there are after each scaling. The autoscaler is held until more than `rows_first` rows wait, unless that is None."""
    begin, first, scalings = time.monotonic() - recorder.start, len(autoscaler.decisions), len(running)
    pushed = len(autoscaler.pushes)
    followed: list[concurrent.futures.Future] = []

    def watch() -> None:
        """Raises what has gone wrong, so that nobody waits for readings that will not come."""
        for failure in (autoscaler.failure, recorder.failure):
            if failure is not None:
                raise failure
        for future in followed:
            if future.done():
                future.result()

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(step.generations))
        with autoscaler.held() if rows_first is not None else contextlib.nullcontext():
            for index in range(step.generations):
                call = start(stub, [(17 * index + i) % 900 + 100 for i in range(step.prompt_tokens)])
                stack.callback(call.cancel)  # no effect on one that has ended
                followed.append(pool.submit(positions, call))
            if rows_first is not None:
                recorder.wait(f"more than {rows_first} rows that wait", lambda sample: sample[1] > rows_first, watch)
        released = time.monotonic() - recorder.start
        while concurrent.futures.wait(followed, timeout=0.1).not_done:
            watch()
        counts = [future.result() for future in followed]
    decoded = time.monotonic() - recorder.start
    recorder.wait("no row and no decoder left", lambda sample: sample[1] == 0 and sample[2] == 0, watch)
    expected = collections.Counter(range(step.prompt_tokens + GENERATED - 1))
    wrong = [i for i, count in enumerate(counts) if count != expected]
    pushes = [when - recorder.start for when, active in autoscaler.pushes[pushed:] if active]
    starts = [when - recorder.start for when, wanted in autoscaler.decisions[first:] if wanted > 0]
    return {"name": step.name, "begin_s": round(begin, 3), "decoded_s": round(decoded, 3), "generations": step.generations,
            "positions": sum(expected.values()) * step.generations, "wrong_generations": wrong,
            "most_wanted": max((wanted for _, wanted in autoscaler.decisions[first:]), default=0),
            "most_running": max(running[scalings:], default=0), "expected_decoders": step.decoders,
            # From the push that rows wait, or the autoscaler's release, to the decision to start a decoder.
            "wake_ms": round(1000 * (starts[0] - (pushes[0] if rows_first is None else max(pushes[0], released))), 1)
            if pushes and starts else None}


def run(cluster: Cluster, plan: Plan, gather: bool = False) -> dict:
    """Plays the plan on a suite without decoders; with `gather` the rows that call for a step's decoders wait before the
    autoscaler may act, so that how fast they come does not count. REQUIRES: the suite is up."""
    capture = next(p for p in cluster.processes if p.binary == "capture")
    scaler = Scaler(f"127.0.0.1:{cluster.port + 20}", {"rowsPerDecoder": str(plan.rows_per_decoder), "maxAgeSeconds": "0"})
    channel = grpc.insecure_channel(cluster.address)
    running: list[int] = []

    def scale(count: int) -> None:
        cluster.scale(count, wait=False)
        running.append(decoders_alive(cluster))

    try:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        with Recorder(scaler, cluster) as recorder, Autoscaler(
                scaler, scale, MOST_DECODERS,
                stabilization_s=plan.stabilization_s, cooldown_s=plan.cooldown_s) as autoscaler:
            steps = [run_step(step, stub, recorder, autoscaler, running,
                              plan.rows_per_decoder * (step.decoders - 1) if gather else None) for step in plan.steps]
            decisions = [(round(when - recorder.start, 3), wanted) for when, wanted in autoscaler.decisions]
        if autoscaler.failure is not None:
            raise autoscaler.failure
        return {"rows_per_decoder": plan.rows_per_decoder, "most_decoders": MOST_DECODERS, "steps": steps,
                "decisions": [(max(0.0, when), wanted) for when, wanted in decisions],
                "samples": [(round(t, 3), rows, alive) for t, rows, alive in recorder.samples],
                "failed_positions": capture.metric("sextant_capture_failed_positions_total"),
                "leases_expired": capture.metric("sextant_capture_leases_expired_total")}
    finally:
        channel.close()
        scaler.close()


def check(report: dict) -> list[str]:
    """What is wrong with a report; nothing, if all is well."""
    wrong = []
    for step in report["steps"]:
        if step["wrong_generations"]:
            wrong.append(f"{step['name']}: positions missing or twice in generations {step['wrong_generations']}")
        for what in ("wanted", "running"):
            if step[f"most_{what}"] != step["expected_decoders"]:
                wrong.append(f"{step['name']}: {step[f'most_{what}']} decoders {what} where {step['expected_decoders']} were expected")
    if report["failed_positions"]:
        wrong.append(f"{report['failed_positions']:.0f} positions were given up")
    if report["samples"][-1][1] or report["samples"][-1][2]:
        wrong.append(f"at the end: {report['samples'][-1]}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="loadtest/autoscale", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=pathlib.Path, default=DEFAULT_MODEL)
    parser.add_argument("--port", type=int, default=31000)
    parser.add_argument("--long", action="store_true", help="a minute and a half of load instead of seconds")
    parser.add_argument("--redraw", action="store_true", help="only draw the report that is there again")
    parser.add_argument("--reports", type=pathlib.Path, default=REPORTS)
    arguments = parser.parse_args()
    data, picture = arguments.reports / "autoscale.json", arguments.reports / "autoscale.svg"
    if not arguments.redraw:
        with tempfile.TemporaryDirectory(prefix="sextant-autoscale-") as folder:
            cluster = Cluster(pathlib.Path(folder), port=arguments.port)
            cluster.up(arguments.model.resolve(), 1, 0, "cpu", "bfloat16")
            try:
                report = {"machine": machine(), "commit": commit()} | run(cluster, LONG if arguments.long else SHORT)
            finally:
                cluster.down()
        arguments.reports.mkdir(parents=True, exist_ok=True)
        data.write_text(json.dumps(report) + "\n")
    report = json.loads(data.read_text())
    plots.autoscale(report, picture)
    for step in report["steps"]:
        print(f"  {step['name']:<8}{step['generations']:>3} generations  {step['positions']:>6} positions, each once: "
              f"{'no' if step['wrong_generations'] else 'yes'}  decoders {step['most_wanted']}  decoded in "
              f"{step['decoded_s'] - step['begin_s']:.1f} s  woken in {step['wake_ms']} ms")
    wrong = check(report)
    for line in wrong:
        print(f"WRONG {line}")
    print(f"{picture}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
