"""Flask: every application's `__call__` is audited; signals tell the route, the actor and what went wrong."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import flask
from opentelemetry import trace
from werkzeug.exceptions import ServiceUnavailable

from . import actor
from .errors import NotAudited
from .request import AuditedRequest, exception_type
from .settings import refuses
from .wsgi import ENVIRON_KEY, audited_call

__all__ = ["instrument_all", "instrument_app", "refuse_all"]

logger = logging.getLogger("spanseal")

_SPAN_KEY = "opentelemetry-flask.span_key"

_lock = threading.Lock()
_patched = False
_every = False
_apps: weakref.WeakSet[flask.Flask] = weakref.WeakSet()


def instrument_all() -> None:
    """Audit every Flask application of this process. Twice is once."""
    global _every  # noqa: PLW0603 - one for each process
    _every = True
    _patch()


def instrument_app(app: flask.Flask) -> None:
    """Audit one Flask application. Twice is once, also after `opentelemetry-instrument`."""
    _apps.add(app)
    _patch()


def refuse_all() -> None:
    """Answer 503 to every request of every Flask application: nothing can be audited, and that was forbidden."""

    def refusing(_app: flask.Flask, _environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = b"Auditing could not be set up, so this service is closed. Its log says why.\n"
        start_response(
            "503 Service Unavailable",
            [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
        )
        return [body]

    flask.Flask.__call__ = refusing  # type: ignore[method-assign,assignment]  # that is what instrumenting is


def _patch() -> None:
    global _patched  # noqa: PLW0603 - one for each process
    with _lock:
        if _patched:
            return
        _patched = True
    original = flask.Flask.__call__

    @functools.wraps(original)
    def audited(self: flask.Flask, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not _every and self not in _apps:
            return original(self, environ, start_response)
        return audited_call(functools.partial(original, self), environ, start_response)

    flask.Flask.__call__ = audited  # type: ignore[method-assign]  # as above
    # Strong references: nobody else holds these functions.
    flask.request_started.connect(_started, weak=False)
    flask.request_finished.connect(_finished, weak=False)
    flask.got_request_exception.connect(_raised, weak=False)


def _audited_request() -> AuditedRequest | None:
    found = flask.request.environ.get(ENVIRON_KEY)
    return found if isinstance(found, AuditedRequest) else None


def _started(_sender: object, **_: object) -> None:
    """The route is known; nothing of the application has run yet but its session interface."""
    request = _audited_request()
    if request is None:
        return
    try:
        rule = flask.request.url_rule
        request.route = rule.rule if rule is not None else None
        request.view_args = dict(flask.request.view_args or {})
        request.look = _look_again
        _look(request)
        request.begin()
    except NotAudited as error:
        raise ServiceUnavailable(str(error), retry_after=5) from error
    except Exception as error:
        logger.exception("request %s cannot be audited", request.request_id)
        if refuses():
            raise ServiceUnavailable(
                "this cannot be audited now, so it is not done", retry_after=5
            ) from error


def _finished(_sender: object, **_: object) -> None:
    """The view has run, and so has everything that could sign somebody in or out."""
    request = _audited_request()
    if request is None:
        return
    try:
        _look(request)
    except Exception:
        # What was known at the start stays; the record itself is written when the answer begins.
        logger.exception("the actor of request %s cannot be found", request.request_id)


def _look_again(request: AuditedRequest) -> None:
    if flask.has_request_context() and _audited_request() is request:
        _look(request)


def _raised(_sender: object, exception: BaseException | None = None, **_: object) -> None:
    request = _audited_request()
    if request is not None and exception is not None:
        request.exception = exception_type(exception)


def _look(request: AuditedRequest) -> None:
    """Take what the request's context knows now; what it does not know any more stays as it was."""
    session = flask.session._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - a proxy's own way
    g = flask.g._get_current_object()  # noqa: SLF001 - as above
    found = actor.resolve(request.runtime.resolver, g=g, session=session)
    if found is not None:
        request.actor = found
    request.session_id = actor.session_digest(session) or request.session_id
    span = flask.request.environ.get(_SPAN_KEY) or trace.get_current_span()
    context = span.get_span_context()
    if context.is_valid:
        request.trace_id = trace.format_trace_id(context.trace_id)
        request.span_id = trace.format_span_id(context.span_id)
