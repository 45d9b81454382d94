"""Who did it."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import flask
import pytest
from flask.sessions import SecureCookieSession

import spanseal
from spanseal.actors.actor import MAX_TEXT, Actor
from spanseal.actors.sources import DEFAULT, Evidence, load_resolver, sources
from spanseal.actors.sources import resolve as resolve_found
from spanseal.actors.users import from_session, from_value, session_digest
from spanseal.errors import ConfigurationError, InvalidRecord
from tests.instrumentation.conftest import Audit


class Role(enum.Enum):
    DOCTOR = 1


class User(SimpleNamespace):
    """An application's user."""


class LoginUser:
    """What Flask-Login asks of a user."""

    is_authenticated = True
    role = "nurse"
    email = "n@example.org"

    def get_id(self) -> str:
        return "u-7"


def resolve(resolver: Any, *, g: object, session: object, order: str = DEFAULT) -> Actor | None:
    found = resolve_found(resolver, sources(order), Evidence(g=g, session=session))
    return found.actor if found is not None else None


@pytest.mark.parametrize(
    ("value", "actor"),
    [
        (Actor("a", type="service"), Actor("a", type="service")),
        ("u-1", Actor("u-1")),
        (17, Actor("17")),
        (0, Actor("0")),
        (User(id=3, name="Uma", email="u@example.org"), Actor("3", email="u@example.org", name="Uma")),
        ({"sub": "auth0|5", "name": "Uma", "access_token": "s3cret"}, Actor("auth0|5", name="Uma")),
        ({"access_token": "s3cret", "userinfo": {"sub": "auth0|5"}}, Actor("auth0|5")),
        (User(id=uuid.UUID(int=5)), Actor(str(uuid.UUID(int=5)))),
        (User(username="uma"), Actor("uma", name="uma")),
        (User(id=1, role="doctor"), Actor("1", role="doctor")),
        (User(id=1, roles=["nurse", "admin"]), Actor("1", role="admin,nurse")),
        (User(id=1, roles=["reader,admin", "nurse"]), Actor("1", role="nurse,reader%2Cadmin")),
        (User(id=1, roles=[User(name="nurse"), {"name": "admin"}]), Actor("1", role="admin,nurse")),
        (User(id=1, roles=[]), Actor("1")),
        (User(id=1, role=Role.DOCTOR), Actor("1", role="DOCTOR")),
        (User(id=1, role=User(name="doctor")), Actor("1", role="doctor")),
        (LoginUser(), Actor("u-7", role="nurse", email="n@example.org")),
        (User(id=1, is_authenticated=False), None),
        (None, None),
        (True, None),
        (False, None),
        ("", None),
        (b"bytes", None),
        (object(), None),
        ({"access_token": "s3cret"}, None),
        ({"userinfo": {"userinfo": {"sub": "1"}}}, None),
    ],
)
def test_what_resolvers_and_applications_keep_becomes_an_actor(value: object, actor: Actor | None) -> None:
    assert from_value(value) == actor


class Detached:
    """A user whose roles cannot be loaded any more, as SQLAlchemy's outside of its session."""

    id = 4

    @property
    def roles(self) -> Any:
        raise RuntimeError("not bound to a session")


def test_a_user_whose_roles_cannot_be_read_is_still_known(log: pytest.LogCaptureFixture) -> None:
    assert from_value(Detached()) == Actor("4")
    assert "cannot be read" in log.text


@pytest.mark.parametrize(
    ("session", "actor"),
    [
        ({"user_id": 5}, Actor("5")),
        ({"_user_id": "7", "user_id": "5", "role": "nurse"}, Actor("7", role="nurse")),
        ({"username": "uma", "email": "u@example.org"}, Actor("uma", email="u@example.org", name="uma")),
        ({"user": {"id": 9, "roles": ["a"]}}, Actor("9", role="a")),
        ({"user": {"id": 9}, "role": "b"}, Actor("9", role="b")),
        ({"user_id": True}, None),
        ({"token": "s3cret", "csrf_token": "s3cret", "jwt": "s3cret"}, None),
        ({}, None),
        (None, None),
        ("text", None),
    ],
)
def test_well_known_keys_of_a_session(session: object, actor: Actor | None) -> None:
    assert from_session(session) == actor


