"""The command under odd arguments: a line that says what is wrong, never a traceback."""

from __future__ import annotations

import argparse
import io
import random
import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import sextant
from sextant.cli.main import main, parser

ODD = [
    *("", " ", "-", "--", "-1", "0", "1", "3", "1.5", "nan", "-inf", "1e400", "9" * 30, "9" * 5000, "١"),
    *(
        "a",
        "a" * 300,
        "\udcff",
        "é漢\U0001f426",
        "\0",
        "\n",
        "\x1b[31m",
        "[red]",
        "[/red]",
        "%s",
        "{0}",
        "\\",
    ),
    *(
        ".",
        "..",
        "/",
        "/proc/x.html",
        "/dev/null",
        "x.html",
        "x.png",
        "[/b].json",
        "x.gguf",
        "v.npy",
        "none/x",
    ),
    *(
        ":",
        ",",
        "=",
        "@",
        "a:b:c",
        "1:2:3",
        "10-5",
        "0-99999",
        "0-9999999999",
        "0,-1",
        "-3:",
        "all",
        "prompt",
    ),
    *(
        "happy:1",
        "happy@1:nan",
        "happy:1,layers=",
        "happy:1,layers=9-1",
        "happy@x:1,site=y",
        ":1",
        "x:1,low=z",
    ),
    *("resid_post", "resid_post,attn_out", "resid", "happy", "happy@1", "happy@99", "0123456789abcdef" * 2),
    *("127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1:99999999", "[::1]:1", "a b:1"),
]


def commands(
    top: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list]]:
    """(words, actions) of every command."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, under in action.choices.items():
                yield from commands(under, (*words, name))
            return
    yield words, top._actions


def line(rng: random.Random, words: tuple[str, ...], actions: list) -> list[str]:
    """One command line: some flags, in any order, with any values."""
    made = list(words)
    for action in actions:
        if not action.option_strings:
            values = 1 if action.nargs != "?" else rng.randrange(2)
            made += [f"{rng.choice(ODD)}" for _ in range(values)]
    flags = [a for a in actions if a.option_strings and a.dest not in ("help", "watch")]
    for action in rng.sample(flags, min(len(flags), rng.choice((0, 1, 1, 2, 3)))):
        flag = action.option_strings[0]
        made.append(flag if action.nargs == 0 else f"{flag}={rng.choice(action.choices or ODD)}")
    return made


@pytest.fixture
def try_out(address, client, tmp_path, monkeypatch, capfd):
    """Runs a command line in an empty folder; its exit code."""
    monkeypatch.chdir(tmp_path)
    client.vectors.put("happy", np.ones(8), layers=[3], description="[/red] [b")
    capture = sextant.Capture(sites=["resid_post"], label="[/red]")
    client.generate("Once", max_new_tokens=2, lens=True, capture=capture).wait()
    np.save(tmp_path / "v.npy", np.ones(8))

    def call(words: list[str], server: str = address) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        try:
            code = main([f"--server={server}", *words])
        except SystemExit as ended:
            code = ended.code
        text = capfd.readouterr()
        assert "Traceback" not in text.err and (code != 2 or text.err), words
        return code

    return call


@pytest.mark.parametrize("seed", range(4))
def test_no_command_line_makes_a_traceback(try_out, gateway, seed):
    rng = random.Random(seed)
    known = list(commands(parser()))
    codes = set()
    for _ in range(50):
        words = line(rng, *rng.choice(known))
        if words[0] == "generate":
            words.append("--max-new-tokens=2")
        codes.add(try_out(words))
    assert codes <= {0, 1, 2, 3} and {0, 2} <= codes


def test_every_command_line_of_names_in_markup(try_out):
    for words in (
        "vector list",
        "vector show happy",
        "capture list",
        "vector export happy --output [b].gguf",
    ):
        assert try_out(words.split()) == 0


def test_empty_values_are_refused(try_out, capfd):
    tried = 0
    for words, actions in commands(parser()):
        arguments = ["x"] * sum(not action.option_strings for action in actions)
        for action in actions:
            if action.option_strings and action.nargs != 0:
                flag = action.option_strings[0]
                assert action.dest == "description" or try_out([*words, *arguments, f"{flag}="]) == 2, flag
                assert try_out([*words, *arguments, f"{flag}=--"]) == 2, flag
                tried += 1
    assert tried > 25


@pytest.mark.parametrize(
    "flag", ["--lens-wait=601", "--lens-wait=-1", "--lens-wait=nan", "--lens-top-k=0", "--capture-ttl=0"]
)
def test_numbers_that_would_mean_something_else(try_out, gateway, flag):
    before = len(gateway.requests)
    assert try_out(["generate", "Once", "--lens", "--capture=resid_post", flag]) == 2
    assert len(gateway.requests) == before


@pytest.mark.parametrize("server", ["", " ", "a b:1", "http://127.0.0.1:1", "\udcff:1", "\n"])
def test_servers_that_are_none(server, capsys, monkeypatch):
    with pytest.raises(sextant.SextantError) as caught:
        sextant.Client(server)
    assert caught.value.reason == "BAD_ADDRESS"
    try:
        code = main([f"--server={server}", "model"])
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and re.search("BAD_ADDRESS|it is empty", capsys.readouterr().err)
    monkeypatch.setenv("SEXTANT_SERVER", "")  # As in every program: an empty variable is none.
    assert sextant.Client().address == sextant.DEFAULT_ADDRESS


def test_metrics_from_what_is_no_metrics_server(try_out, address):
    assert try_out(["status", f"--metrics={address}", "--metrics=a b", "--metrics=[::", "--metrics=:x"]) == 1


def test_the_library_refuses_what_cannot_be_sent(client):
    vectors = client.vectors
    for call in (
        lambda: vectors.put("x", "words", layers=1),
        lambda: vectors.put("x", [[1], [1, 2]], layers=1),
        lambda: vectors.put("x", np.ones(8), layers="first"),
        lambda: vectors.put("x", np.ones(8), layers=["a"]),
        lambda: vectors.put("x", np.ones(8), layers=1, site=3),
        lambda: vectors.put("x", np.ones(8), layers=1, labels={"a": 1}),
        lambda: vectors.put("\udcff", np.ones(8), layers=1),
        lambda: vectors.get(5),
        lambda: vectors.info("\udcff"),
        lambda: vectors.history(5),
        lambda: vectors.delete(None),
        lambda: client.captures.get(5),
        lambda: client.captures.delete("\udcff"),
        lambda: client.tokenize(5),
        lambda: client.tokenize("\udcff"),
        lambda: client.detokenize(["a"]),
        lambda: client.detokenize([1 << 40]),
        lambda: client.generate("x", lens="yes"),
        lambda: client.generate("x", capture="resid_post"),
        lambda: client.generate("x", steer="happy"),
        lambda: client.generate("x", lens_wait=float("inf")),
        lambda: client.generate("x", lens_wait=float("nan")),
        lambda: client.generate("x", lens=sextant.Lens(layers="0-99999999999")),
        lambda: client.generate("x", stop=[1]),
        lambda: sextant.Client(7),
    ):
        with pytest.raises(sextant.SextantError) as caught:
            call()
        assert caught.value.code == "INVALID_ARGUMENT" and caught.value.message
