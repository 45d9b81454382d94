"""The OTLP/HTTP receiver: `/v1/logs`, protobuf and JSON, gzip and zstd; answers as the OTLP specification says.

200 is answered only when every record of the request is durable; what else is answered, `refusals` says. An
answer is encoded as its request is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from google.rpc import code_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spanseal_collector.compression import ENCODINGS
from spanseal_collector.errors import DecodeError, TooLargeError, UnavailableError, UnsupportedError
from spanseal_collector.intake import MAX_REQUEST_BYTES, Decoder, Intake, Taken
from spanseal_collector.otlp import decode_logs
from spanseal_collector.otlp_json import decode_json_logs
from spanseal_collector.refusals import Refusal, refusal

__all__ = ["make_receiver"]

_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"
_DECODERS: dict[str, Decoder] = {_PROTOBUF: decode_logs, _JSON: decode_json_logs}
_BODY_SECONDS = 30.0


def make_receiver(intake: Intake) -> Starlette:
    """Make the ASGI application of the receiver.

    Args:
        intake: takes the requests.

    """

    async def logs(request: Request) -> Response:
        content_type = _content_type(request)
        try:
            # Before all else: who may not send is read no further.
            tenant = intake.sender(
                request.headers.getlist("authorization"), request.client.host if request.client else ""
            )
            with intake.taken() as taken:
                decode = _decoder(content_type)
                unpack = _unpacker(request)
                body = await _body(request, taken)
                await intake.store(body, taken, unpack=unpack, decode=decode, tenant=tenant)
        except asyncio.CancelledError:
            # The server gives up waiting for this request because the process is to end.
            return _refused(refusal(UnavailableError("the collector is stopping", 5)), content_type)
        except ClientDisconnect:
            return _refused(
                refusal(DecodeError("the client left before its request was whole")), content_type
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            return _refused(refusal(error), content_type)
        if content_type == _JSON:
            return Response("{}", media_type=_JSON)
        return Response(ExportLogsServiceResponse().SerializeToString(), media_type=_PROTOBUF)

    async def health(_: Request) -> Response:
        pipeline = intake.pipeline
        statistics = pipeline.statistics
        return JSONResponse(
            {
                "chain_id": pipeline.chain_id,
                "sealed": statistics.sealed,
                "quarantined": statistics.quarantined,
                "duplicates": statistics.duplicates,
                "auth_failed": intake.authenticator.reports.total if intake.authenticator else 0,
                "stalls": pipeline.stalls,
                "stalled_seconds": round(pipeline.stalled_seconds(), 1),
            }
        )

    async def refuse(request: Request, error: Exception) -> Response:
        text = "this collector takes audit records with POST /v1/logs; other signals go elsewhere"
        known = error if isinstance(error, HTTPException) else HTTPException(404)
        answer = _refused(Refusal(known.status_code, code_pb2.NOT_FOUND, text), _content_type(request))
        answer.headers.update(known.headers or {})  # Allow
        return answer

    return Starlette(
        routes=[
            Route("/v1/logs", logs, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={404: refuse, 405: refuse},
    )


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _decoder(content_type: str) -> Decoder:
    if content_type not in _DECODERS:
        raise UnsupportedError(
            f"the content type {content_type[:100]!r} is not taken; send {' or '.join(_DECODERS)}"
        )
    return _DECODERS[content_type]


def _unpacker(request: Request) -> Callable[[bytes, int], bytes] | None:
    encoding = ",".join(request.headers.getlist("content-encoding")).strip().lower()
    if encoding not in ENCODINGS:
        raise UnsupportedError(
            f"the content encoding {encoding[:100]!r} is not taken; send gzip, zstd or none"
        )
    return ENCODINGS[encoding]


async def _body(request: Request, taken: Taken) -> bytes:
    too_large = TooLargeError(
        f"the request is too large: more than {MAX_REQUEST_BYTES} bytes; send less at a time"
    )
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
    return b"".join(parts)


def _refused(refused: Refusal, content_type: str) -> Response:
    headers = {}
    if refused.http == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Spanseal"'
    if refused.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refused.retry_after)))
    if content_type == _JSON:
        return JSONResponse(_status_json(refused), refused.http, headers)
    return Response(refused.status().SerializeToString(), refused.http, headers, media_type=_PROTOBUF)


def _status_json(refused: Refusal) -> dict[str, object]:
    """Return google.rpc.Status in protobuf's JSON form; a duration is decimal seconds with an s."""
    status: dict[str, object] = {"code": refused.code, "message": refused.text}
    if refused.retry_after is not None:
        status["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{refused.retry_after:g}s",
            }
        ]
    return status
