"""gRPC for the collector's tests: bytes as messages, and what was answered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


@dataclass(frozen=True)
class Answer:
    code: grpc.StatusCode
    details: str = ""
    body: bytes = b""
    status: status_pb2.Status | None = None

    def retry_seconds(self) -> float | None:
        """Return what RetryInfo says; None where there is none."""
        info = error_details_pb2.RetryInfo()
        for detail in self.status.details if self.status else ():
            if detail.Unpack(info):
                return float(info.retry_delay.ToMilliseconds() / 1000)
        return None


@contextlib.contextmanager
def channel(port: int) -> Iterator[grpc.Channel]:
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as opened:
        yield opened


def call(
    opened: grpc.Channel, message: bytes, *, gzip: bool = False, method: str = EXPORT, **more: Any
) -> Answer:
    """Call with a message as it is; no (de)serialisation happens anywhere."""
    compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
    try:
        body = opened.unary_unary(method)(message, timeout=30, **({"compression": compression} | more))
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        raw = trailers.get("grpc-status-details-bin")
        status = None if raw is None else status_pb2.Status.FromString(raw)
        return Answer(error.code(), error.details(), status=status)
    return Answer(grpc.StatusCode.OK, body=body)


def export(port: int, message: bytes, **more: Any) -> Answer:
    with channel(port) as opened:
        return call(opened, message, **more)
