"""Vectors to files and back: GGUF control vectors and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sextant import gguf
from sextant.errors import SextantError, invalid
from sextant.vectors import Vector

_FORMAT = "sextant-vector"


@dataclass(frozen=True)
class VectorFile:
    """What a file says of a vector. directions: float32 [layer, hidden]; "" is "it does not say"."""

    name: str
    site: str
    layers: tuple[int, ...]
    directions: np.ndarray
    description: str = ""
    model_sha256: str = ""


def export_vector(
    vector: Vector, path: str | Path, format: Literal["gguf", "safetensors"] | None = None
) -> Path:
    """Writes a vector with its directions; the format is that of the file's suffix unless given.

    GGUF has one meaning, "added to the output of block N", so only resid_post N and resid_pre N + 1 can be
    written, and N begins at 1. Raises SextantError INVALID_ARGUMENT otherwise.
    """
    path = Path(path)
    kind = format or path.suffix.removeprefix(".")
    if vector.directions is None:
        raise invalid(
            "NO_DIRECTIONS", f"{vector.reference} is only a listing; use vectors.get({vector.reference!r})"
        )
    if kind == "gguf":
        _export_gguf(vector, path)
    elif kind == "safetensors":
        _export_safetensors(vector, path)
    else:
        raise invalid(
            "UNKNOWN_FORMAT", f"cannot write {kind or 'a file without suffix'}; use gguf or safetensors"
        )
    return path


def read_vector(path: str | Path) -> VectorFile:
    """Reads a GGUF control vector or a safetensors file that `export_vector` wrote.

    Raises SextantError: NOT_FOUND, or INVALID_ARGUMENT naming what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise SextantError("NOT_FOUND", "FILE_NOT_FOUND", f"there is no file {path}")
    with path.open("rb") as file:
        magic = file.read(4)
    # By what it is or claims to be, so that a damaged file is called by its own format's name.
    return _read_gguf(path) if magic == b"GGUF" or path.suffix == ".gguf" else _read_safetensors(path)


def _export_gguf(vector: Vector, path: Path) -> None:
    shift = {"resid_post": 0, "resid_pre": -1}.get(vector.site)
    if shift is None:
        raise invalid(
            "SITE_NOT_IN_GGUF", f"GGUF cannot say {vector.site}; export {vector.reference} as safetensors"
        )
    blocks = [layer + shift for layer in vector.layers]
    if min(blocks) < 1:
        raise invalid(
            "LAYER_NOT_IN_GGUF",
            f"GGUF control vectors begin at the output of block 1; {vector.reference} acts before that at "
            f"{vector.site} {vector.layers[0]}: export it as safetensors",
        )
    metadata: dict[str, str | int] = {
        "controlvector.model_hint": vector.model or "unknown",
        "controlvector.layer_count": len(blocks),
        "sextant.name": vector.name,
        "sextant.site": vector.site,
        "sextant.description": vector.description,
        "sextant.model_sha256": vector.model_sha256,
        "sextant.model_layer_count": vector.model_layer_count,
    }
    assert vector.directions is not None
    gguf.write(path, dict(zip(blocks, vector.directions, strict=True)), metadata)


def _read_gguf(path: Path) -> VectorFile:
    directions, metadata = gguf.read(path)
    site = metadata.get("sextant.site", "resid_post")
    shift = 1 if site == "resid_pre" else 0
    return VectorFile(
        name=_text(metadata, "sextant.name"),
        site="resid_pre" if shift else "resid_post",
        layers=tuple(block + shift for block in directions),
        directions=np.stack(list(directions.values())),
        description=_text(metadata, "sextant.description"),
        model_sha256=_text(metadata, "sextant.model_sha256"),
    )


def _text(metadata: Mapping[str, object], key: str) -> str:
    return str(metadata.get(key, ""))


def _export_safetensors(vector: Vector, path: Path) -> None:
    metadata = {
        "format": _FORMAT,
        "name": vector.name,
        "site": vector.site,
        "layers": json.dumps(vector.layers),
        "description": vector.description,
        "model": vector.model,
        "model_sha256": vector.model_sha256,
        "model_layer_count": str(vector.model_layer_count),
        "basis": "raw Hugging Face",
    }
    assert vector.directions is not None
    save_file({"directions": np.ascontiguousarray(vector.directions, np.float32)}, path, metadata)


def _read_safetensors(path: Path) -> VectorFile:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise invalid("BAD_VECTOR_FILE", f"{path} holds no {_FORMAT}: its metadata does not say so")
            directions = file.get_tensor("directions").astype(np.float32)
        layers = tuple(int(layer) for layer in json.loads(metadata["layers"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise invalid("BAD_VECTOR_FILE", f"{path} is no vector: {error}") from error
    if directions.ndim != 2 or len(directions) != len(layers):
        raise invalid(
            "BAD_VECTOR_FILE", f"{path}: directions {list(directions.shape)} for {len(layers)} layers"
        )
    return VectorFile(
        name=metadata.get("name", ""),
        site=metadata.get("site", "resid_post"),
        layers=layers,
        directions=directions,
        description=metadata.get("description", ""),
        model_sha256=metadata.get("model_sha256", ""),
    )
