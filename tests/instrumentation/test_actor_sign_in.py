"""Flask-Login's users, and what became of those who tried to sign in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import flask
import flask_login
import pytest
from flask.testing import FlaskClient

import spanseal
from tests.instrumentation.conftest import Audit

FORM = "<form method=post>wrong name or password</form>"


class User(flask_login.UserMixin):  # type: ignore[misc]  # untyped
    def __init__(self, identifier: str, role: str) -> None:
        self.id = identifier
        self.role = role
        self.active = True

    @property
    def is_active(self) -> bool:
        return self.active


@pytest.fixture
def users() -> dict[str, User]:
    return {name: User(name, "nurse") for name in ("uma", "kim")}


@pytest.fixture
def loads(app: flask.Flask, users: dict[str, User]) -> list[str]:
    """Sets Flask-Login up; gives the ids that it has loaded."""
    loaded: list[str] = []
    manager = flask_login.LoginManager(app)

    @manager.user_loader  # type: ignore[untyped-decorator]
    def load(identifier: str) -> User | None:
        loaded.append(identifier)
        return users.get(identifier)

    @app.post("/login")
    def login() -> Any:
        user = users.get(flask.request.form["name"])
        if user is None or flask.request.form["password"] != "right" or not flask_login.login_user(user):
            return FORM
        return flask.redirect("/patients")

    @app.post("/logout")
    def logout() -> Any:
        flask_login.logout_user()
        return flask.redirect("/login")

    @app.get("/patients")
    @flask_login.login_required  # type: ignore[untyped-decorator]
    def patients() -> str:
        return "none"

    app.add_url_rule("/plain", view_func=lambda: "plain")
    return loaded


def sign_in(client: FlaskClient, name: str, password: str = "right") -> int:  # noqa: S107 - made up
    return client.post("/login", data={"name": name, "password": password}).status_code


def seen(audit: Audit) -> list[tuple[str, ...]]:
    keys = ("audit.actor.id", "audit.actor.role", "audit.outcome", "audit.failure.reason")
    return [(record.action, *(record.attributes.get(key, "") for key in keys)) for record in audit.records()]


@pytest.mark.usefixtures("loads")
def test_a_form_that_is_shown_again_was_no_success(audit: Audit, app: flask.Flask) -> None:
    client = app.test_client()
    assert [sign_in(client, "uma", "wrong"), sign_in(client, "nobody"), sign_in(client, "uma")] == [
        200,
        200,
        302,
    ]
    assert client.get("/patients").text == "none"
    assert client.post("/logout").status_code == 302
    assert client.get("/patients").status_code == 401
    assert seen(audit) == [
        ("user.signed_in", "", "", "failure", "not signed in"),
        ("user.signed_in", "", "", "failure", "not signed in"),
        ("user.signed_in", "uma", "nurse", "success", ""),
        ("patient.listed", "uma", "nurse", "success", ""),
        ("user.signed_out", "uma", "", "success", ""),
        ("patient.listed", "", "", "failure", "Unauthorized"),
    ]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (flask.Response("<p>wrong", 200), ("failure", "not signed in")),
        (flask.Response("<p>wrong", 200, content_type="TEXT/HTML ; charset=x"), ("failure", "not signed in")),
        (flask.Response("<p/>", 200, content_type="application/xhtml+xml"), ("failure", "not signed in")),
        (flask.Response('{"token": "s3cret"}', 200, content_type="application/json"), ("success", "")),
        (flask.Response(status=204, content_type=""), ("success", "")),
        (flask.Response("s3cret", 200, content_type="text/plain"), ("success", "")),
        (flask.Response(status=302, headers={"Location": "https://id.example.org/"}), ("unknown", "")),
        (flask.Response("<p>wrong", 401), ("failure", "Unauthorized")),
        (flask.Response("<p>wrong", 422), ("failure", "Unprocessable Entity")),
        (flask.Response("<p>oh", 500), ("failure", "Internal Server Error")),
    ],
)
@pytest.mark.parametrize("known", ["", "uma"])
def test_how_a_sign_in_ended(
    audit: Audit, app: flask.Flask, answer: flask.Response, outcome: tuple[str, str], known: str
) -> None:
    @app.post("/api/login")
    def login() -> flask.Response:
        if known:
            spanseal.set_actor(known)
        return answer

    @app.post("/form")
    def form() -> str:
        return FORM

    client = app.test_client()
    client.post("/api/login")
    client.post("/form")
    signed_in, other = audit.records()
    attributes = signed_in.attributes
    expected = ("success", "") if known and answer.status_code < 400 else outcome
    assert (attributes["audit.outcome"], attributes.get("audit.failure.reason", "")) == expected
    assert other.attributes["audit.outcome"] == "success"
    assert b"s3cret" not in audit.bytes()


def test_auditing_loads_no_user(audit: Audit, app: flask.Flask, loads: list[str]) -> None:
    @app.before_request
    def keep() -> None:
        flask.g.user = flask_login.current_user  # a proxy: whoever asks it anything loads the user

    client = app.test_client()
    sign_in(client, "uma")
    loads.clear()
    assert client.get("/plain").text == "plain"
    assert loads == []
    client.get("/patients")
    assert loads == ["uma"]
    assert [one[1:3] for one in seen(audit)[1:]] == [("uma", ""), ("uma", "nurse")]


def test_the_user_of_a_session_who_is_no_more_is_nobody(
    audit: Audit, app: flask.Flask, loads: list[str], users: dict[str, User]
) -> None:
    client = app.test_client()
    sign_in(client, "uma")
    users["uma"].active = False
    assert client.get("/patients").status_code == 401
    del users["uma"]
    assert client.get("/patients").status_code == 401
    assert loads == ["uma", "uma"]
    assert [one[1] for one in seen(audit)] == ["uma", "", ""]


def test_service_accounts_and_impersonation(audit: Audit, app: flask.Flask) -> None:
    given: list[object] = [
        SimpleNamespace(id=1, is_service_account=True, role="importer"),
        {"id": 2, "is_service": True},
        SimpleNamespace(id=3, kind="SERVICE"),
        SimpleNamespace(id=4, type="system"),
        SimpleNamespace(id=5, type="person", is_service="no"),
        spanseal.Actor("support-3", on_behalf_of="u-7", role="support"),
    ]

    @app.get("/patients")
    def patients() -> str:
        if len(given) == 1:
            spanseal.record("patient.exported")
            spanseal.record("patient.exported", attributes={"audit.on_behalf_of": "u-8"})
        return "none"

    @app.before_request
    def load() -> None:
        flask.g.user = given[0]

    client = app.test_client()
    while given:
        client.get("/patients")
        del given[0]
    records = audit.records()
    keys = ("audit.actor.id", "audit.actor.type", "audit.actor.role", "audit.on_behalf_of")
    # The application's own records may be sent before those of the requests.
    assert sorted(tuple(record.attributes.get(key, "") for key in keys) for record in records) == [
        ("1", "service", "importer", ""),
        ("2", "service", "", ""),
        ("3", "service", "", ""),
        ("4", "system", "", ""),
        ("5", "user", "", ""),
        ("support-3", "user", "support", "u-7"),
        ("support-3", "user", "support", "u-7"),
        ("support-3", "user", "support", "u-8"),
    ]
