"""The load generator against real suites: its ledger holds, a damaged one does not, and upgrades lose nothing."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from suite import MODELS, ROOT

sys.path.insert(0, str(ROOT / "loadtest"))

import rolling  # noqa: E402
import suite_load  # noqa: E402

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