def test_looking_into_a_session_is_no_use_of_it() -> None:
    class Counted(SecureCookieSession):
        def get(self, key: str, default: Any = None) -> Any:
            self.accessed = True  # as Flask's own did before 3.1.3
            return super().get(key, default)

    session = Counted({"user_id": 5})
    assert from_session(session) == Actor("5")
    assert session.accessed is False
    session.accessed = True
    from_session(session)
    assert session.accessed is True


def test_a_server_side_session_is_named_by_a_digest() -> None:
    digest = session_digest(SimpleNamespace(sid="s3cret"))
    assert len(digest) == 32
    assert (
        digest
        == session_digest(SimpleNamespace(sid="s3cret"))
        != session_digest(SimpleNamespace(sid="other"))
    )
    assert "s3cret" not in digest
    assert session_digest({}) == session_digest(None) == session_digest(SimpleNamespace(sid=b"x")) == ""


def test_the_order_of_sources() -> None:
    g = SimpleNamespace(_login_user=LoginUser(), user=User(id="of g"))
    session = {"user_id": "of session"}
    assert resolve(lambda: "of resolver", g=g, session=session) == Actor("of resolver")
    assert resolve(lambda: None, g=g, session=session) == from_value(LoginUser())
    g._login_user.is_authenticated = False
    assert resolve(None, g=g, session=session) == Actor("of g")
    assert resolve(None, g=SimpleNamespace(), session=session) == Actor("of session")
    assert resolve(None, g=SimpleNamespace(), session=None) is None


