"""Kills, cancels and stalls against a running suite: typed ends, nothing hangs, nothing is lost or doubled."""

import concurrent.futures
import os
import signal
import threading
import time

import grpc
import numpy
import pytest
import sextant
from cluster import children
from suite import MODELS, process, until

PROMPT = "Once upon a time, in a village by the sea, there lived an old navigator"
LONG = dict(max_new_tokens=180, ignore_eos=True)
# Every wait of these tests ends: no call may take longer.
DEADLINE_S = 60


@pytest.fixture(scope="module")
def cluster(make_cluster):
    cluster = make_cluster(MODELS / "qwen3_tiny", ranks=2, decoders=1,
                           extra={"capture": ["--lease_seconds=2"], "shard_worker": ["--step_deadline=5s"]})
    yield cluster
    cluster.down()


@pytest.fixture
def client(cluster):
    cluster.wait_ready(timeout_s=DEADLINE_S)
    with sextant.Client(cluster.address) as client:
        yield client
    cluster.wait_ready(timeout_s=DEADLINE_S)


def served(call):
    """What `call` gives once the suite serves again: UNAVAILABLE is repeated, as its RetryInfo says."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return call()
        except sextant.SextantError as error:
            assert error.code == "UNAVAILABLE" and error.retry_after and time.monotonic() < deadline, error
            time.sleep(min(0.1, error.retry_after))


def check_whole(out) -> None:
    """Every position of the call is in its readings, once."""
    positions = len(out.prompt_token_ids) + len(out.token_ids) - 1
    assert out.lens.entropy.shape[2] == positions and numpy.isfinite(out.lens.entropy).all()


def quiet(cluster) -> bool:
    """No capture, row or sequence is left in any service."""
    capture, worker = process(cluster, "capture"), process(cluster, "shard_worker")
    return all(capture.metric(f"sextant_capture_{m}") == 0 for m in ("waiting_rows", "leased_rows", "held_bytes")) and all(
        worker.metric(f"sextant_worker_{m}") == 0 for m in ("running_sequences", "waiting_sequences", "kv_blocks_used"))


def test_decoders_die_and_come_back_while_work_runs(cluster, client) -> None:
    out = client.generate(PROMPT, lens=sextant.Lens(), **LONG)
    events = iter(out)
    next(events)
    os.kill(process(cluster, "lens_decoder").pid, signal.SIGKILL)
    until(lambda: not process(cluster, "lens_decoder").alive(), "the decoder's death")
    cluster.scale(2)
    check_whole(out)
    cluster.scale(0)
    late = client.generate(PROMPT, lens=sextant.Lens(), **LONG)
    assert len(late.token_ids) == 180  # no decoder stalls no generation within the budget
    cluster.scale(1)
    check_whole(late)


def test_a_request_ends_ok_with_missing_readings_when_there_is_no_decoder(cluster, client) -> None:
    cluster.scale(0)
    out = client.generate(PROMPT, max_new_tokens=3, ignore_eos=True, lens=sextant.Lens(), lens_wait=0.2)
    out.wait()
    assert out.stats.missing_reading_count == len(out.prompt_token_ids) + 2
    cluster.scale(1)


def kill_a_rank(cluster, victim: int) -> int:
    """Kills one of the group's two ranks; gives its process id."""
    pid = children(process(cluster, "shard_worker").pid)[victim]
    os.kill(pid, signal.SIGKILL)
    return pid


