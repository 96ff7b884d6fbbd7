"""Vectors on the server and in files."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import sextant
from sextant import gguf
from sextant.vectors import Vector


def test_put_get_list_history_delete(client):
    array = np.arange(16, dtype=np.float32).reshape(2, 8)
    first = client.vectors.put("happy", array, layers=[2, 4], site="resid_pre", labels={"method": "mean"})
    assert first.reference == "happy@1" and first.model == "fake-7m" and first.model_layer_count == 6
    assert client.vectors.put("happy", array, layers=[2, 4], site="resid_pre").version == 1
    client.vectors.put("happy", array[0], layers=[2, 4])
    client.vectors.put("sad", array[0], layers=3)
    got = client.vectors.get("happy@1")
    np.testing.assert_array_equal(got.directions, array)
    assert got.site == "resid_pre" and got.layers == (2, 4) and got.labels == {"method": "mean"}
    np.testing.assert_array_equal(client.vectors.get("happy").directions, np.stack([array[0]] * 2))
    assert [v.reference for v in client.vectors.list()] == ["happy@2", "sad@1"]
    assert [v.version for v in client.vectors.history("happy")] == [1, 2]
    assert client.vectors.delete("happy") == 2
    with pytest.raises(sextant.SextantError) as caught:
        client.vectors.get(first)
    assert caught.value.reason == "VECTOR_NOT_FOUND"


def test_big_vectors_travel_in_parts(client, gateway):
    array = np.random.default_rng(0).normal(size=(2, 200_000)).astype(np.float32)
    client.vectors.put("big", array, layers=[0, 1])
    assert gateway.vectors["big"][0][1] == array.tobytes()


def vector(site="resid_post", layers=(1, 3)) -> Vector:
    directions = np.random.default_rng(1).normal(size=(len(layers), 5)).astype(np.float32)
    return Vector(
        "happy", 2, site, layers, 5, 6, "fake-7m", "ab" * 32, description="é", directions=directions
    )


@pytest.mark.parametrize("suffix", ["gguf", "safetensors"])
@pytest.mark.parametrize("site", ["resid_post", "resid_pre"])
def test_files_keep_everything(tmp_path, suffix, site):
    original = vector(site, (2, 5))
    path = sextant.export_vector(original, tmp_path / f"v.{suffix}")
    read = sextant.read_vector(path)
    np.testing.assert_array_equal(read.directions, original.directions)
    assert (read.name, read.site, read.layers, read.description) == ("happy", site, (2, 5), "é")
    assert read.model_sha256 == original.model_sha256


def test_gguf_says_output_of_block(tmp_path):
    directions, metadata = gguf.read(sextant.export_vector(vector("resid_pre", (2, 5)), tmp_path / "v.gguf"))
    assert list(directions) == [1, 4] and metadata["general.architecture"] == "controlvector"
    assert metadata["controlvector.layer_count"] == 2 and metadata["controlvector.model_hint"] == "fake-7m"


@pytest.mark.parametrize(
    ("site", "layers", "reason"),
    [
        ("attn_out", (3,), "SITE_NOT_IN_GGUF"),
        ("resid_post", (0, 1), "LAYER_NOT_IN_GGUF"),
        ("resid_pre", (1,), "LAYER_NOT_IN_GGUF"),
    ],
)
def test_what_gguf_cannot_say(tmp_path, site, layers, reason):
    with pytest.raises(sextant.SextantError) as caught:
        sextant.export_vector(vector(site, layers), tmp_path / "v.gguf")
    assert caught.value.reason == reason


def foreign_gguf(name="direction.2", kind=0, shape=(4,), layer_count_kind=5, count=1) -> bytes:
    """A file as another program writes it; int32 layer_count is llama.cpp's, uint32 repeng's."""
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()  # noqa: E731
    out = b"GGUF" + struct.pack("<IQQ", 3, count, 2)
    out += text("general.architecture") + struct.pack("<I", 8) + text("controlvector")
    out += text("controlvector.layer_count") + struct.pack("<Ii", layer_count_kind, 1)
    for _ in range(count):
        out += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        out += struct.pack("<IQ", kind, 0)
    out += bytes(-len(out) % 32)
    return out + np.arange(4, dtype="<f4").tobytes()


@pytest.mark.parametrize("layer_count_kind", [4, 5])
def test_other_programs_gguf(tmp_path, layer_count_kind):
    path = tmp_path / "other.gguf"
    path.write_bytes(foreign_gguf(layer_count_kind=layer_count_kind))
    read = sextant.read_vector(path)
    assert (read.site, read.layers) == ("resid_post", (2,)) and read.directions.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "data",
    [
        foreign_gguf("direction.0"),
        foreign_gguf("weight.1"),
        foreign_gguf(kind=1),
        foreign_gguf(shape=(2, 2)),
        foreign_gguf(shape=(1 << 40,)),
        foreign_gguf(count=2),
        foreign_gguf(count=0),
        foreign_gguf()[:-5],
        foreign_gguf()[:40],
        b"GGUF" + b"\xff" * 60,
        b"not a file of ours",
        b"",
    ],
)
def test_hostile_files(tmp_path, data):
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(sextant.SextantError) as caught:
        sextant.read_vector(path)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_no_file(tmp_path):
    with pytest.raises(sextant.SextantError, match="there is no file"):
        sextant.read_vector(tmp_path / "none.gguf")


def test_a_damaged_control_vector_is_called_one(tmp_path):
    path = tmp_path / "happy.gguf"
    path.write_bytes(b"not a vector at all")
    with pytest.raises(sextant.SextantError, match="GGUF") as caught:
        sextant.read_vector(path)
    assert caught.value.reason == "BAD_CONTROL_VECTOR"
