"""The OTLP/HTTP receiver: `/v1/logs`, protobuf, gzip; answers as the OTLP specification says.

200 is answered only when every record of the request is durable. 400 is for bytes that are not OTLP, and for
nothing else, since clients drop a batch for good on it; whatever is temporary is 503 with Retry-After and
RetryInfo, or 429 where more is sent than fits; 500 is never answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spanseal_collector.admission import Admitter, Draft, Rejected
from spanseal_collector.errors import BusyError, CollectorError, DecodeError, TooLargeError, UnavailableError
from spanseal_collector.otlp import decode_logs, gunzip
from spanseal_collector.pipeline import Pipeline

__all__ = ["MAX_BUFFERED_BYTES", "MAX_REQUEST_BYTES", "make_receiver"]

_log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 20 << 20
"""Limit of a request after decompression, and of its body as sent."""

MAX_BUFFERED_BYTES = 256 << 20
"""Limit of the bodies of all requests that are being received or stored."""

_PROTOBUF = "application/x-protobuf"
_BODY_SECONDS = 30.0
_DECODERS = 2
"""Threads: more would not decode faster, and each may need some hundred megabytes for a hostile request."""
_T = TypeVar("_T")

# Codes of google.rpc.Code.
_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _UNIMPLEMENTED, _UNAVAILABLE, _NOT_FOUND = 3, 8, 12, 14, 5


class _UnsupportedError(CollectorError):
    """The content type or encoding is not one this receiver takes."""


def make_receiver(admitter: Admitter, pipeline: Pipeline) -> Starlette:
    """Make the ASGI application of the receiver.

    Args:
        admitter: turns decoded requests into drafts.
        pipeline: stores them.

    """
    room = _Room(MAX_BUFFERED_BYTES)
    decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="spanseal-decode")

    async def decode(work: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(decoders, work, *arguments)

    async def logs(request: Request) -> Response:
        try:
            with room.taken() as taken:
                body, packed = await _body(request, taken)
                if packed:
                    body = await decode(gunzip, body, MAX_REQUEST_BYTES)
                    taken.take(len(body))
                items, size = await decode(_admit, admitter, body, pipeline.limits.request_bytes)
                if items:
                    await _stored(pipeline, items, size)
        except asyncio.CancelledError:
            # The server gives up waiting for this request because the process is to end.
            return _refusal(UnavailableError("the collector is stopping", 5))
        except Exception as error:  # noqa: BLE001 - a bug here must not make clients drop what they hold
            return _refusal(error)
        return Response(ExportLogsServiceResponse().SerializeToString(), media_type=_PROTOBUF)

    async def health(_: Request) -> Response:
        statistics = pipeline.statistics
        return JSONResponse(
            {
                "chain_id": pipeline.chain_id,
                "sealed": statistics.sealed,
                "quarantined": statistics.quarantined,
                "duplicates": statistics.duplicates,
                "stalls": pipeline.stalls,
                "stalled_seconds": round(pipeline.stalled_seconds(), 1),
            }
        )

    async def refuse(_: Request, error: Exception) -> Response:
        code = error.status_code if isinstance(error, HTTPException) else 404
        return _status(
            code,
            _NOT_FOUND,
            "this collector takes audit records with POST /v1/logs; other signals go elsewhere",
        )

    return Starlette(
        routes=[
            Route("/v1/logs", logs, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={404: refuse, 405: refuse},
    )


class _Room:
    """Memory for the bodies of requests. Used by the event loop's thread alone."""

    def __init__(self, size: int) -> None:
        self.left = size

    @contextlib.contextmanager
    def taken(self) -> Iterator[_Taken]:
        """Take none at first; give back all that was taken."""
        taken = _Taken(self)
        try:
            yield taken
        finally:
            self.left += taken.size


@dataclass(slots=True)
class _Taken:
    """What one request takes of the room."""

    room: _Room
    size: int = 0

    def take(self, size: int) -> None:
        if size > self.room.left:
            raise BusyError("more is being received than fits; send it again later", 1)
        self.room.left -= size
        self.size += size


async def _body(request: Request, taken: _Taken) -> tuple[bytes, bool]:
    """Read a body; returns it, and whether it is compressed."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != _PROTOBUF:
        raise _UnsupportedError(f"the content type {content_type[:100]!r} is not taken; send {_PROTOBUF}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise _UnsupportedError(f"the content encoding {encoding[:100]!r} is not taken; send gzip or none")
    too_large = TooLargeError(f"the request is larger than {MAX_REQUEST_BYTES} bytes; send less at a time")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_REQUEST_BYTES:
        raise too_large
    parts = []
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                taken.take(len(part))
                if taken.size > MAX_REQUEST_BYTES:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise UnavailableError(f"the request's body did not arrive within {_BODY_SECONDS:.0f} s", 1) from None
    return b"".join(parts), encoding == "gzip"


def _admit(admitter: Admitter, body: bytes, limit: int) -> tuple[list[Draft | Rejected], int]:
    items = []
    size = 0
    for item in admitter.admit(decode_logs(body)):
        size += item.size
        if size > limit:
            # A large resource is repeated in each of its records.
            raise TooLargeError("the request's records take too much memory; send fewer at a time")
        items.append(item)
    return items, size


async def _stored(pipeline: Pipeline, items: list[Draft | Rejected], size: int) -> None:
    future = asyncio.wrap_future(pipeline.submit(items, size))
    try:
        async with asyncio.timeout(pipeline.limits.answer_seconds):
            await future
    except TimeoutError:
        raise UnavailableError("the records could not be stored in time; send them again", 2) from None


def _refusal(error: Exception) -> Response:
    http, code, text = 503, _UNAVAILABLE, str(error)
    retry_after = error.retry_after if isinstance(error, UnavailableError) else None
    match error:
        case DecodeError():
            http, code = 400, _INVALID_ARGUMENT
        case TooLargeError():
            http, code = 413, _RESOURCE_EXHAUSTED
        case _UnsupportedError():
            http, code = 415, _UNIMPLEMENTED
        case BusyError():
            http, code = 429, _RESOURCE_EXHAUSTED
        case UnavailableError():
            pass
        case ClientDisconnect():
            http, code, text = 400, _INVALID_ARGUMENT, "the client left before its request was whole"
        case _:
            _log.error("a request failed", exc_info=error)
            text, retry_after = "the collector failed; see its log", 5
    return _status(http, code, text, retry_after)


def _status(http: int, code: int, text: str, retry_after: float | None = None) -> Response:
    status = status_pb2.Status(code=code, message=text)
    headers = {}
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(retry_after * 1000))
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status.details.append(detail)
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return Response(status.SerializeToString(), http, headers, media_type=_PROTOBUF)