def check_back(cluster, client, lost: int) -> None:
    """The group is whole again, without the lost process, and serves."""
    supervisor = process(cluster, "shard_worker").pid
    until(lambda: len(children(supervisor)) == 2 and lost not in children(supervisor), "new ranks")
    cluster.wait_ready(timeout_s=DEADLINE_S)
    check_whole(served(lambda: client.generate(PROMPT, max_new_tokens=4, ignore_eos=True, lens=sextant.Lens()).wait()))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_dies_idle(cluster, client, victim: int) -> None:
    check_back(cluster, client, kill_a_rank(cluster, victim))


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("moment", ["prefill", "decode"])
def test_a_rank_dies_at_work(cluster, client, victim: int, moment: str) -> None:
    for _ in range(10):  # a tiny model may be done before the signal arrives: then the call must be whole
        prompt = [5, 9] * 60 if moment == "prefill" else PROMPT
        out = client.generate(prompt, lens=sextant.Lens(), max_new_tokens=120, ignore_eos=True)
        if moment == "decode":
            next(iter(out))
        lost = kill_a_rank(cluster, victim)
        start = time.monotonic()
        try:
            check_whole(out.wait())
            outcome = None
        except sextant.SextantError as error:
            outcome = error
        assert time.monotonic() - start < DEADLINE_S
        check_back(cluster, client, lost)
        if outcome is not None:
            assert outcome.code == "UNAVAILABLE" and outcome.reason, outcome
            return
        if moment == "prefill":
            return  # nothing had been forwarded, so the gateway may have repeated the call: whole is right
    pytest.fail("no kill met a running call in ten tries")


def test_a_stopped_rank_is_noticed(cluster, client) -> None:
    supervisor = process(cluster, "shard_worker").pid
    victim = children(supervisor)[1]
    os.kill(victim, signal.SIGSTOP)
    with pytest.raises(sextant.SextantError) as error:
        client.generate(PROMPT, **LONG).wait()
    assert error.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") and error.value.reason
    check_back(cluster, client, victim)


def restart(cluster, binary: str) -> None:
    """Kills a service and starts it again with the same command line."""
    old = process(cluster, binary)
    os.kill(old.pid, signal.SIGKILL)
    until(lambda: not old.alive(), f"{binary}'s death")
    cluster.processes.remove(old)
    cluster.start(old.name, binary, old.http, old.flags)


def test_a_rank_dies_while_the_model_loads(cluster, client) -> None:
    restart(cluster, "shard_worker")
    supervisor = process(cluster, "shard_worker").pid
    until(lambda: len(children(supervisor)) == 2, "ranks")
    check_back(cluster, client, kill_a_rank(cluster, 1))


@pytest.mark.parametrize("binary", ["gateway", "capture", "steering_registry", "lens_decoder"])
def test_a_service_dies_while_starting(cluster, client, binary: str) -> None:
    restart(cluster, binary)
    restart(cluster, binary)  # the first successor is killed before it is ready
    cluster.wait_ready(timeout_s=DEADLINE_S)
    check_whole(served(lambda: client.generate(PROMPT, max_new_tokens=4, ignore_eos=True, lens=sextant.Lens()).wait()))


def test_capture_dies(cluster, client) -> None:
    kept = client.generate(PROMPT, max_new_tokens=3, ignore_eos=True, capture=sextant.Capture(sites=["resid_post"]))
    rows = kept.activations["resid_post", 2]
    cluster.scale(0)  # without a decoder the call cannot be over before the kill
    out = client.generate(PROMPT, lens=sextant.Lens(), **LONG)
    next(iter(out))
    restart(cluster, "capture")
    cluster.scale(1, wait=False)
    with pytest.raises(sextant.SextantError) as error:
        out.wait()
    assert error.value.code == "UNAVAILABLE" and error.value.reason
    cluster.wait_ready(timeout_s=DEADLINE_S)
    again = served(lambda: client.captures.get(kept.capture))
    assert again.info.state == "complete" and numpy.array_equal(again["resid_post", 2], rows)
    check_whole(served(lambda: client.generate(PROMPT, max_new_tokens=4, ignore_eos=True, lens=sextant.Lens()).wait()))


def test_registry_dies(cluster, client) -> None:
    width = client.model().hidden_size
    stored = client.vectors.put("durable", numpy.ones((1, width), numpy.float32), site="resid_pre", layers=[0])
    restart(cluster, "steering_registry")
    cluster.wait_ready(timeout_s=DEADLINE_S)
    assert served(lambda: client.vectors.get(f"durable@{stored.version}")).sha256 == stored.sha256
    served(lambda: client.generate(PROMPT, max_new_tokens=2, steer=[sextant.Steer("durable")]).wait())


