"""An in-process gateway over the made-up model, with switches for what a test wants to go wrong."""

from __future__ import annotations

import hashlib
import threading
from concurrent import futures

import grpc
import numpy as np
from google.protobuf import any_pb2, timestamp_pb2

import fake_model
from sextant import errors
from sextant.v1 import (
    capture_pb2,
    capture_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    types_pb2,
    vector_pb2,
    vector_pb2_grpc,
)

CAPTURE = "captures/" + "0123456789abcdef" * 2


def abort(context, code: grpc.StatusCode, reason: str, message: str, retry_after: float | None = None):
    """Ends a call as Sextant's servers do: google.rpc details in the trailer."""
    details = [any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo")]
    details[0].value = errors._ERROR_INFO(reason=reason, domain="sextant").SerializeToString()
    if retry_after is not None:
        delay = errors._RETRY_INFO()
        delay.retry_delay.seconds = int(retry_after)
        delay.retry_delay.nanos = round(retry_after % 1 * 1e9)
        value = delay.SerializeToString()
        details.append(any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=value))
    status = errors._STATUS(code=code.value[0], message=message)
    for detail in details:  # Another pool's Any: it is copied over the wire.
        status.details.add().ParseFromString(detail.SerializeToString())
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


class FakeGateway(
    inference_pb2_grpc.InferenceServiceServicer,
    capture_pb2_grpc.CaptureServiceServicer,
    vector_pb2_grpc.VectorServiceServicer,
):
    """Serves every public call. Switches: see __init__."""

    def __init__(self) -> None:
        self.vocabulary = fake_model.Vocabulary()
        self.layers = fake_model.LAYERS
        self.requests: list[inference_pb2.GenerateRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.missing: set[int] = set()  # Positions whose readings never come.
        self.hold = False  # Stop after the second token until the client goes away.
        self.fail: tuple | None = None  # Arguments of `abort`, raised after this token.
        self.fail_after = 0
        self.failed = 0  # Readings that FollowReadings says can never come.
        self.malformed = False
        self.dtype = types_pb2.DTYPE_BF16
        self.cancelled = threading.Event()
        self.captures: dict[str, tuple[capture_pb2.Capture, int]] = {}
        self.transient: dict[str, tuple[capture_pb2.Capture, int]] = {}  # A lens's own; in no list.
        self.vectors: dict[str, list[tuple[vector_pb2.Vector, bytes]]] = {}

    # Inference

    def GetModel(self, request, context):
        model = inference_pb2.Model(
            name="fake-7m",
            family="llama",
            layer_count=self.layers,
            hidden_size=fake_model.HIDDEN,
            vocab_size=len(self.vocabulary.texts),
            tensor_parallel_size=2,
            dtype=types_pb2.DTYPE_BF16,
            weights_sha256="ab" * 32,
            eos_token_ids=[0],
            max_position_count=8192,
            epoch=7,
        )
        return inference_pb2.GetModelResponse(model=model, limits=inference_pb2.Limits(max_top_k=100))

    def Tokenize(self, request, context):
        ids = self.vocabulary.encode(request.text)
        return inference_pb2.TokenizeResponse(
            ids=ids,
            texts=[self.vocabulary.texts[i] for i in ids],
            token_bytes=self.vocabulary.token_bytes(ids),
        )

    def Detokenize(self, request, context):
        texts = [self.vocabulary.texts[i] for i in request.ids]
        if not request.individually:
            return inference_pb2.DetokenizeResponse(text="".join(texts))
        return inference_pb2.DetokenizeResponse(
            text="".join(texts), texts=texts, token_bytes=self.vocabulary.token_bytes(request.ids)
        )

    def Generate(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        gone = threading.Event()  # Of this call alone: an earlier one may end later.
        context.add_callback(gone.set)
        context.add_callback(self.cancelled.set)
        self.cancelled.clear()
        prompt = self._prompt(request, context)
        rows = self._rows(request.lens)
        recorded = request.HasField("lens") or request.HasField("capture")
        yield inference_pb2.GenerateResponse(
            started=inference_pb2.Started(
                request_id=self.metadata[-1].get("x-request-id", ""),
                capture=CAPTURE if recorded else "",
                prompt_token_ids=prompt,
                prompt_token_texts=[self.vocabulary.texts[i] for i in prompt],
                lens_sites=[site for site, _ in rows] if request.HasField("lens") else [],
                lens_layers=[layer for _, layer in rows] if request.HasField("lens") else [],
            )
        )
        words = fake_model.CONTINUATION
        generated: list[int] = []
        for index in range(request.max_new_tokens):
            generated.append(self.vocabulary.id(words[index % len(words)]))
            token = inference_pb2.Token(
                index=index, id=generated[-1], text=words[index % len(words)], logprob=-0.5
            )
            yield inference_pb2.GenerateResponse(token=token)
            if self.fail and index >= self.fail_after:
                if recorded:
                    self._keep(request, prompt, len(prompt) + index)
                yield from list(self._readings(request, rows, prompt + generated, len(prompt) + index))
                abort(context, *self.fail)
            if self.hold and index == 1:
                gone.wait(60)
                return
        count = len(prompt) + max(0, len(generated) - 1)
        self.last = (request, prompt, generated, count)
        if recorded:
            self._keep(request, prompt, count)
        finished = inference_pb2.Finished(
            reason=inference_pb2.FINISH_REASON_LENGTH,
            text=" (tail)" if request.stop else "",
            statistics=self._statistics(request, prompt, generated, count),
        )
        readings = list(self._readings(request, rows, prompt + generated, count))
        yield from readings[::2]
        for intervention in request.interventions:
            if intervention.vector == "idle":
                warning = inference_pb2.Warning(
                    reason="INTERVENTION_TOUCHED_NOTHING", message="idle touched no row"
                )
                yield inference_pb2.GenerateResponse(warning=warning)
        yield inference_pb2.GenerateResponse(finished=finished)
        yield from readings[1::2]
        if self.missing:
            finished.statistics.missing_reading_count = len(self.missing)
            yield inference_pb2.GenerateResponse(finished=finished)

    def _prompt(self, request, context) -> list[int]:
        kind = request.WhichOneof("input")
        if kind == "token_ids":
            return list(request.token_ids.ids)
        text = request.text if kind == "text" else "".join(m.content for m in request.chat.messages)
        if not text:
            abort(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "PROMPT_EMPTY",
                "the prompt holds no token; write one",
            )
        return self.vocabulary.encode(text)

    def _rows(self, settings) -> list[tuple[int, int]]:
        sites = list(settings.sites) or [types_pb2.SITE_RESID_POST]
        layers = list(settings.layers) or list(range(self.layers))
        return [(site, layer) for site in sites for layer in layers]

    def _readings(self, request, rows, ids, count):
        if not request.HasField("lens"):
            return
        wanted = [p for p in range(count) if p not in self.missing]
        order = np.random.default_rng(1).permutation(wanted)
        for span in np.array_split(order, max(1, len(order) // 3)):
            positions = [int(p) for p in span]
            if not positions:
                continue
            following = [ids[p + 1] if p + 1 < len(ids) else -1 for p in positions]
            targets = [list(request.lens.target_ids) or [target] for target in following]
            message = fake_model.reading_columns(
                rows, positions, targets, request.lens, len(self.vocabulary.texts), self.layers
            )
            if self.malformed:
                message.entropy_nats = message.entropy_nats[:-1]
            yield inference_pb2.GenerateResponse(readings=message)

    def _statistics(self, request, prompt, generated, count):
        return inference_pb2.Statistics(
            prompt_token_count=len(prompt),
            generated_token_count=len(generated),
            recorded_position_count=count,
            lens_position_count=count if request.HasField("lens") else 0,
            touched_row_counts=[count] * len(request.interventions),
            decode_ns=len(generated) * 10_000_000,
            prompt_logprobs=[float("nan"), *[-1.5] * (len(prompt) - 1)] if request.prompt_logprobs else [],
        )

    # Captures

    def _keep(self, request, prompt, count) -> None:
        rows = self._rows(request.capture) if request.HasField("capture") else self._rows(request.lens)
        if request.HasField("lens"):
            rows = sorted({*rows, *self._rows(request.lens)})
        kept = request.HasField("capture")
        present = [p for p in range(count) if not kept or p not in self.missing]
        holder = self.captures if kept else self.transient
        holder[CAPTURE] = (
            capture_pb2.Capture(
                name=CAPTURE,
                state=capture_pb2.CAPTURE_STATE_COMPLETE,
                label=request.capture.label,
                model="fake-7m",
                sites=[site for site, _ in rows],
                layers=[layer for _, layer in rows],
                hidden_size=fake_model.HIDDEN,
                dtype=self.dtype,
                record=request.capture.record,
                position_count=len(present),
                positions=present,
                end_known=True,
                prompt_token_ids=prompt,
                create_time=timestamp_pb2.Timestamp(seconds=1_700_000_000),
                stored_bytes=123456,
            ),
            0,
        )

    def _capture(self, name, context) -> capture_pb2.Capture:
        found = {**self.transient, **self.captures}
        if name not in found:
            abort(
                context, grpc.StatusCode.NOT_FOUND, "CAPTURE_NOT_FOUND", f"{name} is unknown or has expired"
            )
        return found[name][0]

    def GetCapture(self, request, context):
        return self._capture(request.name, context)

    def ListCaptures(self, request, context):
        return capture_pb2.ListCapturesResponse(captures=[capture for capture, _ in self.captures.values()])

    def DeleteCapture(self, request, context):
        self._capture(request.name, context)
        del self.captures[request.name]
        return capture_pb2.DeleteCaptureResponse()

    def FollowReadings(self, request, context):
        """The log of the last lens call: what `missing` held back then comes after all."""
        generate, prompt, generated, count = self.last
        if request.name != CAPTURE:
            abort(context, grpc.StatusCode.NOT_FOUND, "CAPTURE_NOT_FOUND", f"{request.name} is unknown")
        context.add_callback(self.cancelled.set)
        self.cancelled.clear()
        missing, self.missing = self.missing, set()
        index = 0
        for response in self._readings(generate, self._rows(generate.lens), prompt + generated, count):
            readings = response.readings
            yield capture_pb2.FollowReadingsResponse(first_index=index, readings=readings)
            index += len(readings.positions)
            if self.hold:
                self.cancelled.wait(10)
        end = capture_pb2.FollowReadingsEnd(
            reading_count=count, failed_count=self.failed, state=capture_pb2.CAPTURE_STATE_COMPLETE
        )
        yield capture_pb2.FollowReadingsResponse(first_index=index, end=end)
        self.missing = missing

    def ReadActivations(self, request, context):
        capture = self._capture(request.name, context)
        for site, layer in zip(capture.sites, capture.layers, strict=True):
            if (request.sites and site not in request.sites) or (
                request.layers and layer not in request.layers
            ):
                continue
            wanted = [p for p in capture.positions if not request.positions or p in request.positions]
            for begin in range(0, len(wanted), 4):
                part = wanted[begin : begin + 4]
                data = np.stack([fake_model.activation(site, layer, p) for p in part])
                raw = (
                    (data.view(np.uint32) >> 16).astype("<u2")
                    if capture.dtype == types_pb2.DTYPE_BF16
                    else data
                )
                yield capture_pb2.ReadActivationsResponse(
                    site=site,
                    layer=layer,
                    positions=part,
                    dtype=capture.dtype,
                    hidden_size=capture.hidden_size,
                    data=raw.tobytes(),
                )

    # Vectors

    def CreateVector(self, requests, context):
        header, data = None, b""
        for message in requests:
            header = message.vector if message.HasField("vector") else header
            data += message.data
        versions = self.vectors.setdefault(header.name, [])
        digest = hashlib.sha256(data).hexdigest()
        for known, _ in versions:
            if known.sha256 == digest:
                return known
        header.version, header.sha256 = len(versions) + 1, digest
        versions.append((header, data))
        return header

    def _find(self, reference, context) -> tuple[vector_pb2.Vector, bytes]:
        name, _, version = reference.partition("@")
        versions = self.vectors.get(name, [])
        if not versions or (version and int(version) > len(versions)):
            abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                "VECTOR_NOT_FOUND",
                f"no vector {reference}; did you mean happy?",
            )
        return versions[int(version) - 1 if version else -1]

    def GetVector(self, request, context):
        return self._find(request.reference, context)[0]

    def ReadVector(self, request, context):
        header, data = self._find(request.reference, context)
        yield vector_pb2.ReadVectorResponse(vector=header, data=data[:7])
        yield vector_pb2.ReadVectorResponse(data=data[7:])

    def ListVectors(self, request, context):
        """One vector a page, so that paging is walked."""
        pool = self.vectors.get(request.name, []) if request.name else [v[-1] for v in self.vectors.values()]
        at = int(request.page_token or 0)
        following = str(at + 1) if at + 1 < len(pool) else ""
        return vector_pb2.ListVectorsResponse(
            vectors=[v for v, _ in pool[at : at + 1]], next_page_token=following
        )

    def DeleteVector(self, request, context):
        self._find(request.reference, context)
        return vector_pb2.DeleteVectorResponse(
            deleted_count=len(self.vectors.pop(request.reference.partition("@")[0]))
        )


def serve(gateway: FakeGateway, port: int = 0) -> tuple[grpc.Server, str]:
    """A running server and its address on loopback."""
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(gateway, server)
    capture_pb2_grpc.add_CaptureServiceServicer_to_server(gateway, server)
    vector_pb2_grpc.add_VectorServiceServicer_to_server(gateway, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, f"127.0.0.1:{bound}"
