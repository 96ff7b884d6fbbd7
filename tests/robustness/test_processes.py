"""Each binary by itself: --help, bad flags, ports taken, models that cannot be served."""

import pathlib
import shutil
import socket
import subprocess
import urllib.request

import pytest
from suite import MODELS, ROOT

BINARIES = ["gateway", "shard_worker", "capture", "lens_decoder", "steering_registry"]


def run(binary: str, *flags: str, timeout: float = 30) -> subprocess.CompletedProcess:
    return subprocess.run([ROOT / "build/bin" / binary, *flags], capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("binary", BINARIES)
def test_help_explains_every_flag(binary: str) -> None:
    shown = run(binary, "--help").stdout
    assert "--http_port" in shown and len(shown.splitlines()) > 8, shown


@pytest.mark.parametrize("binary", BINARIES)
def test_unknown_flag_is_named(binary: str) -> None:
    ended = run(binary, "--no_such_flag=1")
    assert ended.returncode != 0 and "no_such_flag" in ended.stderr


def test_taken_port_is_named(tmp_path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = run("steering_registry", f"--port={port}", "--http_port=0", f"--data_dir={tmp_path}")
    assert ended.returncode != 0 and str(port) in ended.stderr


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ('"model_type": "llama"', ('"model_type": "mamba"', "mamba")),
        ('"rope_type": "llama3"', ('"rope_type": "yarn"', "yarn")),
        ('"num_hidden_layers": 3', ('"num_hidden_layers": 99999', "layer count is 99999")),
    ],
)
def test_models_that_cannot_be_served_are_refused_by_name(tmp_path, edit: str, said: tuple[str, str]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "llama31_tiny", folder)
    config = (folder / "config.json").read_text()
    assert edit in config
    (folder / "config.json").write_text(config.replace(edit, said[0]))
    ended = run("shard_worker", f"--model={folder}", "--ranks=1", "--port=0", "--http_port=0", timeout=60)
    assert ended.returncode != 0 and said[1] in ended.stderr, ended.stderr


def test_too_many_ranks_are_refused() -> None:
    ended = run("shard_worker", f"--model={MODELS / 'llama31_tiny'}", "--ranks=4", "--port=0", "--http_port=0", timeout=60)
    assert ended.returncode != 0 and "TP_TOO_LARGE" in ended.stderr + ended.stdout


def test_truncated_weights_are_refused(tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "llama31_tiny", folder)
    shard: pathlib.Path = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    ended = run("shard_worker", f"--model={folder}", "--ranks=1", "--port=0", "--http_port=0", timeout=60)
    assert ended.returncode != 0 and "SAFETENSORS_OFFSETS" in ended.stderr and "incomplete" in ended.stderr


def test_metrics_are_served(llama) -> None:
    for process in llama.processes:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.http}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert "process_resident_memory_bytes" in text and "sextant_" in text, process.name


@pytest.mark.parametrize("flags", [["--port", "99999"], ["--port", "0"], ["--decoders", "-1"], ["--decoders", "101"],
                                   ["--ranks", "0"], ["--ranks", "10"]])
def test_local_cluster_refuses_impossible_numbers(tmp_path, flags: list[str]) -> None:
    command = [ROOT / "deploy/local/up", "--folder", tmp_path / "x", "--model", MODELS / "qwen3_tiny", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "error: --port is" in ended.stderr and "Traceback" not in ended.stderr
