"""deploy/local as its users meet it: reasons for what cannot start, cleaning up, what status says of the dead."""

import os
import pathlib
import signal
import subprocess
import time

import pytest
from suite import MODELS, ROOT, free_base_port  # First: it finds cluster.

import cluster

UP = ["--decoders", "1", "--dtype", "float32"]
ATTEMPTS = 5


def command(name: str, folder: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
    words = [ROOT / "deploy/local" / name, "--folder", folder, *flags]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


def processes_of(folder: pathlib.Path) -> list[int]:
    """Processes that were started for the cluster in `folder`: they name it, or hold its logs open."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.readlink(entry / "fd/2").startswith(str(folder / "logs")):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", MODELS / "llama31_tiny", "--ranks", "4"], "TP_TOO_LARGE"),
        (["--model", "/etc"], "MODEL_FILE_MISSING"),
        (["--model", MODELS / "llama31_tiny", "--device", "cuda"], "cuda"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(tmp_path, flags, said) -> None:
    if said == "cuda" and pathlib.Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a CUDA device, which may well start")
    ended = command("up", tmp_path, "--port", str(free_base_port(21000)), *flags, *UP)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ") and said in line, line
    assert processes_of(tmp_path) == [] and not (tmp_path / "state.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("local/up", "--folder", ""),
        ("local/up", "--model", ""),
        ("local/down", "--folder", ""),
        ("quickstart", "--model", ""),
        ("quickstart", "--port", ""),
        ("quickstart", "--port", "abc"),
        ("quickstart", "--port", "70000"),
        ("quickstart", "--model", "/none"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_step(tmp_path, words) -> None:
    ended = subprocess.run([ROOT / "deploy" / words[0], *words[1:]], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert ended.returncode == 2 and "1/5" not in ended.stdout, ended.stderr
    said = ended.stderr.splitlines()[-1]  # what argparse says before is its usage, which names every flag
    assert "error: " in said and all(word in said for word in words[1:]), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("device", "ranks", "gpus", "placed"),
    [
        ("cpu", 3, 0, ("cpu", "cpu")),
        ("cuda", 1, 2, ("cuda:0", "cuda:1")),
        ("cuda", 2, 4, ("cuda:0", "cuda:2")),
        ("cuda", 4, 4, ("cuda:0", "cpu")),
    ],
)
def test_decoders_go_where_no_rank_is(device, ranks, gpus, placed) -> None:
    assert cluster.place(device, ranks, gpus) == placed


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, 3), ("", 0), ("0", 1), ("2,0", 2), (" 1, 2 ", 2), ("-1", 0), ("0,-1,1", 1), ("0,7,1", 1), ("1,1", 0),
        ("GPU-8932f937-d72c,0", 2), ("NoDevFiles", 0),
    ],
)
def test_gpus_that_cuda_does_not_show_are_not_counted(tmp_path, visible, seen) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert cluster.gpu_count(visible, tmp_path) == seen


def test_more_ranks_than_gpus_are_refused() -> None:
    with pytest.raises(cluster.ClusterError, match="2 ranks: this machine shows 1"):
        cluster.place("cuda", 2, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_starting_leaves_nothing(tmp_path, number) -> None:
    # A machine under load may let `up` end before it lets this test send the signal.
    assert any(interrupts(tmp_path / str(attempt), number) for attempt in range(ATTEMPTS)), "the signal is not heeded"


def interrupts(folder: pathlib.Path, number: signal.Signals) -> bool:
    """Signals an `up` that has begun and checks what it leaves; False if it was done before the signal came."""
    words = [ROOT / "deploy/local/up", "--folder", folder, "--model", MODELS / "llama31_tiny"]
    process = subprocess.Popen([*words, "--port", str(free_base_port(21000)), *UP], stdout=subprocess.PIPE, text=True)
    try:
        assert "is ready" in process.stdout.readline()  # It has begun.
        process.send_signal(number)
        rest = process.stdout.read()
        status = process.wait(60)
        if "up: gateway" in rest:
            return False
        assert status == 130
        assert processes_of(folder) == [] and not (folder / "state.json").exists()
        return True
    finally:
        process.terminate()
        process.wait(60)
        command("down", folder)


def test_status_names_the_dead_and_their_cure(tmp_path) -> None:
    port = str(free_base_port(21000))
    assert command("up", tmp_path, "--model", MODELS / "llama31_tiny", "--port", port, *UP).returncode == 0
    try:
        shown = command("status", tmp_path).stdout
        assert "lens decoders connected: 1" in shown
        pids = {words[0]: int(words[1]) for line in shown.splitlines() if len(words := line.split()) > 3 and words[1].isdecimal()}
        ranks = [int(line.split()[2]) for line in shown.splitlines() if line.startswith("  rank ")]
        assert len(ranks) == 2
        for rank, pid in enumerate(ranks):
            told = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
            assert told == f"shard_worker rank {rank}/2"
            assert pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == f"shard_worker/{rank}"
        os.kill(pids["lens_decoder-1"], signal.SIGKILL)
        shown = until_status(tmp_path, "lens_decoder-1 has died")
        assert f"deploy/local/scale --decoders 1 --folder {tmp_path}" in shown
        os.kill(pids["shard_worker"], signal.SIGKILL)
        shown = until_status(tmp_path, "shard_worker has died")
        assert "deploy/local/down" in shown and f"--port {port}" in shown and "llama31_tiny" in shown
    finally:
        assert command("down", tmp_path).returncode == 0
    assert processes_of(tmp_path) == []


def test_what_ended_before_its_start_was_read_is_dead() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie, as what fails at once is to its starter
    ended = cluster.Process("it", "it", child.pid, 0, "", [], cluster.start_time(child.pid))
    assert not ended.alive()


def until_status(folder: pathlib.Path, wanted: str) -> str:
    deadline = time.monotonic() + 20
    while True:
        ended = command("status", folder)
        if wanted in ended.stdout or time.monotonic() > deadline:
            assert wanted in ended.stdout and ended.returncode == 1, ended.stdout
            return ended.stdout


@pytest.mark.parametrize("words", ["setup model", "setup", "quickstart", "local/up", "local/down", "local/status", "local/scale"])
def test_help_explains_and_does_nothing(words) -> None:
    name, *step = words.split()
    ended = subprocess.run([ROOT / "deploy" / name, *step, "--help"], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 0 and ended.stdout.startswith("usage: deploy/" + name), ended.stdout
    assert "#" not in ended.stdout and not ended.stderr
