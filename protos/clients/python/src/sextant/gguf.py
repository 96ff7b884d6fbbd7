"""GGUF control vectors: directions added to the outputs of blocks, as llama.cpp and repeng exchange them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sextant.errors import SextantError
from sextant.refusals import reading

_MAGIC = b"GGUF"
_ALIGNMENT = 32
_KINDS = {0: "<f4", 1: "<f2", 28: "<f8"}  # Of numbers that are not quantised.
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_COUNT = 1 << 20  # Of tensors, keys or array elements: far above any control vector, far below memory.


def write(path: Path, directions: Mapping[int, np.ndarray], metadata: Mapping[str, str | int]) -> None:
    """Writes `direction.<N>` float32 [hidden] for each N >= 1: added to the output of block N (0-based).

    metadata: further keys; text becomes a string, numbers uint32.
    """
    pairs: dict[str, str | int] = {"general.architecture": "controlvector", **metadata}
    out = bytearray(_MAGIC + struct.pack("<IQQ", 3, len(directions), len(pairs)))
    for key, value in pairs.items():
        out += _string(key)
        out += (
            struct.pack("<I", _STRING) + _string(value)
            if isinstance(value, str)
            else struct.pack("<II", 4, value)
        )
    offset = 0
    for layer, direction in directions.items():
        out += _string(f"direction.{layer}") + struct.pack("<IQIQ", 1, direction.size, 0, offset)
        offset += -(-direction.nbytes // _ALIGNMENT) * _ALIGNMENT
    out += bytes(-len(out) % _ALIGNMENT)
    for direction in directions.values():
        data = np.ascontiguousarray(direction, "<f4").tobytes()
        out += data + bytes(-len(data) % _ALIGNMENT)
    path.write_bytes(out)


def read(path: Path) -> tuple[dict[int, np.ndarray], dict[str, Any]]:
    """(directions by block, metadata) of a control vector.

    Raises SextantError INVALID_ARGUMENT / BAD_CONTROL_VECTOR for anything else.
    """
    with reading(path):
        data = path.read_bytes()
    try:
        return _Reader(data).control_vector()
    except (struct.error, ValueError, UnicodeDecodeError, KeyError) as error:
        raise SextantError(
            "INVALID_ARGUMENT", "BAD_CONTROL_VECTOR", f"{path} is no GGUF control vector: {error}"
        ) from error


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


class _Reader:
    """A cursor over one file; every read is bounds-checked by struct or by `_take`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def control_vector(self) -> tuple[dict[int, np.ndarray], dict[str, Any]]:
        if self._take(4) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        version, tensor_count, pair_count = self._unpack("IQQ")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}; 2 and 3 are read")
        self._check(tensor_count, pair_count)
        metadata = {}
        for _ in range(pair_count):
            key = self._text()
            metadata[key] = self._value(*self._unpack("I"))
        infos = [self._tensor_info() for _ in range(tensor_count)]
        alignment = int(metadata.get("general.alignment", _ALIGNMENT))
        if alignment < 1:
            raise ValueError("its alignment is not positive")
        begin = -(-self._at // alignment) * alignment
        return _directions(infos, self._data, begin), metadata

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        (rank,) = self._unpack("I")
        if rank > 4:
            raise ValueError(f"tensor {name} has {rank} dimensions")
        shape = self._unpack("Q" * rank)
        return name, shape, *self._unpack("IQ")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._unpack(_SCALARS[kind])[0]
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY and depth == 0:
            inner, count = self._unpack("IQ")
            self._check(count)
            return [self._value(inner, depth + 1) for _ in range(count)]
        raise ValueError(f"metadata of an unknown kind {kind}")

    def _text(self) -> str:
        return self._take(*self._unpack("Q")).decode()

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._data, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError("it is cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def _check(self, *counts: int) -> None:
        if max(counts) > _MAX_COUNT:
            raise ValueError(f"it claims {max(counts)} entries")


def _directions(
    infos: list[tuple[str, tuple[int, ...], int, int]], data: bytes, begin: int
) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for name, shape, kind, offset in infos:
        prefix, _, number = name.partition(".")
        if prefix != "direction" or not number.isdecimal() or int(number) < 1:
            raise ValueError(f"tensor {name!r}: a control vector holds direction.<N> with N >= 1 only")
        if kind not in _KINDS or len(shape) != 1:
            raise ValueError(f"tensor {name!r} is not one-dimensional F32, F16 or F64")
        if int(number) in found:
            raise ValueError(f"tensor {name!r} comes twice")
        if begin + offset + np.dtype(_KINDS[kind]).itemsize * shape[0] > len(data):
            raise ValueError(f"tensor {name!r} is cut short")
        found[int(number)] = np.frombuffer(data, _KINDS[kind], shape[0], begin + offset).astype(np.float32)
    if len({direction.size for direction in found.values()}) != 1:
        raise ValueError("its directions are missing or differ in length")
    return dict(sorted(found.items()))
