"""Flask: every application's `__call__` is audited; signals tell the route, the actor and what went wrong."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

import flask
from opentelemetry import trace
from werkzeug.exceptions import ServiceUnavailable

from .actors import commits
from .actors.sources import Evidence, resolve
from .actors.users import session_digest
from .correlation import mark_span
from .errors import ConfigurationError, NotAudited
from .gate import flask_gate
from .meaning import marks
from .meaning.mapping import is_state_changing
from .request import AuditedRequest, exception_type
from .wsgi import ENVIRON_KEY, audited_call, refusal

__all__ = ["instrument_all", "instrument_app", "instrumented", "refuse_all"]

_SPAN_KEY = "opentelemetry-flask.span_key"
_MAX_VALUE = 2048
"""Characters of a route's value that are kept."""
_EXTENSION = "spanseal"
# A server calls the application; some middleware is given `app.wsgi_app` instead. Whichever is first audits.
_ENTRANCES = ("__call__", "wsgi_app")
_CLOSED = b"Auditing could not be set up, so this service is closed. Its log says why.\n"

_SESSION_IS_WATCHED = hasattr(flask.ctx.RequestContext, "session")  # since Flask 3.1.3

_lock = threading.Lock()
_patched = False
_patches: dict[str, tuple[Any, Any]] = {}
"""What stood at these names of `flask.Flask`, and what stands there now."""
_every = False


def instrument_all() -> None:
    """Audit every Flask application of this process. Twice is once."""
    global _every  # noqa: PLW0603 - one for each process
    _every = True
    _patch()


def instrument_app(app: flask.Flask) -> None:
    """Audit one Flask application. Twice is once, also after `opentelemetry-instrument`."""
    app.extensions[_EXTENSION] = True
    _patch()


@contextmanager
def instrumented(app: flask.Flask) -> Iterator[None]:
    """Audit one Flask application while this lasts, for tests. Afterwards Flask is as it was."""
    patched, marked = _patched, _EXTENSION in app.extensions
    instrument_app(app)
    try:
        yield
    finally:
        if not marked:
            del app.extensions[_EXTENSION]
        if not patched:
            _unpatch()


def audits_every_app() -> bool:
    """Say whether every Flask application of this process is audited."""
    return _every and _patched


