"""What a caller asks of one generation: lens, capture, steering, sampling; and the request they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sextant.errors import invalid, unimplemented
from sextant.selection import Layers, PositionsLike, parse_layers, parse_positions, site_number, site_numbers
from sextant.v1 import inference_pb2, types_pb2

Prompt: TypeAlias = "str | Sequence[int] | np.ndarray | Sequence[Mapping[str, str]]"


@dataclass(frozen=True)
class Lens:
    """What to decode through the language-model head.

    targets: "next" (the token that came next) or up to 16 token ids to follow at every row.
    tracked: also report, at every layer, each position's union of all layers' candidates.
    normalization: how attn_out and mlp_out are scaled, "own" or "residual".
    """

    top_k: int = 5
    sites: str | Sequence[str] = ("resid_post",)
    layers: Layers = "all"
    positions: PositionsLike = "all"
    mode: Literal["auto", "deferred", "inline"] = "auto"
    targets: Literal["next"] | Sequence[int] = "next"
    tracked: bool = False
    normalization: Literal["own", "residual"] = "own"

    def to_proto(self) -> types_pb2.LensSettings:
        """The same on the wire."""
        if isinstance(self.targets, str) and self.targets != "next":
            raise invalid("BAD_TARGETS", f"targets={self.targets!r}: write 'next' or a list of token ids")
        return types_pb2.LensSettings(
            sites=site_numbers(self.sites),
            layers=parse_layers(self.layers),
            positions=parse_positions(self.positions),
            top_k=self.top_k,
            mode=_enum(types_pb2.LensMode, "LENS_MODE", self.mode),
            normalization=_enum(types_pb2.Normalization, "NORMALIZATION", self.normalization),
            target_ids=() if isinstance(self.targets, str) else [int(i) for i in self.targets],
            tracked=self.tracked,
        )


@dataclass(frozen=True)
class Capture:
    """What to keep for reading back.

    record: "after_steering" or "before_steering". ttl_seconds: time to live after the end; None is the
    server's default (an hour). label: yours, shown by lists.
    """

    sites: str | Sequence[str] = ("resid_post",)
    layers: Layers = "all"
    positions: PositionsLike = "all"
    record: Literal["after_steering", "before_steering"] = "after_steering"
    ttl_seconds: int | None = None
    overflow: Literal["stall", "spill", "drop"] = "stall"
    label: str = ""

    def to_proto(self) -> types_pb2.CaptureSettings:
        """The same on the wire."""
        return types_pb2.CaptureSettings(
            sites=site_numbers(self.sites),
            layers=parse_layers(self.layers),
            positions=parse_positions(self.positions),
            record=_enum(types_pb2.Record, "RECORD", self.record),
            ttl_seconds=self.ttl_seconds or 0,
            overflow=_enum(types_pb2.OverflowPolicy, "OVERFLOW_POLICY", self.overflow),
            label=self.label,
        )


@dataclass(frozen=True)
class Gate:
    """A condition on a lens reading that switches steering on; comes with the inline lens."""

    token: str
    logit_above: float
    site: str
    layer: int


@dataclass(frozen=True)
class Steer:
    """One intervention.

    vector: a stored vector ("name", "name@3" or what `client.vectors` returned), or float32
    [hidden] or [layers, hidden] that travels with the request (then `layers` is required).
    layers, site: None means the vector's own. Given layers take the place of the vector's own: a vector of
    one direction is applied at each of them; one of several directions only at those it has (else
    INVALID_ARGUMENT / VECTOR_LAYERS). low, high: for operator "clamp".
    strict: refuse a stored vector that was made on weights with another digest, e.g. another quantisation
    (FAILED_PRECONDITION / VECTOR_MODEL_DIGEST_DIFFERS), instead of a warning of that name. A vector without
    a digest, or one given inline, is never refused for it.
    """

    vector: object
    strength: float = 1.0
    operator: Literal["add", "add_scaled", "ablate", "clamp", "set"] = "add"
    layers: Layers | None = None
    site: str | None = None
    positions: PositionsLike = "all"
    low: float = 0.0
    high: float = 0.0
    preserve_norm: bool = False
    strict: bool = False
    gate: Gate | None = None

    @property
    def label(self) -> str:
        """The vector's name, or what it is when it has none."""
        return str(getattr(self.vector, "reference", "inline" if self.is_inline else self.vector))

    @property
    def is_inline(self) -> bool:
        """Whether the vector itself travels with the request."""
        return not isinstance(self.vector, str) and not hasattr(self.vector, "reference")

    def to_proto(self) -> types_pb2.Intervention:
        """The same on the wire."""
        if self.gate is not None:
            raise unimplemented("GATE_UNAVAILABLE", "gated steering is not served yet; leave gate=None")
        layers = parse_layers(self.layers)
        proto = types_pb2.Intervention(
            site=site_number(self.site) if self.site else 0,
            layers=layers,
            strength=self.strength,
            operator=_enum(types_pb2.SteeringOperator, "STEERING_OPERATOR", self.operator),
            positions=parse_positions(self.positions),
            low=self.low,
            high=self.high,
            preserve_norm=self.preserve_norm,
            strict=self.strict,
        )
        if self.is_inline:
            directions = check_directions(self.vector, layers)
            # One direction for several layers: the intervention's own `layers` spread it.
            proto.inline_vector.layers.extend(layers if len(directions) == len(layers) else layers[:1])
            proto.inline_vector.site = site_number(self.site or "resid_post")
            proto.inline_vector.data = directions.astype("<f4").tobytes()
        else:
            proto.vector = self.label
        return proto


