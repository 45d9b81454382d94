"""What users test their own applications with."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from opentelemetry import propagate

import spanseal
from spanseal import Actor, flask_app, runtime
from spanseal.testing import Record, capture_audit
from tests.instrumentation.conftest import Audit

ROOT = Path(__file__).resolve().parents[2]


def application() -> flask.Flask:
    made = flask.Flask("plain")
    made.secret_key = "a made-up key"

    @made.post("/invoices/<iid>")
    def invoices(iid: str) -> str:
        flask.session["user_id"] = 5
        spanseal.record(
            "invoice.checked",
            resource_id=iid,
            actor=Actor("u", role="r", email="u@example.org", name="Uma", on_behalf_of="v"),
            attributes={"sum": 12, "list": [1, {"a": None}]},
        )
        return "ok"

    @made.get("/stream")
    def stream() -> flask.Response:
        def rows() -> Iterator[str]:
            yield "1"
            spanseal.annotate(attributes={"rows": 1})

        return flask.Response(rows())

    return made


def test_an_application_that_is_not_audited_otherwise(audit: Audit) -> None:
    audit.set(SPANSEAL_TENANT="ward-3")
    app = application()
    with capture_audit(app) as records:
        assert len(records) == 0
        assert repr(records) == "[]"
        answer = app.test_client().post("/invoices/8", headers={"User-Agent": "test"})
        checked, created = records
        assert records[-1] == created
        assert records[:1] == [checked]
        with capture_audit() as inner:
            spanseal.record("it.done")
        assert inner.actions == ["it.done"]
    assert records.actions == ["invoice.checked", created.action]
    assert checked == Record(
        action="invoice.checked",
        outcome="success",
        actor=Actor("u", role="r", email="u@example.org", name="Uma", on_behalf_of="v"),
        resource_type="invoice",
        resource_id="8",
        request_id=answer.headers["X-Request-Id"],
        record_id=checked.record_id,
        event_time=checked.event_time,
        tenant="ward-3",
        client_address="127.0.0.1",
        user_agent="test",
        attributes={
            "audit.capture": "api",
            "audit.on_behalf_of": "v",
            "sum": 12,
            "list": [1, {"a": None}],
        },
    )
    assert created.actor == Actor("5")
    assert created.attributes["http.response.status_code"] == 200
    shown = repr(records)
    assert shown.count("\n  Record(action='invoice.") == 2
    assert "failure_reason" not in shown
    assert not audit.directory.exists()
    app.test_client().post("/invoices/9")
    assert len(records) == 2
    assert [row.action for row in audit.own_rows()] == [
        "invoice.checked"
    ]  # the request itself is not audited now


def test_an_answer_is_there_when_it_begins_and_final_when_it_is_closed() -> None:
    app = application()
    with capture_audit(app) as records:
        answer = app.test_client().get("/stream")
        (begun,) = records
        assert begun.outcome == "success"
        assert answer.text == "1"
        answer.close()
        (ended,) = records
        assert ended.record_id == begun.record_id
        assert (begun.attributes.get("rows"), ended.attributes.get("rows")) == (None, 1)


def test_everything_is_as_it_was_afterwards(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANSEAL_BAGGAGE", "true")

    def seen() -> list[Any]:
        names = ("__call__", "wsgi_app", "dispatch_request", "preprocess_request")
        return [
            *(getattr(flask.Flask, name) for name in names),
            runtime.current(),
            propagate.get_global_textmap(),
            flask_app._patched,
            len(flask.request_started.receivers),
            len(flask.request_finished.receivers),
            len(flask.got_request_exception.receivers),
            dict(app.extensions),
        ]

    app = application()
    before = seen()
    with contextlib.suppress(RuntimeError), capture_audit(app):
        app.test_client().post("/invoices/8")
        assert not [here for here, there in zip(seen()[4:6], before[4:6], strict=True) if here is there]
        raise RuntimeError
    assert seen() == before
    spanseal.record("it.done")
    assert audit.record().action == "it.done"


def test_flask_itself_is_as_it_was_where_nothing_was_audited_before() -> None:
    program = (
        "import flask\n"
        "names = ('__call__', 'wsgi_app', 'dispatch_request', 'preprocess_request')\n"
        "before = [getattr(flask.Flask, name) for name in names]\n"
        "import spanseal\n"
        "from spanseal.testing import capture_audit\n"
        "app = flask.Flask('x')\n"
        "for _ in range(2):\n"
        "    with capture_audit(app) as records:\n"
        "        assert [getattr(flask.Flask, name) for name in names] != before\n"
        "        app.test_client().get('/')\n"
        "    assert records.actions == ['request.unmatched'], records\n"
        "    assert [getattr(flask.Flask, name) for name in names] == before\n"
        "    assert not flask.request_started.receivers\n"
        "    assert 'spanseal' not in app.extensions\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_what_refuses_requests_does_so_in_tests_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANSEAL_ON_ERROR", "closed")
    monkeypatch.setenv("SPANSEAL_DURABILITY", "full")
    app = application()
    with capture_audit(app) as records:
        assert app.test_client().post("/invoices/8").status_code == 503
    assert len(records) == 0


def test_a_call_that_is_running_is_not_there_yet() -> None:
    with capture_audit() as records:

        @spanseal.audited("it.done")
        def function() -> list[str]:
            return records.actions

        assert function() == []
        assert records.actions == ["it.done"]


def test_what_was_given_up_in_the_middle_is_there_at_once() -> None:
    @spanseal.audited("row.exported")
    def rows() -> Generator[int, None, None]:
        yield 1

    with capture_audit() as records:
        found = rows()
        next(found)
        found.close()
        assert [(one.action, one.outcome) for one in records] == [("row.exported", "unknown")]


PYTEST = """
import flask, pytest, spanseal

@pytest.fixture
def app():
    made = flask.Flask("x")
    made.add_url_rule("/invoices", view_func=lambda: spanseal.request_id(), methods=["POST"], endpoint="e")
    return made

def test_request(app, audit_records):
    answer = app.test_client().post("/invoices")
    assert [one.request_id for one in audit_records] == [answer.text]

def test_without_an_application(audit_records):
    spanseal.record("it.done")
    assert audit_records.actions == ["it.done"]
"""


def test_the_fixture_for_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(PYTEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "spanseal.pytest_plugin", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "SPANSEAL_SPOOL_DIR": str(tmp_path / "spool")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "spool").exists()
    # Whoever installs the package has it without the -p.
    entry = '[project.entry-points.pytest11]\n"spanseal.pytest_plugin" = "spanseal.pytest_plugin"\n'
    assert entry in (ROOT / "pyproject.toml").read_text("utf-8")
