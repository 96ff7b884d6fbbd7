"""What is done to a suite so that every metric has something to count."""

import concurrent.futures
import contextlib
import os
import signal
import threading
import time

import numpy
import sextant
from cluster import children
from suite import process, until

PROMPT = "Once upon a time, in a village by the sea, there lived an old navigator"
LENS = sextant.Lens()
CAPTURE = sextant.Capture(sites=["resid_post", "attn_out"])
LONG = dict(max_new_tokens=120, ignore_eos=True)
WAIT_S = 60
# Shorter than the worker's --capture_stall_timeout, which would end the generation.
PAUSE_S = 10


def count(process, metric: str) -> float:
    """The metric's value; 0 when it does not answer in time."""
    return process.metric(metric) or 0.0


def vectors(client) -> None:
    """Stores, applies and deletes vectors."""
    width = client.model().hidden_size
    for strength in (1, 2):
        stored = client.vectors.put("operations", strength * numpy.ones((1, width), numpy.float32), site="resid_post", layers=[1])
    client.generate(PROMPT, steer=[sextant.Steer("operations")], max_new_tokens=4).wait()
    client.vectors.get("operations")
    client.vectors.list()
    client.vectors.delete(stored)
    with contextlib.suppress(sextant.SextantError):
        client.vectors.get("no-such-vector")


def generations(client, count: int) -> None:
    """Generates with lens and kept capture, `count` at a time."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: client.generate(PROMPT, lens=LENS, capture=CAPTURE, **LONG).wait(), range(count)))
    newest = client.captures.list()[-1]
    client.captures.get(newest)
    client.captures.delete(newest)


def generations_until(client, count: int, seen) -> None:
    """Generates, and goes on without a break, `count` at a time, until `seen()` or until the time is over."""
    generations(client, count)
    over = threading.Event()

    def again_and_again(_: int) -> None:
        while not over.is_set():
            client.generate(PROMPT, lens=LENS, **LONG).wait()

    deadline = time.monotonic() + WAIT_S
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        running = [pool.submit(again_and_again, number) for number in range(count)]
        while not seen() and time.monotonic() < deadline:
            time.sleep(0.2)
        over.set()
    for each in running:
        each.result()


def crowd(client, count: int, seen) -> None:
    """More generations at a time than the engine has slots for, again and again until `seen()`."""

    def burst() -> bool:
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda _: client.generate(PROMPT, **LONG).wait(), range(count)))
        return seen()

    until(burst, "sequences that wait for a slot")


def overload(client, count: int) -> int:
    """More calls at a time than the gateway streams, again until some are refused. Returns how many were."""
    refused = 0

    def one(_: int) -> bool:
        try:
            client.generate(PROMPT, **LONG).wait()
        except sextant.SextantError as error:
            assert error.code == "RESOURCE_EXHAUSTED", error
            return True
        return False

    def burst() -> bool:
        nonlocal refused
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            refused += sum(pool.map(one, range(count)))
        return refused > 0

    # Calls that start one after the other on a busy machine are not many at a time.
    until(burst, "calls that are refused")
    return refused


def backlog(cluster, client, seen) -> None:
    """Rows wait for a decoder until `seen()`; one call does not wait for its readings."""
    capture = process(cluster, "capture")
    cluster.scale(0)
    client.generate(PROMPT, max_new_tokens=2, lens=LENS, lens_wait=0.1).wait()
    out = client.generate(PROMPT, lens=LENS, **LONG)
    assert len(out.token_ids) == LONG["max_new_tokens"]
    until(lambda: count(capture, "sextant_capture_oldest_waiting_seconds") > 1.5 and seen(), "rows that wait")
    cluster.scale(1)
    out.wait()


def hanging_decoder(cluster, client) -> None:
    """A decoder stops with leases in its hands: they expire, and its results come late."""
    capture = process(cluster, "capture")
    decoder = process(cluster, "lens_decoder").pid
    os.kill(decoder, signal.SIGSTOP)
    try:
        out = client.generate(PROMPT, lens=LENS, **LONG)
        before = count(capture, "sextant_capture_leases_expired_total")
        assert len(out.token_ids) == LONG["max_new_tokens"]
        until(lambda: count(capture, "sextant_capture_leases_expired_total") > before, "a lease that expires")
    finally:
        os.kill(decoder, signal.SIGCONT)
    out.wait()


def dying_decoder(cluster, client) -> None:
    """A decoder dies with leases in its hands; another one takes over."""
    capture = process(cluster, "capture")
    decoder = process(cluster, "lens_decoder")
    os.kill(decoder.pid, signal.SIGSTOP)
    out = client.generate(PROMPT, lens=LENS, **LONG)
    assert len(out.token_ids) == LONG["max_new_tokens"]
    until(lambda: count(capture, "sextant_capture_leases") > 0, "a lease")
    os.kill(decoder.pid, signal.SIGKILL)
    until(lambda: not decoder.alive(), "the decoder's death")
    cluster.scale(1)
    out.wait()


def paused_capture(cluster, client, seen) -> None:
    """The capture service stops while rows are on their way to it, again and again until `seen()`."""
    capture = process(cluster, "capture").pid

    def pause() -> bool:
        out = client.generate(PROMPT, lens=LENS, capture=CAPTURE, **LONG)
        next(iter(out))  # The generation may be over before the next line: then there is nothing to see.
        os.kill(capture, signal.SIGSTOP)
        try:
            end = time.monotonic() + PAUSE_S
            while not seen() and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            os.kill(capture, signal.SIGCONT)
        out.wait()
        return seen()

    until(pause, "sequences that wait for the capture service", 3 * WAIT_S)


def lost_rank(cluster) -> None:
    """A rank dies; the supervisor starts the group again."""
    supervisor = process(cluster, "shard_worker")
    ranks = children(supervisor.pid)
    os.kill(max(ranks), signal.SIGKILL)
    until(lambda: count(supervisor, "sextant_worker_group_restarts_total") > 0, "a new group")
    cluster.wait_ready(timeout_s=WAIT_S)