def check_directions(array: ArrayLike, layers: Sequence[int]) -> np.ndarray:
    """float32 [layers, hidden] of a vector given as [hidden] or [layers, hidden]; one may serve all."""
    try:
        directions = np.asarray(array, np.float32)
    except (TypeError, ValueError) as error:
        raise invalid("BAD_VECTOR", f"a vector is numbers, [hidden] or [layers, hidden]: {error}") from error
    if directions.ndim == 1:
        directions = directions[None]
    if directions.ndim != 2 or not directions.size:
        raise invalid("BAD_VECTOR", f"a vector is [hidden] or [layers, hidden], not {list(np.shape(array))}")
    if not layers:
        raise invalid("BAD_VECTOR", "say at which layers the vector is meant to be applied: layers=[14]")
    if len(directions) not in (1, len(layers)):
        raise invalid("BAD_VECTOR", f"{len(directions)} directions for {len(layers)} layers")
    if not np.isfinite(directions).all():
        raise invalid("BAD_VECTOR", "the vector holds NaN or infinity")
    return directions


@dataclass(frozen=True)
class GenerateOptions:
    """Every argument of `Client.generate` after the prompt; see there."""

    max_new_tokens: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    prompt_logprobs: bool = False
    lens: Lens | bool | None = None
    capture: Capture | None = None
    steer: Sequence[Steer] = ()
    lens_wait: float | None = None
    parse_special_tokens: bool = False
    skip_bos: bool = False

    def to_proto(self, prompt: Prompt) -> inference_pb2.GenerateRequest:
        """The request. Raises SextantError INVALID_ARGUMENT for what cannot be written on the wire."""
        _check_kind("lens", self.lens, (Lens, bool))
        _check_kind("capture", self.capture, (Capture,))
        for steer in self.steer:
            _check_kind("steer", steer, (Steer,))
        _check_number("max_new_tokens", self.max_new_tokens, 0, 2**31 - 1)
        _check_number("top_k", self.top_k, 0, 2**31 - 1)
        _check_number("seed", self.seed, 0, 2**64 - 1)
        request = inference_pb2.GenerateRequest(
            max_new_tokens=self.max_new_tokens,
            sampling=inference_pb2.Sampling(
                temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, seed=self.seed
            ),
            stop=[
                _text("a stop string", stop)
                for stop in ([self.stop] if isinstance(self.stop, str) else self.stop)
            ],
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
            prompt_logprobs=self.prompt_logprobs,
            capture=self.capture.to_proto() if self.capture else None,
            interventions=[steer.to_proto() for steer in self.steer],
            parse_special_tokens=self.parse_special_tokens,
            skip_bos=self.skip_bos,
        )
        if self.lens:
            request.lens.CopyFrom((Lens() if self.lens is True else self.lens).to_proto())
        if self.lens_wait is not None:
            request.lens_wait_ms = round(self.lens_wait * 1000)
        _set_prompt(request, prompt)
        return request


def _set_prompt(request: inference_pb2.GenerateRequest, prompt: Prompt) -> None:
    if isinstance(prompt, str):
        request.text = _text("the prompt", prompt)
        return
    # Bytes and mappings can be iterated too, and would make prompts that nobody meant.
    if not isinstance(prompt, Iterable) or isinstance(prompt, (bytes, bytearray, Mapping)):
        raise _bad_prompt(f"not {type(prompt).__name__}")
    items = list(prompt)
    if items and all(isinstance(item, Mapping) for item in items):
        for number, item in enumerate(items):
            request.chat.messages.add(**_message(number, item))
    elif items and all(isinstance(item, (int, np.integer)) for item in items):
        for item in items:
            _check_number("a token id", item, 0, 2**31 - 1)
        request.token_ids.ids.extend(int(item) for item in items)
    else:
        raise _bad_prompt("not an empty list" if not items else f"not a list with {items[0]!r:.40}")


def _message(number: int, item: Mapping[str, str]) -> dict[str, str]:
    """Role and content of one chat message."""
    for key in ("role", "content"):
        if not isinstance(item.get(key), str):
            raise invalid(
                "BAD_PROMPT",
                f"message {number} of the chat has no text under {key!r}; write role and content",
            )
    return {key: _text(f"message {number} of the chat", item[key]) for key in ("role", "content")}


def _bad_prompt(but: str) -> Exception:
    return invalid(
        "BAD_PROMPT",
        f"a prompt is text, a list of token ids, or a list of {{'role', 'content'}} messages, {but}",
    )


def _text(what: str, text: str) -> str:
    """`text`, which must be expressible in UTF-8: bytes that were not come as lone surrogates."""
    if not isinstance(text, str):
        raise invalid("BAD_ARGUMENT", f"{what} is text, not {text!r:.40}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(
            "TEXT_NOT_UTF8",
            f"{what} is no UTF-8 text (at character {error.start}); convert it, or send token ids",
        ) from None
    return text


def _check_kind(name: str, value: object, kinds: tuple[type, ...]) -> None:
    if value is not None and not isinstance(value, kinds):
        raise invalid("BAD_ARGUMENT", f"{name} is a sextant.{kinds[0].__name__}, not {value!r:.40}")


def _check_number(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise invalid("BAD_ARGUMENT", f"{name} is a whole number, not {value!r:.40}")
    if not low <= value <= high:
        raise invalid("BAD_ARGUMENT", f"{name} is {value}; it must be within {low}..{high}")


def _enum(enum, prefix: str, name: str) -> int:
    key = f"{prefix}_{name.upper()}"
    known = enum.DESCRIPTOR.values_by_name
    if key not in known:
        names = (
            name.removeprefix(prefix + "_").lower() for name in known if not name.endswith("UNSPECIFIED")
        )
        raise invalid(f"UNKNOWN_{prefix}", f"{name!r} is none of {', '.join(names)}")
    return enum.Value(key)
