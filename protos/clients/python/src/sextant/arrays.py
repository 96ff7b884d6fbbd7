"""Plain arrays out of files that researchers keep directions in: .npy, .npz, safetensors. Never a pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors

from sextant.errors import SextantError, invalid

_ZIP = b"PK"
_NPY = b"\x93NUMPY"
_PICKLE = b"\x80"
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1"}
_SHOWN = 8  # Names in a message.


def read_arrays(path: Path, data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, metadata) of a file's bytes; the one array of a .npy has the name "".

    Raises SextantError INVALID_ARGUMENT: PICKLE_REFUSED for what torch.save or pickle wrote, BAD_VECTOR_FILE
    for anything else that is none of the three.
    """
    try:
        if data.startswith(_NPY):
            return {"": np.load(io.BytesIO(data), allow_pickle=False)}, {}
        if _is_safetensors(data):  # Before the others: the length it begins with may be any of their marks.
            return _read_safetensors(data)
        if data.startswith(_ZIP):
            return _read_zip(path, data), {}
        if data.startswith(_PICKLE):
            raise _pickle(path)
        return _read_safetensors(data)
    except SextantError:
        raise
    except Exception as error:  # The readers of damaged files raise whatever their parsers do.
        raise invalid(
            "BAD_VECTOR_FILE",
            f"{path} is none of GGUF control vector, safetensors, .npy and .npz, or it is damaged: {error}",
        ) from error


def choose(path: Path, arrays: Mapping[str, np.ndarray], name: str | None) -> np.ndarray:
    """The array called `name`, or the only one that is [hidden] or [layers, hidden] numbers.

    Raises SextantError INVALID_ARGUMENT / WHICH_TENSOR naming what was found.
    """
    if name is not None:
        if name not in arrays:
            raise invalid("WHICH_TENSOR", f"{path} has no tensor {name!r}; {_found(arrays)}")
        found = arrays[name]
    else:
        fitting = [array for array in arrays.values() if _fits(array)]
        if len(fitting) != 1:
            advice = "name one of them with tensor= (--tensor)" if fitting else "none is a vector"
            raise invalid("WHICH_TENSOR", f"{path}: {_found(arrays)}; {advice}")
        (found,) = fitting
    if not _fits(found):
        raise invalid(
            "WHICH_TENSOR", f"{path}: a vector is numbers, [hidden] or [layers, hidden]; {_found(arrays)}"
        )
    return found.astype(np.float32)


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def _read_zip(path: Path, data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(name.endswith("data.pkl") for name in archive.namelist()):
            raise _pickle(path)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_safetensors(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    arrays = {}
    for name, tensor in safetensors.deserialize(data):
        raw, kind = bytes(tensor["data"]), tensor["dtype"]
        if kind == "BF16":
            flat = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind in _KINDS:
            flat = np.frombuffer(raw, _KINDS[kind])
        else:  # Only its shape matters, to be named.
            flat = np.zeros(tensor["shape"], "V1")
        arrays[name] = flat.reshape(tensor["shape"])
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return arrays, header.get("__metadata__", {})


def _fits(array: np.ndarray) -> bool:
    return array.ndim in (1, 2) and array.size > 0 and array.dtype.kind == "f"


def _found(arrays: Mapping[str, np.ndarray]) -> str:
    """What a file holds, in words."""
    names = [
        f"{name or 'one array'} {list(array.shape)}{'' if array.dtype.kind == 'f' else f' {array.dtype}'}"
        for name, array in sorted(arrays.items())
    ]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"it holds {', '.join(names[:_SHOWN])}{more}" if names else "it holds nothing"


def _pickle(path: Path) -> SextantError:
    whole = path.with_suffix(".npy")
    return invalid(
        "PICKLE_REFUSED",
        f"{path} is a pickle, as torch.save writes it; reading one may run anything, so none is. Convert it: "
        f'python -c "import numpy, torch; numpy.save({str(whole)!r}, '
        f'torch.load({str(path)!r}, weights_only=True).float().cpu().numpy())"',
    )
