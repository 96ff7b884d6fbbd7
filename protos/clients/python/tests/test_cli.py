"""The command: what it prints, writes and exits with."""

from __future__ import annotations

import io
import shlex
import sys

import grpc
import numpy as np
import pytest
from rich.console import Console

import sextant
from sextant.cli import arguments, live, status
from sextant.cli.main import main, parser
from sextant.cli.status import figures


def test_generate_writes_everything(sextant_, tmp_path, gateway):
    files = {kind: tmp_path / f"x.{kind}" for kind in ("html", "png", "json", "safetensors")}
    flags = (
        "--max-new-tokens 4 --temperature 0.7 --top-p 0.9 --top-k 40 --seed 1 --capture resid_post,attn_out"
    )
    steer = "happy@2:-0.5,layers=2-3,5,positions=generation"
    for flag in ("html", "png", "json"):
        flags += f" --{flag} {files[flag]}"
    flags += f" --save-capture {files['safetensors']} --steer {steer}"
    code, out, err = sextant_("generate", "Once upon", *flags.split())
    assert code == 0 and "Once upon there was a small" in out
    assert all(path.stat().st_size > 100 for path in files.values())
    assert "2 prompt + 4 generated tokens" in err and "5 of 5 positions read" in err
    request = gateway.requests[0]
    assert request.sampling.top_k == 40 and request.sampling.seed == 1 and request.lens.tracked
    (intervention,) = request.interventions
    assert intervention.vector == "happy@2" and list(intervention.layers) == [2, 3, 5]
    assert intervention.positions.generation.all and intervention.strength == -0.5


def test_chat_and_quiet(sextant_, gateway):
    code, out, err = sextant_(
        "generate", "--chat", "--system", "Be brief", "Hi", "--max-new-tokens", "2", "--quiet"
    )
    assert (code, out, err) == (0, " there was\n", "")
    assert [m.role for m in gateway.requests[0].chat.messages] == ["system", "user"]


def test_missing_readings_are_an_exit_code(sextant_, gateway):
    gateway.missing = {0}
    assert sextant_("generate", "Once", "--max-new-tokens", "3", "--lens")[0] == 1


def test_errors_are_one_line(sextant_, gateway):
    gateway.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPTURE_STALLED", "start a decoder [x]", 2)
    code, _, err = sextant_("generate", "Once")
    assert code == 1
    assert err.strip() == "sextant: RESOURCE_EXHAUSTED/CAPTURE_STALLED: start a decoder [x] (retry after 2 s)"
    assert sextant_("generate", "")[1:] == (
        "",
        "sextant: INVALID_ARGUMENT/PROMPT_EMPTY: the prompt holds no token; write one\n",
    )
    assert main(["--server", "127.0.0.1:1", "model"]) == 3


def test_captures(sextant_, tmp_path, client):
    client.generate("Once upon", max_new_tokens=2, capture=sextant.Capture(sites=["resid_post"])).wait()
    code, out, _ = sextant_("capture", "list")
    assert code == 0 and "0123456789abcdef" in out and "complete" in out
    identifier = client.captures.list()[0].id
    path = tmp_path / "c.safetensors"
    assert sextant_("capture", "get", identifier, "--save", str(path))[0] == 0 and path.exists()
    assert "0–2" in sextant_("capture", "get", identifier)[1]
    assert sextant_("capture", "delete", identifier)[0] == 0
    assert "no captures" in sextant_("capture", "list")[1]


def test_vectors(sextant_, tmp_path, client):
    client.vectors.put("happy", np.ones((1, 8)), layers=[3])
    path = tmp_path / "h.gguf"
    assert sextant_("vector", "export", "happy@1", "--output", str(path))[0] == 0
    assert path.read_bytes()[:4] == b"GGUF"
    assert sextant_("vector", "export", "happy@1")[0] == 2
    assert "stored joy@1" in sextant_("vector", "import", str(path), "--name", "joy")[1]
    assert "joy@1" in sextant_("vector", "list")[1] and "resid_post" in sextant_("vector", "show", "joy")[1]
    assert "deleted 1 version of joy" in sextant_("vector", "delete", "joy")[1]
    code, _, err = sextant_("vector", "show", "joy")
    assert code == 1 and "NOT_FOUND/VECTOR_NOT_FOUND" in err


def test_model_tokenize_status(sextant_):
    assert "fake-7m" in sextant_("model")[1]
    assert len(sextant_("tokenize", "Once upon a time")[1].split()) == 4
    code, out, _ = sextant_("status", "--metrics", "127.0.0.1:1")
    assert (
        code == 1 and "not serving" in out and "fake-7m" in out
    )  # The made-up gateway has no health service.


def test_figures_of_metrics():
    page = (
        '# HELP x y\nsextant_rows_total{rank="0"} 3\nsextant_rows_total{rank="1"} 4\n'
        'sextant_t_bucket{le="1"} 9\nother 5\nsextant_zero 0\n'
    )
    assert figures(page) == "rows_total 7"


