"""Nobody can hide an action by crashing the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flask
import pytest

from tests.instrumentation.calling import BoomError, call, environ
from tests.instrumentation.conftest import Audit


def test_a_change_is_on_disk_before_it_happens_and_every_answer_before_it_is_given(
    audit: Audit, app: flask.Flask
) -> None:
    seen: dict[str, Any] = {}

    @app.route("/patients/<pid>", methods=["GET", "POST"])
    def patients(pid: str) -> flask.Response:
        assert pid == "5"
        seen["view"] = audit.own_rows()

        def body() -> Iterator[str]:
            seen["body"] = audit.own_rows()
            yield "x"

        return flask.Response(body(), 201)

    for method in ("POST", "GET"):

        def start_response(*_arguments: Any) -> Any:
            seen["started"] = audit.own_rows()

        body: Any = app(environ(app, "/patients/5", method=method), start_response)
        list(body)
        if method == "POST":
            (row,) = seen["view"]
            assert (row.state, row.number, row.action) == ("open", None, "patient.updated")
            assert row.attributes["audit.outcome"] == "unknown"
            assert "http.response.status_code" not in row.attributes
        else:
            assert seen["view"][1:] == []
        row = seen["started"][-1]
        assert (row.state, row.number) == ("answered", None)
        assert row.attributes["audit.outcome"] == "success"
        assert row.attributes["http.response.status_code"] == 201
        assert seen["body"][-1] == row
        body.close()
    first, second = audit.records()
    assert (first.id, first.attributes["audit.outcome"]) == (row_id(seen, 0), "success")
    assert second.id == row_id(seen, 1)


def row_id(seen: dict[str, Any], position: int) -> str:
    return str(seen["started"][position].attributes["audit.record.id"])


def test_a_propagated_exception_is_on_disk_before_the_server_can_answer(
    audit: Audit, app: flask.Flask
) -> None:
    app.testing = True

    @app.post("/patients")
    def patients() -> str:
        raise BoomError

    with pytest.raises(BoomError):
        call(app, environ(app, "/patients", method="POST"))
    (row,) = audit.own_rows()
    assert row.attributes["audit.outcome"] == "failure"
