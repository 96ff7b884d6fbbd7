"""The load generator against real suites: its ledger holds, a damaged one does not, and upgrades lose nothing."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import types

import bad_clients
import growth
import grpc
import held_memory
import pytest
import rolling
import run as loadtest_run
import soak
import suite_load
import sweep
from cluster import Cluster, Process, start_time
from sextant.v1 import capture_pb2
from suite import MODELS, ROOT, free_base_port, process, until

LONG = os.environ.get("SEXTANT_TEST_SET") == "long"


@pytest.fixture(scope="module")
def cluster(make_cluster):
    cluster = make_cluster(MODELS / "llama31_tiny", ranks=2, decoders=1)
    yield cluster
    cluster.down()


@pytest.fixture(scope="module")
def ledger(cluster, tmp_path_factory) -> list[str]:
    """The lines of a good run's ledger."""
    folder = tmp_path_factory.mktemp("load")
    code, report = suite_load.run_load(cluster, suite_load.scenario_path("tiny"), folder, timeout_s=120)
    verdict = report["ledger"]
    assert code == suite_load.GOOD and verdict["good"], (folder / "load.txt").read_text()
    assert verdict["completed"] == verdict["planned"] > 20 and verdict["readings"] > 100 and verdict["kept_rows"] > 100
    assert report["genai_perf"]["time_to_first_token"]["count"] == report["ghz"]["count"] > 0
    return (folder / "load.ledger.jsonl").read_text().splitlines()


def check(lines: list[str], path: pathlib.Path) -> subprocess.CompletedProcess:
    path.write_text("\n".join(lines) + "\n")
    return subprocess.run([suite_load.GENERATOR, f"--check={path}"], capture_output=True, text=True, timeout=60)


def edited(lines: list[str], wanted, edit) -> list[str]:
    """The lines with the first attempt that is `wanted` changed by `edit`."""
    for number, line in enumerate(lines[1:], 1):
        attempt = json.loads(line)
        if attempt["code"] == 0 and wanted(attempt):
            edit(attempt)
            return [*lines[:number], json.dumps(attempt), *lines[number + 1 :]]
    raise AssertionError("the run had no such request")


DAMAGES = {
    "an answer is dropped": ("LOST", lambda lines: lines[:5] + lines[6:]),
    "an answer is doubled": ("TWICE", lambda lines: [*lines, lines[5]]),
    "a token is dropped": ("TOKENS_MISSING", lambda lines: edited(lines, lambda a: a["token_ids"], lambda a: a["token_ids"].pop())),
    "a token is doubled": ("TOKENS_MISSING", lambda lines: edited(lines, lambda a: a["token_ids"], lambda a: a["token_indices"].append([0, 1]))),
    "a reading is dropped": ("READINGS_MISSING", lambda lines: edited(lines, lambda a: a["lens_rows"], lambda a: a["reading_positions"].pop())),
    "a reading is doubled": ("READINGS_TWICE", lambda lines: edited(lines, lambda a: a["lens_rows"], lambda a: a["reading_positions"].append([0, 1]))),
    "a kept row is dropped": ("ROWS_MISSING", lambda lines: edited(lines, lambda a: a["capture_rows"], lambda a: a["kept"].pop())),
}


def test_the_ledger_of_a_run_is_good(ledger, tmp_path) -> None:
    result = check(ledger, tmp_path / "ledger")
    assert result.returncode == suite_load.GOOD and "ledger good" in result.stdout, result


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_fails(ledger, tmp_path, damage: str) -> None:
    word, act = DAMAGES[damage]
    result = check(act(ledger), tmp_path / "ledger")
    assert result.returncode == suite_load.BROKEN and word in result.stdout, result


def test_mistakes_are_named_before_anything_is_sent(cluster, tmp_path) -> None:
    scenario = tmp_path / "wrong.scenario"
    scenario.write_text("[load]\nrate = fast\n")
    load = suite_load.Load(cluster.address, scenario, tmp_path)
    assert load.wait(60) == suite_load.FAILED
    assert "VALUE_INVALID" in load.text.read_text() and "line 2" in load.text.read_text()


