"""Steering vectors: immutable versions under a name, kept by the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sextant.errors import SextantError, invalid, unimplemented
from sextant.model import to_datetime
from sextant.refusals import sending
from sextant.selection import Layers, parse_layers, site_name, site_number
from sextant.settings import check_directions
from sextant.v1 import vector_pb2, vector_pb2_grpc

if TYPE_CHECKING:
    from sextant.client import Client

_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Vector:
    """One version of a vector. May be given to Steer as it is.

    site, layers: where it is meant to be applied. directions: float32 [layer, hidden], None in lists.
    norms: L2 norm of each direction. model_sha256: weights digest of the model it was made on, "" if unknown.
    """

    name: str
    version: int
    site: str
    layers: tuple[int, ...]
    hidden_size: int
    model_layer_count: int
    model: str = ""
    model_sha256: str = ""
    sha256: str = ""
    create_time: datetime | None = None
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    norms: tuple[float, ...] = ()
    directions: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def reference(self) -> str:
        """`name@version`, or the name alone for one that was never stored."""
        return f"{self.name}@{self.version}" if self.version else self.name


VectorList: TypeAlias = list[Vector]  # In Vectors the name `list` is a method's.


class Vectors:
    """`client.vectors`. A reference is `name` (its newest version) or `name@version`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stub = vector_pb2_grpc.VectorServiceStub(client.channel)

    def put(
        self,
        name: str,
        array: ArrayLike,
        *,
        layers: Layers,
        site: str = "resid_post",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        model_sha256: str | None = None,
    ) -> Vector:
        """Stores a new version made on the served model; the same content again answers its version.

        array: float [hidden] (the same direction at every layer) or [layer, hidden], in ascending order of
        `layers`. model_sha256: None is the served model's digest, "" is "unknown".
        """
        model = self._client.model()
        chosen = parse_layers(layers) or list(range(model.layer_count))
        directions = check_directions(array, chosen)
        stored = np.ascontiguousarray(np.broadcast_to(directions, (len(chosen), directions.shape[1])), "<f4")
        with sending():
            header = vector_pb2.Vector(
                name=name,
                site=site_number(site),
                layers=chosen,
                hidden_size=stored.shape[1],
                model_layer_count=model.layer_count,
                model=model.name,
                model_sha256=model.weights_sha256 if model_sha256 is None else model_sha256,
                description=description,
                labels=labels or {},
            )
        answer = self._client.call(self._stub.CreateVector, _messages(header, stored.tobytes()))
        return to_vector(answer, stored)

    def get(self, reference: str | Vector) -> Vector:
        """One version with its directions."""
        with sending():
            request = vector_pb2.ReadVectorRequest(reference=reference_of(reference))
        header, parts = None, []
        for message in self._client.stream(self._stub.ReadVector, request):
            if message.HasField("vector"):
                header = message.vector
            parts.append(message.data)
        data = b"".join(parts)
        if header is None or len(data) != 4 * len(header.layers) * header.hidden_size:
            raise SextantError(
                "DATA_LOSS", "VECTOR_SHORT", f"{reference_of(reference)} came incomplete; ask again"
            )
        directions = np.frombuffer(data, "<f4").reshape(len(header.layers), header.hidden_size)
        return to_vector(header, directions)

    def info(self, reference: str | Vector) -> Vector:
        """One version without its directions."""
        with sending():
            request = vector_pb2.GetVectorRequest(reference=reference_of(reference))
        return to_vector(self._client.call(self._stub.GetVector, request))

    def list(self) -> VectorList:
        """The newest version of every name."""
        return self._list("")

    def history(self, name: str) -> VectorList:
        """Every version of a name."""
        return self._list(name)

    def delete(self, reference: str | Vector) -> int:
        """Hides `name@version`, or all versions of `name`; how many. Version numbers are never used again."""
        with sending():
            request = vector_pb2.DeleteVectorRequest(reference=reference_of(reference))
        return self._client.call(self._stub.DeleteVector, request).deleted_count

    def build(self, name: str, *, pairs: Sequence[tuple[str, str]], **options: Any) -> Vector:
        """Builds a vector from contrastive pairs on the server; not served yet."""
        raise unimplemented(
            "BUILD_UNAVAILABLE",
            "capture both sides of the pairs with generate(max_new_tokens=0, capture=...), subtract their "
            "means in numpy, and store the result with vectors.put",
        )

    def evaluate(self, reference: str | Vector, *, items: object, **options: Any) -> None:
        """Measures steerability on the server; not served yet."""
        raise unimplemented(
            "EVALUATE_UNAVAILABLE",
            "run generate(max_new_tokens=0, lens=sextant.Lens(targets=[...])) once per strength and compare "
            "out.lens.target_logprob",
        )

    def _list(self, name: str) -> VectorList:
        found: VectorList = []
        token = ""
        while True:
            with sending():
                request = vector_pb2.ListVectorsRequest(page_size=1000, page_token=token, name=name)
            page = self._client.call(self._stub.ListVectors, request)
            found.extend(to_vector(vector) for vector in page.vectors)
            token = page.next_page_token
            if not token:
                return found


def reference_of(reference: str | Vector) -> str:
    """The text of a reference."""
    text = reference.reference if isinstance(reference, Vector) else reference
    if not isinstance(text, str) or not text:
        raise invalid("BAD_VECTOR_NAME", f"{text!r} names no vector; write name or name@version")
    return text


def to_vector(proto: vector_pb2.Vector, directions: np.ndarray | None = None) -> Vector:
    """Vector of the wire's."""
    return Vector(
        name=proto.name,
        version=proto.version,
        site=site_name(proto.site),
        layers=tuple(proto.layers),
        hidden_size=proto.hidden_size,
        model_layer_count=proto.model_layer_count,
        model=proto.model,
        model_sha256=proto.model_sha256,
        sha256=proto.sha256,
        create_time=to_datetime(proto, "create_time"),
        description=proto.description,
        labels=dict(proto.labels),
        norms=tuple(proto.norms),
        directions=directions,
    )


def _messages(header: vector_pb2.Vector, data: bytes) -> Iterator[vector_pb2.CreateVectorRequest]:
    yield vector_pb2.CreateVectorRequest(vector=header, data=data[:_MESSAGE_BYTES])
    for begin in range(_MESSAGE_BYTES, len(data), _MESSAGE_BYTES):
        yield vector_pb2.CreateVectorRequest(data=data[begin : begin + _MESSAGE_BYTES])
