"""Answers that go on after the application has returned."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import flask
import pytest

import spanseal
from tests.instrumentation.calling import BoomError, call, environ, replace_wsgi_app
from tests.instrumentation.conftest import Audit


def test_a_stream_that_fails_in_the_middle(audit: Audit, app: flask.Flask) -> None:
    @app.get("/export")
    def export() -> flask.Response:
        def rows() -> Iterator[str]:
            yield "1"
            raise BoomError

        return flask.Response(rows())

    body, begun = call(app, environ(app, "/export"))
    assert begun[0][0] == "200 OK"
    assert next(body) == b"1"
    with pytest.raises(BoomError):
        next(body)
    body.close()
    found = audit.record().attributes
    assert (found["audit.outcome"], found["http.response.status_code"]) == ("failure", 200)
    assert found["audit.failure.reason"].endswith("BoomError")
    assert found["spanseal.response.incomplete"] is True


def test_a_stream_that_the_client_leaves(audit: Audit, app: flask.Flask) -> None:
    closed = []

    @app.get("/export")
    def export() -> flask.Response:
        def rows() -> Iterator[str]:
            try:
                while True:
                    yield "row"
            finally:
                closed.append(spanseal.request_id())

        return flask.Response(rows())

    body, begun = call(app, environ(app, "/export"))
    assert next(body) == b"row"
    body.close()
    body.close()
    assert closed == [begun[0][1]["X-Request-Id"]]
    with pytest.raises(StopIteration):
        next(body)
    found = audit.record().attributes
    assert (found["audit.outcome"], found["spanseal.response.incomplete"]) == ("success", True)


def test_an_error_in_close_is_the_servers_and_on_record(audit: Audit, app: flask.Flask) -> None:
    @app.get("/patients")
    def patients() -> flask.Response:
        answer = flask.Response("none")

        @answer.call_on_close
        def fail() -> None:
            raise BoomError

        return answer

    body, _ = call(app, environ(app, "/patients"))
    assert list(body) == [b"none"]
    with pytest.raises(BoomError):
        body.close()
    assert audit.record().attributes["audit.failure.reason"].endswith("BoomError")


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_an_answer_that_is_never_closed_ends_when_it_is_gone(
    audit: Audit, app: flask.Flask, *, in_a_cycle: bool
) -> None:
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.05")
    app.add_url_rule("/patients", view_func=lambda: "none", methods=["POST"])
    body, _ = call(app, environ(app, "/patients", method="POST"))
    if in_a_cycle:
        ring: list[Any] = [body]
        ring.append(ring)
        del ring
    del body
    gc.collect()
    # Sent while the process goes on, not only at its end.
    audit.receiver.wait_for("patient.created")
    found = audit.record().attributes
    assert (found["audit.outcome"], found["spanseal.response.incomplete"]) == ("success", True)


@pytest.mark.timeout(30)
def test_a_finalizer_in_the_middle_of_the_spools_own_work_does_not_block(
    audit: Audit, app: flask.Flask
) -> None:
    def late(_environ: object, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""

    app.add_url_rule("/patients", view_func=lambda: "none")
    bodies = [call(app, environ(app, "/patients"))[0]]
    replace_wsgi_app(app, late)
    bodies.append(call(app, environ(app, "/patients"))[0])  # whose record is not stored yet
    spool = audit.runtime.keeper.spool
    assert spool is not None
    with spool.file.transaction():
        bodies.clear()
    assert {record.action for record in audit.records()} == {"patient.listed", "request.unmatched"}


def test_a_generator_application_begins_its_answer_late(audit: Audit, app: flask.Flask) -> None:
    app.add_url_rule("/patients", view_func=lambda: "none")
    inner = app.wsgi_app

    def late(request: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        yield from inner(request, start_response)

    replace_wsgi_app(app, late)
    body, begun = call(app, environ(app, "/patients"))
    assert begun == []
    assert list(body) == [b"none"]
    body.close()
    assert begun[0][1]["X-Request-Id"]
    assert audit.record().attributes["http.route"] == "/patients"


def test_a_middleware_that_answers_by_itself(audit: Audit, app: flask.Flask) -> None:
    def gate(_environ: object, start_response: Any) -> Iterable[bytes]:
        start_response("451 Unavailable For Legal Reasons", [("Content-Length", "0")], exc_info=None)
        return []

    replace_wsgi_app(app, gate)
    assert app.test_client().post("/patients").status_code == 451
    record = audit.record()
    assert record.action == "request.unmatched"
    assert record.attributes["audit.failure.reason"] == "Unavailable For Legal Reasons"


def test_an_answer_that_is_begun_again_is_the_second_one(audit: Audit, app: flask.Flask) -> None:
    def twice(_environ: object, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            raise BoomError
        except BoomError as error:
            write = start_response("500 Internal Server Error", [], (type(error), error, error.__traceback__))
        write(b"written")
        return [b"!"]

    replace_wsgi_app(app, twice)
    body, begun = call(app, environ(app))
    assert [list(body), begun[1][2] is not None, begun[2]] == [[b"!"], True, b"written"]
    body.close()
    assert audit.record().attributes["http.response.status_code"] == 500


def test_an_application_that_answers_nothing(audit: Audit, app: flask.Flask) -> None:
    replace_wsgi_app(app, lambda _environ, _start: [])
    body, begun = call(app, environ(app))
    assert (list(body), begun) == ([], [])
    body.close()
    assert audit.record().attributes["audit.outcome"] == "unknown"


class NativeWrapper(FileWrapper):
    """A server's own file wrapper."""


@pytest.mark.parametrize("close", [True, False])
def test_a_file_stays_in_the_servers_own_wrapper(audit: Audit, app: flask.Flask, *, close: bool) -> None:
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.05")
    app.add_url_rule("/file", view_func=lambda: flask.send_file(io.BytesIO(b"content"), "text/plain"))
    request = environ(app, "/file") | {"wsgi.file_wrapper": NativeWrapper}
    body, begun = call(app, request)
    assert type(body) is NativeWrapper
    assert begun[0][1]["X-Request-Id"]
    assert list(body) == [b"content"]
    file = body.filelike
    if close:
        body.close()
        assert file.closed
        assert audit.record().action == "file.viewed"
    else:
        del body, request
        gc.collect()
        audit.receiver.wait_for("file.viewed")
