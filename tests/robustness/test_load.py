"""The load generator against real suites: its ledger holds, a damaged one does not, and upgrades lose nothing."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from suite import MODELS, ROOT, free_base_port

sys.path.insert(0, str(ROOT / "loadtest"))

import rolling  # noqa: E402
import soak  # noqa: E402
import suite_load  # noqa: E402
import sweep  # noqa: E402
from cluster import Cluster  # noqa: E402

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


def memory_of(leak_mib_per_hour: float) -> list[tuple[float, float]]:
    """Ten minutes of a process that fills its caches, breathes by a MiB, and leaks."""
    noise = random.Random(5)
    return [(t, 200 + min(t, 100) / 5 + noise.uniform(-0.5, 0.5) + leak_mib_per_hour * t / 3600) for t in range(600)]


@pytest.mark.parametrize(("leak", "found"), [(0.0, False), (0.5, False), (-30.0, False), (60.0, True), (600.0, True)])
def test_a_leak_is_found_and_noise_is_not(leak: float, found: bool) -> None:
    line = soak.fit(memory_of(leak))
    assert abs(line["slope_mib_per_hour"] - leak) <= 2 * line["bound_mib_per_hour"], line
    assert bool(soak.grows("process", line, 600)) == found, line


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
def test_memory_stays_flat(cluster, tmp_path) -> None:
    said: list[str] = []
    code = soak.run(cluster, suite_load.scenario_path("tiny"), tmp_path, 180, [], said.append)
    assert code == suite_load.GOOD, "\n".join(said)
