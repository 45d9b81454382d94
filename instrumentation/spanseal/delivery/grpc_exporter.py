"""One OTLP/gRPC call (LogsService.Export), and what its status means for the records in it.

gRPC and `fork` do not go together: a child has gRPC's memory and none of its threads. So the channel is made by the
thread that sends, in the process that sends; and a child never touches its parent's channel. A call that is on its way
when another thread forks is cancelled, since gRPC makes itself fit for a fork only while nobody is inside. That is not
certain: children of such forks did not always end in time. Their records then stay in their spool, until they end and
another process sends them.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.instrumentation.utils import suppress_instrumentation

from spanseal.__about__ import __version__

from .endpoint import Export
from .exporter import MAX_RETRY_AFTER, Answer, Verdict, judge_response

__all__ = ["GrpcExporter"]

_METHOD = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_DETAILS = "grpc-status-details-bin"
_TOO_LARGE = re.compile(r"larger than max|too large", re.IGNORECASE)
# How C-core words what happened before a server could be asked; all other texts are the server's, and not shown.
_NOT_CONNECTED = re.compile(r"failed to connect|errors? resolving|resolution failed", re.IGNORECASE)
_HANDSHAKE = re.compile(r"handshake|certificate", re.IGNORECASE)

_ADVICE = {
    grpc.StatusCode.UNAUTHENTICATED: ": check OTEL_EXPORTER_OTLP_HEADERS",
    grpc.StatusCode.PERMISSION_DENIED: ": check OTEL_EXPORTER_OTLP_HEADERS",
    grpc.StatusCode.UNIMPLEMENTED: ": check OTEL_EXPORTER_OTLP_ENDPOINT, no OTLP receiver for logs is there",
}
_FORK_WAIT = 2.0


class _Calls:
    """The calls of this process, for whoever forks."""

    def __init__(self) -> None:
        self.inside = threading.Lock()
        """Held while a thread is inside gRPC."""
        self.running: Any = None
        """The call that is waited for."""
        self.last: Any = None
        """The call before, or the same."""
        self._held = False

    def hold(self) -> None:
        """Bring the sender, and gRPC's own thread for its call, out of gRPC, and keep them out."""
        call = self.running
        if call is not None:
            call.cancel()
        self._held = self.inside.acquire(timeout=_FORK_WAIT)
        _wait_for_end(self.last)

    def let_go(self) -> None:
        """Let it in again."""
        if self._held:
            self._held = False
            self.inside.release()


_calls = _Calls()
_inherited: list[object] = []
"""Channels of a parent: a child that closed them would speak into its parent's connections."""
_open: set[GrpcExporter] = set()


