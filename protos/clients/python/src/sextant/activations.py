"""Activations of a kept capture: slices fetched as they are asked for, and saved without holding them all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sextant.errors import SextantError
from sextant.progress import Progress
from sextant.refusals import writing
from sextant.replacing import replacing
from sextant.selection import hook_name, parse_row, site_name, site_number
from sextant.v1 import capture_pb2, types_pb2

if TYPE_CHECKING:
    from sextant.captures import CaptureInfo, Captures

Row = tuple[str, int]


class Activations(Mapping[str, np.ndarray]):
    """Maps `blocks.{layer}.hook_{site}` to float32 [position, hidden], fetched at first use and then kept.

    Also reads ("resid_post", 14) and "resid_post.14". Index p of the position axis is position p of the
    sequence; positions that were not recorded are NaN. Values are in the raw Hugging Face basis.
    """

    def __init__(self, captures: Captures, info: CaptureInfo) -> None:
        self.info = info
        self._captures = captures
        self._kept: dict[Row, np.ndarray] = {}

    def __getitem__(self, key: str | Row) -> np.ndarray:
        row = parse_row(key)
        if row not in self._kept:
            self.fetch([row])
        return self._kept[row]

    def __iter__(self) -> Iterator[str]:
        return (hook_name(*row) for row in self.info.rows)

    def __len__(self) -> int:
        return len(self.info.rows)

    def __contains__(self, key: object) -> bool:
        try:
            return parse_row(key) in self.info.rows  # type: ignore[arg-type]
        except SextantError:
            return False

    def __repr__(self) -> str:
        shape = f"{len(self)} rows x {self.position_count} x {self.info.hidden_size}"
        return f"<Activations {self.info.name} {shape}>"

    @property
    def name(self) -> str:
        """`captures/{id}`."""
        return self.info.name

    @property
    def position_count(self) -> int:
        """Length of the position axis."""
        return max(self.info.position_count, max(self.info.positions, default=-1) + 1)

    def fetch(self, rows: Sequence[Row] | None = None, progress: bool | None = None) -> None:
        """Fetches many rows in one call, all by default. progress: None shows a bar when it takes long."""
        wanted = [row for row in (rows or self.info.rows) if row not in self._kept]
        self._check(wanted)
        shape = (self.position_count, self.info.hidden_size)
        arrays = {row: np.full(shape, np.nan, np.float32) for row in wanted}
        for row, positions, data in self._slices(wanted, progress):
            if row in arrays:
                arrays[row][positions] = _to_float32(data) if data.dtype == np.uint16 else data
        self._kept.update(arrays)

    def save(
        self,
        path: str | Path,
        rows: Sequence[str | Row] | None = None,
        dtype: Literal["float32", "stored"] = "float32",
        progress: bool | None = None,
    ) -> Path:
        """Writes a safetensors file: one [position, hidden] tensor a row, under TransformerLens names.

        dtype "stored" keeps bfloat16 captures as they are (half the size, not readable by numpy alone; their
        missing positions are NaN too). Memory stays at one message, whatever the size of the capture. A
        file that is there is replaced only once the new one is whole.
        """
        wanted = [parse_row(row) for row in rows] if rows is not None else list(self.info.rows)
        self._check(wanted)
        raw = dtype == "stored" and self.info.dtype == "bf16"
        kind, numpy_type, missing = ("BF16", "<u2", 0x7FC0) if raw else ("F32", "<f4", np.nan)
        shape = (self.position_count, self.info.hidden_size)
        path = Path(path)
        with writing(path), replacing(path) as part:
            offset = _write_header(part, self.info, wanted, kind, shape, np.dtype(numpy_type).itemsize)
            if not wanted or 0 in shape:
                return path
            tensors = np.memmap(part, numpy_type, "r+", offset, (len(wanted), *shape))
            if len(self.info.positions) < shape[0]:
                tensors[:] = missing
            index = {row: number for number, row in enumerate(wanted)}
            for row, positions, data in self._slices(wanted, progress):
                wide = not raw and data.dtype == np.uint16
                tensors[index[row], positions] = _to_float32(data) if wide else data
            tensors.flush()
            del tensors  # Not every system moves a file that is mapped.
        return path

    def _check(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row not in self.info.rows:
                sites = ", ".join(dict.fromkeys(site for site, _ in self.info.rows))
                layers = sorted({layer for _, layer in self.info.rows})
                span = f"{layers[0]}-{layers[-1]}" if layers else "none"
                raise SextantError(
                    "NOT_FOUND",
                    "ROW_NOT_CAPTURED",
                    f"{hook_name(*row)} is not in {self.info.name}: sites {sites}; layers {span}",
                )

    def _slices(
        self, rows: Sequence[Row], progress: bool | None
    ) -> Iterator[tuple[Row, np.ndarray, np.ndarray]]:
        """(row, positions [n], data [n, hidden] float32 or raw uint16) of every slice of the selection."""
        if not rows:
            return
        request = capture_pb2.ReadActivationsRequest(
            name=self.info.name,
            sites=sorted({site_number(site) for site, _ in rows}),
            layers=sorted({layer for _, layer in rows}),
        )
        expected = len(rows) * len(self.info.positions)
        seen = 0
        with Progress("fetching activations", expected, progress) as bar:
            for part in self._captures.read(request):
                row = (site_name(part.site), part.layer)
                numpy_type = "<u2" if part.dtype == types_pb2.DTYPE_BF16 else "<f4"
                data = np.frombuffer(part.data, numpy_type).reshape(len(part.positions), part.hidden_size)
                if row in rows:
                    seen += len(part.positions)
                    bar.advance(len(part.positions))
                    yield row, np.array(part.positions, np.intp), data
        if seen != expected:
            raise SextantError(
                "DATA_LOSS",
                "ACTIVATIONS_SHORT",
                f"{seen} of {expected} rows came from {self.info.name}; ask again",
            )


def _to_float32(raw: np.ndarray) -> np.ndarray:
    """Widens bfloat16 bits, uint16 [...], to float32 [...]."""
    return (raw.astype(np.uint32) << 16).view(np.float32)


def _write_header(
    path: Path, info: CaptureInfo, rows: list[Row], kind: str, shape: tuple[int, int], width: int
) -> int:
    """Writes a safetensors header and reserves the data behind it; the offset of the first tensor."""
    size = shape[0] * shape[1] * width
    header: dict[str, object] = {
        "__metadata__": {
            "format": "sextant-capture",
            "capture": info.name,
            "model": info.model,
            "model_sha256": info.model_sha256,
            "state": info.state,
            "record": info.record,
            "basis": "raw Hugging Face",
            "positions": json.dumps(info.positions),
            "prompt_token_ids": json.dumps(info.prompt_token_ids),
        }
    }
    for number, row in enumerate(rows):
        span = [number * size, (number + 1) * size]
        header[hook_name(*row)] = {"dtype": kind, "shape": list(shape), "data_offsets": span}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        whole = 8 + len(text) + size * len(rows)
        if hasattr(os, "posix_fallocate"):  # A disk that fills up under the mapping would end the process.
            os.posix_fallocate(file.fileno(), 0, whole)
        else:
            file.truncate(whole)
    return 8 + len(text)
