"""Vectors to files and back: GGUF control vectors, safetensors; and out of plain arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import save

from sextant import gguf
from sextant.arrays import choose, read_arrays
from sextant.errors import invalid
from sextant.refusals import reading, writing
from sextant.selection import Layers, parse_layers, site_name, site_number
from sextant.vectors import Vector

_FORMAT = "sextant-vector"
_MAX_BYTES = 1 << 30  # Above any vector; most models are larger.


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
    if kind not in ("gguf", "safetensors"):
        raise invalid(
            "UNKNOWN_FORMAT", f"cannot write {kind or 'a file without suffix'}; use gguf or safetensors"
        )
    with writing(path):
        _export_gguf(vector, path) if kind == "gguf" else _export_safetensors(vector, path)
    return path


def read_vector(
    path: str | Path, *, tensor: str | None = None, layers: Layers | None = None, site: str | None = None
) -> VectorFile:
    """Reads a GGUF control vector (llama.cpp's, repeng's), or plain arrays of safetensors, .npy and .npz.

    tensor: which array, where there are several. layers, site: where a plain array acts, which it does not
    say itself: [hidden] at each of `layers`, or [layers, hidden] in their order; "all" is 0 to its last. The
    default site is resid_post. Of a file that says its layers, `layers` chooses some.

    Raises SextantError: NOT_FOUND, or INVALID_ARGUMENT naming what is wrong and what was found.
    """
    path = Path(path)
    with reading(path):
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise invalid("BAD_VECTOR_FILE", f"{path} has {size:,} bytes: no vector is that large")
        data = path.read_bytes()
    # By what it is or claims to be, so that a damaged file is called by its own format's name.
    if data.startswith(b"GGUF") or path.suffix == ".gguf":
        return _chosen(path, _read_gguf(path), tensor, layers, site)
    arrays, metadata = read_arrays(path, data)
    if metadata.get("format") == _FORMAT:
        return _chosen(path, _read_own(path, arrays, metadata), tensor, layers, site)
    return _from_array(path, choose(path, arrays, tensor), layers, site)


def _chosen(
    path: Path, file: VectorFile, tensor: str | None, layers: Layers | None, site: str | None
) -> VectorFile:
    """Some of the layers of a file that says them."""
    if tensor is not None:
        raise invalid("WHICH_TENSOR", f"{path} is one vector: leave tensor= (--tensor) out")
    if site is not None and site_name(site_number(site)) != file.site:
        raise invalid("WHICH_SITE", f"{path} says that it acts at {file.site}: leave site= (--site) out")
    wanted = parse_layers(layers) or list(file.layers)
    if unknown := [layer for layer in wanted if layer not in file.layers]:
        known = ", ".join(map(str, file.layers))
        raise invalid("WHICH_LAYERS", f"{path} has no direction of layer {unknown[0]}; it has {known}")
    rows = [file.layers.index(layer) for layer in wanted]
    return replace(file, layers=tuple(wanted), directions=file.directions[rows])


def _from_array(path: Path, array: np.ndarray, layers: Layers | None, site: str | None) -> VectorFile:
    """A vector of an array that says nothing but its numbers."""
    rows = np.atleast_2d(array)
    shape = f"{path} holds {list(array.shape)} and does not say for which layers"
    if layers is None:
        advice = "all or 10-14" if len(rows) > 1 else "14"
        raise invalid("WHICH_LAYERS", f"{shape}: say it with layers= (--layers {advice})")
    wanted = parse_layers(layers) or list(range(len(rows)))
    if len(rows) not in (1, len(wanted)):
        raise invalid("WHICH_LAYERS", f"{path} holds {len(rows)} directions; {len(wanted)} layers were given")
    directions = np.ascontiguousarray(np.broadcast_to(rows, (len(wanted), rows.shape[1])))
    if not np.isfinite(directions).all():
        raise invalid("BAD_VECTOR_FILE", f"{path} holds NaN or infinity")
    return VectorFile("", site_name(site_number(site or "resid_post")), tuple(wanted), directions)


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
    path.write_bytes(save({"directions": np.ascontiguousarray(vector.directions, np.float32)}, metadata))


def _read_own(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> VectorFile:
    try:
        directions = arrays["directions"].astype(np.float32)
        layers = tuple(int(layer) for layer in json.loads(metadata["layers"]))
    except (KeyError, TypeError, ValueError) as error:
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
