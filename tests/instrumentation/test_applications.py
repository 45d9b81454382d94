"""However applications are put together, each request has one record."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import flask
import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BaseConverter
from werkzeug.test import Client as PlainClient

import spanseal
from tests.instrumentation.calling import BoomError, call, environ, replace_wsgi_app
from tests.instrumentation.conftest import Audit


def nothing(**_values: object) -> str:
    return ""


def test_an_application_in_another_one_is_one_request(audit: Audit, app: flask.Flask) -> None:
    inner = flask.Flask("inner")
    spanseal.instrument_app(inner)
    inner.add_url_rule("/notes/<nid>", view_func=lambda nid: nid, methods=["POST"])
    replace_wsgi_app(app, DispatcherMiddleware(app.wsgi_app, {"/inner": inner}))
    app.test_client().post("/inner/notes/5")
    record = audit.record()
    assert (record.action, record.attributes["audit.target.id"]) == ("note.updated", "5")


def test_applications_beside_each_other_are_audited_each(audit: Audit, app: flask.Flask) -> None:
    other, foreign = flask.Flask("other"), flask.Flask("foreign")
    spanseal.instrument_app(other)
    for one, path in ((app, "/patients"), (other, "/notes"), (foreign, "/secrets")):
        one.add_url_rule(path, view_func=lambda: "none")
    both = DispatcherMiddleware(app, {"/other": other, "/foreign": foreign})
    client = PlainClient(both)
    for path in ("/patients", "/other/notes", "/foreign/secrets"):
        assert client.get(path, buffered=True).status_code == 200
    assert [record.action for record in audit.records()] == ["patient.listed", "note.listed"]


def test_a_request_of_a_view_to_its_own_application_is_a_request_of_its_own(
    audit: Audit, app: flask.Flask
) -> None:
    app.add_url_rule("/inner", view_func=spanseal.request_id)

    @app.get("/outer")
    def outer() -> dict[str, str]:
        return {"inner": app.test_client().get("/inner").text, "outer": spanseal.request_id()}

    ids: Any = app.test_client().get("/outer").json
    assert [record.attributes["audit.request.id"] for record in audit.records()] == [
        ids["inner"],
        ids["outer"],
    ]
    assert ids["inner"] != ids["outer"]


def test_what_calls_wsgi_app_directly_is_audited_too(audit: Audit, app: flask.Flask) -> None:
    app.add_url_rule("/patients", view_func=lambda: "none")
    PlainClient(app.wsgi_app).get("/patients", buffered=True)
    assert audit.record().action == "patient.listed"


@pytest.mark.parametrize("sent", ["POST", "GET", "OPTIONS"])
def test_what_is_served_as_another_method_is_recorded_as_that(
    audit: Audit, app: flask.Flask, tmp_path: Path, sent: str
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nrules: [{method: [HEAD, OPTIONS], skip: they show nothing}]\n")
    audit.set(SPANSEAL_RULES=str(rules))
    begun: list[str] = []

    @app.delete("/accounts/<aid>")
    def delete(aid: str) -> str:
        begun.extend(f"{row.state} {row.action}" for row in audit.own_rows())
        return aid

    inner = app.wsgi_app

    def overriding(environ: dict[str, Any], start_response: Any) -> Any:
        environ["REQUEST_METHOD"] = environ["HTTP_X_HTTP_METHOD_OVERRIDE"]
        return inner(environ, start_response)

    replace_wsgi_app(app, overriding)
    client = app.test_client()
    assert client.open("/accounts/5", method=sent, headers={"X-HTTP-Method-Override": "DELETE"}).text == "5"
    assert begun == ["open account.deleted"]
    attributes = audit.record().attributes
    assert audit.record().action == "account.deleted"
    assert attributes["http.request.method"] == "DELETE"
    assert attributes["http.request.method_original"] == sent


def test_what_is_begun_is_not_left_out_by_an_application_that_it_asks(
    audit: Audit, app: flask.Flask, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nrules: [{route: /health, skip: liveness}]\n")
    audit.set(SPANSEAL_RULES=str(rules))
    inner = flask.Flask("inner")
    inner.add_url_rule("/health", view_func=lambda: "well", methods=["POST"])

    @app.post("/orders")
    def order() -> Any:
        return flask.Response.from_app(inner, {**flask.request.environ, "PATH_INFO": "/health"})

    assert app.test_client().post("/orders").text == "well"
    assert len(audit.records()) == 1


def test_an_environ_can_be_used_again(audit: Audit, app: flask.Flask) -> None:
    app.add_url_rule("/patients", view_func=lambda: "none")
    request = environ(app, "/patients")
    for _ in range(2):
        body, _begun = call(app, request)
        list(body)
        body.close()
    assert len(audit.records()) == 2


def test_blueprints_have_their_whole_route(audit: Audit) -> None:
    wards = flask.Blueprint("wards", __name__, url_prefix="/wards/<int:wid>")
    beds = flask.Blueprint("beds", __name__, url_prefix="/beds")
    wards.register_blueprint(beds)
    beds.add_url_rule("/<int:bid>", view_func=nothing, methods=["DELETE"])
    fresh = flask.Flask("fresh")
    spanseal.instrument_app(fresh)
    fresh.register_blueprint(wards)
    fresh.test_client().delete("/wards/3/beds/4", buffered=True)
    record = audit.record()
    assert (record.action, record.attributes["audit.target.id"]) == ("bed.deleted", "4")
    assert record.attributes["audit.subject.type"] == "ward"
    assert record.attributes["audit.subject.id"] == "3"
    assert record.attributes["http.route"] == "/wards/<int:wid>/beds/<int:bid>"


def test_an_async_view(audit: Audit, app: flask.Flask) -> None:
    if importlib.util.find_spec("asgiref") is None:
        # The way that Flask gives for running them by other means.
        app.async_to_sync = lambda view: lambda **values: asyncio.run(view(**values))  # type: ignore[method-assign,assignment]

    @app.get("/patients")
    async def patients() -> str:
        return spanseal.request_id()

    answer = app.test_client().get("/patients")
    assert audit.record().attributes["audit.request.id"] == answer.text


class UserConverter(BaseConverter):
    """As of an application that loads what the path names."""

    def to_python(self, value: str) -> Any:
        return {"id": value, "secret": "s3cret"}

    def to_url(self, value: Any) -> str:
        return super().to_url(value["id"])


class OneWayConverter(BaseConverter):
    """Makes something that cannot even be shown."""

    def to_python(self, _value: str) -> Any:
        class Mute:
            def __str__(self) -> str:
                raise BoomError

            __repr__ = __str__

        return Mute()


def test_what_an_own_converter_makes_is_recorded_as_it_stood_in_the_path(
    audit: Audit, app: flask.Flask
) -> None:
    app.url_map.converters |= {"user": UserConverter, "mute": OneWayConverter}
    app.add_url_rule("/users/<user:who>", view_func=nothing, endpoint="users")
    app.add_url_rule("/things/<mute:which>", view_func=nothing, endpoint="things")
    app.add_url_rule("/ids/<uuid:which>/<float:number>", view_func=nothing, endpoint="ids")
    client = app.test_client()
    uuid = "01890000-0000-7000-8000-000000000000"
    for path in ("/users/uma%20b", "/things/5", f"/ids/{uuid}/1.5", "/users/" + "x" * 5000):
        assert client.get(path).status_code == 200
    users, things, ids, long = (record.attributes for record in audit.records())
    assert users["audit.target.id"] == "uma b"
    assert "audit.target.id" not in things
    assert ids["audit.target.id"] == uuid
    assert long["audit.target.id"] == "x" * 2048
    assert b"s3cret" not in audit.bytes()