@pytest.mark.parametrize("resolved", ["raise", User(get_id=lambda: 1 / 0)])
def test_a_resolver_that_fails_leaves_it_to_the_next_source(
    resolved: object, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spanseal.actors.sources._throttle._said", {})

    def resolver() -> object:
        if resolved == "raise":
            raise RuntimeError("the database is away")
        return resolved

    assert resolve(resolver, g=SimpleNamespace(), session={"user_id": 5}) == Actor("5")
    assert resolve(resolver, g=SimpleNamespace(), session={"user_id": 5}) == Actor("5")
    assert log.text.count("resolver failed") == 1


def test_an_actor_is_checked_where_it_is_made() -> None:
    with pytest.raises(InvalidRecord, match="'robot'"):
        Actor("a", type="robot")
    with pytest.raises(InvalidRecord, match="the actor's id must be text, not int"):
        Actor(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord, match="role has"):
        Actor("a", role="r" * (MAX_TEXT + 1))


def test_a_resolver_is_imported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("made_up_resolvers")
    module.__dict__.update(who=lambda: "u", text="no function")
    monkeypatch.setitem(__import__("sys").modules, "made_up_resolvers", module)
    assert load_resolver("made_up_resolvers:who")() == "u"
    for name in (
        "made_up_resolvers:nobody",
        "no_such_module:who",
        "made_up_resolvers",
        ":",
        "made_up_resolvers:text",
    ):
        with pytest.raises(ConfigurationError, match="SPANSEAL_ACTOR_RESOLVER"):
            load_resolver(name)


# --- in an application --------------------------------------------------------------------------------------


def test_a_session_that_the_application_does_not_use_stays_unused(audit: Audit, app: flask.Flask) -> None:
    @app.get("/in/<uid>")
    def sign_in(uid: str) -> str:
        flask.session["user_id"] = uid
        return "in"

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    client = app.test_client()
    assert "Cookie" in client.get("/in/5").headers["Vary"]
    answer = client.get("/plain")
    assert "Vary" not in answer.headers
    assert "Set-Cookie" not in answer.headers
    first, second = audit.records()
    assert first.attributes["audit.actor.id"] == second.attributes["audit.actor.id"] == "5"


def test_the_user_of_g_is_found_after_the_view_and_the_one_who_leaves_before_it(
    audit: Audit, app: flask.Flask
) -> None:
    @app.before_request
    def load() -> None:
        if flask.request.path != "/logout":
            flask.g.user = User(id=5, role="doctor", email="d@example.org")

    @app.get("/patients")
    def patients() -> str:
        return "none"

    @app.get("/login")
    def login() -> str:
        flask.session["user_id"] = 8
        return "in"

    @app.get("/logout")
    def logout() -> str:
        flask.session.clear()
        return "out"

    client = app.test_client()
    for path in ("/patients", "/login", "/logout"):
        client.get(path)
    listed, _, left = audit.records()
    assert listed.attributes["audit.actor.id"] == "5"
    assert listed.attributes["audit.actor.role"] == "doctor"
    assert listed.attributes["user.email"] == "d@example.org"
    assert (left.action, left.attributes["audit.actor.id"], left.attributes["audit.target.id"]) == (
        "user.signed_out",
        "8",
        "8",
    )


def test_a_sign_in_is_of_the_one_who_came_and_a_failed_one_of_nobody(audit: Audit, app: flask.Flask) -> None:
    @app.post("/login")
    def login() -> tuple[str, int]:
        if flask.request.form["password"] != "right":
            return "no", 401
        flask.session["user_id"] = flask.request.form["name"]
        return "in", 200

    client = app.test_client()
    client.post("/login", data={"name": "uma", "password": "wrong s3cret"})
    client.post("/login", data={"name": "uma", "password": "right"})
    failed, succeeded = audit.records()
    assert failed.action == succeeded.action == "user.signed_in"
    assert failed.attributes["audit.actor.type"] == "anonymous"
    assert failed.attributes["audit.outcome"] == "failure"
    assert failed.attributes["audit.failure.reason"] == "Unauthorized"
    assert "audit.actor.id" not in failed.attributes
    assert succeeded.attributes["audit.actor.id"] == succeeded.attributes["audit.target.id"] == "uma"


class SidSession(dict[str, Any], flask.sessions.SessionMixin):
    """A server-side session as Flask-Session's."""

    sid = "s3cret session id"


class SidInterface(flask.sessions.SessionInterface):
    def open_session(self, *_arguments: object) -> SidSession:
        return SidSession(user_id=5)

    def save_session(self, app: flask.Flask, session: Mapping[str, Any], response: flask.Response) -> None:
        pass


def test_a_server_side_session_has_its_digest_in_the_record(audit: Audit, app: flask.Flask) -> None:
    app.session_interface = SidInterface()
    app.add_url_rule("/patients", view_func=lambda: "none")
    app.test_client().get("/patients")
    record = audit.record()
    assert record.attributes["session.id"] == session_digest(SidSession())
    assert record.attributes["audit.actor.id"] == "5"


@pytest.fixture
def resolvers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    module = ModuleType("made_up_resolvers")
    monkeypatch.setitem(__import__("sys").modules, "made_up_resolvers", module)
    return module.__dict__


def test_the_configured_resolver_sees_the_request(
    audit: Audit, app: flask.Flask, resolvers: dict[str, Any]
) -> None:
    resolvers["who"] = lambda: {"id": flask.request.headers["X-User"], "role": "r"}
    audit.set(SPANSEAL_ACTOR_RESOLVER="made_up_resolvers:who")

    @app.get("/patients")
    def patients() -> str:
        if flask.request.headers["X-User"] == "two":
            spanseal.set_actor("three")
        return "none"

    client = app.test_client()
    for name in ("one", "two"):
        client.get("/patients", headers={"X-User": name, "Authorization": "Bearer s3cret"})
    assert [record.attributes["audit.actor.id"] for record in audit.records()] == ["one", "three"]


class BrokenSession(dict[str, Any], flask.sessions.SessionMixin):
    """Of a session interface that fails when it is asked anything."""

    @property
    def sid(self) -> str:
        raise RuntimeError("the session store is away")

    def __len__(self) -> int:
        raise RuntimeError("the session store is away")


class BrokenInterface(SidInterface):
    def open_session(self, *_arguments: object) -> BrokenSession:  # type: ignore[override]
        return BrokenSession()


def test_a_session_that_cannot_be_read_is_nobodys(audit: Audit, app: flask.Flask) -> None:
    audit.set(SPANSEAL_ON_ERROR="closed")
    app.session_interface = BrokenInterface()
    app.add_url_rule("/patients", view_func=lambda: "none")
    assert app.test_client().get("/patients").text == "none"
    assert audit.record().attributes["audit.actor.type"] == "anonymous"
