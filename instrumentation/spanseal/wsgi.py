"""The WSGI boundary (PEP 3333): where a request comes in, its answer begins, and its answer ends.

Nothing that goes wrong in here may reach the application, or change an answer, unless it was configured that what
cannot be audited must not be done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .errors import NotAudited
from .request import AuditedRequest, current_request
from .runtime import current
from .settings import refuses

__all__ = ["ENVIRON_KEY", "REQUEST_ID_HEADER", "audited_call"]

logger = logging.getLogger("spanseal")

ENVIRON_KEY = "spanseal.request"
"""Where the request's `AuditedRequest` stands in the WSGI environ."""

REQUEST_ID_HEADER = "X-Request-Id"

WSGIApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

_REFUSAL = b"This request cannot be audited now, so it is refused. Try again later.\n"
_REFUSAL_HEADERS = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_REFUSAL))),
    ("Retry-After", "5"),
)


def audited_call(app: WSGIApp, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Call a WSGI application and audit the request.

    A request that is audited already (an application mounted in another one) passes through.
    """
    if ENVIRON_KEY in environ:
        return app(environ, start_response)
    try:
        request = AuditedRequest.of_environ(environ, current())
    except Exception:
        logger.exception("a request cannot be audited")
        if refuses():
            start_response("503 Service Unavailable", list(_REFUSAL_HEADERS))
            return [_REFUSAL]
        return app(environ, start_response)
    environ[ENVIRON_KEY] = request
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


class _StartResponse:
    """`start_response` that writes the record down before the answer can reach the client."""

    __slots__ = ("_request", "_start")

    def __init__(self, request: AuditedRequest, start: Any) -> None:
        self._request = request
        self._start = start

    def __call__(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        request = self._request
        if not request.refused:
            request.refused = not _audits(request, status)
        if request.refused:
            named = [*_REFUSAL_HEADERS, (REQUEST_ID_HEADER, request.request_id)]
            self._start("503 Service Unavailable", named, *exc_info)
            return _discard
        headers = [pair for pair in headers if pair[0].lower() != "x-request-id"]
        headers.append((REQUEST_ID_HEADER, request.request_id))
        return self._start(status, headers, *exc_info)


def _audits(request: AuditedRequest, status: str) -> bool:
    """Write down how the request is answered; tell whether the answer may be given."""
    try:
        code = status[:3]
        request.answer(int(code) if code.isdecimal() else 0)
    except NotAudited:
        return False
    except Exception:
        logger.exception("the answer of request %s cannot be audited", request.request_id)
        return not refuses()
    return True


def _discard(_data: bytes) -> None:
    """Stand in for `write` where the answer is not given."""


def _finishing(body: Iterable[bytes], request: AuditedRequest, environ: dict[str, Any]) -> Iterable[bytes]:
    """Return a body that ends the record when it ends."""
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper) and not request.refused:
        # Left as it is, or the server would not send the file by itself any more (sendfile).
        try:
            _end_with(body, request)
        except AttributeError:
            pass
        else:
            return body
    return _Body(body, request)


def _end_with(body: Any, request: AuditedRequest) -> None:
    close = getattr(body, "close", None)

    def ending() -> None:
        try:
            if close is not None:
                close()
        finally:
            request.end()

    body.close = ending


class _Body:
    """A response's body; ends the record when it is closed, or at the latest when it is gone."""

    __slots__ = ("_body", "_complete", "_iterator", "_request")

    def __init__(self, body: Iterable[bytes], request: AuditedRequest) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._request = request
        self._complete = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        request = self._request
        if self._complete:
            raise StopIteration
        if self._refused():
            return self._refusal()
        token = current_request.set(request)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            data = next(self._iterator)
        except StopIteration:
            self._complete = True
            if self._refused():  # by an application that starts its answer as late as this
                return _REFUSAL
            raise
        except BaseException as error:
            request.failed(error)
            raise
        finally:
            current_request.reset(token)
        return self._refusal() if self._refused() else data

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
            self._end()

    def __del__(self) -> None:
        # Not every server closes what it was given.
        self._end()

    def _end(self) -> None:
        self._request.incomplete = not (self._complete or self._request.ended)
        self._request.end()

    def _refused(self) -> bool:
        return self._request.refused

    def _refusal(self) -> bytes:
        self._complete = True
        return _REFUSAL
