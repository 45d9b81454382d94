"""How Django's requests are heard of, beside the hooks of an application's own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.django.middleware import otel_middleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import spanseal
from tests.instrumentation.conftest import Audit

MIDDLEWARE = otel_middleware._DjangoMiddleware
SCOPE = "opentelemetry.instrumentation.django"


class Loading:
    """As `request.user` is until somebody touches it."""

    def _setup(self) -> None:
        raise AssertionError("the user was loaded")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was looked at")


class User:
    """As a user model."""

    is_authenticated = True
    pk = 5

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)

    def get_username(self) -> str:
        return "ada"


@spanseal.action("file.shown", resource_id="pk")
def marked() -> None:
    """Stand in for a view."""


class Request(SimpleNamespace):
    """As Django's request."""

    def __init__(self, **more: Any) -> None:
        super().__init__(META={"REMOTE_ADDR": "192.0.2.7"}, path_info="/a", resolver_match=None, **more)


@pytest.fixture
def tracer(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> trace.Tracer:
    assert audit.runtime.keeper.spool is None
    for name in ("_otel_request_hook", "_otel_response_hook"):
        monkeypatch.setattr(MIDDLEWARE, name, None)
    provider = TracerProvider(sampler=ALWAYS_OFF)
    spanseal.instrument_provider(provider)
    return provider.get_tracer(SCOPE)


def visit(tracer: trace.Tracer, request: Any, method: str = "GET") -> None:
    """Do what the middleware does."""
    attributes = {"http.method": method, "http.route": "a/<int:pk>/", "http.target": "/a/1/"}
    with tracer.start_as_current_span("x", kind=trace.SpanKind.SERVER, attributes=attributes) as span:
        MIDDLEWARE._otel_request_hook(span, request)
        span.set_attribute("http.status_code", 200)
        MIDDLEWARE._otel_response_hook(span, request, "answer")


def test_hooks_of_the_applications_own_are_still_called(
    audit: Audit, tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, int]] = []
    request = Request()
    for _again in range(2):  # also where Django is instrumented once more
        monkeypatch.setattr(
            MIDDLEWARE, "_otel_request_hook", lambda *seen: called.append(("request", len(seen)))
        )
        monkeypatch.setattr(
            MIDDLEWARE, "_otel_response_hook", lambda *seen: called.append(("response", len(seen)))
        )
        visit(tracer, request)
        visit(tracer, request)
    assert called == [("request", 2), ("response", 3)] * 4
    assert len(audit.records()) == 4


@pytest.mark.parametrize(
    ("more", "actor", "role"),
    [
        ({}, None, None),
        ({"user": Loading()}, None, None),
        ({"user": Loading(), "_cached_user": User()}, "5", None),
        ({"user": Loading(), "_acached_user": User(is_staff=True)}, "5", "staff"),
        ({"user": User(is_superuser=True, is_staff=True)}, "5", "superuser"),
        ({"user": User(role="doctor", is_superuser=True)}, "5", "doctor"),
        ({"user": User(), "_cached_user": SimpleNamespace(is_authenticated=False)}, "5", None),
        ({"user": SimpleNamespace(is_authenticated=False, pk=None)}, None, None),
        ({"user": SimpleNamespace(is_authenticated=True, id="token-7")}, "token-7", None),
    ],
)
def test_the_user_is_taken_where_it_is_loaded(
    audit: Audit, tracer: trace.Tracer, more: dict[str, Any], actor: str | None, role: str | None
) -> None:
    visit(tracer, Request(**more))
    found = audit.record().attributes
    assert (found.get("audit.actor.id"), found.get("audit.actor.role")) == (actor, role)
    assert found["client.address"] == "192.0.2.7"


@pytest.mark.parametrize(
    ("backend", "known"),
    [
        ("django.contrib.sessions.backends.db", True),
        ("django.contrib.sessions.backends.signed_cookies", False),
    ],
)
def test_sessions_are_named_by_their_digest(
    audit: Audit, tracer: trace.Tracer, backend: str, *, known: bool
) -> None:
    store = type("SessionStore", (), {"__module__": backend, "_session_key": "s3cr3t"})
    visit(tracer, Request(session=store()))
    assert ("session.id" in audit.record().attributes) is known
    assert b"s3cr3t" not in audit.bytes()


def test_a_view_that_says_what_it_does(audit: Audit, tracer: trace.Tracer) -> None:
    request = Request()
    request.resolver_match = SimpleNamespace(route="a/<int:pk>/", kwargs={"pk": 4}, func=marked)
    visit(tracer, request)
    record = audit.record()
    assert (record.action, record.attributes["audit.target.id"]) == ("file.shown", "4")


@pytest.mark.parametrize("trusted", [True, False])
def test_an_incoming_request_id(audit: Audit, tracer: trace.Tracer, *, trusted: bool) -> None:
    audit.set(SPANSEAL_TRUST_REQUEST_ID=str(trusted).lower())
    request = Request()
    request.META["HTTP_X_REQUEST_ID"] = "theirs"
    visit(tracer, request, "POST")
    found = audit.record().attributes
    assert (found["audit.request.id"] == "theirs") is trusted
    assert ("http.request.header.x-request-id" in found) is not trusted


@pytest.mark.parametrize("sent", ["POST", "GET", "HEAD"])
def test_what_is_served_as_another_method_is_recorded_as_that(
    audit: Audit, tracer: trace.Tracer, tmp_path: Path, sent: str
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nrules: [{method: HEAD, skip: it shows nothing}]\n")
    audit.set(SPANSEAL_RULES=str(rules))
    # A middleware of the application's has put it there.
    match = SimpleNamespace(route="accounts/<int:pk>/", kwargs={"pk": 1}, func=visit)
    request = Request(method="DELETE")
    request.resolver_match = match
    visit(tracer, request, sent)
    record = audit.record()
    assert (record.action, record.attributes["audit.target.id"]) == ("account.deleted", "1")
    assert record.attributes["http.request.method"] == "DELETE"
    assert record.attributes["http.request.method_original"] == sent


def test_an_odd_request_ends_nothing(audit: Audit, tracer: trace.Tracer) -> None:
    visit(tracer, object(), "POST")
    record = audit.record()
    assert (record.action, record.attributes["audit.outcome"]) == ("record.updated", "success")
