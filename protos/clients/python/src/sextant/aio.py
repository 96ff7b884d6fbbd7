"""The awaitable client: the same surface as `sextant.Client`, for asyncio.

async with sextant.aio.Client("127.0.0.1:7700") as client:
    out = client.generate("Once upon a time", lens=sextant.Lens())
    async for event in out:
        print(event.text, end="")
    await out            # the end of the stream; every result is there from here on
    print(out.lens.entropy)
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import ArrayLike

import sextant.client as blocking
from sextant.activations import Activations as BlockingActivations
from sextant.activations import Row
from sextant.captures import CaptureInfo
from sextant.errors import SextantError, from_rpc
from sextant.events import Event
from sextant.following import Following
from sextant.model import ModelInfo, Tokens
from sextant.results import Results
from sextant.selection import Layers
from sextant.settings import Prompt
from sextant.transcript import Transcript
from sextant.v1 import inference_pb2_grpc
from sextant.vectors import Vector, VectorList


class Client:
    """Talks to one gateway. Make it inside a running event loop; close it, or use `async with`.

    Generations stream on the loop itself; calls that answer once run on a thread each.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._blocking = blocking.Client(address, credentials=credentials, timeout=timeout)
        self.address = self._blocking.address
        self._channel = blocking.open_channel(grpc.aio, self.address, credentials)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self.captures = Captures(self._blocking)
        self.vectors = Vectors(self._blocking)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every call and the connections."""
        await self._channel.close()
        self._blocking.close()

    async def model(self) -> ModelInfo:
        """See sextant.Client.model."""
        return await asyncio.to_thread(self._blocking.model)

    async def tokenize(self, text: str, add_special_tokens: bool = False) -> Tokens:
        """See sextant.Client.tokenize."""
        return await asyncio.to_thread(self._blocking.tokenize, text, add_special_tokens)

    async def detokenize(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """See sextant.Client.detokenize."""
        return await asyncio.to_thread(self._blocking.detokenize, ids, skip_special_tokens)

    def generate(self, prompt: Prompt, *, timeout: float | None = None, **options: Any) -> Generation:
        """Starts one generation and returns at once; see sextant.Client.generate for the options."""
        chosen = blocking.generate_options({**_DEFAULTS, **options})
        transcript = Transcript(chosen)
        transcript.request_id = uuid.uuid4().hex
        call = self._stub.Generate(
            blocking.to_request(chosen, prompt),
            timeout=timeout,
            metadata=((blocking.REQUEST_ID_KEY, transcript.request_id),),
        )
        return Generation(self._blocking, call, transcript)


_DEFAULTS = {name: field.default for name, field in blocking.GenerateOptions.__dataclass_fields__.items()}


class Generation(Results):
    """A running generation: `async for` its events, `await` its end. Cancelling the awaiting task cancels it.

    Results are there once it was awaited or iterated to its end; before, they raise FAILED_PRECONDITION.
    """

    def __init__(self, client: blocking.Client, call: Any, transcript: Transcript) -> None:
        super().__init__(transcript, client)
        self._call = call
        self._ended = False
        self._error: SextantError | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._pull()
        if event is None:
            if self._error:
                raise self._error
            raise StopAsyncIteration
        return event

    def __await__(self) -> Generator[Any, None, Generation]:
        return self._finish().__await__()

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Stops the work on the server; harmless when it has ended. What had arrived stays readable."""
        if not self._ended:
            self._ended = True
            self._transcript.finish_reason = self._transcript.finish_reason or "cancelled"
            self._call.cancel()

    async def activations(self) -> Activations:
        """The kept capture's rows."""
        name, asked = self._need_capture(), self._transcript.options.capture
        return Activations(await asyncio.to_thread(self._client.captures.get, name, asked))

    async def _finish(self) -> Generation:
        while await self._pull() is not None:
            pass
        if self._error:
            raise self._error
        return self

    async def _pull(self) -> Event | None:
        if self._ended:
            return None
        try:
            response = await self._call.read()
        except grpc.RpcError as error:
            self._ended = True
            self._error = from_rpc(error, self._client.address, self._transcript.request_id)
            return None
        except asyncio.CancelledError:
            self.cancel()
            raise
        if response is grpc.aio.EOF:
            self._ended = True
            return None
        return self._transcript.apply(response)

    def _need_text(self) -> None:
        if not self._transcript.finished:
            self._need_all()

    def _need_all(self) -> None:
        if self._error:
            raise self._error
        if not self._ended:
            raise SextantError(
                "FAILED_PRECONDITION", "NOT_FINISHED", "await the generation before reading results"
            )


class Activations:
    """Rows of a kept capture; see sextant.Activations."""

    def __init__(self, rows: BlockingActivations) -> None:
        self._rows = rows
        self.info = rows.info

    async def get(self, key: str | Row) -> np.ndarray:
        """float32 [position, hidden] of one row."""
        return await asyncio.to_thread(self._rows.__getitem__, key)

    async def save(self, path: str | Path, **options: Any) -> Path:
        """See sextant.Activations.save."""
        return await asyncio.to_thread(lambda: self._rows.save(path, **options))


class Captures:
    """`client.captures`; see sextant.captures.Captures."""

    def __init__(self, client: blocking.Client) -> None:
        self._captures = client.captures

    async def list(self) -> list[CaptureInfo]:
        """Every kept capture."""
        return await asyncio.to_thread(self._captures.list)

    async def get(self, reference: str | CaptureInfo) -> Activations:
        """The rows of one capture."""
        return Activations(await asyncio.to_thread(self._captures.get, reference))

    async def follow(self, reference: str | CaptureInfo, *, timeout: float | None = None) -> Following:
        """The readings of a capture once all are there; see sextant.captures.Captures.follow."""

        def whole() -> Following:
            following = self._captures.follow(reference, timeout=timeout)
            _ = following.lens  # waits
            return following

        return await asyncio.to_thread(whole)

    async def delete(self, reference: str | CaptureInfo) -> None:
        """Frees a capture."""
        await asyncio.to_thread(self._captures.delete, reference)


class Vectors:
    """`client.vectors`; see sextant.vectors.Vectors."""

    def __init__(self, client: blocking.Client) -> None:
        self._vectors = client.vectors

    async def put(self, name: str, array: ArrayLike, *, layers: Layers, **options: Any) -> Vector:
        """Stores a new version."""
        return await asyncio.to_thread(lambda: self._vectors.put(name, array, layers=layers, **options))

    async def get(self, reference: str | Vector) -> Vector:
        """One version with its directions."""
        return await asyncio.to_thread(self._vectors.get, reference)

    async def list(self) -> VectorList:
        """The newest version of every name."""
        return await asyncio.to_thread(self._vectors.list)

    async def history(self, name: str) -> VectorList:
        """Every version of a name."""
        return await asyncio.to_thread(self._vectors.history, name)

    async def delete(self, reference: str | Vector) -> int:
        """Hides a version or a name; how many versions."""
        return await asyncio.to_thread(self._vectors.delete, reference)

    async def build(
        self, name: str, *, pairs: Sequence[tuple[str, str]], **options: Mapping[str, Any]
    ) -> Vector:
        """Not served yet; see sextant.vectors.Vectors.build."""
        return self._vectors.build(name, pairs=pairs, **options)

    async def evaluate(self, reference: str | Vector, *, items: object, **options: Any) -> None:
        """Not served yet; see sextant.vectors.Vectors.evaluate."""
        self._vectors.evaluate(reference, items=items, **options)