def test_upgrades_lose_no_request_that_has_a_retry_left(cluster, tmp_path) -> None:
    said: list[str] = []
    code = rolling.run(cluster, suite_load.scenario_path("tiny"), tmp_path, rounds=4 if LONG else 1, say=said.append)
    assert code == suite_load.GOOD, "\n".join(said)
    codes = json.loads((tmp_path / "rolling.json").read_text())["ghz"]["statusCodeDistribution"]
    assert codes["OK"] > 0, codes


def test_a_flood_is_refused_with_reason_and_delay(make_cluster, tmp_path) -> None:
    cluster = make_cluster(MODELS / "llama31_tiny", decoders=0, extra={"gateway": ["--max_concurrent_calls=4"]})
    code, report = suite_load.run_load(cluster, suite_load.scenario_path("saturation"), tmp_path, timeout_s=120,
                                       flags=["--rate=1000", "--duration=2s", "--warmup=0s"])
    assert code == suite_load.GOOD, (tmp_path / "load.txt").read_text()
    assert set(report["ghz"]["errorDistribution"]) == {"RESOURCE_EXHAUSTED TOO_MANY_CALLS"} and report["ghz"]["statusCodeDistribution"]["OK"] > 0
    count, in_time = sweep.refusals(cluster)
    assert count == report["ledger"]["refused"] and in_time > 0
    cluster.down()


def heap_of(leak: float, calls_a_round: int) -> list[tuple[float, float]]:
    """Readings of a process that fills its caches in the first rounds, breathes by 40 KiB, and leaks `leak` bytes a call."""
    noise = random.Random(5)
    return [(n * calls_a_round, 8e6 + 1e6 * (1 - 0.3**n) + leak * n * calls_a_round + noise.uniform(-2e4, 2e4)) for n in range(1, growth.READINGS + 1)]


@pytest.mark.parametrize(("leak", "calls", "verdict"), [
    (0, 1000, None), (-100, 1000, None), (5, 2000, None), (300, 1000, "grows"), (64, 1000, "grows"), (32, 2000, "grows"),
    (0, 50, "not shown to be flat"), (300, 10, "not shown to be flat")])
def test_a_leak_is_found_and_noise_is_not(leak: float, calls: int, verdict: str | None) -> None:
    line = growth.fit(heap_of(leak, calls))
    assert abs(line.per_call - leak) <= 2 * line.bound, line
    found = growth.fault("heap", line)
    assert (found is None) if verdict is None else (found and verdict in found), (found, line)


def test_the_confidence_is_what_it_says() -> None:
    noise = random.Random(7)
    missed = 0
    for _ in range(2000):
        line = growth.fit([(1000 * n, noise.gauss(0, 1e4)) for n in range(growth.READINGS)])
        missed += abs(line.per_call) > line.bound
    # 100 of 2000 are expected; the spread of that number is 10.
    assert 50 < missed < 150


def rounds_of(amount, calls_a_round: int = 1000) -> list[tuple[float, float]]:
    """Readings of what is `amount(n)` after round n."""
    return [(n * calls_a_round, amount(n)) for n in range(1, growth.READINGS + 1)]


