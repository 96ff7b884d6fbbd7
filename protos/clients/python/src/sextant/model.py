"""What is served: the model, the server's limits, tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from sextant.v1 import inference_pb2, types_pb2


@dataclass(frozen=True)
class Limits:
    """Requests beyond these are INVALID_ARGUMENT."""

    max_prompt_token_count: int
    max_new_token_count: int
    max_intervention_count: int
    max_top_k: int
    max_stop_count: int


@dataclass(frozen=True)
class ModelInfo:
    """The served model. dtype: "f32" or "bf16"; digests are hex; epoch: the present life of its ranks."""

    name: str
    family: str
    layer_count: int
    hidden_size: int
    vocab_size: int
    head_count: int
    kv_head_count: int
    head_dim: int
    feed_forward_size: int
    max_position_count: int
    tensor_parallel_size: int
    dtype: str
    weights_sha256: str
    lens_sha256: str
    chat_template: str
    eos_token_ids: tuple[int, ...]
    epoch: int
    limits: Limits


def model_info(response: inference_pb2.GetModelResponse) -> ModelInfo:
    """ModelInfo of the wire's Model and Limits, field by field."""
    values = {field.name: getattr(response.model, field.name) for field in response.model.DESCRIPTOR.fields}
    limits = {field.name: getattr(response.limits, field.name) for field in response.limits.DESCRIPTOR.fields}
    values["dtype"] = dtype_name(response.model.dtype)
    values["eos_token_ids"] = tuple(response.model.eos_token_ids)
    return ModelInfo(
        **{name: values[name] for name in ModelInfo.__dataclass_fields__ if name != "limits"},
        limits=Limits(**{name: limits[name] for name in Limits.__dataclass_fields__}),
    )


def dtype_name(dtype: int) -> str:
    """ "f32", "bf16" or "unspecified"."""
    return types_pb2.DType.Name(dtype).removeprefix("DTYPE_").lower()


def to_datetime(message, field: str) -> datetime | None:
    """UTC time of a Timestamp field; None when it is unset."""
    if not message.HasField(field):
        return None
    return getattr(message, field).ToDatetime(tzinfo=UTC)


@dataclass(frozen=True)
class Tokens:
    """ids: int32 [token]. texts: of each id alone; bytes that are no whole characters are `<0xE2>`."""

    ids: np.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)
