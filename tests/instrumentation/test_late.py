"""Requests that are answered after the process has begun to end: their records wait for the next one."""

from __future__ import annotations

import threading

import flask
import pytest

import spanseal
from tests.instrumentation.conftest import Audit, Row


def die(audit: Audit) -> None:
    """Let the process's file go, as its death would; begin as a new process."""
    spool = audit.runtime.keeper.spool
    if spool is not None and not spool.gone:
        spool.file.close()
        spool.lock.release()
    audit.restart()


def later(audit: Audit) -> list[Row]:
    return [row for row in audit.own_rows() if row.number is None]


@pytest.fixture
def shop(app: flask.Flask) -> flask.Flask:
    @app.route("/orders/<oid>", methods=["GET", "POST"])
    def order(oid: str) -> str:
        spanseal.record("order.looked_at", resource_id=oid)
        return oid

    return app


def test_what_comes_after_the_end_is_sent_by_the_next_process(audit: Audit, shop: flask.Flask) -> None:
    client = shop.test_client()
    client.post("/orders/1")
    audit.runtime.stop()
    said = [client.post("/orders/2"), client.get("/orders/3")]
    assert [answer.status_code for answer in said] == [200, 200]
    assert len(later(audit)) == 4
    audit.runtime.stop()  # once more, as by a second handler
    die(audit)
    client.get("/orders/4")
    audit.receiver.wait_for("order.viewed", 2)
    records = audit.records()
    assert sorted(
        (r.action, r.attributes["audit.target.id"], r.attributes["audit.outcome"]) for r in records
    ) == [
        ("order.looked_at", "1", "success"),
        ("order.looked_at", "2", "success"),
        ("order.looked_at", "3", "success"),
        ("order.looked_at", "4", "success"),
        ("order.updated", "1", "success"),
        ("order.updated", "2", "success"),
        ("order.viewed", "3", "success"),
        ("order.viewed", "4", "success"),
    ]
    assert len({record.id for record in records}) == len(records)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_runs_while_the_process_ends(audit: Audit, app: flask.Flask, method: str) -> None:
    inside, ended = threading.Event(), threading.Event()

    @app.route("/slow/<sid>", methods=["GET", "POST"])
    def slow(sid: str) -> str:
        inside.set()
        assert ended.wait(20)
        return sid

    app.test_client().get("/nothing")
    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(app.test_client().open("/slow/5", method=method).status_code)
    )
    thread.start()
    assert inside.wait(20)
    audit.runtime.stop()
    ended.set()
    thread.join(20)
    assert answers == [200]
    (row,) = later(audit)
    assert (row.state, row.attributes["audit.outcome"]) == ("answered", "success")
    assert row.attributes["http.response.status_code"] == 200
    die(audit)
    app.test_client().get("/nothing")
    audit.receiver.wait_for(row.action)
    (record,) = [record for record in audit.records() if record.action == row.action]
    assert record.attributes["audit.outcome"] == "success"


def test_an_end_that_comes_late_is_written_into_the_row(audit: Audit, app: flask.Flask) -> None:
    ended = threading.Event()

    @app.get("/stream")
    def stream() -> flask.Response:
        def parts() -> object:
            yield "a"
            audit.runtime.stop()
            ended.set()
            raise RuntimeError

        return flask.Response(parts())  # type: ignore[arg-type]

    app.testing = False
    with pytest.raises(RuntimeError):
        app.test_client().get("/stream")
    assert ended.is_set()
    (row,) = later(audit)
    assert (row.attributes["audit.outcome"], row.attributes["exception.type"]) == ("failure", "RuntimeError")


def test_threads_answer_while_the_process_ends_and_nothing_is_lost(audit: Audit, shop: flask.Flask) -> None:
    begun = threading.Barrier(5)
    stopped = threading.Event()
    ids: list[str] = []

    def visit() -> None:
        client = shop.test_client()
        begun.wait(20)
        rest = 30
        while rest:
            rest -= stopped.is_set()
            ids.append(client.post("/orders/9").headers["X-Request-Id"])

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(20)
    audit.runtime.stop()
    stopped.set()
    for thread in threads:
        thread.join()
    stored = [row.attributes for row in audit.own_rows()]
    sent = [record.attributes for record in audit.receiver.taken if not record.action.startswith("producer.")]
    found = [item["audit.request.id"] for item in (*stored, *sent) if item.get("audit.capture") == "wsgi"]
    assert sorted(found) == sorted(ids)
