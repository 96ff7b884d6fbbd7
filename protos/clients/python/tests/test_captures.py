"""Reading captures back: dense arrays, missing positions, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

import fake_model
import sextant
from sextant.v1 import types_pb2

POST, ATTN = types_pb2.SITE_RESID_POST, types_pb2.SITE_ATTN_OUT


def keep(client, tokens=6):
    capture = sextant.Capture(sites=["resid_post", "attn_out"], layers=[1, 4], label="mine")
    return client.generate("Once upon a time", max_new_tokens=tokens, capture=capture)


@pytest.mark.parametrize("dtype", [types_pb2.DTYPE_BF16, types_pb2.DTYPE_F32])
def test_rows_are_those_of_the_model(client, gateway, dtype):
    gateway.dtype = dtype
    rows = keep(client).activations
    assert list(rows) == [
        f"blocks.{layer}.hook_{site}" for site in ("resid_post", "attn_out") for layer in (1, 4)
    ]
    expected = np.stack([fake_model.activation(ATTN, 4, p) for p in range(9)])
    got = rows["attn_out", 4]
    assert got.dtype == np.float32 and got.shape == (9, fake_model.HIDDEN)
    np.testing.assert_array_equal(got, expected)
    assert rows["blocks.4.hook_attn_out"] is got
    assert "resid_post.1" in rows and ("resid_post", 2) not in rows and "nonsense" not in rows


def test_missing_positions_are_nan(client, gateway):
    gateway.missing = {3}
    got = keep(client).activations["resid_post", 1]
    assert np.isnan(got[3]).all() and np.isfinite(np.delete(got, 3, 0)).all()
    np.testing.assert_array_equal(got[8], fake_model.activation(POST, 1, 8))


def test_a_row_that_was_not_captured(client):
    with pytest.raises(sextant.SextantError, match="layers 1-4") as caught:
        keep(client).activations["resid_post", 2]
    assert caught.value.reason == "ROW_NOT_CAPTURED"


@pytest.mark.parametrize("dtype", ["float32", "stored"])
def test_saved_file(client, gateway, tmp_path, dtype):
    gateway.missing = {3}
    rows = keep(client).wait().activations
    path = rows.save(tmp_path / "capture.safetensors", dtype=dtype)
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == set(rows)
        assert json.loads(file.metadata()["positions"]) == [0, 1, 2, 4, 5, 6, 7, 8]
        if dtype == "float32":
            for name in rows:
                np.testing.assert_array_equal(file.get_tensor(name), rows[name])
    if dtype == "stored":
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        entry = header["blocks.4.hook_attn_out"]
        begin, end = entry["data_offsets"]
        bits = np.frombuffer(raw[8 + size + begin : 8 + size + end], "<u2").astype(np.uint32) << 16
        np.testing.assert_array_equal(bits.view(np.float32).reshape(entry["shape"]), rows["attn_out", 4])
        assert entry["dtype"] == "BF16"


def test_list_get_delete(client):
    out = keep(client).wait()
    assert out.capture == out.activations.name
    (info,) = client.captures.list()
    assert (info.label, info.state, info.dtype, info.record) == ("mine", "complete", "bf16", "after_steering")
    assert client.captures.get(info.id).info == info
    client.captures.delete(info)
    with pytest.raises(sextant.SextantError) as caught:
        client.captures.get(info)
    assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "CAPTURE_NOT_FOUND")
    with pytest.raises(sextant.SextantError, match="32 hex digits"):
        client.captures.get("mine")


def test_a_lens_of_the_same_call_adds_no_rows(client):
    capture = sextant.Capture(sites=["attn_out"], layers=[4])
    out = client.generate("Once", max_new_tokens=2, capture=capture, lens=sextant.Lens(layers="all"))
    assert list(out.activations) == ["blocks.4.hook_attn_out"]
    assert len(client.captures.get(out.capture)) == 1 + fake_model.LAYERS


def test_following_brings_the_readings_that_were_missing(client, gateway):
    gateway.missing = {2, 5}
    out = client.generate("Once upon a time", max_new_tokens=6, lens=sextant.Lens(tracked=True))
    assert out.stats.missing_reading_count == 2 and np.isnan(out.lens.entropy[0, 0, 5])
    following = client.captures.follow(out.capture)
    lens = following.lens
    assert np.isfinite(lens.entropy).all() and lens.entropy.shape == out.lens.entropy.shape
    there = [p for p in range(9) if p not in (2, 5)]
    np.testing.assert_array_equal(lens.top_ids[:, :, there], out.lens.top_ids[:, :, there])
    # The tokens that came next name what was generated, so that a heatmap is whole.
    assert following.received.token_ids == out.token_ids.tolist()
    assert "captain" not in out.text and "small" in lens.heatmap().html()


def test_following_says_when_readings_can_never_come(client, gateway):
    out = client.generate("Once", max_new_tokens=3, lens=True).wait()
    gateway.failed = 1
    following = client.captures.follow(out.capture)
    assert sum(len(event.positions) for event in following) == 3
    with pytest.raises(sextant.SextantError) as caught:
        following.lens  # noqa: B018
    assert caught.value.reason == "READINGS_LOST"


def test_following_does_not_invent_tokens_from_chosen_targets(client):
    out = client.generate("Once upon a", max_new_tokens=3, lens=sextant.Lens(targets=[7])).wait()
    following = client.captures.follow(out.capture)
    assert following.lens.entropy.shape[2] == 5 and following.received.token_ids == []


def test_following_has_a_limit(client, gateway):
    out = client.generate("Once upon", max_new_tokens=4, lens=True).wait()
    gateway.hold = True
    with pytest.raises(sextant.SextantError) as caught:
        client.captures.follow(out.capture, timeout=0.3).lens  # noqa: B018
    assert caught.value.code == "DEADLINE_EXCEEDED"
