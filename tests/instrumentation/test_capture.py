"""One request, one record, whatever becomes of the request."""

from __future__ import annotations

from typing import Any

import flask
import pytest

from tests.instrumentation.calling import BoomError
from tests.instrumentation.conftest import Audit


def patient(pid: int) -> str:
    return f"patient {pid}"


@pytest.mark.parametrize(
    ("method", "path", "action", "outcome", "reason", "route", "identifier"),
    [
        ("GET", "/patients/17?name=x", "patient.viewed", "success", None, "/patients/<int:pid>", "17"),
        ("HEAD", "/patients/17", "patient.viewed", "success", None, "/patients/<int:pid>", "17"),
        ("PUT", "/patients/17", "patient.updated", "success", None, "/patients/<int:pid>", "17"),
        ("OPTIONS", "/patients/17", "patient.inspected", "success", None, "/patients/<int:pid>", "17"),
        ("DELETE", "/patients/17", "request.unmatched", "failure", "Method Not Allowed", None, None),
        ("GET", "/patients/x", "request.unmatched", "failure", "Not Found", None, None),
        ("GET", "/secret/path", "request.unmatched", "failure", "Not Found", None, None),
        ("GET", "/folder", "request.unmatched", "success", None, None, None),
        ("GET", "/forbidden", "forbidden.viewed", "failure", "Forbidden", "/forbidden", None),
        ("POST", "/forbidden", "forbidden.submitted", "failure", "Forbidden", "/forbidden", None),
        ("GET", "/before", "before.viewed", "failure", "Unauthorized", "/before", None),
        ("GET", "/preprocessed", "preprocessed.viewed", "failure", "Gone", "/preprocessed", None),
        ("GET", "/teapot", "teapot.viewed", "failure", "I'm a Teapot", "/teapot", None),
        ("GET", "/odd", "odd.viewed", "failure", "HTTP 499", "/odd", None),
    ],
)
def test_every_request_has_its_record(
    audit: Audit,
    app: flask.Flask,
    method: str,
    path: str,
    action: str,
    outcome: str,
    reason: str | None,
    route: str | None,
    identifier: str | None,
) -> None:
    @app.before_request
    def before() -> None:
        if flask.request.path == "/before":
            flask.abort(401)

    @app.url_value_preprocessor
    def preprocess(_endpoint: str | None, _values: dict[str, Any] | None) -> None:
        if flask.request.path == "/preprocessed":
            flask.abort(410)

    app.add_url_rule("/patients/<int:pid>", view_func=patient, methods=["GET", "PUT"])
    app.add_url_rule("/folder/", view_func=lambda: "", endpoint="folder")
    for name in ("before", "preprocessed"):
        app.add_url_rule(f"/{name}", view_func=lambda: "", endpoint=name)
    app.add_url_rule("/teapot", view_func=lambda: ("", 418), endpoint="teapot")
    app.add_url_rule("/odd", view_func=lambda: ("", 499), endpoint="odd")

    @app.route("/forbidden", methods=["GET", "POST"])
    def forbidden() -> str:
        flask.abort(403)

    answer = app.test_client().open(path, method=method)
    record = audit.record()
    found = record.attributes
    assert record.action == action
    assert found["audit.outcome"] == outcome
    assert found.get("audit.failure.reason") == reason
    assert found.get("http.route") == route
    assert found.get("audit.target.id") == identifier
    assert found["http.request.method"] == method
    assert found["http.response.status_code"] == answer.status_code
    assert found["audit.request.id"] == answer.headers["X-Request-Id"]
    assert found["audit.actor.type"] == "anonymous"
    assert found["audit.capture"] == "wsgi"
    assert "spanseal.response.incomplete" not in found


def test_a_method_that_nobody_knows(audit: Audit, app: flask.Flask) -> None:
    app.add_url_rule("/files/<name>", view_func=lambda name: name, methods=["PROPFIND"])
    app.test_client().open("/files/a", method="propfind")
    app.test_client().open("/files/a", method="X" * 5000)
    known, long = audit.records()
    assert known.action == "file.requested"
    assert known.attributes["http.request.method"] == "_OTHER"
    assert known.attributes["http.request.method_original"] == "PROPFIND"
    assert long.action == "request.unmatched"
    assert long.attributes["http.request.method_original"] == "X" * 64


def test_an_unhandled_exception_is_named_by_its_type_and_never_by_its_message(
    audit: Audit, app: flask.Flask
) -> None:
    @app.post("/invoices")
    def invoices() -> str:
        raise BoomError("s3cret message")

    client = app.test_client()
    assert client.post("/invoices").status_code == 500
    app.testing = True
    with pytest.raises(BoomError):
        client.post("/invoices")
    answered, propagated = audit.records()
    for record in (answered, propagated):
        assert record.action == "invoice.created"
        assert record.attributes["audit.outcome"] == "failure"
        assert record.attributes["audit.failure.reason"] == f"{BoomError.__module__}.BoomError"
        assert record.attributes["exception.type"] == f"{BoomError.__module__}.BoomError"
    assert answered.attributes["http.response.status_code"] == 500
    assert "http.response.status_code" not in propagated.attributes
    assert b"s3cret" not in audit.bytes()


def test_an_exception_that_the_application_handles_is_what_it_answers(audit: Audit, app: flask.Flask) -> None:
    @app.errorhandler(BoomError)
    def handle(_error: BoomError) -> tuple[str, int]:
        return "conflict", 409

    @app.get("/invoices")
    def invoices() -> str:
        raise BoomError

    app.test_client().get("/invoices")
    found = audit.record().attributes
    assert (found["audit.failure.reason"], found["http.response.status_code"]) == ("Conflict", 409)


def test_an_error_in_teardown_is_the_servers_to_answer_and_on_record(audit: Audit, app: flask.Flask) -> None:
    app.add_url_rule("/patients", view_func=lambda: "none")

    @app.teardown_request
    def teardown(_error: BaseException | None) -> None:
        raise BoomError

    with pytest.raises(BoomError):
        app.test_client().get("/patients")
    assert audit.record().attributes["audit.failure.reason"].endswith("BoomError")


def test_a_session_that_cannot_be_opened(audit: Audit, app: flask.Flask) -> None:
    class Broken(flask.sessions.SecureCookieSessionInterface):
        def open_session(self, *_arguments: object) -> None:
            raise BoomError

    app.session_interface = Broken()
    app.add_url_rule("/patients", view_func=lambda: "none", methods=["POST"])
    assert app.test_client().post("/patients").status_code == 500
    found = audit.record().attributes
    assert found["http.response.status_code"] == 500
    assert found["audit.failure.reason"].endswith("BoomError")
