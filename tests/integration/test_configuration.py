"""Flags as people set them, over all five binaries: environment twins, files, --print-config."""

import json
import os
import re
import subprocess

import pytest
from suite import ROOT

BINARIES = ["gateway", "shard_worker", "capture", "lens_decoder", "steering_registry"]
# Of a rank process, set by its supervisor.
INTERNAL = {"rank", "group_fd", "epoch", "restarts"}


def run(binary: str, *flags: str, **variables: str) -> str:
    """What the binary prints with these flags and, of ours, these environment variables only."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEXTANT_")} | variables
    ended = subprocess.run([ROOT / "build/bin" / binary, *flags], env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.stdout


def config(binary: str, *flags: str, **variables: str) -> dict[str, dict[str, str]]:
    return json.loads(run(binary, *flags, "--print-config=json", **variables))["flags"]


@pytest.mark.parametrize("binary", BINARIES)
def test_every_flag_has_an_environment_twin_and_help_says_so(binary: str) -> None:
    text = run(binary, "--help")
    assert "SEXTANT_LOG_LEVEL" in text
    listed = set(re.findall(r"^ {4}--(\w+) \(", text, re.MULTILINE)) - INTERNAL - {"print_config"}
    defaults = config(binary)
    assert set(defaults) == listed
    assert {entry["source"] for entry in defaults.values()} == {"default"}
    twins = {f"SEXTANT_{name.upper()}": entry["value"] for name, entry in defaults.items()}
    twins |= {"SEXTANT_LOG_LEVEL": "warning", "SEXTANT_HTTP_PORT": "4321"}
    changed = config(binary, **twins)
    assert {name: entry["source"] for name, entry in changed.items()} == {n: f"environment SEXTANT_{n.upper()}" for n in listed}
    assert changed["log_level"]["value"] == "warning" and changed["http_port"]["value"] == "4321"


@pytest.mark.parametrize("binary", BINARIES)
def test_what_is_printed_is_a_file_for_the_next_start(binary: str, tmp_path) -> None:
    printed = run(binary, "--log-level=error", "--print-config", SEXTANT_HOST="::1")
    assert "# command line\n--log_level=error\n" in printed and "# environment SEXTANT_HOST\n--host=::1\n" in printed
    (tmp_path / "flags").write_text(printed)
    again = config(binary, f"--flagfile={tmp_path / 'flags'}")
    assert again["host"] == {"value": "::1", "source": "flagfile", "default": "127.0.0.1"}
    assert again["log_level"]["value"] == "error"
    assert {name: entry["value"] for name, entry in again.items()} == \
        {name: entry["value"] for name, entry in config(binary, "--log_level=error", SEXTANT_HOST="::1").items()}


@pytest.mark.parametrize("binary", BINARIES)
def test_the_command_line_wins_and_bad_twins_are_named(binary: str) -> None:
    entry = config(binary, "--http-port=5", SEXTANT_HTTP_PORT="6")["http_port"]
    assert (entry["value"], entry["source"]) == ("5", "command line")
    environment = os.environ | {"SEXTANT_HTTP_PORT": "many", "SEXTANT_LOG_FORMAT": "json"}
    ended = subprocess.run([ROOT / "build/bin" / binary], env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0 and "SEXTANT_HTTP_PORT" in ended.stderr
    assert "must be flags or json" in subprocess.run([ROOT / "build/bin" / binary, "--print-config=yaml"], capture_output=True,
                                                     text=True, timeout=30).stderr
