"""With OpenTelemetry's own Flask instrumentation: its spans give ids to records, and are not needed for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler

import spanseal
from tests.instrumentation.conftest import Audit, Client
from tests.instrumentation.fake_receiver import FakeReceiver

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def traced(sampler: Sampler, **options: Any) -> tuple[flask.Flask, InMemorySpanExporter]:
    """Make an application that is audited and traced."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = flask.Flask("traced")
    app.secret_key = "a made-up key"
    app.test_client_class = Client

    @app.post("/patients/<int:pid>")
    def patients(pid: int) -> str:
        with provider.get_tracer("application").start_as_current_span("inner"):
            spanseal.record("patient.checked", resource_id=pid)
        return "ok"

    @app.get("/stream")
    def stream() -> flask.Response:
        def rows() -> Iterator[str]:
            yield "1"
            raise RuntimeError

        return flask.Response(rows())

    @app.get("/error")
    def error() -> str:
        raise RuntimeError

    FlaskInstrumentor.instrument_app(app, tracer_provider=provider, **options)  # type: ignore[no-untyped-call]
    spanseal.instrument_app(app)
    return app, exporter


def test_records_bear_the_ids_of_the_requests_span(audit: Audit) -> None:
    app, exporter = traced(ALWAYS_ON)
    app.test_client().post("/patients/5")
    _inner, span = exporter.get_finished_spans()
    assert span.context is not None
    checked, updated = audit.records()
    assert (checked.action, updated.action) == ("patient.checked", "patient.updated")
    for record in (checked, updated):
        assert record.trace_id == f"{span.context.trace_id:032x}"
        assert record.span_id == f"{span.context.span_id:016x}"


def test_an_exception_that_goes_on_has_its_span_too(audit: Audit) -> None:
    app, exporter = traced(ALWAYS_ON)
    app.testing = True
    with pytest.raises(RuntimeError):
        app.test_client().get("/error")
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert audit.record().span_id == f"{span.context.span_id:016x}"


@pytest.mark.parametrize(
    ("sampler", "options", "trace_known"),
    [
        (ALWAYS_OFF, {}, True),
        (ParentBased(ALWAYS_ON), {}, True),
        (ALWAYS_ON, {"excluded_urls": "patients"}, False),
    ],
)
def test_no_way_to_lose_a_span_loses_a_record(
    audit: Audit, sampler: Sampler, options: dict[str, str], *, trace_known: bool
) -> None:
    app, exporter = traced(sampler, **options)
    # The client asks for no trace of this.
    app.test_client().post("/patients/5", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert "POST /patients/<int:pid>" not in {span.name for span in exporter.get_finished_spans()}
    checked, updated = audit.records()
    assert checked.attributes["audit.request.id"] == updated.attributes["audit.request.id"]
    assert updated.attributes["http.route"] == "/patients/<int:pid>"
    for record in (checked, updated):
        assert (record.trace_id == TRACE) is trace_known
        assert record.span_id != PARENT


def test_a_stream_that_fails_in_the_middle_with_spans(audit: Audit) -> None:
    app, _exporter = traced(ALWAYS_ON)
    with pytest.raises(RuntimeError):
        app.test_client().get("/stream")
    found = audit.record().attributes
    assert (found["audit.outcome"], found["audit.failure.reason"]) == ("failure", "RuntimeError")


# --- without a line of code, in processes of their own ----------------------------------------------------------

PROGRAM = """
import json, sys
import flask
import requests
from opentelemetry import trace

app = flask.Flask("plain")
app.secret_key = "a made-up key"

@app.route("/patients/<int:pid>", methods=["GET", "POST"])
def patients(pid):
    return "ok"

client = app.test_client()
answers = []
for method, path, headers in json.loads(sys.argv[1]):
    answer = client.open(path, method=method, headers=headers, buffered=True)
    answers.append([answer.status_code, answer.headers.get("X-Request-Id"), answer.text])
print(json.dumps(answers))
"""


def instrumented(
    audit: Audit, tmp_path: Path, requests: list[tuple[str, str, dict[str, str]]], **variables: str
) -> tuple[list[Any], str]:
    """Run a plain application under `opentelemetry-instrument`; return its answers, and what was logged."""
    program = tmp_path / "plain.py"
    program.write_text(PROGRAM)
    audit.set(
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        **variables,
    )
    done = subprocess.run(
        [
            Path(sys.executable).parent / "opentelemetry-instrument",
            sys.executable,
            program,
            json.dumps(requests),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout), done.stderr


POST = ("POST", "/patients/5", {"traceparent": f"00-{TRACE}-{PARENT}-00"})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_PYTHON_FLASK_EXCLUDED_URLS": ".*"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"},
        {"OTEL_SDK_DISABLED": "true"},
    ],
    ids=["plain", "sampler", "excluded", "disabled", "all disabled", "no SDK"],
)
def test_nothing_but_variables(
    audit: Audit, receiver: FakeReceiver, tmp_path: Path, variables: dict[str, str]
) -> None:
    answers, logged = instrumented(
        audit, tmp_path, [POST, ("GET", "/patients/6", {}), ("GET", "/no", {})], **variables
    )
    assert [status for status, _, _ in answers] == [200, 200, 404]
    records = [record for record in receiver.taken if not record.action.startswith("producer.")]
    assert [record.attributes["audit.request.id"] for record in records] == [given for _, given, _ in answers]
    assert [record.action for record in records] == ["patient.updated", "patient.viewed", "request.unmatched"]
    assert {record.resource["service.name"] for record in records} == {"clinic"}
    assert [record.action for record in receiver.taken][::4] == ["producer.started", "producer.stopped"]
    if not variables:
        assert records[0].trace_id == TRACE
        assert records[1].trace_id
    assert "Traceback" not in logged


def test_only_its_own_name_switches_it_off(audit: Audit, receiver: FakeReceiver, tmp_path: Path) -> None:
    names = "flask, spanseal"
    answers, logged = instrumented(audit, tmp_path, [POST], OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=names)
    assert answers == [[200, None, "ok"]]
    assert "auditing is switched off by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS" in logged
    assert receiver.taken == []


def test_a_hook_that_fails_leaves_the_application_alone_and_says_so(
    audit: Audit, receiver: FakeReceiver, tmp_path: Path
) -> None:
    answers, logged = instrumented(audit, tmp_path, [POST], SPANSEAL_DURABILITY="full")
    assert answers == [[200, None, "ok"]]
    assert "SPANSEAL_DURABILITY is 'full'" in logged
    assert "Traceback" not in logged
    assert receiver.taken == []


@pytest.mark.parametrize(
    "variables",
    [{"SPANSEAL_ON_ERROR": "closed", "SPANSEAL_DURABILITY": "full"}, {"SPANSEAL_ON_ERROR": "clsoed"}],
    ids=["closed", "misspelt"],
)
def test_a_hook_that_fails_closes_the_application_where_that_was_asked_for(
    audit: Audit, receiver: FakeReceiver, tmp_path: Path, variables: dict[str, str]
) -> None:
    requests = [POST, ("GET", "/patients/5", {}), ("HEAD", "/patients/5", {})]
    answers, logged = instrumented(audit, tmp_path, requests, **variables)
    assert [status for status, _, _ in answers] == [503, 503, 503]
    assert "could not be set up" in answers[0][2]
    assert answers[2][2] == ""
    assert "SPANSEAL_" in logged
    assert receiver.taken == []
