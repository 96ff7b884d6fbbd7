"""The blocking client: one gateway, every public call."""

from __future__ import annotations

import functools
import os
import re
import uuid
from collections.abc import Generator, Sequence
from typing import Any

import grpc
import numpy as np

from sextant.captures import Captures
from sextant.errors import from_rpc, invalid, unimplemented
from sextant.generation import Generation
from sextant.interrupts import StreamApart, call_apart
from sextant.model import ModelInfo, Tokens, model_info
from sextant.refusals import sending
from sextant.settings import Capture, GenerateOptions, Lens, Prompt, Steer
from sextant.transcript import Transcript
from sextant.v1 import inference_pb2, inference_pb2_grpc
from sextant.vectors import Vectors
from sextant.vocabulary import Vocabulary, token_texts

DEFAULT_ADDRESS = "127.0.0.1:7700"
REQUEST_ID_KEY = "x-request-id"
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.primary_user_agent", "sextant-python/0.1.0"),
)


class Client:
    """Talks to one gateway. Safe to use from several threads; close it, or use it in a `with` block.

    address: host:port; None reads SEXTANT_SERVER, else 127.0.0.1:7700.
    credentials: of a TLS channel; None is plain text. timeout: seconds for calls that answer once.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 30.0,
    ) -> None:
        if address is None:
            address = os.environ.get("SEXTANT_SERVER") or DEFAULT_ADDRESS
        self.address = _checked_address(address)
        self.channel = open_channel(grpc, self.address, credentials)
        self._timeout = timeout
        self._stub = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.vocabulary = Vocabulary(self._texts)
        self.captures = Captures(self)
        self.vectors = Vectors(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every call and the connection."""
        self.channel.close()

    def model(self) -> ModelInfo:
        """The model that is served and the server's limits."""
        return model_info(self.call(self._stub.GetModel, inference_pb2.GetModelRequest()))

    @functools.cached_property
    def model_name(self) -> str:
        """Name of the served model, asked for once."""
        return self.model().name

    def tokenize(self, text: str, add_special_tokens: bool = False) -> Tokens:
        """Token ids of a text. add_special_tokens: add BOS and the like, and read those in the text."""
        with sending():
            request = inference_pb2.TokenizeRequest(text=text, add_special_tokens=add_special_tokens)
        response = self.call(self._stub.Tokenize, request)
        texts = token_texts(response.texts, response.token_bytes)
        self.vocabulary.add(response.ids, texts)
        return Tokens(np.array(response.ids, np.int32), texts)

    def detokenize(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        with sending():
            request = inference_pb2.DetokenizeRequest(
                ids=[int(i) for i in ids], skip_special_tokens=skip_special_tokens
            )
        return self.call(self._stub.Detokenize, request).text

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 16,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        stop_token_ids: Sequence[int] = (),
        ignore_eos: bool = False,
        prompt_logprobs: bool = False,
        lens: Lens | bool | None = None,
        capture: Capture | None = None,
        steer: Steer | Sequence[Steer] = (),
        lens_wait: float | None = None,
        parse_special_tokens: bool = False,
        skip_bos: bool = False,
        timeout: float | None = None,
    ) -> Generation:
        """Starts one generation and returns at once; iterate it, or read its results, which wait.

        prompt: text, token ids, or messages ({"role", "content"}) for the model's chat template.
        max_new_tokens: 0 runs the prompt only, which can still be captured, decoded and scored.
        temperature: 0 is greedy. top_k, top_p: 0 and 1 are off. seed: the same seed gives the same tokens.
        stop: generation ends before the first of these.
        lens: a Lens, or True for the default one. capture: what to keep. steer: interventions, in order.
        lens_wait: seconds to wait for readings after the last token (server's default: 60).
        parse_special_tokens: read special tokens written in the prompt. skip_bos: do not add BOS.
        timeout: seconds for the whole call, None for no limit.
        """
        options = generate_options(locals())
        request = to_request(options, prompt)
        transcript = Transcript(options)
        transcript.request_id = uuid.uuid4().hex
        call = self._stub.Generate(
            request, timeout=timeout, metadata=((REQUEST_ID_KEY, transcript.request_id),)
        )
        return Generation(self, call, transcript)

    def compare(self, prompt: Prompt, *, steer: Sequence[Steer] = (), **options: Any) -> None:
        """Steered and plain twins; not served yet."""
        raise unimplemented(
            "COMPARE_UNAVAILABLE", "run generate twice, with and without steer=, and compare .text and .lens"
        )

    def call(self, method: Any, request: Any) -> Any:
        """Runs a method that answers once. Raises SextantError."""
        request_id = uuid.uuid4().hex
        try:
            metadata = ((REQUEST_ID_KEY, request_id),)
            return call_apart(lambda: method(request, timeout=self._timeout, metadata=metadata))
        except grpc.RpcError as error:
            raise from_rpc(error, self.address, request_id) from None

    def stream(self, method: Any, request: Any, timeout: float | None = None) -> Generator[Any, None, None]:
        """Yields a streaming method's answers; closing the generator cancels it. Raises SextantError."""
        request_id = uuid.uuid4().hex
        responses = method(request, timeout=timeout, metadata=((REQUEST_ID_KEY, request_id),))
        messages = StreamApart(responses)
        try:
            yield from messages
        except grpc.RpcError as error:
            raise from_rpc(error, self.address, request_id) from None
        finally:
            responses.cancel()
            messages.close()

    def _texts(self, ids: list[int]) -> list[str]:
        request = inference_pb2.DetokenizeRequest(ids=ids, individually=True)
        answer = self.call(self._stub.Detokenize, request)
        return token_texts(answer.texts, answer.token_bytes)


def open_channel(module: Any, address: str, credentials: grpc.ChannelCredentials | None) -> Any:
    """A channel of `module` (grpc or grpc.aio) to `address`."""
    if credentials is None:
        return module.insecure_channel(address, options=CHANNEL_OPTIONS)
    return module.secure_channel(address, credentials, options=CHANNEL_OPTIONS)


def generate_options(arguments: dict[str, Any]) -> GenerateOptions:
    """The options among the arguments of `generate`; a single Steer becomes a list of one."""
    values = {name: arguments[name] for name in GenerateOptions.__dataclass_fields__}
    if isinstance(values["steer"], Steer):
        values["steer"] = [values["steer"]]
    return GenerateOptions(**values)


def to_request(options: GenerateOptions, prompt: Prompt) -> inference_pb2.GenerateRequest:
    """The request on the wire; what protobuf cannot hold (a number out of range) becomes INVALID_ARGUMENT."""
    with sending():
        return options.to_proto(prompt)


def _checked_address(address: str) -> str:
    if not isinstance(address, str) or not re.fullmatch(r"[!-~]+", address) or "://" in address:
        raise invalid("BAD_ADDRESS", f"{address!r} is no address of a gateway; write HOST:PORT")
    return address
