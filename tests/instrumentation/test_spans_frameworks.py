"""Django and FastAPI, each in a process of its own under `opentelemetry-instrument`: every answer is on record once."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.instrumentation.conftest import until
from tests.instrumentation.fake_receiver import FakeReceiver, Received
from tests.instrumentation.frameworks.serving import (
    DJANGO_ASGI,
    DJANGO_RUNSERVER,
    DJANGO_WSGI,
    FASTAPI,
    Answer,
    Server,
    make_users,
    requests_of,
)

NOT_TRACED = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}
# A proxy of ours stands before the server, and somebody writes what they like before it does.
PROXIED = {"X-Forwarded-For": "203.0.113.9, 192.0.2.5", **NOT_TRACED}
ONE_PROXY = {"SPANSEAL_TRUSTED_PROXIES": "1"}
QUIET = {"OTEL_TRACES_SAMPLER": "always_off"}


def said(record: Received, *names: str) -> tuple[object, ...]:
    """Return an action with what else is asked for."""
    short = {"outcome": "audit.outcome", "reason": "audit.failure.reason", "id": "audit.target.id", "actor": "audit.actor.id",
             "status": "http.response.status_code", "incomplete": "spanseal.response.incomplete"}  # fmt: skip
    return (record.action, *(record.attributes.get(short.get(name, name)) for name in names))


def come(receiver: FakeReceiver, *answers: Answer) -> None:
    """Wait until all these requests are on record."""
    ids = {answer.request_id for answer in answers}
    assert len(ids) == len(answers)
    assert all(ids)
    receiver.wait(lambda seen: ids <= requests_of(seen.taken).keys())


def others(own: dict[str, Received], answers: dict[str, Answer]) -> set[object]:
    """Return the routes of the requests that these answers are not of."""
    asked = {answer.request_id for answer in answers.values()}
    return {record.attributes["http.route"] for identifier, record in own.items() if identifier not in asked}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    make_users(folder)
    return folder / "site.sqlite"


@pytest.mark.parametrize(
    ("command", "env", "headers"),
    [
        (DJANGO_WSGI, QUIET, {}),
        (DJANGO_ASGI, {"OTEL_SEMCONV_STABILITY_OPT_IN": "http", **ONE_PROXY}, PROXIED),
        (DJANGO_RUNSERVER, {"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"}, NOT_TRACED),
    ],
    ids=["gunicorn", "uvicorn", "runserver"],
)
def test_django(
    tmp_path: Path,
    receiver: FakeReceiver,
    database: Path,
    command: tuple[str, ...],
    env: dict[str, str],
    headers: dict[str, str],
) -> None:
    server = Server(tmp_path, command, receiver.url, {**env, "SITE_DATABASE": str(database)})
    with server.service:
        answers: dict[str, Answer] = {}
        for name, method, path, form in (
            ("anonymous", "GET", "/patients/3/", None),
            ("wrong", "POST", "/login/?next=s3cr3t", {"username": "ada", "password": "s3cr3t"}),
            ("login", "POST", "/login/?next=s3cr3t", {"username": "ada", "password": "pw"}),
            ("view", "GET", "/patients/3/?q=s3cr3t", None),
            ("change", "POST", "/patients/4/", {}),
            ("slow", "GET", "/patients/5/slow/", None),
            ("ward", "DELETE", "/clinic/wards/a-1/", None),
            ("widget", "GET", "/widgets/s3cr3t/", None),
            ("boom", "POST", "/boom/", {}),
            ("missing", "GET", "/missing/", None),
            ("nowhere", "GET", "/s3cr3t/", None),
            ("stream", "GET", "/stream/", None),
            ("own", "GET", "/own/", None),
            ("logout", "POST", "/logout/", {}),
            ("root", "POST", "/login/", {"username": "root", "password": "pw"}),
        ):
            if name == "root":
                server.cookies.clear()
            answers[name] = server.ask(method, path, form, headers)
        # Before it stops: uvicorn ends by the signal that it was sent, and what was not sent yet goes at the next start.
        come(receiver, *answers.values())
    own = requests_of(receiver.taken)
    assert others(own, answers) == {"/healthz"}  # asked for until it was there
    found = {name: own[answer.request_id] for name, answer in answers.items()}
    assert {
        name: said(record, "id", "status", "outcome", "reason", "actor") for name, record in found.items()
    } == {
        "anonymous": ("patient.viewed", "3", 302, "success", None, None),
        "wrong": ("user.signed_in", None, 401, "failure", "Unauthorized", None),
        "login": ("user.signed_in", "1", 200, "success", None, "1"),
        "view": ("patient.viewed", "3", 200, "success", None, "1"),
        "change": ("patient.updated", "4", 200, "success", None, "1"),
        "slow": ("slow.viewed", None, 200, "success", None, None),
        "ward": ("ward.deleted", "a-1", 200, "success", None, None),
        "widget": ("widget.viewed", None, 200, "success", None, None),
        "boom": ("boom.submitted", None, 500, "failure", "LookupError", None),
        "missing": ("missing.viewed", None, 404, "failure", "Not Found", None),
        "nowhere": ("request.unmatched", None, 404, "failure", "Not Found", None),
        "stream": ("stream.viewed", None, 200, "success", None, None),
        "own": ("own.viewed", None, 200, "success", None, None),
        "logout": ("user.signed_out", "1", 200, "success", None, "1"),
        "root": ("user.signed_in", "2", 200, "success", None, "2"),
    }
    assert answers["view"].text == answers["view"].request_id
    for name, record in found.items():
        assert record.attributes["audit.capture"] == "span"
        assert record.attributes["client.address"] == ("192.0.2.5" if headers is PROXIED else "127.0.0.1")
        assert len(record.attributes.get("session.id", "x" * 32)) == 32
        if headers:
            assert record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736", name
    ada, root = found["login"].attributes, found["root"].attributes
    assert (ada["user.email"], ada["audit.personal.user.name"], ada.get("audit.actor.role")) == (
        "ada@example.org",
        "ada",
        None,
    )
    assert root["audit.actor.role"] == "superuser"
    assert found["view"].attributes["session.id"] == found["change"].attributes["session.id"]
    assert found["own"].attributes["http.response.header.x-request-id"] == ["the application's"]
    # What the views record is theirs as well, with the user.
    (checked,) = receiver.wait_for("patient.checked")
    (waited,) = receiver.wait_for("patient.waited")
    assert said(checked, "actor", "audit.request.id") == (
        "patient.checked",
        "1",
        answers["change"].request_id,
    )
    assert waited.attributes["audit.request.id"] == answers["slow"].request_id == answers["slow"].text
    # The span has ended by then, and nothing of the request is left in the thread.
    (sent,) = receiver.wait_for("row.sent")
    assert said(sent, "actor", "audit.request.id") == ("row.sent", None, None)
    assert "s3cr3t" not in repr(receiver.taken)
    assert "Traceback" not in server.log().replace("Traceback", "", server.log().count("LookupError: s3cr3t"))


@pytest.mark.parametrize(
    ("env", "headers"),
    [
        (QUIET, {}),
        (
            {
                "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
                "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "x-forwarded-for",
                **ONE_PROXY,
            },
            PROXIED,
        ),
    ],
    ids=["always_off", "traceparent"],
)
def test_fastapi(
    tmp_path: Path, receiver: FakeReceiver, env: dict[str, str], headers: dict[str, str]
) -> None:
    server = Server(tmp_path, FASTAPI, receiver.url, env)
    with server.service:
        answers = {
            name: server.ask(method, path, None, headers)
            for name, method, path in (
                ("view", "GET", "/patients/3?q=s3cr3t"),
                ("change", "POST", "/patients/4"),
                ("threaded", "PUT", "/patients/5"),
                ("invalid", "GET", "/patients/s3cr3t"),
                ("widget", "GET", "/widgets/s3cr3t"),
                ("boom", "GET", "/boom"),
                ("forbidden", "GET", "/forbidden"),
                ("method", "DELETE", "/patients/6"),
                ("nowhere", "POST", "/s3cr3t"),
                ("stream", "GET", "/stream"),
                ("broken", "GET", "/broken-stream"),
                ("own", "GET", "/own"),
                ("flask", "GET", "/flask/invoices/7"),
                ("flask change", "POST", "/flask/invoices/8"),
            )
        }
        # Before it stops: uvicorn ends by the signal that it was sent, and what was not sent yet goes at the next start.
        come(receiver, *answers.values())
    own = requests_of(receiver.taken)
    assert len(own) > len(answers)
    assert others(own, answers) == {"/healthz"}  # asked for until it was there
    found = {name: own[answer.request_id] for name, answer in answers.items()}
    # What did not pass validation was in the path, and the path's variable is the patient's id.
    assert found["invalid"].attributes.pop("audit.target.id") == "s3cr3t"
    assert {
        name: said(record, "id", "status", "outcome", "reason", "actor", "audit.capture", "incomplete")
        for name, record in found.items()
    } == {
        "view": ("patient.viewed", "3", 200, "success", None, None, "span", None),
        "change": ("patient.updated", "4", 200, "success", None, "42", "span", None),
        "threaded": ("patient.updated", "5", 200, "success", None, "42", "span", None),
        "invalid": ("patient.viewed", None, 422, "failure", "Unprocessable Entity", None, "span", None),
        "widget": ("widget.viewed", None, 200, "success", None, None, "span", None),
        "boom": ("boom.viewed", None, 500, "failure", "LookupError", None, "span", None),
        "forbidden": ("forbidden.viewed", None, 403, "failure", "Forbidden", None, "span", None),
        "method": ("patient.deleted", "6", 405, "failure", "Method Not Allowed", None, "span", None),
        "nowhere": ("request.unmatched", None, 404, "failure", "Not Found", None, "span", None),
        "stream": ("stream.viewed", None, 200, "success", None, None, "span", None),
        "broken": ("broken_stream.viewed", None, 200, "failure", "LookupError", None, "span", True),
        "own": ("own.viewed", None, 200, "success", None, None, "span", None),
        "flask": ("invoice.viewed", "7", 200, "success", None, None, "wsgi", None),
        "flask change": ("invoice.updated", "8", 200, "success", None, None, "wsgi", None),
    }
    for record in found.values():
        assert record.attributes["client.address"] == ("192.0.2.5" if headers is PROXIED else "127.0.0.1")
    for name in ("view", "change", "threaded", "flask", "flask change"):
        assert answers[name].text.strip('"') == answers[name].request_id, name
    assert found["own"].attributes["http.response.header.x-request-id"] == ["the application's"]
    expected = {"change": ["patient.checked", "patient.noted", "patient.noted"], "threaded": ["mail.sent", "patient.checked"],
                "flask": ["invoice.looked_at"], "flask change": ["invoice.looked_at"]}  # fmt: skip
    told = [record for record in receiver.taken if record.attributes.get("audit.capture") == "api"]
    for name, actions in expected.items():
        mine = [
            record for record in told if record.attributes["audit.request.id"] == answers[name].request_id
        ]
        assert sorted(record.action for record in mine) == actions, name
        if name in ("change", "threaded"):
            assert {record.attributes.get("audit.actor.id") for record in mine} == {"42"}
    assert len(told) == sum(map(len, expected.values()))
    assert "s3cr3t" not in repr(receiver.taken)


@pytest.mark.parametrize(
    "command", [FASTAPI, DJANGO_WSGI, DJANGO_ASGI], ids=["fastapi", "gunicorn", "uvicorn"]
)
def test_what_a_killed_process_was_doing_is_on_record(
    tmp_path: Path, receiver: FakeReceiver, database: Path, command: tuple[str, ...]
) -> None:
    server = Server(tmp_path, command, receiver.url, {**QUIET, "SITE_DATABASE": str(database)})
    server.service.start()
    try:
        with server.connect("POST", "/hang/7/") as changing, server.connect("GET", "/begin/8/") as reading:
            # It has read the patient's file, and nobody has ended its request.
            received = b""
            while b"patient 8" not in received:
                received += reading.recv(1000)
            until(lambda: "hanging 7" in server.log())
            server.service.kill()
            assert changing.recv(1000) == b""
        # The next one takes over what the dead one left.
        server.service.start()
        receiver.wait(lambda seen: {"hang", "begin"} <= {r.action.partition(".")[0] for r in seen.taken})
    finally:
        server.service.kill()
    found = {str(r.attributes["http.route"]).split("/")[1]: r for r in requests_of(receiver.taken).values()}
    assert said(found["hang"], "id", "outcome", "status")[1:] == ("7", "unknown", None)
    assert said(found["begin"], "id", "outcome", "status")[1:] == ("8", "success", 200)


@pytest.mark.parametrize("command", [FASTAPI, DJANGO_WSGI], ids=["fastapi", "gunicorn"])
def test_every_answer_that_was_given_before_a_kill_is_on_record_once(
    tmp_path: Path, receiver: FakeReceiver, database: Path, command: tuple[str, ...]
) -> None:
    server = Server(tmp_path, command, receiver.url, {**QUIET, "SITE_DATABASE": str(database)})
    paths = (
        ("/healthz", "/stream", "/nothing") if command is FASTAPI else ("/healthz", "/stream/", "/nothing")
    )
    answered: list[Answer] = []

    def visit(method: str) -> None:
        with suppress(OSError, HTTPException):
            while True:
                for path in paths:
                    answered.append(server.ask(method, path))  # noqa: PERF401 - what came before the kill counts

    def enough(count: int) -> bool:
        return len(answered) > count

    server.service.start()
    try:
        for kill in (1, 2):
            visitors = [
                threading.Thread(target=visit, args=(method,)) for method in ("GET", "POST", "GET", "POST")
            ]
            for visitor in visitors:
                visitor.start()
            until(partial(enough, 100 * kill))
            server.service.kill()
            for visitor in visitors:
                visitor.join()
            server.service.start()
        come(receiver, *answered)
    finally:
        server.service.kill()
    assert {
        requests_of(receiver.taken)[answer.request_id].attributes["http.response.status_code"]
        for answer in answered
    } >= {200, 404}
