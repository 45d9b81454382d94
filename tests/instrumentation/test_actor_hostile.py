"""Users and claims of every kind: the application's answer stays the same, and there is a record."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from werkzeug.local import LocalProxy

from spanseal.actors.actor import MAX_TEXT, Actor
from spanseal.actors.sources import DEFAULT, Evidence, resolve, sources
from spanseal.actors.users import from_value
from tests.instrumentation.conftest import Audit


class Answers:
    """Answers everything, as mocks do."""

    def __getattr__(self, name: str) -> Any:
        return Answers()

    def __call__(self, *_: object) -> Any:
        return Answers()


class Says:
    """Has the same text everywhere."""

    def __getattr__(self, name: str) -> Any:
        return "x" * (1 << 20)


class Raises:
    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


class Recurses:
    def __getattr__(self, name: str) -> Any:
        return getattr(self, name + "_")


class Lies:
    """Claims to be of another class."""

    __class__ = dict  # type: ignore[assignment]  # a lie


class Keys(Mapping[str, Any]):
    """A mapping without an end, whose values are itself."""

    def __getitem__(self, key: str) -> Any:
        return self

    def __iter__(self) -> Iterator[str]:
        while True:
            yield "https://example.org/"

    def __len__(self) -> int:
        return 1 << 62


class Endless(list[str]):
    def __iter__(self) -> Iterator[str]:
        while True:
            yield "role"


class Word(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise ZeroDivisionError

    def lower(self) -> str:
        raise ZeroDivisionError


class Number(int):
    def __str__(self) -> str:
        return "s3cret"


class Kind(enum.Enum):
    SERVICE = 1


class Stated:
    """Looks like an object of SQLAlchemy's, but its state is nothing."""

    def __init__(self) -> None:
        self._sa_instance_state = None
        self.id = 1


def lazily() -> Any:
    raise AssertionError("this was not to be touched")


HOLDS_ITSELF: dict[str, Any] = {}
HOLDS_ITSELF.update(
    userinfo=HOLDS_ITSELF, user=HOLDS_ITSELF, act=HOLDS_ITSELF, roles=[HOLDS_ITSELF], sub=HOLDS_ITSELF
)

HOSTILE: list[object] = [
    Answers(),
    Says(),
    Raises(),
    Recurses(),
    Lies(),
    Keys(),
    Stated(),
    HOLDS_ITSELF,
    LocalProxy(lazily),
    "\ud800\udfff",
    "x" * (1 << 20),
    "\0",
    1 << 100_000,
    float("nan"),
    b"bytes",
    object,
    len,
    lambda: "x",
    [],
    {"id": {"id": 1}},
    {"id": "u", "roles": Endless(), "email": "e" * (1 << 20), "name": "\ud800"},
    {"id": Word("u"), "role": Word("r"), "type": Word("service")},
    {"sub": "\ud800" * 5000, "realm_access": {"roles": "x"}, "act": "x"},
    {"sub": "u", "realm_access": [], "roles": {"admin": True}, 5: "x", ("https://x/", "/roles"): 1},
    {"sub": "u", "gty": [[]], "azp": {}, "act": {"sub": {}, "act": {}}},
    SimpleNamespace(id=1, role=LocalProxy(lazily), roles=[Raises(), Answers()]),
    SimpleNamespace(id=1, type=Kind.SERVICE, get_id=Raises()),
    SimpleNamespace(id=1, get_id=Raises),
    SimpleNamespace(id=1, provides={("role", Raises()), ("role", "admin"), 5}),
    {"loaded_user": Raises()},
]

PLACES = [
    "_login_user",
    "_jwt_extended_jwt",
    "_jwt_extended_jwt_user",
    "authlib_server_oauth2_token",
    "flask_httpauth_user",
    "user",
    "current_user",
]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_an_application_keeps_changes_its_answer(
    audit: Audit, app: flask.Flask, place: str
) -> None:
    audit.set(SPANSEAL_ON_ERROR="closed")

    @app.get("/patients/<int:number>")
    def patients(number: int) -> str:
        if place == "_jwt_extended_jwt_user":
            flask.g._jwt_extended_jwt = {"sub": "u"}
            setattr(flask.g, place, {"loaded_user": HOSTILE[number]})
        else:
            setattr(flask.g, place, HOSTILE[number])
        return str(number)

    client = app.test_client()
    for number in range(len(HOSTILE)):
        answer = client.get(f"/patients/{number}")
        assert (answer.status_code, answer.text) == (200, str(number))
    records = audit.records()
    assert len(records) == len(HOSTILE)
    for record in records:
        for key, value in record.attributes.items():
            assert not isinstance(value, str) or len(value) <= 6 * MAX_TEXT, key
    assert b"s3cret" not in audit.bytes()


@pytest.mark.parametrize("number", range(len(HOSTILE)))  # pytest itself asks values for their class
def test_everything_has_an_actor_or_none(number: int) -> None:
    value = HOSTILE[number]
    session = {"user_id": value, "user": value, "role": value}
    for evidence in (
        Evidence(g=SimpleNamespace(user=value), session=session),
        Evidence(g=value, session=value),
        Evidence(g=SimpleNamespace(), environ={"REMOTE_USER": value}, config={"JWT_IDENTITY_CLAIM": value}),
        Evidence(g=SimpleNamespace(_jwt_extended_jwt={"sub": "u"}), config={"JWT_IDENTITY_CLAIM": value}),
    ):
        found = resolve(lambda: value, sources(DEFAULT), evidence)
        assert found is None or len(found.actor.id) <= MAX_TEXT


def test_what_is_read_of_some_of_them() -> None:
    def actor(value: object) -> Actor:
        found = from_value(value)
        assert found is not None
        return found

    named = actor({"id": Word("u"), "role": Word("r"), "type": Word("service")})
    assert (type(named.id), named.id, named.role, named.type) == (str, "u", "r", "service")
    assert actor(Number(5)).id == "5"
    assert from_value(Answers()) is None
    assert actor("x" * MAX_TEXT).id == "x" * MAX_TEXT
    one, other = actor("x" * (1 << 20)), actor("x" * (1 << 20) + "y")
    assert one.id.startswith("sha256:")
    assert one != other
    assert (
        actor(SimpleNamespace(id=1, provides={("role", "b"), ("role", "a"), ("action", "c")})).role == "a,b"
    )


def test_what_is_configured_first_is_found_first() -> None:
    g = SimpleNamespace(user="of user", claims={"sub": "of claims"})
    for order, identifier in (
        (DEFAULT, "of user"),
        ("g.claims,g.user", "of claims"),
        ("session, g.claims", "of session"),
        ("remote_user", "of server"),
        ("http_auth", None),
    ):
        evidence = Evidence(g=g, session={"user_id": "of session"}, environ={"REMOTE_USER": "of server"})
        found = resolve(None, sources(order), evidence)
        assert (found.actor.id if found else None) == identifier
