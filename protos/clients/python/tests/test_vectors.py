"""Vectors on the server and in files."""

from __future__ import annotations

import json
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

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
        foreign_gguf(kind=2),
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


def layers_of(path, **options) -> tuple[tuple[int, ...], list]:
    read = sextant.read_vector(path, **options)
    assert read.directions.dtype == np.float32 and read.site == options.get("site", "resid_post")
    return read.layers, read.directions.tolist()


def torch_file(folder) -> dict[str, bytes]:
    """As torch.save writes: a zip with a pickle in it, or (before 1.6) a bare pickle."""
    with zipfile.ZipFile(folder / "t", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    return {"new.pt": (folder / "t").read_bytes(), "old.bin": b"\x80\x02}q\x00."}


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_plain_arrays_are_vectors_once_their_layers_are_said(tmp_path, kind):
    one, two = np.arange(4, dtype=kind), np.arange(8, dtype=kind).reshape(2, 4)
    np.save(tmp_path / "one.npy", one)
    np.save(tmp_path / "two.npy", two)
    np.savez(tmp_path / "both.npz", one=one, two=two)
    safetensors.numpy.save_file({"v": two, "step": np.array([7])}, tmp_path / "two.safetensors")
    assert layers_of(tmp_path / "one.npy", layers=14) == ((14,), [[0, 1, 2, 3]])
    assert layers_of(tmp_path / "one.npy", layers="2-3", site="attn_out") == ((2, 3), [[0, 1, 2, 3]] * 2)
    assert layers_of(tmp_path / "two.npy", layers="all") == ((0, 1), two.tolist())
    assert layers_of(tmp_path / "both.npz", tensor="two", layers="5,9") == ((5, 9), two.tolist())
    assert layers_of(tmp_path / "two.safetensors", layers="5,9") == ((5, 9), two.tolist())


def test_bfloat16_safetensors(tmp_path):
    values = np.array([1.5, -2.0, 0.0], np.float32)
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"v": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    (tmp_path / "v.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    assert layers_of(tmp_path / "v.safetensors", layers=[1]) == ((1,), [[1.5, -2.0, 0.0]])


@pytest.mark.parametrize("kind", [0, 1, 28])
def test_control_vectors_of_other_widths(tmp_path, kind):
    numbers = np.arange(4, dtype={0: "<f4", 1: "<f2", 28: "<f8"}[kind])
    (tmp_path / "v.gguf").write_bytes(foreign_gguf(kind=kind)[:-16] + numbers.tobytes())
    assert layers_of(tmp_path / "v.gguf") == ((2,), [[0, 1, 2, 3]])


def test_some_layers_of_a_file_that_says_them(tmp_path):
    for suffix in ("gguf", "safetensors"):
        path = sextant.export_vector(vector("resid_post", (1, 3, 5)), tmp_path / f"v.{suffix}")
        whole = sextant.read_vector(path)
        some = sextant.read_vector(path, layers=[3, 5], site="resid_post")
        assert some.layers == (3, 5) and (some.directions == whole.directions[1:]).all()
        for wrong in ({"layers": 2}, {"tensor": "x"}, {"site": "mlp_out"}):
            with pytest.raises(sextant.SextantError) as caught:
                sextant.read_vector(path, **wrong)
            assert caught.value.reason.startswith("WHICH_")


@pytest.mark.parametrize(
    ("arrays", "options", "said"),
    [
        (
            {"a": np.ones(4), "b": np.ones((2, 4))},
            {"layers": 1},
            "it holds a [4], b [2, 4]; name one of them",
        ),
        ({"a": np.ones((2, 2, 4)), "n": np.arange(3)}, {"layers": 1}, "a [2, 2, 4], n [3] int64; none is"),
        ({"a": np.ones(4)}, {"layers": 1, "tensor": "b"}, "no tensor 'b'; it holds a [4]"),
        ({"a": np.arange(4)}, {"layers": 1, "tensor": "a"}, "a [4] int64"),
        ({"a": np.ones((3, 4))}, {"layers": "1-2"}, "3 directions; 2 layers"),
        ({"a": np.ones((3, 4))}, {}, "--layers all or 10-14"),
        ({"a": np.ones(4)}, {}, "--layers 14"),
        ({"a": np.full(4, np.nan)}, {"layers": 1}, "NaN"),
        ({}, {"layers": 1}, "it holds nothing"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_what_was_found_is_named(tmp_path, arrays, options, said, suffix):
    path = tmp_path / f"v.{suffix}"
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        safetensors.numpy.save_file(arrays, path)
    with pytest.raises(sextant.SextantError) as caught:
        sextant.read_vector(path, **options)
    assert said in caught.value.message and caught.value.code == "INVALID_ARGUMENT"


def test_pickles_are_refused_with_a_way_out(tmp_path):
    files = torch_file(tmp_path)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name, data in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(sextant.SextantError, match="weights_only=True") as caught:
            sextant.read_vector(path, layers=1)
        assert caught.value.reason == "PICKLE_REFUSED" and f"{path.stem}.npy" in caught.value.message
    with pytest.raises(sextant.SextantError) as caught:
        sextant.read_vector(tmp_path / "objects.npy", layers=1)
    assert caught.value.reason == "BAD_VECTOR_FILE"


def test_damaged_arrays_are_no_vectors(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((2, 4)))
    np.savez_compressed(tmp_path / "v.npz", a=np.ones((2, 40)))
    rng = np.random.default_rng(3)
    for name in ("v.npy", "v.npz"):
        data = bytearray((tmp_path / name).read_bytes())
        for _ in range(100):
            broken = data[: rng.integers(6, len(data))] if rng.random() < 0.3 else bytearray(data)
            for at in rng.integers(0, len(broken), 3):
                broken[at] = rng.integers(256)
            (tmp_path / "broken").write_bytes(broken)
            try:
                sextant.read_vector(tmp_path / "broken", layers="all")
            except sextant.SextantError as error:
                assert error.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("note_lengths", "begin"), [(range(256), b"\x80"), (range(0x4B50 - 128, 0x4B50), b"PK")]
)
def test_safetensors_may_begin_as_other_files_do(tmp_path, note_lengths, begin):
    path = tmp_path / "v.safetensors"
    begins = set()
    for length in note_lengths:
        safetensors.numpy.save_file({"v": np.arange(4, dtype=np.float32)}, path, {"note": "x" * length})
        begins.add(path.read_bytes()[: len(begin)])
        assert layers_of(path, layers=3) == ((3,), [[0, 1, 2, 3]])
    assert begin in begins


def test_a_model_is_no_vector(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(sextant.SextantError, match="no vector is that large"):
        sextant.read_vector(path)