@pytest.mark.parametrize(("changed", "grows", "not_shown"), [
    ({}, "", ""),
    ({"descriptors": rounds_of(lambda n: 10 + 2 * n)}, "descriptors of it grow: +2.0", ""),
    ({"descriptors": rounds_of(lambda n: 10 + n // 2)}, "", ""),  # as much as is allowed
    ({"descriptors": rounds_of(lambda n: 10 + n // 10, 50)}, "", ""),  # one, for good, and few calls
    ({"heap": rounds_of(lambda n: 40000 * n), "resident": rounds_of(lambda n: 0)}, "heap of it grows", ""),
    ({"heap": rounds_of(lambda n: 0), "resident": rounds_of(lambda n: 100000 * n)}, "", ""),  # the heap decides
    ({"resident": rounds_of(lambda n: 100000 * n)}, "resident of it grows", ""),
    ({"resident": rounds_of(lambda n: 400000 * (n % 5))}, "", "resident of it is not shown to be flat")])
def test_what_is_not_flat_is_said(changed: dict, grows: str, not_shown: str) -> None:
    flat = {"heap": [], "resident": rounds_of(lambda n: 2**20), "descriptors": rounds_of(lambda n: 10)}
    for found, expected in zip(soak.faults(soak.lines({"it": flat | changed})), (grows, not_shown)):
        assert len(found) == bool(expected) and expected in "".join(found), found


def this_process(**other) -> types.SimpleNamespace:
    """A cluster of one registry, which is the test itself."""
    one = {"name": "steering_registry", "binary": "steering_registry", "pid": os.getpid(), "http": 1, "ranks": list} | other
    return types.SimpleNamespace(processes=[types.SimpleNamespace(**one)])


def test_a_metric_that_is_gone_is_no_zero(monkeypatch) -> None:
    monkeypatch.setattr(held_memory.exposition, "scrape", lambda port: "sextant_gateway_requests_in_flight 0\nprocess_heap_bytes 5\n")
    assert held_memory.at_rest(this_process(binary="gateway"))["steering_registry"].heap == 5
    monkeypatch.setattr(held_memory.exposition, "scrape", lambda port: "process_heap_bytes_renamed 5\n")
    with pytest.raises(suite_load.Broken, match="process_heap_bytes"):
        held_memory.at_rest(this_process())
    with pytest.raises(suite_load.Broken, match="sextant_gateway_requests_in_flight"):
        held_memory.under_way(this_process(binary="gateway"))


@pytest.mark.parametrize(("ends", "why"), [("ledger", "the ledger"), ("died", "gateway has died"), ("call", "as it should not")])
def test_a_soak_that_ends_early_leaves_what_it_has_read(tmp_path, monkeypatch, ends: str, why: str) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        gateway = Process("gateway", "gateway", child.pid, 1, str(tmp_path / "log"), [], start_time(child.pid))

        def generate(cluster, scenario, out, number: int, *_) -> int:
            if number == 2:
                if ends == "died":
                    child.kill()
                    child.wait()
                raise {"ledger": suite_load.Broken("the ledger"), "died": suite_load.ClusterError("refused"), "call": grpc.RpcError("no")}[ends]
            return 10

        monkeypatch.setattr(soak, "generate", generate)
        monkeypatch.setattr(soak, "tidy", lambda address: None)
        monkeypatch.setattr(soak, "BadClients", lambda address: contextlib.nullcontext(types.SimpleNamespace(calls=1)))
        monkeypatch.setattr(held_memory, "at_rest", lambda cluster: {"gateway": held_memory.Held(5, 6, 7)})
        try:
            with pytest.raises(suite_load.Broken, match=why):
                soak.run(types.SimpleNamespace(address="", processes=[gateway]), pathlib.Path("tiny"), tmp_path, 60, [])
        finally:
            child.kill()
    report = json.loads((tmp_path / "memory.json").read_text())
    assert report["at_rest"] == {"gateway": {"heap": [[11, 5], [22, 5]], "resident": [[11, 6], [22, 6]], "descriptors": [[11, 7], [22, 7]]}}


class Answers(grpc.GenericRpcHandler):
    """Ends every call as told: by method a code, or a message to answer."""

    def __init__(self, answers: dict) -> None:
        self.answers = answers

    def service(self, details):
        answer = self.answers[details.method.rpartition("/")[2]]
        if isinstance(answer, grpc.StatusCode):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: context.abort(answer, "as the test wants"))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: answer().SerializeToString())


@contextlib.contextmanager
def answering(answers: dict):
    """The address of a server of `answers`."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[Answers(answers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL"])
def test_who_connects_bears_a_busy_suite(code: str) -> None:
    with answering({"GetModel": grpc.StatusCode[code]}) as address:
        with pytest.raises(suite_load.Broken, match=code) if code == "INTERNAL" else contextlib.nullcontext():
            assert bad_clients.connect(address, None) == 1


def test_what_is_tidied_may_be_gone_but_not_stay(monkeypatch) -> None:
    kept = capture_pb2.ListCapturesResponse(captures=[capture_pb2.Capture(name="captures/1")])
    lists = iter([kept, capture_pb2.ListCapturesResponse()])
    with answering({"ListCaptures": lambda: next(lists), "DeleteCapture": grpc.StatusCode.NOT_FOUND}) as address:
        soak.tidy(address)
    assert next(lists, None) is None
    monkeypatch.setattr(soak, "TIDY_TIMEOUT_S", 0.5)
    with answering({"ListCaptures": lambda: kept, "DeleteCapture": grpc.StatusCode.UNAVAILABLE}) as address, pytest.raises(suite_load.Broken, match="left"):
        soak.tidy(address)


@pytest.mark.parametrize(("words", "why"), [
    ("--kinds 0", "at least 180"), ("--kinds 179", "at least 180"), ("--kinds many", "invalid int"), ("--soak 0s", "at least 18s"), ("--soak 5", "not a time"),
    ("--duration 0s", "at least"), ("--rate 0", "at least"), ("--rate nan", "at least"), ("--seed -1", "at least"), ("--rolling --rounds 0", "at least"),
    ("--kinds 180 --rate 5", "--rate does nothing"), ("--kinds 180 --duration 5s", "--duration does nothing"), ("--kinds 180 --seed 0", "--seed does nothing"),
    ("--soak 18s --duration 5s", "--duration does nothing"), ("--rolling --duration 5s", "--duration does nothing"), ("--sweep --rounds 2", "--rounds does nothing"),
    ("--rounds 2", "--rounds does nothing")])
def test_arguments_that_cannot_be_are_refused(capsys, words: str, why: str) -> None:
    with pytest.raises(SystemExit) as ended:
        loadtest_run.parse(["tiny", *words.split()])
    assert ended.value.code == suite_load.FAILED and why in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--kinds 180", "--soak 18s --rate 5 --seed 0", "--rolling --rounds 2 --rate 5", "--sweep --rate 5 --duration 5s --seed 2", "--duration 5s"])
def test_arguments_that_can_be_are_taken(words: str) -> None:
    loadtest_run.parse(["tiny", *words.split()])


def test_what_does_not_hold_ends_with_a_line_and_its_status(tmp_path, monkeypatch, capsys) -> None:
    def broken(*_) -> int:
        raise suite_load.Broken("a call ended as it should not")

    monkeypatch.setattr(loadtest_run, "suite", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(loadtest_run, "check_generator", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(soak, "run_kinds", broken)
    assert loadtest_run.main(["tiny", "--kinds", "180", "--out", str(tmp_path)]) == suite_load.BROKEN
    assert capsys.readouterr().out.splitlines()[-1] == "BROKEN: a call ended as it should not"


def test_a_suite_hands_its_environment_to_what_it_starts(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SEXTANT_TEST_KEPT", "before")
    cluster = Cluster(tmp_path, tmp_path, 1, {"SEXTANT_TEST_KEPT": "in it", "SEXTANT_TEST_NEW": "in it"})
    (tmp_path / "tell").write_text("#!/bin/sh\necho $SEXTANT_TEST_KEPT, $SEXTANT_TEST_NEW\n")
    (tmp_path / "tell").chmod(0o755)
    told = cluster.start("tell", "tell", 1, [])
    until(lambda: pathlib.Path(told.log).read_text().endswith("\n"), "what it started to tell")
    assert pathlib.Path(told.log).read_text() == "in it, in it\n"
    assert os.environ["SEXTANT_TEST_KEPT"] == "before" and "SEXTANT_TEST_NEW" not in os.environ


def test_a_gateway_that_leaks_is_found(make_cluster, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        for name, value in held_memory.EXACT.items():
            patched.setenv(name, value)
        cluster = make_cluster(MODELS / "llama31_tiny")
        patched.setenv("LD_PRELOAD", str(ROOT / "build/tests/leak_per_call.so"))
        suite_load.restart(cluster, process(cluster, "gateway"))

    def work(number: int) -> int:
        return soak.generate(cluster, suite_load.scenario_path("saturation"), tmp_path, number, ["--rate=120", "--duration=0.5s"], {})

    heaps = {name: amounts["heap"] for name, amounts in soak.lines(soak.readings(cluster, work)).items() if "heap" in amounts}
    cluster.down()
    # A few draws of 48 bytes, which malloc makes 64 of.
    assert 150 < heaps["gateway"].per_call < 1500 and "grows" in (growth.fault("gateway", heaps["gateway"]) or ""), heaps
    assert not [name for name, line in heaps.items() if name != "gateway" and line.surely_above(100)], heaps


def sweep_point(offered: float, goodput: float, **other) -> dict:
    return {"offered": offered, "goodput": goodput, "refused": offered - goodput, "errors": {"RESOURCE_EXHAUSTED QUEUE_FULL": 5}, "refusals": 1000.0,
            "refusals_in_time": 999.0, "capacity": 10.0, "reference": False, "first_token_p50": 500.0, "inter_token_p50": 50.0, "ledger_good": True} | other


@pytest.mark.parametrize(("broken", "why"), [
    ({}, ""), ({"goodput": 8.5}, "goodput is 0.85"), ({"refusals_in_time": 900.0}, "refusals within 10 ms"), ({"first_token_p50": 2000.0}, "first_token_p50"),
    ({"ledger_good": False}, "ledger"), ({"errors": {"INTERNAL X": 1}}, "INTERNAL X")])
def test_a_sweep_says_what_does_not_hold(broken: dict, why: str) -> None:
    points = [sweep_point(15, 10, reference=True), sweep_point(50, **({"goodput": 9.5} | broken)), sweep_point(15, 10, reference=True), sweep_point(5, 5)]
    wrong = sweep.faults(points)
    assert len(wrong) == (1 if why else 0) and (not why or why in wrong[0]), wrong


def test_ctrl_c_takes_the_suite_down(tmp_path) -> None:
    command = [sys.executable, str(ROOT / "loadtest/run.py"), "tiny", "--model", str(MODELS / "llama31_tiny"), "--port", str(free_base_port(29000)),
               "--duration", "600s", "--out", str(tmp_path)]
    with open(tmp_path / "said", "wb") as said:
        run = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while "requests started" not in (tmp_path / "said").read_text():
            assert run.poll() is None and time.monotonic() < deadline, (tmp_path / "said").read_text()
            time.sleep(0.05)
        state = json.loads((tmp_path / "suite/state.json").read_text())
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == suite_load.INTERRUPTED, (tmp_path / "said").read_text()
        assert not [p["name"] for p in state["processes"] if pathlib.Path(f"/proc/{p['pid']}").exists()]
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)  # with the generator, which is in its session
            run.wait()
        Cluster(tmp_path / "suite").down()


@pytest.mark.skipif(not LONG, reason="a soak takes minutes; tests/run --long runs it")
def test_no_process_grows_with_its_calls(tmp_path, capsys) -> None:
    said: list[str] = []
    with suite_load.suite(tmp_path / "suite", MODELS / "llama31_tiny", 2, 1, free_base_port(29500), environment=held_memory.EXACT) as cluster:
        soak.run(cluster, suite_load.scenario_path("tiny"), tmp_path, 600, ["--rate=30"], say=said.append)
    report = json.loads((tmp_path / "memory.json").read_text())
    # Ten minutes decide of most processes, not of all.
    with capsys.disabled():
        for line in report["not_shown"]:
            print(f"\n{line}")
    assert not report["grows"], "\n".join(said)
