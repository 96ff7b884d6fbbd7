"""Calls any service of the protos with nothing but the protos: protoc compiles them, and messages are made from the
descriptors. A plain client of another program, as far as the services can tell."""

import pathlib
import subprocess
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "protos"


class Wire:
    """Messages and calls of the .proto files named, relative to protos/."""

    def __init__(self, *files: str) -> None:
        with tempfile.NamedTemporaryFile(suffix=".binpb") as compiled:
            subprocess.run(["protoc", f"-I{PROTOS}", "--include_imports", f"--descriptor_set_out={compiled.name}", *files],
                           cwd=PROTOS, check=True)
            parsed = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(compiled.name).read_bytes())
        self._pool = descriptor_pool.DescriptorPool()
        for file in parsed.file:
            self._pool.Add(file)

    def message(self, name: str, /, **fields) -> Message:
        """A message by its full name."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))(**fields)

    def method(self, channel: grpc.Channel, service: str, name: str):
        """The call `name` of the service's full name: unary or streaming, as the proto says."""
        method = self._pool.FindServiceByName(service).methods_by_name[name]
        kind = ("stream" if method.client_streaming else "unary") + "_" + ("stream" if method.server_streaming else "unary")
        answer = message_factory.GetMessageClass(method.output_type)
        return getattr(channel, kind)(f"/{service}/{name}", request_serializer=lambda message: message.SerializeToString(),
                                      response_deserializer=answer.FromString)