def refuse_all() -> None:
    """Answer 503 to every request of every Flask application: nothing can be audited, and that was forbidden."""

    def refusing(_app: flask.Flask, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return refusal(environ, start_response, _CLOSED)

    for entrance in _ENTRANCES:
        setattr(flask.Flask, entrance, refusing)


def _patch() -> None:
    global _patched  # noqa: PLW0603 - one for each process
    with _lock:
        if _patched:
            return
        wrappers: dict[str, Callable[[Any], Any]] = {
            **dict.fromkeys(_ENTRANCES, _audited),
            "dispatch_request": _seen_before,
            "preprocess_request": _gated,
        }
        for name, wrap in wrappers.items():
            original = getattr(flask.Flask, name)
            _patches[name] = original, wrap(original)
            setattr(flask.Flask, name, _patches[name][1])
        # Strong references: nobody else holds these functions.
        flask.request_started.connect(_started, weak=False)
        flask.request_finished.connect(_finished, weak=False)
        flask.got_request_exception.connect(_raised, weak=False)
        _patched = True


def _unpatch() -> None:
    global _patched  # noqa: PLW0603 - one for each process
    with _lock:
        if any(getattr(flask.Flask, name) is not own for name, (_, own) in _patches.items()):
            return  # somebody has wrapped what is there; it lets other applications pass
        for name, (original, _) in _patches.items():
            setattr(flask.Flask, name, original)
        flask.request_started.disconnect(_started)
        flask.request_finished.disconnect(_finished)
        flask.got_request_exception.disconnect(_raised)
        _patched = False


def _audited(original: Callable[[flask.Flask, dict[str, Any], Any], Iterable[bytes]]) -> Any:
    @functools.wraps(original)
    def audited(self: flask.Flask, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not _every and _EXTENSION not in self.extensions:
            return original(self, environ, start_response)
        return audited_call(functools.partial(original, self), environ, start_response)

    return audited


def _seen_before(original: Callable[..., Any]) -> Any:
    """Let a look be taken between `before_request` functions, which find the user, and the view, which may change it."""

    @functools.wraps(original)
    def dispatch_request(self: flask.Flask, *arguments: Any, **named: Any) -> Any:
        context = _context()
        request = _request_of(context)
        # Where nothing has run since the look for `begin`, there is nothing new to be seen.
        if request is not None and (request.evidence is None or self.before_request_funcs):
            with suppress(NotAudited):
                _safely(_look, request, context)
        if request is not None:
            request.at_view = request.actor
        return original(self, *arguments, **named)

    return dispatch_request


def _gated(original: Callable[[flask.Flask], Any]) -> Any:
    """Let what is privileged be decided after `before_request` functions, one of which may have answered."""

    @functools.wraps(original)
    def preprocess_request(self: flask.Flask) -> Any:
        answer = original(self)
        # Also in an application inside of one that is audited: its requests are recorded, too.
        audited = _every or _EXTENSION in self.extensions or _request_of(_context()) is not None
        if answer is None and audited:
            answer = flask_gate.before_view()
        return answer

    return preprocess_request


# --- signals: nothing that goes wrong in them may reach the application, unless it was asked to be refused ---


def _started(_sender: object, **_: object) -> None:
    """The route is known; nothing of the application has run yet but its session interface."""
    context = _context()
    request = _request_of(context)
    if request is None:
        return
    try:
        _safely(_see_route, request, context)
        commits.watch()
        if is_state_changing(request.method):
            # For the record that `begin` makes; where none is made, it is time enough before the view.
            _safely(functools.partial(_look, early=True), request, context)
            request.begin()
    except NotAudited as error:
        request.refused = True
        raise ServiceUnavailable(str(error), retry_after=5) from error


def _finished(_sender: object, **_: object) -> None:
    """The view has run, and so has everything that could sign somebody in or out."""
    context = _context()
    request = _request_of(context)
    if request is None:
        return
    try:
        _safely(_look, request, context)
    except NotAudited:
        request.withheld = True


def _raised(_sender: object, exception: BaseException | None = None, **_: object) -> None:
    """Nobody handled an exception of the application; where it goes on, no other signal comes."""
    context = _context()
    request = _request_of(context)
    if request is None:
        return
    if exception is not None:
        request.exception = exception_type(exception)
    with suppress(NotAudited):
        _safely(_look, request, context)


def _safely(step: Callable[[AuditedRequest, Any], None], request: AuditedRequest, context: Any) -> None:
    try:
        step(request, context)
    except NotAudited:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the policy decides
        request.runtime.trouble(error)


def _context() -> Any:
    """Return Flask's context of this request, or None outside of one."""
    try:
        return flask.globals.request_ctx._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - a proxy's own way
    except RuntimeError:
        return None


def _request_of(context: Any) -> AuditedRequest | None:
    found = context.request.environ.get(ENVIRON_KEY) if context is not None else None
    return found if isinstance(found, AuditedRequest) else None


def _look_again(request: AuditedRequest) -> None:
    context = _context()
    if _request_of(context) is request:
        _safely(_look, request, context)


def _see_route(request: AuditedRequest, context: Any) -> None:
    request.look = _look_again
    request.served_as(context.request.method)
    rule = context.request.url_rule
    values = _texts(rule, context.request.view_args or {}) if rule is not None else {}
    if rule is not None:
        request.mark = marks.of(context.app.view_functions.get(rule.endpoint), request.method)
    request.matched(rule.rule if rule is not None else None, values)


def _look(request: AuditedRequest, context: Any, *, early: bool = False) -> None:
    """Take what the request's context knows now; what it does not know any more stays as it was.

    Args:
        request: Which request.
        context: Flask's of it.
        early: Whether nothing of the application has run yet, so that a resolver may find nothing to read.
    """
    if not request.span_id:
        _look_at_span(request, context)
    evidence = request.evidence or _first_look(request, context)
    # Not through `flask.session`: that marks it as used, and the answer gets `Vary: Cookie`.
    session = context._session if _SESSION_IS_WATCHED else context.session  # noqa: SLF001
    evidence.session = session
    request.session_id = session_digest(session) or request.session_id
    resolver, wrong = None, None
    try:
        resolver = request.runtime.resolver
    except ConfigurationError as error:
        wrong = error
    found = resolve(resolver, request.runtime.settings.actor_sources, evidence, request.found, early=early)
    if found is not None:
        request.recognise(found)
    if wrong is not None:
        request.runtime.trouble(wrong, "the actor is looked for elsewhere")


def _look_at_span(request: AuditedRequest, context: Any) -> None:
    """Take the ids of the request's span, which OpenTelemetry begins before the application's own functions run."""
    span = context.request.environ.get(_SPAN_KEY) or trace.get_current_span()
    ids = span.get_span_context()
    if ids.is_valid:
        request.trace_id = trace.format_trace_id(ids.trace_id)
        request.span_id = trace.format_span_id(ids.span_id)
        mark_span(span, request.request_id)


def _first_look(request: AuditedRequest, context: Any) -> Evidence:
    """Take what does not change while the request runs."""
    request.evidence = Evidence(
        g=flask.g._get_current_object(),  # noqa: SLF001 - as below
        environ=context.request.environ,
        config=context.app.config,
        peer=request.peer,
        header=request.runtime.settings.proxy_header,
    )
    return request.evidence


def _texts(rule: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """Return a route's values as text."""
    return {name: _text(rule, name, value)[:_MAX_VALUE] for name, value in values.items()}


def _text(rule: Any, name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | uuid.UUID):
        return str(value)
    # What an application's own converter made of it, a user from the database perhaps: its text may be anything.
    try:
        return unquote(rule._converters[name].to_url(value))  # noqa: SLF001 - as werkzeug builds the URL
    except Exception:  # noqa: BLE001 - a converter that cannot build URLs
        return ""
