"""Generation: arrays, order, missing readings, waiting, cancellation, errors."""

from __future__ import annotations

import gc
import signal
import threading
import time

import grpc
import numpy as np
import pytest

import fake_model
import sextant
from sextant.v1 import types_pb2


def test_streamed_text_is_the_result(client):
    out = client.generate("Once upon a time", max_new_tokens=5)
    streamed = "".join(event.text for event in out)
    assert streamed == out.text == "".join(fake_model.CONTINUATION[:5])
    assert out.finish_reason == "length"
    assert out.token_ids.dtype == np.int32 and len(out.token_ids) == 5
    np.testing.assert_allclose(out.logprobs, [-0.5] * 5)
    assert len(out.prompt_token_ids) == 4
    assert out.stats.tokens_per_second == pytest.approx(4 / 0.05)


def test_results_wait_without_iterating(client):
    assert client.generate("Once upon", max_new_tokens=3, stop="x").text.endswith(" (tail)")


def test_readings_arrive_in_any_order_on_dense_axes(client, gateway):
    lens = sextant.Lens(top_k=4, sites=["resid_post", "attn_out"], layers="1-3", tracked=True)
    out = client.generate("Once upon a time", max_new_tokens=9, lens=lens)
    positions = 4 + 9 - 1
    assert out.lens.sites == ["resid_post", "attn_out"] and out.lens.layers == [1, 2, 3]
    assert out.lens.top_ids.shape == out.lens.top_logprobs.shape == (2, 3, positions, 4)
    assert out.lens.top_ids.dtype == np.int32 and out.lens.entropy.dtype == np.float32
    assert out.lens.prediction_depth.shape == (2, positions)
    following = np.concatenate([out.prompt_token_ids[1:], out.token_ids])
    np.testing.assert_array_equal(out.lens.target_ids, following)
    # Every row against the model's own answer for that position alone.
    for p in range(positions):
        rows = [
            (site, layer)
            for site in (types_pb2.SITE_RESID_POST, types_pb2.SITE_ATTN_OUT)
            for layer in (1, 2, 3)
        ]
        alone = fake_model.reading_columns(
            rows, [p], [[int(following[p])]], gateway.requests[0].lens, len(gateway.vocabulary.texts)
        )
        top = np.frombuffer(alone.top_ids, "<i4").reshape(2, 3, 4)
        np.testing.assert_array_equal(out.lens.top_ids[:, :, p], top)
        np.testing.assert_array_equal(
            out.lens.kl_final[:, :, p].ravel(), np.frombuffer(alone.kl_final_nats, "<f4")
        )
        np.testing.assert_array_equal(
            out.lens.prediction_depth[:, p], np.frombuffer(alone.prediction_depths, "<i4")
        )
        np.testing.assert_array_equal(out.lens.tracked[p].ids, np.unique(top))
        assert out.lens.tracked[p].logprobs.shape == (2, 3, len(np.unique(top)))


def test_missing_readings_are_nan_and_counted(client, gateway):
    gateway.missing = {2, 5}
    out = client.generate("Once upon a time", max_new_tokens=4, lens=sextant.Lens(), stop="x")
    assert out.text.count("(tail)") == 1
    assert (
        np.isnan(out.lens.entropy[0, :, [2, 5]]).all()
        and not np.isnan(out.lens.entropy[0, :, [0, 1, 3, 4, 6]]).any()
    )
    assert (out.lens.top_ids[0, :, 2] == -1).all() and (out.lens.target_rank[0, :, 5] == -1).all()
    assert out.stats.missing_reading_count == 2


def test_prompt_only(client):
    out = client.generate("Once upon a time", max_new_tokens=0, lens=True, prompt_logprobs=True)
    assert out.text == "" and out.lens.entropy.shape == (1, fake_model.LAYERS, 4)
    assert out.lens.target_ids[-1] == -1 and np.isnan(out.lens.target_logprob[0, 0, -1])
    assert np.isnan(out.prompt_logprobs[0]) and (out.prompt_logprobs[1:] == -1.5).all()


def test_followed_targets_have_an_axis(client):
    out = client.generate("Once upon", max_new_tokens=2, lens=sextant.Lens(targets=[7, 8, 9]))
    assert out.lens.target_logprob.shape == (1, fake_model.LAYERS, 3, 3)
    assert out.lens.target_ids.tolist() == [[7, 8, 9]] * 3


def test_what_was_not_asked_for_says_how_to_ask(client):
    out = client.generate("Once", max_new_tokens=1)
    for read in (lambda: out.lens, lambda: out.activations, lambda: out.prompt_logprobs):
        with pytest.raises(sextant.SextantError, match="generate") as caught:
            read()
        assert caught.value.code == "FAILED_PRECONDITION"


def test_prompts_of_every_kind(client, gateway):
    ids = client.tokenize("Once upon").ids
    assert client.detokenize(ids) == "Once upon"
    client.generate(ids, max_new_tokens=1).text  # noqa: B018
    client.generate([{"role": "user", "content": "Hi"}], max_new_tokens=1).text  # noqa: B018
    assert gateway.requests[0].token_ids.ids == ids.tolist()
    assert gateway.requests[1].chat.messages[0].content == "Hi"


