"""What a user of the public endpoint relies on: determinism, capture, steering, limits, typed errors."""

import concurrent.futures

import numpy
import pytest
import sextant

PROMPT = "The quick brown fox jumps over"
CAPTURE = sextant.Capture(sites=["resid_post", "attn_out"])


def same(a: sextant.Generation, b: sextant.Generation) -> bool:
    """The same tokens and, to the last bit, the same log-probabilities."""
    return numpy.array_equal(a.token_ids, b.token_ids) and numpy.array_equal(a.logprobs, b.logprobs)


def test_streamed_text_is_the_whole_text(client) -> None:
    out = client.generate(PROMPT, max_new_tokens=12, ignore_eos=True)
    pieces = "".join(event.text for event in out)
    assert pieces == out.text == client.detokenize(out.token_ids)
    assert len(out.token_ids) == 12 and out.finish_reason == "length"
    assert out.stats.prompt_token_count == len(out.prompt_token_ids)


def test_capture_and_company_change_nothing(client) -> None:
    plain = client.generate(PROMPT, max_new_tokens=24, ignore_eos=True)
    plain.wait()
    alone = client.generate(PROMPT, max_new_tokens=24, ignore_eos=True, capture=CAPTURE, lens=sextant.Lens())
    assert same(alone, plain)
    prompts = [PROMPT] + [f"{word} {PROMPT}" * n for n, word in enumerate(("a model", "the sea", "one map"), start=2)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:

        def run(prompt: str) -> sextant.Generation:
            return client.generate(prompt, max_new_tokens=24, ignore_eos=True, capture=CAPTURE).wait()

        together = list(pool.map(run, prompts))
    assert same(together[0], plain)
    for site in ("resid_post", "attn_out"):
        for layer in range(client.model().layer_count):
            assert numpy.array_equal(together[0].activations[site, layer], alone.activations[site, layer])


def test_same_seed_same_tokens(client) -> None:
    settings = dict(max_new_tokens=16, temperature=1.0, top_p=0.95, top_k=50, ignore_eos=True)
    first = client.generate(PROMPT, seed=7, **settings).token_ids.tolist()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda seed: client.generate(PROMPT, seed=seed, **settings).token_ids.tolist(), (7, 8, 9)))
    assert runs[0] == first
    assert len({tuple(run) for run in runs}) == 3


