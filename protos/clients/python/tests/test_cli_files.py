"""Files that commands leave: where they may go, and what Ctrl-C does to them."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import sextant
from sextant.cli import outputs
from sextant.cli.consoles import standard_error
from sextant.cli.saving import File, Saving

PATIENCE = 300  # Seconds a busy machine may take for what takes one.
GENERATE = ("generate", "Once", "--max-new-tokens", "3")
# Draws for an hour in a call that cannot be interrupted, as drawing a long text is.
SLOW = """
import sextant.heatmap.picture as picture, time, pathlib
def draw(document, path, **options):
    pathlib.Path(path).write_bytes(b"half")
    time.sleep(3600)
picture.draw = draw
"""


@pytest.mark.parametrize(
    ("flag", "begin"), [("--html", b"<!doctype"), ("--json", b'{"meta"'), ("--png", b"\x89PNG")]
)
def test_standard_output_gets_the_file_and_nothing_else(address, flag, begin, tmp_path):
    words = [sys.executable, "-m", "sextant.cli.main", "--server", address, *GENERATE, flag, "-"]
    done = subprocess.run(words, capture_output=True, cwd=tmp_path, timeout=PATIENCE)
    assert done.returncode == 0 and done.stdout.startswith(begin), done.stderr
    assert b"there was a" in done.stderr and b"there was a" not in done.stdout[:20]
    assert not list(tmp_path.iterdir())


def test_following_writes_to_standard_output_too(sextant_, client):
    out = client.generate("Once", max_new_tokens=3, lens=True).wait()
    code, text, err = sextant_("capture", "follow", out.capture, "--json", "-")
    assert code == 0 and json.loads(text)["meta"]["version"] == 2 and "3 positions read" in err


def test_a_partial_file_on_standard_output_says_so_inside(sextant_, gateway):
    gateway.missing = {0}
    code, out, _ = sextant_(*GENERATE, "--json", "-")
    assert code == 1 and json.loads(out)["meta"]["partial"] == "1 position has no readings yet"


@pytest.mark.parametrize(
    "words",
    [
        (*GENERATE, "--html", "-", "--json", "-"),
        (*GENERATE, "--capture", "resid_post", "--save-capture", "-"),
        ("capture", "get", "0" * 32, "--save", "-"),
        ("vector", "export", "happy", "--output", "-"),
    ],
)
def test_what_cannot_go_to_standard_output_is_refused(sextant_, gateway, words):
    code, out, err = sextant_(*words)
    assert code == 2 and "OUTPUT_NOT_WRITABLE" in err and "standard output" in err and not out
    assert not gateway.requests


@pytest.mark.parametrize("kind", ["html", "json", "safetensors"])
@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("x" * 300, "file name too long"),
        ("x" * 245, "file name too long"),  # With `.partial`.
        ("/proc/x", ""),
        ("none/x", "there is no folder"),
        ("file/x", "not a directory"),
        ("folder", "it is a folder"),
        ("nul\0", "no file can be called"),
    ],
)
def test_names_no_file_can_have_are_refused_before_any_work(
    sextant_, gateway, tmp_path, monkeypatch, kind, folder, why
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / f"folder.{kind}").mkdir()
    before = sorted(tmp_path.iterdir())
    flags = ("--capture", "resid_post", "--save-capture") if kind == "safetensors" else (f"--{kind}",)
    code, out, err = sextant_(*GENERATE, *flags, f"{folder}.{kind}")
    assert code == 2 and err.count("\n") == 1 and not out
    assert "INVALID_ARGUMENT/OUTPUT_NOT_WRITABLE" in err and why in err
    assert not gateway.requests and sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_there_is_only_overwritten_in_the_end(sextant_, gateway, tmp_path):
    path = tmp_path / "x.html"
    path.write_text("old")
    gateway.missing = {0}
    assert sextant_(*GENERATE, "--html", str(path))[0] == 1
    assert path.read_text() == "old" and (tmp_path / "x.partial.html").exists()


def test_a_link_that_leads_nowhere_yet_is_kept(sextant_, gateway, tmp_path):
    link, target = tmp_path / "x.html", tmp_path / "y.html"
    link.symlink_to(target)
    outputs.check_file("--html", str(link))
    assert link.is_symlink() and not target.exists()
    assert sextant_(*GENERATE, "--html", str(link))[0] == 0
    assert link.is_symlink() and target.stat().st_size > 0


def test_pipes_and_devices_are_written_to(sextant_, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    assert sextant_(*GENERATE, "--json", str(tmp_path / "pipe"))[0] == 0
    reader.join(PATIENCE)
    assert json.loads(read[0])["meta"]["version"] == 2 and len(list(tmp_path.iterdir())) == 1
    assert sextant_(*GENERATE, "--json", "/dev/null")[0] == 0


def started(address, *words: str, before: str = "") -> subprocess.Popen:
    """The command in a process of its own; `before` runs in it first."""
    program = f"{before}\nfrom sextant.cli.main import run\nrun()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "--server", address, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def read_until(stream, wanted: str) -> str:
    deadline = time.monotonic() + PATIENCE
    read = ""
    while wanted not in read:
        ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"it did not say {wanted!r}: {read}"
        piece = os.read(stream.fileno(), 1).decode(errors="replace")
        assert piece, f"it ended without {wanted!r}: {read}"
        read += piece
    return read


def test_ctrl_c_cancels_on_the_server(address, gateway, tmp_path):
    gateway.hold = True
    process = started(address, "generate", "Once", "--html", str(tmp_path / "x.html"))
    read_until(process.stdout, " was")  # The second token: the server now waits.
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "cancelled" in err
    assert "writing what arrived to" in err and "x.partial.html (partial)" in err
    assert "interrupted after 2 of" in (tmp_path / "x.partial.html").read_text("utf-8")
    assert gateway.cancelled.wait(PATIENCE)


@pytest.mark.parametrize("hold", [True, False])
def test_a_second_ctrl_c_gives_up_what_is_being_written(address, gateway, tmp_path, hold):
    """Whether the first came while tokens did, or while the whole picture was drawn."""
    gateway.hold = hold
    files = ("--json", str(tmp_path / "x.json"), "--png", str(tmp_path / "x.png"))
    process = started(address, *GENERATE, *files, before=SLOW)
    drawn = tmp_path / ("x.partial.png" if hold else "x.png")
    if hold:
        read_until(process.stdout, " was")
    else:
        until(drawn.exists)
    process.send_signal(signal.SIGINT)
    said = read_until(process.stderr, "Ctrl-C again gives it up")
    assert drawn.name in said
    until(drawn.exists)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)  # Far less than drawing takes.
    assert process.returncode == 130 and f"{drawn.name} is not written" in err and "Traceback" not in err
    assert not drawn.exists()


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_while_the_whole_is_written_lets_it_finish(address, gateway, tmp_path):
    gate = tmp_path / "gate"
    wait = f"""
