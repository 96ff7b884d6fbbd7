"""The load generator against real suites: its ledger holds, a damaged one does not, and upgrades lose nothing."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import growth
import held_memory
import pytest
import rolling
import soak
import suite_load
import sweep
from cluster import Cluster
from suite import MODELS, ROOT, free_base_port, process

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


def heap_of(leak: float, calls_a_round: int, step: int = 0) -> list[tuple[float, float]]:
    """Readings of a process that fills its caches in the first rounds, breathes by 40 KiB, once takes a `step` more, and leaks `leak` bytes a call."""
    noise = random.Random(5)
    return [(n * calls_a_round, 8e6 + 1e6 * (1 - 0.3**n) + (step if n > growth.READINGS // 2 else 0) + leak * n * calls_a_round + noise.uniform(-2e4, 2e4))
            for n in range(1, growth.READINGS + 1)]


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
def test_no_process_keeps_anything_of_its_calls(tmp_path) -> None:
    said: list[str] = []
    with suite_load.suite(tmp_path / "suite", MODELS / "llama31_tiny", 2, 1, free_base_port(29500), environment=held_memory.EXACT) as cluster:
        code = soak.run(cluster, suite_load.scenario_path("tiny"), tmp_path, 600, ["--rate=30"], say=said.append)
    assert code == suite_load.GOOD, "\n".join(said)
