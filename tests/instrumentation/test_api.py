"""What an application may call."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import flask
import pytest

import spanseal
from spanseal import Actor, InvalidRecord, NotAudited
from tests.instrumentation.conftest import Audit


def test_records_of_a_request_share_what_is_known_of_it(audit: Audit, app: flask.Flask) -> None:
    @app.post("/invoices/<iid>/approve")
    def approve(iid: str) -> str:
        flask.session["user_id"] = 5
        spanseal.record(
            "invoice.checked", resource_id=iid, attributes={"sum": 12, "by": ["a", None, {"b": 0.5}]}
        )
        spanseal.record(
            "invoice.rejected", resource_id=7, outcome="failure", failure_reason="limit", actor="robot"
        )
        assert audit.own_rows()[-1].action == "invoice.rejected"  # durable when it returns
        return spanseal.request_id()

    answer = app.test_client().post("/invoices/8/approve", headers={"User-Agent": "test"})
    checked, rejected, request = audit.records()
    ids = {record.attributes["audit.request.id"] for record in (checked, rejected, request)}
    assert ids == {answer.text} == {answer.headers["X-Request-Id"]}
    assert (
        checked.attributes.items()
        >= {
            "audit.outcome": "success",
            "audit.actor.id": "5",
            "audit.target.type": "invoice",
            "audit.target.id": "8",
            "audit.capture": "api",
            "client.address": "127.0.0.1",
            "user_agent.original": "test",
            "sum": 12,
        }.items()
    )
    assert checked.attributes["by"] == ["a", None, {"b": 0.5}]
    assert rejected.attributes["audit.failure.reason"] == "limit"
    assert rejected.attributes["audit.actor.id"] == "robot"
    assert rejected.attributes["audit.target.id"] == "7"
    assert request.attributes["audit.capture"] == "wsgi"


def test_outside_of_requests_there_are_records_without_a_request(audit: Audit) -> None:
    audit.set(SPANSEAL_TENANT="ward-3")
    assert spanseal.request_id() == ""
    spanseal.record("report.printed", resource_type="paper", actor=Actor("cron", type="system"))
    with pytest.raises(InvalidRecord, match="outside of a request"):
        spanseal.set_actor("u")
    record = audit.record()
    assert record.attributes["audit.target.type"] == "paper"
    assert record.attributes["audit.actor.type"] == "system"
    assert record.attributes["audit.tenant"] == "ward-3"
    assert "audit.request.id" not in record.attributes


@pytest.mark.parametrize(
    "arguments",
    [
        {"action": "approve"},
        {"action": "Invoice.approved"},
        {"action": "invoice.approved\n"},
        {"action": "audit_log.stopped"},
        {"action": "producer.gap"},
        {"action": 5},
        {"outcome": "ok"},
        {"failure_reason": "why"},
        {"resource_id": 2**64},
        {"resource_id": object()},
        {"resource_type": "t" * 70_000},
        {"attributes": {1: "x"}},
        {"attributes": {"": "x"}},
        {"attributes": {"k": object()}},
        {"attributes": {"k": "v" * 70_000}},
        {"attributes": {"audit.record.id": "x"}},
        {"attributes": {"audit.capture": "wsgi"}},
        {"attributes": {"client.address": "::1"}},
        {"attributes": {"user.email": "a@example.org"}},
        {"attributes": {"audit.personal.name": 5}},
        {"actor": "a" * 5000},
    ],
)
def test_what_no_collector_would_admit_is_refused_at_once(audit: Audit, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord) as caught:
        spanseal.record(**{"action": "invoice.approved"} | arguments)
    assert len(str(caught.value)) < 300
    assert audit.records() == []


def test_what_the_published_list_allows_is_taken(audit: Audit) -> None:
    allowed = {
        "audit.severity": "high",
        "audit.data_classes": "health",
        "audit.subject.type": "patient",
        "audit.subject.id": "5",
        "audit.personal.name": "Uma",
    }
    spanseal.record("note.read", attributes=allowed)
    assert audit.record().attributes.items() >= allowed.items()


def test_a_thread_with_a_copied_context_belongs_to_the_request_and_another_does_not(
    audit: Audit, app: flask.Flask
) -> None:
    @app.get("/reports")
    def reports() -> str:
        flask.session["user_id"] = 5
        copied = contextvars.copy_context()
        for run in (
            lambda: copied.run(spanseal.record, "report.made"),
            lambda: spanseal.record("report.lost"),
        ):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        return "made"

    answer = app.test_client().get("/reports")
    made, lost, _ = audit.records()
    assert made.attributes["audit.request.id"] == answer.headers["X-Request-Id"]
    assert made.attributes["audit.actor.id"] == "5"
    assert "audit.request.id" not in lost.attributes


def test_a_thread_may_outlive_its_request(audit: Audit, app: flask.Flask) -> None:
    go = threading.Event()
    threads = []

    @app.get("/reports")
    def reports() -> str:
        copied = contextvars.copy_context()

        def work() -> None:
            go.wait(20)
            copied.run(spanseal.record, "report.made")

        threads.append(threading.Thread(target=work))
        threads[0].start()
        return "begun"

    answer = app.test_client().get("/reports")
    answer.close()
    go.set()
    threads[0].join()
    by_action = {record.action: record for record in audit.records()}
    assert by_action["report.made"].attributes["audit.request.id"] == answer.headers["X-Request-Id"]


def test_a_streaming_answer_belongs_to_its_request(audit: Audit, app: flask.Flask) -> None:
    @app.get("/stream")
    def stream() -> flask.Response:
        def chunks() -> Iterator[str]:
            spanseal.set_actor("u-5")
            yield spanseal.request_id()
            spanseal.record("chunk.sent")

        return flask.Response(chunks())

    answer = app.test_client().get("/stream")
    assert answer.text == answer.headers["X-Request-Id"]
    assert spanseal.request_id() == ""
    by_action = {record.action: record for record in audit.records()}
    assert by_action["chunk.sent"].attributes["audit.request.id"] == answer.text
    assert by_action["chunk.sent"].attributes["audit.actor.id"] == "u-5"
    # Said after the answer had begun: it is in the end's record all the same.
    assert by_action["stream.viewed"].attributes["audit.actor.id"] == "u-5"


def test_the_actor_of_a_request_is_checked_and_goes_before_all_others(audit: Audit, app: flask.Flask) -> None:
    @app.get("/patients")
    def patients() -> str:
        flask.session["user_id"] = 5
        spanseal.set_actor(Actor("batch", type="service", role="import"))
        for wrong in (5, None):
            with pytest.raises(InvalidRecord):
                spanseal.set_actor(wrong)  # type: ignore[arg-type]
        return "none"

    app.test_client().get("/patients")
    record = audit.record()
    assert record.attributes["audit.actor.id"] == "batch"
    assert record.attributes["audit.actor.type"] == "service"
    assert record.attributes["audit.actor.role"] == "import"


def test_a_record_that_cannot_be_stored(audit: Audit, log: pytest.LogCaptureFixture) -> None:
    audit.directory.parent.joinpath("spool").write_text("a file stands where the directory should be")
    spanseal.record("report.printed")
    assert "go on unaudited" in log.text
    audit.set(SPANSEAL_ON_ERROR="closed")
    audit.restart()
    with pytest.raises(NotAudited):
        spanseal.record("report.printed")


def test_a_wrong_setting_does_not_break_the_application(audit: Audit, log: pytest.LogCaptureFixture) -> None:
    audit.set(SPANSEAL_SPOOL_MAX_BYTES="many")
    spanseal.record("report.printed")
    assert "SPANSEAL_SPOOL_MAX_BYTES" in log.text


def test_names_are_there() -> None:
    for name in spanseal.__all__:
        assert getattr(spanseal, name) is not None
        assert name == "__version__" or callable(getattr(spanseal, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = spanseal.nothing


@pytest.mark.parametrize(
    "first", ["spanseal.actors.actor", "spanseal.api.work", "spanseal.testing", "spanseal"]
)
def test_names_load_what_they_need_and_no_module_takes_their_place(first: str) -> None:
    program = (
        f"import sys, importlib; importlib.import_module({first!r}); import spanseal\n"
        "heavy = {'flask', 'opentelemetry.sdk', 'requests', 'yaml'} & set(sys.modules)\n"
        f"assert {first!r} != 'spanseal' or not heavy, heavy\n"
        "with spanseal.actor('x') as who: assert who.id == 'x'\n"
        "from spanseal import actor, audited, changes, record\n"
        "assert all(map(callable, (actor, audited, changes, record)))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
