"""What Django knows of a request that its span does not say: the route and its values, the user, the session.

OpenTelemetry's Django middleware calls two hooks with the span and the request. They are joined here, when its first
span begins: nothing of Django is imported. As for Flask, nothing is loaded: the user is taken where the application
has loaded it, so that auditing adds no query and no `Vary: Cookie`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from opentelemetry import trace

from spanseal.actors.actor import Actor
from spanseal.actors.users import from_value, session_digest
from spanseal.correlation import mark_span
from spanseal.errors import NotAudited
from spanseal.meaning import marks
from spanseal.request import AuditedRequest
from spanseal.throttle import Throttle

from .request import SpanRequest
from .route_templates import template

__all__ = ["follows", "install"]

logger = logging.getLogger("spanseal")

_SCOPE = "opentelemetry.instrumentation.django"
_MIDDLEWARE = "opentelemetry.instrumentation.django.middleware.otel_middleware"
_MARK = "_spanseal"
_MAX_VALUE = 2048

_throttle = Throttle()
_find: Callable[[trace.Span], SpanRequest | None] | None = None


def install(find: Callable[[trace.Span], SpanRequest | None]) -> None:
    """Say how a span's request is found. The hooks are joined when Django's first span begins."""
    global _find  # noqa: PLW0603 - one for each process
    _find = find


def follows(scope: str) -> bool:
    """Say whether a span is of Django's middleware, and its hooks will be called for it."""
    if scope != _SCOPE or _find is None:
        return False
    module: Any = sys.modules.get(_MIDDLEWARE)
    middleware = getattr(module, "_DjangoMiddleware", None)
    if not (hasattr(middleware, "_otel_request_hook") and hasattr(middleware, "_otel_response_hook")):
        return False
    # Each time, since the application may instrument Django again with hooks of its own.
    for name, ours in (("_otel_request_hook", _begun), ("_otel_response_hook", _answered)):
        hook = getattr(middleware, name)
        if not hasattr(hook, _MARK):
            setattr(middleware, name, _joined(ours, hook))
    return True


def _joined(ours: Callable[..., None], theirs: Callable[..., None] | None) -> Callable[..., None]:
    def hook(span: trace.Span, request: Any, *more: Any) -> None:
        audited = _find(span) if _find is not None else None
        if audited is not None:
            _safely(ours, audited, request)
            _safely(lambda known, _: mark_span(span, known.request_id), audited, request)
        if theirs is not None:
            theirs(span, request, *more)

    setattr(hook, _MARK, True)
    return hook


def _safely(step: Callable[[SpanRequest, Any], None], audited: SpanRequest, request: Any) -> None:
    try:
        step(audited, request)
    except NotAudited:
        pass  # said already: it cannot be refused from here
    except Exception as error:
        if _throttle.due(type(error).__name__):
            logger.warning("what Django knows of a request cannot be read", exc_info=True)


def _begun(audited: SpanRequest, request: Any) -> None:
    """Nothing of the application has run yet, unless its middleware stands before OpenTelemetry's."""
    try:
        audited.framework = request
        audited.come_from(request.META)
        audited.look = _look
        if audited.method not in ("GET", "HEAD"):
            # Known only later otherwise, and a handler that dies would leave a record that does not say what it did.
            _see_route(audited, _resolve(request))
    finally:
        audited.begin_early()


def _answered(audited: SpanRequest, _request: Any) -> None:
    _look(audited)


def _look(audited: AuditedRequest) -> None:
    if not isinstance(audited, SpanRequest):
        return
    request = audited.framework
    if isinstance(method := getattr(request, "method", None), str) and audited.method:
        audited.served_as(method.upper())
    _see_route(audited, getattr(request, "resolver_match", None))
    if (user := _loaded_user(request)) is not None:
        audited.framework_actor = _actor(user) or audited.framework_actor
        audited.find_actor()
    session = request.__dict__.get("session")
    key = getattr(session, "_session_key", None)
    if (
        type(session).__module__ != "django.contrib.sessions.backends.signed_cookies"
    ):  # there it is the whole session
        audited.session_id = session_digest(SimpleNamespace(sid=key)) or audited.session_id


def _resolve(request: Any) -> Any:
    urls: Any = sys.modules.get("django.urls")
    try:
        return urls.resolve(request.path_info, getattr(request, "urlconf", None))
    except Exception:  # noqa: BLE001 - a path that is none of this application's, or a broken urlconf: Django will say
        return None


def _see_route(audited: SpanRequest, match: Any) -> None:
    route = getattr(match, "route", None)
    if not isinstance(route, str):
        return
    audited.route_is_known = True
    values = {
        str(name): _text(value)[:_MAX_VALUE] for name, value in match.kwargs.items() if value is not None
    }
    audited.mark = marks.of(match.func, audited.method)
    audited.matched(template(route).text, values)


def _text(value: object) -> str:
    # A converter of the application's may give anything; its text may be anything as well.
    known = isinstance(value, str | int | float) or type(value).__name__ == "UUID"
    return str(value) if known else ""


def _loaded_user(request: Any) -> Any:
    """Return the user that the application has loaded, without loading one."""
    held = request.__dict__
    user = held.get("user")
    # `request.user` is lazy until it is touched; what stands there otherwise was put there (`login()`, REST framework).
    candidates = (
        None if hasattr(type(user), "_setup") else user,
        held.get("_cached_user"),
        held.get("_acached_user"),
    )
    return next((one for one in candidates if getattr(one, "is_authenticated", False) is True), None)


def _actor(user: Any) -> Actor | None:
    key = getattr(user, "pk", None)
    if key is None:
        return from_value(user)
    # Of a model only what it holds: to follow a relation is a query.
    held = getattr(user, "__dict__", {})
    role = held.get("role")
    if not isinstance(role, str) or not role:
        role = (
            "superuser"
            if held.get("is_superuser") is True
            else "staff"
            if held.get("is_staff") is True
            else ""
        )
    email = held.get("email")
    return Actor(
        str(key), role=role, email=email if isinstance(email, str) else "", name=_called(user, "get_username")
    )


def _called(user: Any, name: str) -> str:
    method = getattr(user, name, None)
    value = method() if callable(method) else ""
    return value if isinstance(value, str) else ""