import sextant.heatmap.picture as picture, time, pathlib
def draw(document, path, **options):
    pathlib.Path(path).write_bytes(b"whole")
    while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)
    return path
picture.draw = draw
"""
    files = (
        "--png",
        f"{tmp_path}/x.png",
        "--capture",
        "resid_post",
        "--save-capture",
        f"{tmp_path}/x.safetensors",
    )
    process = started(address, *GENERATE, *files, before=wait)
    until((tmp_path / "x.png").exists)
    process.send_signal(signal.SIGINT)
    read_until(process.stderr, "still writing")
    gate.touch()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "wrote" in out and "x.png" in out
    assert "what was asked for is written" in err and "cancelled" not in err
    assert (tmp_path / "x.png").read_bytes() == b"whole" and (tmp_path / "x.safetensors").exists()


def test_a_finished_file_is_not_given_up(tmp_path, monkeypatch):
    saving = Saving(standard_error(), interrupted=True)
    path = tmp_path / "x.json"

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    saving._write(File("json", str(path), lambda place: place.write_text("whole")))
    with pytest.raises(SystemExit):
        saving._hear()
    assert path.read_text() == "whole"


def test_watching_into_a_pipe_ends_with_it(address):
    process = started(address, "status", "--watch", "--metrics", "127.0.0.1:1")
    assert process.stdout.readline().startswith("gateway")
    process.stdout.close()
    assert process.wait(PATIENCE) == -signal.SIGPIPE and process.stderr.read() == ""
    process.stderr.close()


def test_the_library_says_what_files_cannot_be(client, tmp_path):
    capture = sextant.Capture(sites=["resid_post"])
    out = client.generate("Once", max_new_tokens=2, lens=True, capture=capture).wait()
    vector = client.vectors.put("happy", np.ones(8), layers=[3])
    nowhere = tmp_path / "none"
    for write in (
        lambda: out.activations.save(nowhere / "x.safetensors"),
        lambda: out.lens.save(nowhere / "x.json"),
        lambda: out.lens.heatmap(nowhere / "x.html"),
        lambda: out.lens.heatmap(nowhere / "x.png"),
        lambda: out.lens.heatmap(tmp_path / "a\0.html"),
        lambda: sextant.export_vector(vector, nowhere / "x.gguf"),
        lambda: sextant.export_vector(vector, nowhere / "x.safetensors"),
    ):
        with pytest.raises(sextant.SextantError) as caught:
            write()
        assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "OUTPUT_NOT_WRITABLE")
    with pytest.raises(sextant.SextantError) as caught:
        sextant.read_vector(tmp_path)
    assert caught.value.reason == "FILE_NOT_READABLE"


def test_an_unfinished_capture_is_no_file(client, gateway, tmp_path):
    out = client.generate("Once", max_new_tokens=2, capture=sextant.Capture(sites=["resid_post"])).wait()
    rows = out.activations
    client.captures.delete(out.capture)
    with pytest.raises(sextant.SextantError, match="unknown or has expired"):
        rows.save(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_capture_replaces_a_file_only_once_it_is_whole(client, tmp_path, monkeypatch, error):
    out = client.generate("Once", max_new_tokens=2, capture=sextant.Capture(sites=["resid_post"])).wait()
    path = tmp_path / "x.safetensors"
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    path.write_text("old")

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fail)
        with pytest.raises((sextant.SextantError, KeyboardInterrupt)):
            out.activations.save(path)
    assert path.read_text() == "old" and sorted(tmp_path.iterdir()) == [link, path]
    out.activations.save(link)
    assert link.is_symlink() and path.stat().st_size > 1000 and len(list(tmp_path.iterdir())) == 2


def test_a_capture_goes_into_a_pipe(client, tmp_path):
    out = client.generate("Once", max_new_tokens=2, capture=sextant.Capture(sites=["resid_post"])).wait()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    out.activations.save(pipe)
    reader.join(PATIENCE)
    assert pipe.is_fifo() and read == [out.activations.save(tmp_path / "x").read_bytes()]