def test_steer_words():
    steer = arguments.steer("happy:1.5,operator=clamp,low=-1,high=2,preserve_norm=true,positions=0,-1")
    assert (steer.vector, steer.strength, steer.operator, steer.low, steer.high) == (
        "happy",
        1.5,
        "clamp",
        -1,
        2,
    )
    assert steer.preserve_norm and steer.positions == [0, -1]
    assert arguments.steer("a:1,positions=-3:").positions == [slice(-3, None)]
    for bad in (
        "happy",
        "happy:",
        ":1",
        "happy:x",
        "happy:1,colour=red",
        "happy:1,2",
        "happy:1,strict=maybe",
    ):
        with pytest.raises(SystemExit) as caught:
            parser().parse_args(["generate", "x", "--steer", bad])
        assert caught.value.code == 2


def test_live_heatmap_fits_and_shows_what_came(client):
    out = client.generate("Once upon a time </script>", max_new_tokens=12, lens=sextant.Lens())
    console = Console(file=io.StringIO(), width=60, height=20, force_terminal=True)
    live.LiveHeatmap(client, out, console, "Once upon a time").run()
    last = console.file.getvalue()
    assert "there" in last and "probability" in last
    plain = Console(file=io.StringIO(), width=60, height=20)
    plain.print(live.LiveHeatmap(client, out, console, "Once").frame())
    assert max(len(line) for line in plain.file.getvalue().splitlines()) <= 60


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--html /tmp", "UNKNOWN_FORMAT"),
        ("--png a.gif", "UNKNOWN_FORMAT"),
        ("--lens --theme dark", "NO_PICTURE"),
        ("--lens-top-k 3", "FLAG_WITHOUT_EFFECT"),
        ("--lens-wait 3", "FLAG_WITHOUT_EFFECT"),
        ("--system Be", "FLAG_WITHOUT_EFFECT"),
        ("--capture-before-steering", "FLAG_WITHOUT_EFFECT"),
        ("--save-capture x.safetensors", "FLAG_WITHOUT_EFFECT"),
        ("--seed -1", "BAD_ARGUMENT"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(sextant_, gateway, flags, reason):
    code, out, err = sextant_("generate", "Once", *flags.split())
    assert code == 2 and reason in err and not out
    assert not gateway.requests


def test_a_failed_call_leaves_what_arrived(sextant_, gateway, tmp_path):
    gateway.fail = (grpc.StatusCode.UNAVAILABLE, "GROUP_LOST", "send it again", 1)
    gateway.fail_after = 2
    files = {kind: tmp_path / f"x.{kind}" for kind in ("html", "png", "json", "safetensors")}
    flags = [f"--{kind}={files[kind]}" for kind in ("html", "png", "json")]
    code, out, err = sextant_(
        "generate", "Once upon", *flags, "--capture", "resid_post", f"--save-capture={files['safetensors']}"
    )
    assert code == 1 and " there was a" in out  # A service behind the gateway is not "no server".
    assert "GROUP_LOST" in err and err.count("(partial)") == 4
    assert not any(path.exists() for path in files.values())
    for kind, path in files.items():
        text = path.with_name(f"x.partial.{kind}").read_bytes()
        assert len(text) > 100
        if kind in ("html", "json"):
            assert b"failed (GROUP_LOST) after 3 of at most 64 tokens" in text


def test_missing_readings_say_how_to_go_on(sextant_, gateway, address, tmp_path):
    gateway.missing = {0}
    path = tmp_path / "h h.html"
    code, out, err = sextant_("generate", "Once", "--max-new-tokens", "3", "--html", str(path))
    assert code == 1 and not path.exists() and "h h.partial.html (partial)" in out
    words = shlex.split(err.split("wait for them with: sextant ")[1])
    assert words[:4] == ["--server", address, "capture", "follow"] and main(words) == 0
    assert "partial" not in path.read_text("utf-8").split('"strings"')[0].split('"missing"')[0]
    assert '"missing":0' in path.read_text("utf-8")
    gateway.hold = True
    code, out, err = sextant_("capture", "follow", words[4], "--wait", "0.3")
    assert code == 1 and "READINGS_LATE" in err and "3 positions" in err


def test_standard_input_must_be_text(sextant_, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))
    code, _, err = sextant_("generate", "-")
    assert code == 2 and "TEXT_NOT_UTF8" in err and "byte 1" in err


def test_warnings_are_shown_at_once_over_the_live_heatmap(client):
    out = client.generate("Once", max_new_tokens=3, lens=True, steer=sextant.Steer("idle", 2))
    console = Console(file=io.StringIO(), width=80, height=20, force_terminal=True)
    live.LiveHeatmap(client, out, console, "Once").run()
    assert console.file.getvalue().count("INTERVENTION_TOUCHED_NOTHING") == 1


def test_status_counts_lens_decoders():
    assert "connected: 2" in status._decoders("sextant_capture_decoders 2\n").plain
    assert "scale --decoders 1" in status._decoders('sextant_capture_decoders{a="b"} 0\n').plain
    assert "unknown" in status._decoders("").plain
