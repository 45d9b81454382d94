"""The examples of docs/actors.md, run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import flask
import jwt
import pytest
from flask.testing import FlaskClient

import spanseal
from spanseal.actors.sources import DEFAULT, sources
from tests.instrumentation.conftest import Audit, Client

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "actors.md").read_text("utf-8")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def blocks(heading: str) -> list[str]:
    """The Python code below a heading."""
    _, _, after = TEXT.partition(f"# {heading}\n")
    return BLOCK.findall(re.split(r"^#", after, maxsplit=1, flags=re.MULTILINE)[0])


def sign_in(client: FlaskClient) -> dict[str, str]:
    assert client.post("/login").status_code == 302
    return {}


def token(client: FlaskClient) -> dict[str, str]:
    return {"Authorization": f"Bearer {client.post('/token').text}"}


def signed(_client: FlaskClient) -> dict[str, str]:
    key = "a made-up key of 32 bytes or more"
    return {"Authorization": f"Bearer {jwt.encode({'sub': 'u-7', 'role': 'doctor'}, key, 'HS256')}"}


@pytest.mark.parametrize(
    ("heading", "headers", "names"),
    [
        ("Flask-Login", sign_in, ""),
        ("Flask-JWT-Extended", token, ""),
        ("Authlib", lambda _: {"Authorization": "Bearer opaque"}, ""),
        ("Flask-HTTPAuth", lambda _: {"Authorization": "Basic dW1hOnJpZ2h0"}, ""),
        ("Claims that the application verifies", signed, "g.claims"),
        ("The application's own", lambda _: {}, ""),
    ],
)
def test_an_application_of_the_document(
    audit: Audit, heading: str, headers: Callable[[FlaskClient], dict[str, str]], names: str
) -> None:
    audit.set(SPANSEAL_ACTOR_SOURCES=names)
    made: dict[str, Any] = {}
    exec(blocks(heading)[0], made)  # noqa: S102 - the document's
    app: flask.Flask = made["app"]
    app.test_client_class = Client
    spanseal.instrument_app(app)
    client = app.test_client()
    given = headers(client)
    assert client.get("/patients", headers=given).text == "none"
    last = audit.records()[-1]
    assert (last.attributes["audit.actor.id"], last.attributes["audit.actor.role"]) == ("u-7", "doctor")


@pytest.mark.parametrize(
    ("heading", "actor"),
    [
        ("The application's own", ("u-7", "doctor", None)),
        ("On behalf of another", ("s-3", "support", "u-7")),
    ],
)
def test_a_resolver_of_the_document(
    audit: Audit,
    app: flask.Flask,
    monkeypatch: pytest.MonkeyPatch,
    heading: str,
    actor: tuple[str | None, ...],
) -> None:
    module = ModuleType("clinic_audit")
    exec(blocks(heading)[-1], module.__dict__)  # noqa: S102 - the document's
    monkeypatch.setitem(__import__("sys").modules, "clinic_audit", module)
    audit.set(SPANSEAL_ACTOR_RESOLVER="clinic_audit:who")

    @app.before_request
    def load() -> None:
        flask.g.account = {"number": 7, "role": "doctor"}

    app.add_url_rule("/patients", view_func=lambda: "none")
    client = app.test_client()
    with client.session_transaction() as session:
        session.update(user_id="u-7", impersonator_id="s-3")
    client.get("/patients")
    attributes = audit.record().attributes
    keys = ("audit.actor.id", "audit.actor.role", "audit.on_behalf_of")
    assert tuple(attributes.get(key) for key in keys) == actor


def test_the_table_names_every_source() -> None:
    _, _, after = TEXT.partition("| source | what is read |\n")
    rows = after.partition("\n\n")[0].splitlines()[1:]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert named == [source.name for source in sources(DEFAULT)]