class GrpcExporter:
    """Sends request bodies over one channel, made when it is needed. Used by one thread."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self._metadata = tuple(export.headers.items())
        self._channel: grpc.Channel | None = None
        self._call: Any = None

    def send(self, body: bytes, timeout: float) -> Answer:
        """Send one ExportLogsServiceRequest. Never raises: what went wrong is in the answer.

        Args:
            body: The serialised request.
            timeout: Seconds for connecting and for the answer.
        """
        shown = self._export.shown
        calls = _calls
        try:
            # The application's own instrumentation must not make spans of this.
            with calls.inside, suppress_instrumentation():
                if self._call is None:
                    self._connect()
                calls.running = calls.last = self._call.future(body, timeout=timeout, metadata=self._metadata)
                try:
                    content = calls.running.result()
                finally:
                    calls.running = None
        except grpc.RpcError as error:
            answer = _judge(shown, error)
            if answer.verdict is Verdict.LATER:
                # A new channel tries at once, and reads anew what names and certificates have become.
                self.close()
            return answer
        except Exception as error:  # noqa: BLE001 - a certificate that cannot be read, a fork that cancelled it
            self.close()
            return Answer(Verdict.LATER, f"{shown} cannot be reached: {type(error).__name__}")
        return judge_response(shown, content)

    def close(self) -> None:
        """Close the channel; the next request makes a new one."""
        channel, self._channel, self._call = self._channel, None, None
        _open.discard(self)
        if channel is not None:
            with suppress(Exception), _calls.inside:
                channel.close()

    def _connect(self) -> None:
        _befriend_gevent()
        export = self._export
        scheme, _, target = export.endpoint.partition("://")
        options = [
            ("grpc.primary_user_agent", f"Spanseal/{__version__}"),
            # Connections of its own: shared ones bring the waiting times of other channels' failures.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        compression = grpc.Compression.Gzip if export.gzip else grpc.Compression.NoCompression
        if scheme == "http":
            channel = grpc.insecure_channel(target, options, compression)
        else:
            own = _bytes(export.client_certificate)
            credentials = grpc.ssl_channel_credentials(
                _bytes(export.certificate),
                # One file can hold both.
                _bytes(export.client_key) or own,
                own,
            )
            channel = grpc.secure_channel(target, credentials, options, compression)
        self._channel = channel
        self._call = channel.unary_unary(_METHOD, request_serializer=None, response_deserializer=None)
        _open.add(self)


def _wait_for_end(call: Any) -> None:
    """Wait until gRPC itself has ended a call: a cancelled one is given back earlier.

    A thread inside gRPC's core at a fork makes it skip what makes it fit for one. gRPC
    tells of this nowhere else; where a version of it has no such state, a fork is as good as without this.
    """
    state = getattr(call, "_state", None)
    due, condition = getattr(state, "due", None), getattr(state, "condition", None)
    if due is None or condition is None:
        return
    with condition:
        condition.wait_for(lambda: not due, _FORK_WAIT)


def _bytes(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _judge(endpoint: str, error: grpc.RpcError) -> Answer:
    """Say what a status other than OK means (OTLP specification, failures of OTLP/gRPC)."""
    code, details = error.code(), error.details() or ""
    if not isinstance(code, grpc.StatusCode):
        code = grpc.StatusCode.UNKNOWN
    retry_after = _retry_after(error)
    named = f"{endpoint} answered {code.name}"
    too_large = (
        code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after is None and _TOO_LARGE.search(details)
    )
    if too_large or code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        return Answer(Verdict.REFUSED, named)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Answer(Verdict.LATER, f"{endpoint} did not answer in time")
    if code is grpc.StatusCode.UNAVAILABLE and _NOT_CONNECTED.search(details):
        why = "nobody answers there"
        if _HANDSHAKE.search(details):
            why = "no trusted connection: check OTEL_EXPORTER_OTLP_CERTIFICATE, and that the endpoint speaks TLS"
        elif endpoint.startswith("https:"):
            why += ", or not to a client with this certificate or without one"
        return Answer(Verdict.LATER, f"{endpoint} cannot be reached: {why}")
    return Answer(Verdict.LATER, f"{named}{_ADVICE.get(code, '')}", retry_after)


def _retry_after(error: grpc.RpcError) -> float | None:
    """Read the seconds of a RetryInfo."""
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS:
            continue
        try:
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    seconds = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
        except (DecodeError, TypeError):
            return None
    return None


def _befriend_gevent() -> None:
    """Let other greenlets run while gRPC waits, where gevent has taken the threads' place."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from grpc.experimental import gevent  # noqa: PLC0415

        gevent.init_gevent()


def _before_fork() -> None:
    _calls.hold()


def _in_parent() -> None:
    _calls.let_go()


def _in_child() -> None:
    global _calls  # noqa: PLW0603 - one for each process
    _inherited.extend((exporter._channel, exporter._call) for exporter in _open)  # noqa: SLF001 - of this module
    _inherited.append(_calls)
    _open.clear()
    _calls = _Calls()


# After gRPC's own, which were made when it was imported: so these run before them.
os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
