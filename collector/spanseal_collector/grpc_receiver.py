"""The OTLP/gRPC receiver: LogsService/Export, gzip or not, answered as OTLP/HTTP is.

It runs in the event loop of the HTTP receiver and shares its bounds. gRPC's own decompression is off: what is
compressed is told by its first bytes, which no protobuf message of this kind has, and is unpacked where HTTP's
is, so that broken gzip is bytes that are not OTLP and no INTERNAL, on which clients would drop what they hold.

gRPC says how large a message is only once it is whole in memory. So only so many calls are read at a time, and
the others wait with no more than their first 64 KiB received.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from spanseal_collector.compression import gunzip
from spanseal_collector.errors import BindError, BusyError, DecodeError, UnavailableError
from spanseal_collector.intake import MAX_REQUEST_BYTES, Intake, Taken
from spanseal_collector.otlp import decode_logs
from spanseal_collector.refusals import Refusal, refusal

__all__ = ["GrpcReceiver"]

_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
_READERS = 12
"""Messages that are received at a time, each of MAX_REQUEST_BYTES at the most."""
_MESSAGE_SECONDS = 20.0
_GZIP = b"\x1f\x8b"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_LAST_SECONDS = 1.0
"""For answers to be sent."""
_IDENTITY_AND_GZIP = 0b101

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.per_message_decompression", 0),
    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_AND_GZIP),
    # Else a second collector could listen at the same port, and each would get a part of what is sent.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.absolute_max_metadata_size", 64 << 10),
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 600_000),
    # A peer that is gone is noticed; one that asks for more than a sign of life in 10 s is let go.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
)


def _tells_of_us(record: logging.LogRecord) -> bool:
    """Leave out what gRPC logs of headers that are not UTF-8: it would show them, secrets or not, at any pace."""
    return not str(record.msg).startswith("Invalid encoding")


logging.getLogger("grpc._cython.cygrpc").addFilter(_tells_of_us)


class GrpcReceiver:
    """A gRPC server. Made, started and stopped in one event loop."""

    def __init__(self, intake: Intake) -> None:
        """Make a receiver.

        Args:
            intake: takes the requests.

        """
        self._intake = intake
        self._readers = asyncio.Semaphore(_READERS)
        self._receiving: set[asyncio.Task[Any]] = set()
        """Calls whose message is not here yet."""
        self._storing: set[asyncio.Task[Any]] = set()
        self._dismissed: set[asyncio.Task[Any]] = set()
        """Calls that were cancelled here, and not by their clients."""
        self._server = grpc.aio.server(options=_OPTIONS)
        # The message is read by the handler, when it may be; and nobody parses it before it is ours.
        handler = grpc.stream_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler})]
        )

    async def start(self, host: str, port: int) -> int:
        """Listen.

        Args:
            host: address of an interface.
            port: 0 takes a free one.

        Returns:
            The port.

        Raises:
            BindError: the address cannot be had.

        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise BindError(
                f"cannot listen at {address} for gRPC; give another --grpc-port, or stop what holds it"
            ) from error
        await self._server.start()
        return bound

    async def stop(self, drain_seconds: float) -> None:
        """Take no more calls, and return when those that were taken are answered.

        Calls that have sent no message yet are told at once to come again.

        Args:
            drain_seconds: how long the others may take; then they are told the same.

        """
        stopping = asyncio.ensure_future(self._server.stop(drain_seconds + 2 * _LAST_SECONDS))
        await asyncio.sleep(0)  # so that no call is taken any more
        self._dismiss(self._receiving)
        await self._ended(drain_seconds)
        self._dismiss(self._receiving | self._storing)
        await self._ended(_LAST_SECONDS)
        # Each call is answered; what is left are connections that their clients do not close.
        await self._server.stop(_LAST_SECONDS)
        await stopping

    async def _ended(self, seconds: float) -> None:
        if calls := self._receiving | self._storing:
            await asyncio.wait(calls, timeout=seconds)

    def _dismiss(self, calls: set[asyncio.Task[Any]]) -> None:
        for call in calls - self._dismissed:
            self._dismissed.add(call)
            call.cancel()

    def _forget(self, call: asyncio.Task[Any]) -> None:
        for calls in (self._receiving, self._storing, self._dismissed):
            calls.discard(call)

    async def _export(self, _: object, context: Any) -> bytes:
        call = asyncio.current_task()
        assert call is not None  # noqa: S101 - for the type checker: a handler is a task
        self._receiving.add(call)
        call.add_done_callback(self._forget)
        try:
            tenant = self._intake.sender(_authorizations(context), _peer(context))
            with self._intake.taken() as taken:
                message = await self._message(context, taken)
                self._receiving.discard(call)
                self._storing.add(call)
                unpack = gunzip if message.startswith(_GZIP) else None
                await self._intake.store(message, taken, unpack=unpack, decode=decode_logs, tenant=tenant)
        except asyncio.CancelledError:
            if call not in self._dismissed:
                raise  # the client has left
            call.uncancel()
            refused = refusal(UnavailableError("the collector is stopping", 5))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            refused = refusal(error)
        else:
            return b""  # an ExportLogsServiceResponse without partial_success
        return await _abort(context, refused)

    async def _message(self, context: Any, taken: Taken) -> bytes:
        """Read the one message of a call, when there is room for any."""
        try:
            async with asyncio.timeout(_MESSAGE_SECONDS):
                await self._readers.acquire()
        except TimeoutError:
            raise BusyError("more is being received than fits; send it again later", 1) from None
        try:
            async with asyncio.timeout(_MESSAGE_SECONDS):
                message = await context.read()
        except TimeoutError:
            raise UnavailableError(
                f"the request's message did not arrive within {_MESSAGE_SECONDS:.0f} s", 1
            ) from None
        finally:
            self._readers.release()
        if not isinstance(message, bytes):
            raise DecodeError("the call has no message")
        taken.take(len(message))
        return message


def _authorizations(context: Any) -> list[str]:
    found = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    return [value.decode("latin-1") if isinstance(value, bytes) else value for value in found]


def _peer(context: Any) -> str:
    """Return the address out of `ipv4:127.0.0.1:1234` or `ipv6:%5B::1%5D:1234`."""
    host, _, _ = unquote(context.peer().partition(":")[2]).rpartition(":")
    return str(host.strip("[]"))


async def _abort(context: Any, refused: Refusal) -> bytes:
    details = (("grpc-status-details-bin", refused.status().SerializeToString()),)
    try:
        await context.abort(_CODES[refused.code], refused.text, details)
    except grpc.aio.AbortError:
        raise
    except Exception:  # noqa: BLE001 - of gRPC's own making, whose classes have no public names
        # The client has left in the meantime. Anything else than this would be a traceback in the log.
        raise asyncio.CancelledError from None
    raise AssertionError("abort raises")  # pragma: no cover
