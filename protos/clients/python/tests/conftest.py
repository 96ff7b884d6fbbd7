"""Fixtures: a made-up gateway on loopback and a client of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import sextant
from fake_gateway import FakeGateway, serve
from sextant.cli.main import main

# A shell starts what it runs in the background with SIGINT ignored; the commands under test would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def address(gateway: FakeGateway) -> Iterator[str]:
    server, where = serve(gateway)
    yield where
    server.stop(None).wait(5)


@pytest.fixture
def client(address: str) -> Iterator[sextant.Client]:
    with sextant.Client(address) as made:
        yield made


@pytest.fixture
def sextant_(address, capfd):
    """Runs one command line in this process: (exit code, standard output, standard error)."""

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["--server", address, *words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call
