"""ClickHouse's HTTP interface over the embedded engine, for reading only.

The embedded engine is one process, so whoever collects answers the questions of all others here, in a protocol
that clickhouse-connect, `curl` and dashboards speak already. Of that protocol it knows: the statement in the
body or as `query` (or as a form's field), `param_*`, `database`, `default_format`, `query_id`; `/ping`; errors as
text with `X-ClickHouse-Exception-Code`. Settings are not applied: those that only tune the transport are passed
over, any other is refused as a read-only user of a server would be.

In this order: who asks (before a byte of the body is read), how much was sent, what the statement is
(`sql_guard`), and then the engine (`sql_readers`). Answers are made whole in memory, at most `MAX_RESULT_BYTES`;
larger ones are an error and not a cut answer. A client that goes away takes its statement with it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import email.parser
import email.policy
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from spanseal_storage import sql_guard
from spanseal_storage.engine import Engine
from spanseal_storage.errors import EngineError, StatementRefusedError
from spanseal_storage.schema import DATABASE
from spanseal_storage.sql_readers import (
    LIMITS,
    MAX_RESULT_BYTES,
    Answer,
    Query,
    Readers,
    ResultTooLargeError,
    TooManyQueriesError,
)

__all__ = ["LIMITS", "MAX_BODY_BYTES", "MAX_RESULT_BYTES", "Authorize", "make_app"]

Authorize = Callable[[str | None], bool]
"""Tells whether a token may read; given None where a request brought none. Compares in constant time."""

MAX_BODY_BYTES = 1 << 20

_CANCEL_SECONDS = 0.2

_DATABASES = frozenset({"", "default", DATABASE})
# What tunes the transport or the parsing of input, neither of which is there to be tuned.
_IGNORED = frozenset(
    {
        "add_http_cors_header",
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "cast_string_to_dynamic_use_inference",
        "client_protocol_version",
        "close_session",
        "date_time_input_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "log_queries",
        "max_execution_time",
        "max_threads",
        "quota_key",
        "readonly",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "user",
        "wait_end_of_query",
    }
)
_KNOWN = frozenset({"query", "database", "default_format", "query_id"})

# Codes of ClickHouse's ErrorCodes.cpp, and the statuses that its exceptionCodeToHTTPStatus gives them.
_SYNTAX_ERROR, _UNKNOWN_FORMAT, _UNKNOWN_DATABASE, _READONLY = 62, 73, 81, 164
_TOO_MANY_QUERIES, _TOO_LARGE, _ACCESS_DENIED, _AUTHENTICATION_FAILED, _UNKNOWN = 202, 307, 497, 516, 1002
_TOO_MUCH_RESULT = 396
_STATUS: Mapping[int, int] = {
    **dict.fromkeys(
        (6, 26, 27, 36, 38, 41, 42, 43, 44, 53, 62, 69, 70, 72, 117, 130, 153, 184, 215, 456, 457), 400
    ),
    **dict.fromkeys((16, 46, 47, 50, 60, 73, 81), 404),
    **dict.fromkeys((_READONLY, _ACCESS_DENIED), 403),
    159: 408,
    _AUTHENTICATION_FAILED: 401,
    _TOO_MANY_QUERIES: 503,
    _TOO_LARGE: 413,
}

_CONTENT_TYPES = (
    (re.compile(r"CSV"), "text/csv; charset=UTF-8"),
    (re.compile(r"JSON.*EachRow"), "application/x-ndjson; charset=UTF-8"),
    (re.compile(r"JSON"), "application/json; charset=UTF-8"),
    (re.compile(r"TSV|TabSeparated"), "text/tab-separated-values; charset=UTF-8"),
    (re.compile(r"Native|RowBinary|Arrow|Parquet"), "application/octet-stream"),
    (re.compile(r"XML"), "application/xml; charset=UTF-8"),
)


class _RequestError(Exception):
    """A request that gets an error of ClickHouse's kind for an answer."""

    def __init__(self, code: int, name: str, message: str) -> None:
        self.code = code
        self.text = f"Code: {code}. DB::Exception: {message}. ({name})\n"
        super().__init__(message)


