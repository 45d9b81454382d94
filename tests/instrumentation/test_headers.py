"""What of a request's headers is believed, what is kept, and what never is."""

from __future__ import annotations

from typing import Any

import flask
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client as PlainClient

import spanseal
from tests.instrumentation.calling import BoomError, replace_wsgi_app
from tests.instrumentation.conftest import Audit


def test_the_applications_own_request_id_is_kept_beside_ours(audit: Audit, app: flask.Flask) -> None:
    app.add_url_rule("/patients", view_func=lambda: ("none", {"x-request-id": "own-1"}))
    answer = app.test_client().get("/patients", headers={"X-Request-Id": "theirs-1"})
    found = audit.record().attributes
    assert answer.headers.getlist("X-Request-Id") == [found["audit.request.id"]]
    assert found["http.response.header.x-request-id"] == ["own-1"]
    assert found["http.request.header.x-request-id"] == ["theirs-1"]


@pytest.mark.parametrize(
    ("incoming", "taken"),
    [
        ("edge-1", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("with space", False),
        ("naïve", False),
        ("日本", False),
        ("", False),
    ],
)
def test_an_incoming_request_id_is_adopted_only_where_it_is_trusted_and_can_go_back(
    audit: Audit, app: flask.Flask, incoming: str, *, taken: bool
) -> None:
    audit.set(SPANSEAL_TRUST_REQUEST_ID="true")
    app.add_url_rule("/patients", view_func=spanseal.request_id)
    # As a server gives it: the bytes that came, as Latin-1.
    raw = {"HTTP_X_REQUEST_ID": incoming.encode().decode("latin-1")}
    answer = app.test_client().get("/patients", environ_overrides=raw)
    found = audit.record().attributes
    assert answer.text == answer.headers["X-Request-Id"] == found["audit.request.id"]
    assert (found["audit.request.id"] == incoming) is taken
    assert answer.headers["X-Request-Id"].isascii()
    kept = found.get("http.request.header.x-request-id")
    assert kept == (None if taken or not incoming else [incoming])


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        ("0", "203.0.113.9", "192.0.2.1"),
        ("1", "203.0.113.9", "203.0.113.9"),
        ("1", "198.51.100.66, 203.0.113.9", "203.0.113.9"),
        ("2", "198.51.100.66, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("2", "203.0.113.9", "192.0.2.1"),
        ("1", "203.0.113.9:4711", "203.0.113.9"),
        ("1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("1", "[2001:db8::1]", "2001:db8::1"),
        ("1", "2001:DB8::1", "2001:db8::1"),
        ("1", "unknown", "192.0.2.1"),
        ("1", "<script>", "192.0.2.1"),
        ("1", "", "192.0.2.1"),
    ],
)
@pytest.mark.parametrize("fixed", ["no", "outside", "inside"])
def test_only_what_trusted_proxies_added_is_believed(
    audit: Audit, app: flask.Flask, proxies: str, forwarded: str, address: str, fixed: str
) -> None:
    audit.set(SPANSEAL_TRUSTED_PROXIES=proxies)
    app.add_url_rule("/patients", view_func=lambda: flask.request.remote_addr or "")
    application: Any = app
    if fixed == "inside":
        replace_wsgi_app(app, ProxyFix(app.wsgi_app))
    elif fixed == "outside":
        application = ProxyFix(app)
    PlainClient(application).get(
        "/patients",
        buffered=True,
        headers={"X-Forwarded-For": forwarded} if forwarded else {},
        environ_base={"REMOTE_ADDR": "192.0.2.1"},
    )
    assert audit.record().attributes["client.address"] == address


def test_headers_that_are_not_ascii_or_very_long(audit: Audit, app: flask.Flask) -> None:
    app.add_url_rule("/patients", view_func=lambda: "none")
    for agent in ("Bräuser".encode().decode("latin-1"), "\xff\xfe", "x" * 100_000):
        app.test_client().get("/patients", environ_overrides={"HTTP_USER_AGENT": agent})
    agents = [record.attributes["user_agent.original"] for record in audit.records()]
    assert agents == ["Bräuser", "\ufffd\ufffd", "x" * 2048]


SECRETS = {
    "query": "s3cret-query",
    "cookie": "s3cret-cookie",
    "authorization": "s3cret-authorization",
    "form": "s3cret-form",
    "json": "s3cret-json",
    "token": "s3cret-token",
    "exception": "s3cret-exception",
    "path": "s3cret-path",
    "answer": "s3cret-answer",
}


def test_no_secret_is_written_anywhere(audit: Audit, app: flask.Flask, log: pytest.LogCaptureFixture) -> None:
    app.logger.disabled = True  # Flask itself logs the exception

    @app.post("/reset/<token>")
    def reset(token: str) -> str:
        assert token == SECRETS["token"]
        flask.session["csrf"] = SECRETS["cookie"]
        if flask.request.form.get("fail"):
            raise BoomError(SECRETS["exception"])
        return SECRETS["answer"]

    client = app.test_client()
    client.set_cookie("session", SECRETS["cookie"])
    common = {
        "query_string": {"q": SECRETS["query"]},
        "headers": {
            "Authorization": f"Bearer {SECRETS['authorization']}",
            "X-Api-Key": SECRETS["authorization"],
        },
    }
    client.post(f"/reset/{SECRETS['token']}", json={"a": SECRETS["json"]}, **common)
    client.post(f"/reset/{SECRETS['token']}", data={"a": SECRETS["form"], "fail": "1"}, **common)
    client.get(f"/{SECRETS['path']}", **common)
    written = audit.bytes()
    assert b"user.password_changed" in written
    for record in audit.records():
        written += repr(record).encode()
    for name, secret in SECRETS.items():
        assert secret.encode() not in written, name
        assert secret not in log.text, name
