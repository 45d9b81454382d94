"""The role is the role at that moment, and it is read without asking a database."""

from __future__ import annotations

import enum
from types import ModuleType, SimpleNamespace
from typing import Any

import flask
import flask_login
import pytest

import spanseal
from spanseal.actors.users import from_value
from tests.instrumentation.conftest import Audit


def seen(audit: Audit) -> dict[str, list[tuple[str, str]]]:
    """Actor and role of every record, by action."""
    result: dict[str, list[tuple[str, str]]] = {}
    for record in audit.records():
        who = (record.attributes.get("audit.actor.id", ""), record.attributes.get("audit.actor.role", ""))
        result.setdefault(record.action, []).append(who)
    return result


@pytest.mark.parametrize("kept", ["g.user", "session", "resolver"])
def test_a_role_that_changes_within_a_request(
    audit: Audit, app: flask.Flask, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    user = SimpleNamespace(id=7, role="admin")
    module = ModuleType("made_up_resolvers")
    module.__dict__["who"] = lambda: flask.g.account
    monkeypatch.setitem(__import__("sys").modules, "made_up_resolvers", module)
    if kept == "resolver":
        audit.set(SPANSEAL_ACTOR_RESOLVER="made_up_resolvers:who")

    @app.before_request
    def load() -> None:
        flask.g.account = user
        if kept == "g.user":
            flask.g.user = user

    @app.put("/profiles/<int:uid>")
    def change(uid: int) -> str:
        spanseal.record("role.given_up", resource_id=uid)
        user.role = "nurse"
        if kept == "session":
            flask.session["role"] = "nurse"
        spanseal.record("shift.begun")
        return "changed"

    @app.delete("/profiles/<int:uid>")
    def take(uid: int) -> str:
        user.role = ""
        if kept == "session":
            del flask.session["role"]
        return f"{uid} has none"

    app.add_url_rule("/patients", view_func=lambda: "none")
    client = app.test_client()
    if kept == "session":
        with client.session_transaction() as session:
            session.update(user_id=7, role="admin")
    client.get("/patients")
    client.put("/profiles/7")
    client.get("/patients")
    client.delete("/profiles/7")
    assert seen(audit) == {
        "patient.listed": [("7", "admin"), ("7", "nurse")],
        "role.given_up": [("7", "admin")],
        "shift.begun": [("7", "nurse")],
        # It was an administrator who did it, and is none any more.
        "profile.updated": [("7", "admin")],
        "profile.deleted": [("7", "nurse")],
    }


def test_a_resolver_that_finds_nothing_before_the_application_has_begun_is_not_spoken_of(
    audit: Audit, app: flask.Flask, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spanseal.actors.sources._throttle._said", {})
    module = ModuleType("made_up_resolvers")
    module.__dict__["who"] = lambda: flask.g.account.id
    monkeypatch.setitem(__import__("sys").modules, "made_up_resolvers", module)
    audit.set(SPANSEAL_ACTOR_RESOLVER="made_up_resolvers:who")
    known = ["7"]

    @app.before_request
    def load() -> None:
        if known:
            flask.g.account = SimpleNamespace(id=known.pop())

    app.add_url_rule("/patients", view_func=lambda: "none")
    app.test_client().get("/patients")
    assert "failed" not in log.text
    app.test_client().get("/patients")
    assert log.text.count("the actor resolver failed") == 1
    assert seen(audit) == {"patient.listed": [("7", ""), ("", "")]}


def test_another_one_takes_over_within_a_request(audit: Audit, app: flask.Flask) -> None:
    @app.post("/switch")
    def switch() -> str:
        flask.session.update(user_id=8, role="nurse")
        return "switched"

    client = app.test_client()
    with client.session_transaction() as session:
        session.update(user_id=7, role="admin")
    client.post("/switch")
    (found,) = seen(audit).values()
    assert found == [("8", "nurse")]


@pytest.mark.parametrize("kept", ["session", "g.user"])
def test_who_impersonates_is_who_did_it(audit: Audit, app: flask.Flask, kept: str) -> None:
    if kept == "g.user":
        app.before_request(lambda: setattr(flask.g, "user", dict(flask.session)))

    @app.post("/users/<uid>/impersonate")
    def impersonate(uid: str) -> str:
        flask.session.update(user_id=uid, role="nurse")
        if kept == "g.user":
            flask.g.user = dict(flask.session)
        return "you are " + uid

    app.add_url_rule("/patients", view_func=lambda: "none")
    client = app.test_client()
    with client.session_transaction() as session:
        session.update(user_id="7", role="admin")
    client.post("/users/8/impersonate")
    client.get("/patients")
    assert seen(audit) == {"user.impersonated": [("7", "admin")], "patient.listed": [("8", "nurse")]}


# --- users that a database keeps ----------------------------------------------------------------------------


class Rank(enum.Enum):
    CHIEF = 1


class Database:
    """An application's database of users, in SQLAlchemy, and what it was asked."""

    def __init__(self) -> None:
        sql, orm = pytest.importorskip("sqlalchemy"), pytest.importorskip("sqlalchemy.orm")
        pool = pytest.importorskip("sqlalchemy.pool")
        self.engine = sql.create_engine("sqlite://", poolclass=pool.StaticPool)
        base = orm.declarative_base()

        class Role(base):  # type: ignore[misc, valid-type]  # made at run time
            __tablename__ = "role"
            id = sql.Column(sql.Integer, primary_key=True)
            name = sql.Column(sql.String)
            user_id = sql.Column(sql.ForeignKey("user.id"))

        class User(base, flask_login.UserMixin):  # type: ignore[misc, valid-type]  # as above
            __tablename__ = "user"
            id = sql.Column(sql.Integer, primary_key=True)
            key = sql.Column(sql.String)
            role = sql.Column(sql.String)
            email = sql.Column(sql.String)
            rank = sql.Column(sql.Enum(Rank))
            roles = orm.relationship(Role)

            def get_id(self) -> str:
                return str(self.key)

            @property
            def username(self) -> str:
                return str(self.roles)  # asks the database

        self.user, self.role = User, Role
        base.metadata.create_all(self.engine)
        self.session = orm.scoped_session(orm.sessionmaker(self.engine))
        self.session.add(
            User(id=7, key="k-7", role="admin", email="u@example.org", roles=[Role(name="chief")])
        )
        self.session.commit()
        self.session.remove()
        self.asked: list[str] = []
        sql.event.listen(self.engine, "before_cursor_execute", self._asked)

    def _asked(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.asked.append(statement.split(maxsplit=1)[0])


def test_users_of_sqlalchemy_are_read_without_asking_the_database(audit: Audit, app: flask.Flask) -> None:
    database = Database()
    manager = flask_login.LoginManager(app)
    app.teardown_appcontext(lambda _error: database.session.remove())
    at_end: list[int] = []

    @manager.user_loader  # type: ignore[untyped-decorator]
    def load(key: str) -> Any:
        return database.session.query(database.user).filter_by(key=key).one_or_none()

    @app.post("/login")
    def login() -> Any:
        user = load("k-7")
        user.email = "new@example.org"
        flask_login.login_user(user)
        database.session.commit()
        return counted(flask.redirect("/patients"))

    @app.get("/patients")
    @flask_login.login_required  # type: ignore[untyped-decorator]
    def patients() -> Any:
        return counted("none")

    @app.put("/profiles/<int:uid>")
    @flask_login.login_required  # type: ignore[untyped-decorator]
    def change(uid: int) -> Any:
        user = database.session.get(database.user, uid)
        user.role = "nurse"
        database.session.commit()
        return counted("changed")

    @app.post("/nothing")
    @flask_login.login_required  # type: ignore[untyped-decorator]
    def nothing() -> Any:
        flask_login.current_user.get_id()
        database.session.rollback()
        return counted("nothing")

    def counted(answer: Any) -> Any:
        at_end.append(len(database.asked))
        return answer

    client = app.test_client()
    for method, path in (
        ("POST", "/login"),
        ("GET", "/patients"),
        ("PUT", "/profiles/7"),
        ("POST", "/nothing"),
        ("GET", "/patients"),
    ):
        assert client.open(path, method=method).status_code in (200, 302)
        # Nothing was asked after the view.
        assert len(database.asked) == at_end[-1], path
    found = seen(audit)
    assert found["patient.listed"] == [("k-7", "admin"), ("k-7", "nurse")]
    assert found["user.signed_in"] == [("k-7", "admin")]
    assert found["profile.updated"] == [("k-7", "admin")]
    # Rolled back, its role is not known any more; who it is stands in the session.
    assert found["nothing.submitted"] == [("k-7", "")]


def test_what_an_object_of_sqlalchemy_holds() -> None:
    database = Database()
    user = database.session.get(database.user, 7)
    database.asked.clear()
    actor = from_value(user)
    assert (actor.id, actor.role, actor.email, actor.name) == ("k-7", "admin", "u@example.org", "")  # type: ignore[union-attr]
    user.role = "nurse"
    assert from_value(user) == actor  # not stored yet
    database.session.expire(user)
    assert from_value(user).id == "7"  # type: ignore[union-attr]
    role = database.session.query(database.role).one()
    database.asked.clear()
    assert from_value(role).id == "1"  # type: ignore[union-attr]
    assert database.asked == []