def make_app(engine: Engine, *, authorize: Authorize) -> Starlette:
    """Make the ASGI application that answers queries over an open engine.

    Args:
        engine: the open engine.
        authorize: asked for each request but `/ping`.

    Returns:
        The application. It closes its clients at the end of its lifespan; a server without lifespan calls
        `app.state.close()` before the engine is closed.

    """
    readers = Readers(engine)

    async def answer(request: Request) -> Response:
        try:
            if not authorize(_token(request)):
                raise _RequestError(
                    _AUTHENTICATION_FAILED,
                    "AUTHENTICATION_FAILED",
                    "Authentication failed: give the token as the password, or as a bearer token",
                )
            query = await _read(request)
            found = await _unless_gone(request, readers.run(query), lambda: readers.cancel(query))
        except _ERRORS as error:
            return _error(_told(error))
        return _response(query, found)

    async def ping(_: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(readers.close)

    app = Starlette(
        routes=[
            Route("/ping", ping, methods=["GET"]),
            Route("/", answer, methods=["GET", "POST"]),
        ],
        lifespan=lifespan,
    )
    app.state.close = readers.close
    return app


async def _unless_gone(
    request: Request, work: Coroutine[Any, Any, Answer], cancel: Callable[[], None]
) -> Answer:
    """Wait for an answer; where the client goes away, nobody wants it any more and its statement is stopped."""
    running = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        while not running.done():
            # Again and again: it may not have begun when it was first told to stop.
            await asyncio.to_thread(cancel)
            await asyncio.wait({running}, timeout=_CANCEL_SECONDS)
        return await running
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _token(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return None
        return decoded.partition(":")[2]
    # Not from the URL's `password`: addresses end up in logs.
    return request.headers.get("x-clickhouse-key")


async def _read(request: Request) -> Query:
    fields = dict(request.query_params)
    body = await _body(request)
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        fields |= _form(request.headers["content-type"], body)
        body = b""
    parameters = {}
    for name, value in fields.items():
        if name.startswith("param_"):
            parameters[name.removeprefix("param_")] = value
        elif (
            name not in _KNOWN
            and name not in _IGNORED
            and not (name in {"compress", "decompress"} and value == "0")
        ):
            raise _RequestError(
                _READONLY, "READONLY", f"Cannot modify {name[:80]!r} setting in readonly mode"
            )
    if (database := fields.get("database", "")) not in _DATABASES:
        raise _RequestError(
            _UNKNOWN_DATABASE, "UNKNOWN_DATABASE", f"Database {database[:80]!r} does not exist here"
        )
    output_format = (
        fields.get("default_format") or request.headers.get("x-clickhouse-format") or "TabSeparated"
    )
    if output_format not in sql_guard.FORMATS:
        raise _RequestError(
            _UNKNOWN_FORMAT, "UNKNOWN_FORMAT", f"Format {output_format[:80]!r} is not allowed"
        )
    try:
        statement = "\n".join(
            part for part in (fields.get("query", ""), body.decode("utf-8")) if part.strip()
        )
    except UnicodeDecodeError:
        raise _RequestError(_SYNTAX_ERROR, "SYNTAX_ERROR", "The statement is not UTF-8") from None
    if not statement:
        raise _RequestError(_SYNTAX_ERROR, "SYNTAX_ERROR", "Empty query")
    query_id = re.sub(r"[^\w.:-]", "", fields.get("query_id", "")[:80]) or str(uuid.uuid4())
    return Query(statement, parameters, output_format, query_id)


async def _body(request: Request) -> bytes:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _RequestError(_SYNTAX_ERROR, "SYNTAX_ERROR", "Compressed requests are not understood here")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise _RequestError(
                    _TOO_LARGE, "TOO_MANY_BYTES", f"The request's body is larger than {MAX_BODY_BYTES} bytes"
                )
    except ClientDisconnect:
        raise _RequestError(_UNKNOWN, "UNKNOWN_EXCEPTION", "The client went away") from None
    return bytes(body)


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """Read the fields of a form (RFC 7578), which is how long parameters are sent."""
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + body)
    fields: dict[str, str] = {}
    if message.is_multipart():
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            payload = part.get_payload(decode=True)
            if isinstance(name, str) and isinstance(payload, bytes):
                fields[name] = payload.decode("utf-8", "replace")
    return fields


_ERRORS = (
    _RequestError,
    TooManyQueriesError,
    ResultTooLargeError,
    StatementRefusedError,
    ClickHouseError,
    EngineError,
)


def _told(error: Exception) -> _RequestError:
    match error:
        case _RequestError():
            return error
        case TooManyQueriesError():
            return _RequestError(
                _TOO_MANY_QUERIES,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                "Too many queries are waiting, try again later",
            )
        case ResultTooLargeError():
            return _RequestError(_TOO_MUCH_RESULT, "TOO_MANY_ROWS_OR_BYTES", str(error))
        case StatementRefusedError():
            return _refused(error)
        case ClickHouseError():
            return _engine_error(error)
    return _RequestError(_UNKNOWN, "UNKNOWN_EXCEPTION", str(error))


def _refused(error: StatementRefusedError) -> _RequestError:
    # What the engine itself could not read keeps the engine's code.
    code = getattr(error.__cause__, "code", None)
    name = getattr(error.__cause__, "name", None)
    if isinstance(code, int) and code > 0 and name:
        return _RequestError(code, str(name), str(error))
    return _RequestError(_ACCESS_DENIED, "ACCESS_DENIED", str(error))


def _engine_error(error: ClickHouseError) -> _RequestError:
    text = str(error).strip() or type(error).__name__
    code = getattr(error, "code", None)
    if not isinstance(code, int) or code <= 0:
        found = re.match(r"Code: (\d+)", text)
        code = int(found[1]) if found else _UNKNOWN
    name = getattr(error, "name", None) or "UNKNOWN_EXCEPTION"
    message = re.sub(r"^(?:Code: \d+\. DB::Exception: )+", "", text)
    message = re.sub(r"\.?\s*(?:\([A-Z_]+\)|\(version [^)]*\))\s*$", "", message)
    return _RequestError(code, str(name), message)


def _error(error: _RequestError) -> Response:
    headers = {"X-ClickHouse-Exception-Code": str(error.code)}
    if error.code == _AUTHENTICATION_FAILED:
        headers["WWW-Authenticate"] = 'Basic realm="Spanseal"'
    if error.code == _TOO_MANY_QUERIES:
        headers["Retry-After"] = "1"
    return PlainTextResponse(error.text, _STATUS.get(error.code, 500), headers)


def _response(query: Query, answer: Answer) -> Response:
    content_type = next(
        (kind for pattern, kind in _CONTENT_TYPES if pattern.match(answer.output_format)),
        "text/plain; charset=UTF-8",
    )
    summary = {"result_bytes": str(len(answer.body)), "elapsed_ns": str(int(answer.seconds * 1e9))}
    return Response(
        answer.body,
        media_type=None,
        headers={
            "Content-Type": content_type,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-ClickHouse-Format": answer.output_format,
            "X-ClickHouse-Query-Id": query.query_id,
            "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
            "X-ClickHouse-Timezone": answer.timezone,
        },
    )
