"""The WSGI boundary (PEP 3333): where a request comes in, its answer begins, and its answer ends.

Nothing that goes wrong in here may reach the application, or change an answer, unless it was configured that what
cannot be audited must not be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from .correlation import carry
from .errors import NotAudited
from .request import AuditedRequest, current_request, header
from .runtime import current

__all__ = ["ENVIRON_KEY", "REQUEST_ID_HEADER", "audited_call", "refusal"]

ENVIRON_KEY = "spanseal.request"
"""Where the request's `AuditedRequest` stands in the WSGI environ."""

REQUEST_ID_HEADER = "X-Request-Id"

WSGIApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

_REFUSAL = b"This request cannot be audited now, so it is refused. Try again later.\n"


def audited_call(app: WSGIApp, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Call a WSGI application and audit the request.

    A request that is audited already (an application mounted in another one) passes through.
    """
    outer = environ.get(ENVIRON_KEY)
    if isinstance(outer, AuditedRequest) and not outer.ended:
        return app(environ, start_response)
    runtime = current()
    try:
        request = AuditedRequest.of_environ(environ, runtime)
    except Exception as error:  # noqa: BLE001 - whatever it is, the policy decides
        try:
            runtime.trouble(error)
        except NotAudited:
            return refusal(environ, start_response, _REFUSAL)
        return app(environ, start_response)
    carry()
    environ[ENVIRON_KEY] = request
    if (around := current_request.get()) is not None:
        around.give_way(request, str(environ.get("PATH_INFO", "")))
    token = current_request.set(request)
    try:
        body = app(environ, _StartResponse(request, start_response))
    except BaseException as error:
        request.failed(error)
        request.end()
        raise
    finally:
        current_request.reset(token)
    return _finishing(body, request, environ)


def refusal(environ: dict[str, Any], start_response: Any, text: bytes) -> Iterable[bytes]:
    """Answer 503 in the application's stead."""
    start_response("503 Service Unavailable", _refusal_headers(text))
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [text]


def _refusal_headers(text: bytes) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(text))),
        ("Retry-After", "5"),
    ]


class _StartResponse:
    """`start_response` that writes the record down before the answer can reach the client."""

    __slots__ = ("_request", "_start")

    def __init__(self, request: AuditedRequest, start: Any) -> None:
        self._request = request
        self._start = start

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        request = self._request
        extra = () if exc_info is None else (exc_info,)
        kept = []
        for pair in headers:
            name = pair[0].lower()
            if name == "content-type":
                request.media_type = str(pair[1]).partition(";")[0].strip().lower()
            if name == "x-request-id":
                request.own_request_id = header({"": pair[1]}, "")
            else:
                kept.append(pair)
        _audit(request, status)
        request.watch(kept)
        if request.replaced():
            status, kept = "503 Service Unavailable", _refusal_headers(_REFUSAL)
        kept.append((REQUEST_ID_HEADER, request.request_id))
        write = self._start(status, kept, *extra)
        return _discard if request.replaced() else write


def _audit(request: AuditedRequest, status: str) -> None:
    """Write down how the request is answered, or see to it that the answer is not given."""
    number = str(status)[:3]
    code = 503 if request.refused else int(number) if number.isdecimal() else 0
    try:
        request.answer(code)
    except NotAudited:
        request.withheld = not request.refused


def _discard(_data: bytes) -> None:
    """Stand in for `write` where the answer is not given."""


def _finishing(body: Iterable[bytes], request: AuditedRequest, environ: dict[str, Any]) -> Iterable[bytes]:
    """Return a body that ends the record when it ends."""
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper) and not request.replaced():
        # Left as it is, or the server would not send the file by itself any more (sendfile).
        with suppress(AttributeError):
            body.close = _Ending(getattr(body, "close", None), request)  # type: ignore[attr-defined]  # so it is closed
            return body
    return _Body(body, request, silent=(request.sent_method or request.method) == "HEAD")


class _Ending:
    """A file wrapper's `close`; ends the record when it is called, or at the latest when the wrapper is gone."""

    __slots__ = ("_close", "_request")

    def __init__(self, close: Callable[[], object] | None, request: AuditedRequest) -> None:
        self._close = close
        self._request = request

    def __call__(self) -> None:
        try:
            if self._close is not None:
                self._close()
        finally:
            self._request.end()

    def __del__(self) -> None:
        _end_later(self._request)


def _end_later(request: AuditedRequest) -> None:
    # A finalizer may run in the middle of anything, also of what ends requests.
    if not request.ended:
        request.runtime.orphaned(request.end)


class _Body:
    """A response's body; ends the record when it is closed, or at the latest when it is gone."""

    __slots__ = ("_body", "_complete", "_iterator", "_refusal", "_request")

    def __init__(self, body: Iterable[bytes], request: AuditedRequest, *, silent: bool) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._request = request
        self._complete = False
        self._refusal = b"" if silent else _REFUSAL

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        request = self._request
        if self._complete:
            raise StopIteration
        if request.replaced():
            return self._refuse()
        token = current_request.set(request)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            data = next(self._iterator)
        except StopIteration:
            self._complete = True
            if request.replaced():  # by an application that starts its answer as late as this
                return self._refusal
            raise
        except BaseException as error:
            request.failed(error)
            raise
        finally:
            current_request.reset(token)
        if request.json_answer is not None:
            request.json_answer.take(data)
        return self._refuse() if request.replaced() else data

    def close(self) -> None:
        """Close the application's body, then end the record."""
        request = self._request
        token = current_request.set(request)
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            request.failed(error)
            raise
        finally:
            current_request.reset(token)
            self._see_end()
            request.end()

    def __del__(self) -> None:
        # Not every server closes what it was given.
        self._see_end()
        _end_later(self._request)

    def _see_end(self) -> None:
        if not (self._complete or self._request.ended):
            self._request.incomplete = True

    def _refuse(self) -> bytes:
        self._complete = True
        return self._refusal