@pytest.mark.parametrize(
    ("prompt", "reason", "said"),
    [
        ([1, "two"], "BAD_PROMPT", "list"),
        (None, "BAD_PROMPT", "NoneType"),
        ([], "BAD_PROMPT", "empty"),
        (b"Once", "BAD_PROMPT", "bytes"),
        (7, "BAD_PROMPT", "int"),
        ({"role": "user", "content": "Hi"}, "BAD_PROMPT", "dict"),
        ([{"role": "user"}], "BAD_PROMPT", "message 0 .* 'content'"),
        ([{"role": "user", "content": None}], "BAD_PROMPT", "message 0 .* 'content'"),
        ("a\udcff", "TEXT_NOT_UTF8", "character 1"),
        ([3, -1], "BAD_ARGUMENT", "token id is -1"),
    ],
)
def test_prompts_that_are_none(client, gateway, prompt, reason, said):
    with pytest.raises(sextant.SextantError, match=said) as caught:
        client.generate(prompt)
    assert caught.value.reason == reason and not gateway.requests


@pytest.mark.parametrize("option", [{"seed": -1}, {"seed": 1.5}, {"max_new_tokens": None}, {"top_k": 2**31}])
def test_numbers_that_cannot_be_sent_are_named(client, option):
    with pytest.raises(sextant.SextantError, match=next(iter(option))) as caught:
        client.generate("Once", **option)
    assert caught.value.reason == "BAD_ARGUMENT"


def test_a_message_that_is_too_large_says_so(client):
    with pytest.raises(sextant.SextantError, match="the request has 5,0") as caught:
        client.generate("a" * 5_000_000).wait()
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert "4,194,304" in str(caught.value)


def test_errors_carry_code_reason_message_and_retry(client, gateway):
    gateway.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPTURE_STALLED", "wait and try again", 2.5)
    out = client.generate("Once", max_new_tokens=3)
    with pytest.raises(sextant.SextantError) as caught:
        for _ in out:
            pass
    error = caught.value
    assert (error.code, error.reason, error.retry_after) == ("RESOURCE_EXHAUSTED", "CAPTURE_STALLED", 2.5)
    assert "wait and try again" in str(error) and error.request_id == gateway.metadata[0]["x-request-id"]
    with pytest.raises(sextant.SextantError):
        out.text  # noqa: B018
    assert len(out.received.token_ids) == 1


def test_nobody_listening():
    with sextant.Client("127.0.0.1:1") as client, pytest.raises(sextant.SextantError) as caught:
        client.model()
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "SERVER_UNREACHABLE")
    assert "deploy/local/up" in str(caught.value)


@pytest.mark.parametrize("leave", ["cancel", "with", "drop", "interrupt"])
def test_the_server_sees_the_cancel(client, gateway, leave, monkeypatch):
    gateway.hold = True
    out = client.generate("Once", max_new_tokens=5)
    while not isinstance(next(out), sextant.TokenEvent):
        pass
    assert not gateway.cancelled.is_set()
    if leave == "cancel":
        out.cancel()
        assert out.finish_reason == "cancelled" and len(out.token_ids) == 1
    elif leave == "with":
        with out:
            pass
    elif leave == "drop":
        del out
        gc.collect()
    else:
        next(out)

        def interrupted(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(type(out._call), "__next__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(out)
    assert gateway.cancelled.wait(5)


def test_malformed_readings_are_not_shown(client, gateway):
    gateway.malformed = True
    out = client.generate("Once", max_new_tokens=2, lens=True)
    with pytest.raises(sextant.SextantError) as caught:
        out.lens  # noqa: B018
    assert caught.value.reason == "READINGS_MALFORMED"


def test_warnings_and_touched_rows(client):
    out = client.generate("Once", max_new_tokens=2, steer=sextant.Steer("idle", 2))
    assert [w.reason for w in out.warnings] == ["INTERVENTION_TOUCHED_NOTHING"]
    assert out.stats.touched_row_counts == (2,)


def test_ctrl_c_reaches_no_lock_of_grpc(client, gateway):
    """Whenever it comes, calls go on to work: it is raised where nothing is held."""
    gateway.hold = True
    for turn in range(20):
        out = client.generate("Once", max_new_tokens=4)
        main = threading.main_thread().ident
        timer = threading.Timer(0.004 * turn, signal.pthread_kill, (main, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt) as caught:
            timer.start()
            while True:
                next(out)
        assert not [entry.path for entry in caught.traceback if "grpc" in str(entry.path)]
        assert client.tokenize("Once").ids.size == 1


def test_finished_generations_leave_no_threads(client):
    kept = [client.generate("Once", max_new_tokens=2).wait() for _ in range(20)]
    dropped = [client.generate("Once", max_new_tokens=2) for _ in range(20)]
    del dropped
    gc.collect()
    deadline = time.monotonic() + 30
    while reading := [thread for thread in threading.enumerate() if thread.name == "sextant stream"]:
        assert time.monotonic() < deadline, reading
        time.sleep(0.02)
    assert len(kept) == 20
