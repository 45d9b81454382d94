"""A fake OTLP/HTTP receiver: it takes real requests over real sockets and answers what a test tells it to."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

PROTOBUF = "application/x-protobuf"


@dataclass
class Received:
    """One LogRecord, as plain values."""

    action: str
    time: int
    attributes: dict[str, Any]
    trace_id: str
    span_id: str
    resource: dict[str, Any]

    @property
    def stream(self) -> str:
        return str(self.attributes["audit.stream_id"])

    @property
    def number(self) -> int:
        return int(self.attributes["audit.sequence.number"])

    @property
    def id(self) -> str:
        return str(self.attributes["audit.record.id"])


@dataclass
class Request:
    """One request with its records."""

    path: str
    headers: dict[str, str]
    records: list[Received]


@dataclass
class Reply:
    """What the receiver answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": PROTOBUF})
    body: bytes = b""
    length: int | None = None
    """The Content-Length to claim, if not the body's."""
    wait: threading.Event | None = None
    """Set by the test when the answer may begin."""
    silent: bool = False
    """Close the connection without an answer."""


def rejecting(count: int, message: str = "") -> Reply:
    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = count
    response.partial_success.error_message = message
    return Reply(body=response.SerializeToString())


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: plain(item.value) for item in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def decode(body: bytes) -> list[Received]:
    records = []
    for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
        resource = {item.key: plain(item.value) for item in logs.resource.attributes}
        for scope in logs.scope_logs:
            assert scope.scope.name == "spanseal"
            for log in scope.log_records:
                keys = [item.key for item in log.attributes]
                assert len(keys) == len(set(keys)), f"a key is given twice: {keys}"
                attributes = {item.key: plain(item.value) for item in log.attributes}
                records.append(
                    Received(
                        log.event_name,
                        log.time_unix_nano,
                        attributes,
                        log.trace_id.hex(),
                        log.span_id.hex(),
                        resource,
                    )
                )
    return records


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_arguments: Any) -> None:
        """Say nothing of clients that hang up: some tests make them."""


class Recorder:
    """What a receiver has seen, for a test to wait for."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.taken: list[Received] = []
        """Records of the requests that were answered with success."""
        self._changed = threading.Condition()

    def wait(self, condition: Callable[[Any], object], seconds: float = 20) -> None:
        """Return as soon as the condition holds of this; fail where it never does."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), seconds), (
                f"never came: {len(self.requests)} requests, {[record.action for record in self.taken]}"
            )

    def wait_for(self, action: str, count: int = 1) -> list[Received]:
        def come(receiver: Recorder) -> bool:
            return sum(record.action == action for record in receiver.taken) >= count

        self.wait(come)
        return [record for record in self.taken if record.action == action]

    def _seen(self, request: Request, *, taken: bool) -> None:
        with self._changed:
            self.requests.append(request)
            if taken:
                self.taken += request.records
            self._changed.notify_all()


class FakeReceiver(Recorder):
    """Listens at a free port of 127.0.0.1."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__()
        self.answer: Callable[[list[Received]], Reply] = lambda _records: Reply()
        self._server = _Server(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                records = decode(body)
                reply = receiver.answer(records)
                headers = {key.lower(): value for key, value in self.headers.items()}
                taken = reply.status == 200 and not reply.silent
                receiver._seen(Request(self.path, headers, records), taken=taken)
                if reply.wait is not None:
                    reply.wait.wait(30)
                if reply.silent:
                    self.close_connection = True
                    return
                with suppress(OSError):
                    self.send_response(reply.status)
                    for key, value in reply.headers.items():
                        self.send_header(key, value)
                    self.send_header(
                        "Content-Length", str(len(reply.body) if reply.length is None else reply.length)
                    )
                    self.end_headers()
                    self.wfile.write(reply.body)
                    if reply.length is not None:
                        self.close_connection = True

            def log_message(self, *_arguments: Any) -> None:
                pass

        return Handler


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[FakeReceiver]:
    receiver = FakeReceiver(tls)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()