def test_gateway_dies(cluster, client) -> None:
    cluster.scale(0)  # without a decoder the call cannot be over before the kill
    out = client.generate(PROMPT, lens=sextant.Lens(), **LONG)
    next(iter(out))
    restart(cluster, "gateway")
    cluster.scale(1, wait=False)
    with pytest.raises(sextant.SextantError) as error:
        out.wait()
    assert error.value.code == "UNAVAILABLE"
    cluster.wait_ready(timeout_s=DEADLINE_S)
    until(lambda: quiet(cluster), "what the dead gateway's call held to be freed")


def test_cancel_frees_everything(cluster, client) -> None:
    for _ in range(5):
        out = client.generate(PROMPT, lens=sextant.Lens(), **LONG)
        next(iter(out))
        out.cancel()
    until(lambda: quiet(cluster), "cancelled calls to free what they held")


def test_deadlines_are_kept(client) -> None:
    start = time.monotonic()
    with pytest.raises(sextant.SextantError) as error:
        client.generate(PROMPT, timeout=0.02, **LONG).wait()
    assert error.value.code == "DEADLINE_EXCEEDED" and time.monotonic() - start < 5


def test_a_reader_that_stops_does_not_stall_others(cluster, client) -> None:
    with sextant.Client(cluster.address) as lazy:
        stuck = [lazy.generate(PROMPT, lens=sextant.Lens(top_k=50, tracked=True), **LONG) for _ in range(3)]
        for out in stuck:
            next(iter(out))
        check_whole(client.generate(PROMPT, max_new_tokens=8, ignore_eos=True, lens=sextant.Lens()))
        for out in stuck:
            out.cancel()
    until(lambda: quiet(cluster), "abandoned calls to free what they held")


def test_a_crowd_is_served_or_refused(cluster, client) -> None:
    def one(index: int) -> str:
        try:
            out = client.generate(PROMPT[index % 7 :], max_new_tokens=6, ignore_eos=True, lens=sextant.Lens())
            check_whole(out)
            return "OK"
        except sextant.SextantError as error:
            return error.code

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        codes = list(pool.map(one, range(72)))
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"} and codes.count("OK") >= 24, codes
    until(lambda: quiet(cluster), "the crowd's captures to be freed")


def test_oversized_and_broken_messages(cluster, client) -> None:
    channel = grpc.insecure_channel(cluster.address)
    call = channel.unary_stream("/sextant.v1.InferenceService/Generate")
    for payload in (b"\xff" * 100, b"\x0a" + b"\x80" * 10, b"\x00" * (8 << 20)):
        with pytest.raises(grpc.RpcError) as error:
            list(call(payload, timeout=20))
        assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL,
                                      grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED)
    channel.close()
    client.generate(PROMPT, max_new_tokens=1).wait()


def test_sigterm_drains(make_cluster) -> None:
    cluster = make_cluster(MODELS / "qwen3_tiny", ranks=2)
    with sextant.Client(cluster.address) as client:
        out = client.generate(PROMPT, max_new_tokens=60, ignore_eos=True, lens=sextant.Lens())
        next(iter(out))
        worker = process(cluster, "shard_worker")
        stopper = threading.Thread(target=cluster.stop, args=(worker,))
        stopper.start()
        check_whole(out)  # what runs is finished
        stopper.join(DEADLINE_S)
        assert not worker.alive()
    cluster.down()


@pytest.mark.parametrize("victim", ["rank", "capture", "lens_decoder", "gateway"])
def test_a_death_while_the_worker_drains(make_cluster, victim: str) -> None:
    cluster = make_cluster(MODELS / "qwen3_tiny", ranks=2)
    with sextant.Client(cluster.address) as client:
        out = client.generate(PROMPT, lens=sextant.Lens(), lens_wait=1, **LONG)
        next(iter(out))
        worker = process(cluster, "shard_worker")
        os.kill(worker.pid, signal.SIGTERM)
        if victim == "rank":
            kill_a_rank(cluster, 1)
        else:
            os.kill(process(cluster, victim).pid, signal.SIGKILL)
        start = time.monotonic()
        try:
            out.wait()  # it may have been done already
        except sextant.SextantError as error:
            assert error.code == "UNAVAILABLE" and error.reason, error
        assert time.monotonic() - start < DEADLINE_S
        until(lambda: not worker.alive(), "the drained worker's end")
    cluster.down()
