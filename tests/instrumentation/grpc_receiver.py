"""A fake OTLP/gRPC receiver: a real server of grpcio that answers what a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from tests.instrumentation.fake_receiver import Received, Recorder, Request, decode

SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"


@dataclass
class GrpcReply:
    """What the receiver answers."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    body: bytes = b""
    trailing: tuple[tuple[str, str | bytes], ...] = ()
    wait: threading.Event | None = field(default=None, repr=False)
    """Set by the test when the answer may begin."""


def retry_info(seconds: float) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata by which a server asks for a pause."""
    detail = AnyMessage()
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    detail.Pack(RetryInfo(retry_delay=delay))
    return (("grpc-status-details-bin", Status(code=14, details=[detail]).SerializeToString()),)


class GrpcReceiver(Recorder):
    """Listens at a free port of 127.0.0.1."""

    def __init__(
        self, credentials: grpc.ServerCredentials | None = None, port: int = 0, **options: int
    ) -> None:
        super().__init__()
        self.answer: Callable[[list[Received]], GrpcReply] = lambda _records: GrpcReply()
        self._pool = futures.ThreadPoolExecutor(16)
        named = [(f"grpc.{name}", value) for name, value in options.items()]
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0), *named])
        handler = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),)
        )
        if credentials is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self.url = f"{'https' if credentials else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()

    def _export(self, body: bytes, context: Any) -> bytes:
        records = decode(body)
        reply = self.answer(records)
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self._seen(Request(f"/{SERVICE}/Export", headers, records), taken=reply.code is grpc.StatusCode.OK)
        if reply.wait is not None:
            reply.wait.wait(30)
        context.set_trailing_metadata(reply.trailing)
        context.set_code(reply.code)
        context.set_details(reply.details)
        return reply.body


@contextmanager
def grpc_receiving(
    credentials: grpc.ServerCredentials | None = None, port: int = 0, **options: int
) -> Iterator[GrpcReceiver]:
    receiver = GrpcReceiver(credentials, port, **options)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()