def test_stop_string_ends_before_it(client) -> None:
    whole = client.generate(PROMPT, max_new_tokens=24, ignore_eos=True).text
    stop = whole[len(whole) // 2 :][:3]
    out = client.generate(PROMPT, max_new_tokens=24, ignore_eos=True, stop=[stop])
    assert out.finish_reason == "stop"
    assert out.text == whole[: whole.index(stop)]


def test_prompt_only(client) -> None:
    out = client.generate(PROMPT, max_new_tokens=0, capture=CAPTURE, lens=sextant.Lens(), prompt_logprobs=True)
    count = len(out.prompt_token_ids)
    assert len(out.token_ids) == 0 and out.activations["resid_post", 0].shape[0] == count
    assert numpy.isnan(out.prompt_logprobs[0]) and numpy.isfinite(out.prompt_logprobs[1:]).all()
    assert out.lens.entropy.shape == (1, client.model().layer_count, count)
    assert (out.lens.target_rank[0, :, -1] == -1).all()  # the last position has no next token


def test_positions_and_layers_select(client) -> None:
    out = client.generate(PROMPT, max_new_tokens=6, ignore_eos=True,
                          lens=sextant.Lens(layers=[1], positions="generation", tracked=True))
    prompt = len(out.prompt_token_ids)
    assert numpy.isnan(out.lens.entropy[0, :, :prompt]).all()
    assert numpy.isfinite(out.lens.entropy[0, :, prompt : prompt + 5]).all()


def test_steering_changes_what_it_touches(client) -> None:
    model = client.model()
    rng = numpy.random.default_rng(0)
    direction = rng.standard_normal((1, model.hidden_size)).astype(numpy.float32)
    stored = client.vectors.put("integration", direction, site="resid_post", layers=[1])
    again = client.vectors.put("integration", direction, site="resid_post", layers=[1])
    assert again.version == stored.version
    plain = client.generate(PROMPT, max_new_tokens=8, ignore_eos=True, capture=CAPTURE)
    steered = client.generate(PROMPT, max_new_tokens=8, ignore_eos=True, capture=CAPTURE,
                              steer=[sextant.Steer(f"integration@{stored.version}", strength=2.0, positions="prompt")])
    prompt = len(plain.prompt_token_ids)
    difference = steered.activations["resid_post", 1][:prompt] - plain.activations["resid_post", 1][:prompt]
    # Rows of an fp32 engine travel as fp32: the difference is the vector up to rounding of the sum.
    assert numpy.abs(difference - 2.0 * direction).max() < 1e-4 * max(1.0, numpy.abs(plain.activations["resid_post", 1]).max())
    assert numpy.array_equal(steered.activations["resid_post", 0][:prompt], plain.activations["resid_post", 0][:prompt])
    assert steered.stats.touched_row_counts == (prompt,)
    generation = client.generate(PROMPT, max_new_tokens=8, ignore_eos=True,
                                 steer=[sextant.Steer(f"integration@{stored.version}", strength=50.0, positions="generation")])
    assert generation.token_ids[0] == plain.token_ids[0]  # `generation` cannot change the first sampled token
    assert generation.token_ids.tolist() != plain.token_ids.tolist()
    client.vectors.delete("integration")


def test_different_vectors_in_one_batch(client) -> None:
    model = client.model()
    rng = numpy.random.default_rng(1)
    vectors = 20 * rng.standard_normal((4, 1, model.hidden_size)).astype(numpy.float32)

    def run(vector):
        client.vectors.put(f"batch-{vector}", vectors[vector], site="resid_pre", layers=[1])
        return client.generate(PROMPT, max_new_tokens=16, ignore_eos=True, steer=[sextant.Steer(f"batch-{vector}")]).token_ids.tolist()

    alone = [run(v) for v in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == alone
    assert len({tuple(ids) for ids in alone}) > 1


def test_kept_captures_outlive_the_call(client) -> None:
    out = client.generate(PROMPT, max_new_tokens=4, ignore_eos=True, capture=sextant.Capture(sites=["mlp_out"], ttl_seconds=600))
    rows = out.activations["mlp_out", 2]
    name = out.capture
    kept = client.captures.info(name)
    assert kept.state == "complete" and kept.position_count == len(out.prompt_token_ids) + 3
    assert any(c.name == name for c in client.captures.list())
    assert numpy.array_equal(client.captures.get(name)["mlp_out", 2], rows)
    client.captures.delete(name)
    with pytest.raises(sextant.SextantError) as error:
        client.captures.get(name)
    assert error.value.code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("settings", "code", "reason"),
    [
        (dict(temperature=-1.0), "INVALID_ARGUMENT", None),
        (dict(top_p=1.5), "INVALID_ARGUMENT", None),
        (dict(max_new_tokens=10**6), "INVALID_ARGUMENT", None),
        (dict(lens=sextant.Lens(sites=["attn_in"])), "INVALID_ARGUMENT", None),
        (dict(lens=sextant.Lens(layers=[99])), "INVALID_ARGUMENT", None),
        (dict(lens=sextant.Lens(top_k=1000)), "INVALID_ARGUMENT", None),
        (dict(lens=sextant.Lens(mode="inline")), "UNIMPLEMENTED", "INLINE_LENS_UNAVAILABLE"),
        (dict(steer=[sextant.Steer("no-such-vector")]), "NOT_FOUND", "VECTOR_NOT_FOUND"),
        (dict(stop=["x"] * 99), "INVALID_ARGUMENT", None),
    ],
)
def test_bad_requests_get_typed_errors(client, settings: dict, code: str, reason: str | None) -> None:
    with pytest.raises(sextant.SextantError) as error:
        client.generate(PROMPT, **settings).wait()
    assert error.value.code == code and error.value.reason and (reason is None or error.value.reason == reason)
    assert len(str(error.value)) > 20
    assert client.generate(PROMPT, max_new_tokens=2).wait() is not None  # nobody else pays for it


@pytest.mark.parametrize("ids", [[-1], [10**6], [], [5] * 100_000])
def test_bad_token_ids(client, ids: list[int]) -> None:
    with pytest.raises(sextant.SextantError) as error:
        client.generate(ids, max_new_tokens=1).wait()
    assert error.value.code == "INVALID_ARGUMENT"


def test_bad_vectors(client) -> None:
    width = client.model().hidden_size
    for bad in (numpy.full((1, width), numpy.nan, numpy.float32), numpy.ones((1, width + 1), numpy.float32)):
        with pytest.raises(sextant.SextantError) as error:
            client.vectors.put("bad", bad, site="resid_pre", layers=[1])
        assert error.value.code == "INVALID_ARGUMENT" and error.value.reason
    with pytest.raises(sextant.SextantError):
        client.vectors.put("../etc", numpy.ones((1, width), numpy.float32), site="resid_pre", layers=[1])


def test_chat_template(client) -> None:
    out = client.generate([{"role": "user", "content": "Hello"}], max_new_tokens=2)
    text = client.detokenize(out.prompt_token_ids)
    assert text.startswith("<|begin_of_text|><|start_header_id|>user<|end_header_id|>")


@pytest.mark.parametrize("strength", [1e25, 1e38])
def test_steering_that_overflows_is_an_error_and_no_answer(client, strength: float) -> None:
    hidden = client.model().hidden_size
    steer = sextant.Steer(numpy.ones(hidden), strength, layers=[1], site="resid_pre")
    with pytest.raises(sextant.SextantError) as caught:
        client.generate(PROMPT, max_new_tokens=4, steer=steer).wait()
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "STEERING_NOT_FINITE")
    prompt_only = client.generate(PROMPT, max_new_tokens=0, lens=True, steer=steer)
    assert [warning.reason for warning in prompt_only.warnings] == ["READINGS_NOT_FINITE"]
    assert client.generate(PROMPT, max_new_tokens=4, ignore_eos=True).finish_reason == "length"
