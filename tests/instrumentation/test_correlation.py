"""One id in the application's log, on its spans, and from service to service."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import flask
import pytest
from opentelemetry import baggage, propagate
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import spanseal
from spanseal.parent import parent_of
from tests.instrumentation.calling import BoomError
from tests.instrumentation.conftest import Audit, Client
from tests.instrumentation.fake_receiver import FakeReceiver

# --- the application's log -----------------------------------------------------------------------------------------


def test_log_records_bear_the_requests_id(
    app: flask.Flask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "clinic.correlation"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": "spanseal.logging.RequestIdFilter"}},
            "formatters": {"plain": {"format": "%(request_id)s %(message)s"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": sys.stdout,
                    "formatter": "plain",
                    "filters": ["request_id"],
                }
            },
            "loggers": {name: {"handlers": ["out"], "level": "INFO", "propagate": False}},
        }
    )
    log = logging.getLogger(name)
    monkeypatch.setattr(log, "handlers", log.handlers)

    @app.get("/patients")
    def patients() -> flask.Response:
        log.info("view")
        logging.getLogger(f"{name}.child").info("child")
        log.info("own", extra={"request_id": "given"})

        def rows() -> Iterator[str]:
            log.info("stream")
            yield "x"

        return flask.Response(rows())

    answer = app.test_client().get("/patients")
    log.info("outside")
    with spanseal.actor("cron"):
        log.info("job")
        job = spanseal.request_id()
    identifier = answer.headers["X-Request-Id"]
    assert capsys.readouterr().out.splitlines() == [
        f"{identifier} view",
        f"{identifier} child",
        "given own",
        f"{identifier} stream",
        "- outside",
        f"{job} job",
    ]


# --- spans ---------------------------------------------------------------------------------------------------------


def traced(*, audited: bool) -> list[Any]:
    """Return the spans of some requests, without what is another one each time."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = flask.Flask("traced")
    app.test_client_class = Client

    @app.get("/patients/<int:pid>")
    def patients(pid: int) -> str:
        with provider.get_tracer("application").start_as_current_span("inner"):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            sent.append(headers.get("baggage"))
        if pid == 2:
            raise BoomError
        return "ok"

    sent: list[str | None] = []
    FlaskInstrumentor.instrument_app(app, tracer_provider=provider)  # type: ignore[no-untyped-call]
    if audited:
        spanseal.instrument_app(app)
    client = app.test_client()
    answers = [client.get(path) for path in ("/patients/1", "/patients/2", "/nowhere")]
    found = []
    for span in exporter.get_finished_spans():
        attributes = dict(span.attributes or {})
        identifier = attributes.pop("audit.request.id", None)
        if identifier is not None:
            assert identifier in [answer.headers["X-Request-Id"] for answer in answers]
        found.append(
            (
                span.name,
                span.kind,
                attributes,
                identifier is not None,
                span.status.status_code,
                len(span.events),
                span.parent is None,
            )
        )
    return [found, sent]


def test_spans_and_what_is_sent_are_as_without_spanseal_unless_that_is_configured(audit: Audit) -> None:
    without = traced(audited=False)
    assert traced(audited=True) == without
    audit.restart()
    audit.set(SPANSEAL_SPAN_ATTRIBUTE="true")
    spans, sent = traced(audited=True)
    assert [one[:3] + one[4:] for one in spans] == [one[:3] + one[4:] for one in without[0]]
    marked = [(name, has) for name, _, _, has, *_ in spans]
    assert sorted(marked) == [
        ("GET /nowhere", True),
        ("GET /patients/<int:pid>", True),
        ("GET /patients/<int:pid>", True),
        ("inner", False),
        ("inner", False),
    ]
    assert sent == [None, None]


# --- baggage -------------------------------------------------------------------------------------------------------


@pytest.fixture
def propagators() -> Iterator[None]:
    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)


def injected(context: Any = None) -> str | None:
    headers: dict[str, str] = {}
    propagate.inject(headers, context)
    return headers.get("baggage")


@pytest.mark.usefixtures("propagators")
def test_headers_carry_the_id_wherever_the_request_is_worked_for(audit: Audit, app: flask.Flask) -> None:
    audit.set(SPANSEAL_BAGGAGE="true")
    seen: dict[str, str | None] = {}
    identifiers: list[str] = []

    @app.get("/patients")
    def patients() -> flask.Response:
        identifiers.append(spanseal.request_id())
        seen["view"] = injected()
        seen["own"] = injected(baggage.set_baggage("user", "a b"))

        def rows() -> Iterator[str]:
            seen["stream"] = injected()
            yield "x"
            seen["stream later"] = injected()
            raise BoomError

        return flask.Response(rows())

    @app.get("/error")
    def error() -> str:
        raise BoomError

    @app.errorhandler(BoomError)
    def handler(_error: BoomError) -> str:
        seen["error handler"] = injected()
        return "handled"

    @app.teardown_request
    def teardown(_error: BaseException | None) -> None:
        seen["teardown"] = injected()

    client = app.test_client()
    with pytest.raises(BoomError):
        client.get("/patients")
    assert injected() is None
    first, seen = dict(seen), {}
    failed = client.get("/error").headers["X-Request-Id"]
    assert injected() is None
    (identifier,) = identifiers
    own = f"spanseal.request_id={identifier}"
    assert first == {
        "view": own,
        "own": f"user=a+b,{own}",
        "stream": own,
        "stream later": own,
        "teardown": own,
    }
    assert seen == dict.fromkeys(("error handler", "teardown"), f"spanseal.request_id={failed}")
    assert failed != identifier
    with spanseal.actor("cron"):
        assert injected() == f"spanseal.request_id={spanseal.request_id()}"
    assert "traceparent" in propagate.get_global_textmap().fields


@pytest.mark.usefixtures("propagators")
def test_a_job_alone_carries_its_id(audit: Audit) -> None:
    audit.set(SPANSEAL_BAGGAGE="true")
    with spanseal.actor("cron"):
        assert injected() == f"spanseal.request_id={spanseal.request_id()}"


@pytest.mark.usefixtures("propagators")
@pytest.mark.parametrize(("configured", "expected"), [("true", "p-1"), ("false", None)])
def test_the_parents_id_is_believed_only_where_that_is_configured(
    audit: Audit, app: flask.Flask, configured: str, expected: str | None
) -> None:
    audit.set(SPANSEAL_BAGGAGE=configured)
    answer = app.test_client().get("/", headers={"Baggage": "a=b, spanseal.request_id = p-1;c=d"})
    record = audit.record()
    assert record.attributes.get("spanseal.parent.request_id") == expected
    assert record.attributes["audit.request.id"] == answer.headers["X-Request-Id"] != "p-1"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("spanseal.request_id=abc", "abc"),
        ("x=1,spanseal.request_id=a%2Cb;p=1,y=2", "a,b"),
        ("spanseal.request_id=", ""),
        ("spanseal.request_id", ""),
        ("spanseal.request_id=a%20b", ""),
        ("spanseal.request_id=a%0Ab", ""),
        ("spanseal.request_id=%C3%A4", ""),
        ("spanseal.request_id=" + "a" * 128, "a" * 128),
        ("spanseal.request_id=" + "a" * 129, ""),
        ("other=spanseal.request_id=abc", ""),
        ("," * 8000, ""),
        ("", ""),
    ],
)
def test_what_a_header_may_say(header: str, found: str) -> None:
    assert parent_of(header) == found


# --- two services, in two processes --------------------------------------------------------------------------------

SERVICE = """
import os, sys, urllib.request
import flask
from opentelemetry import propagate
from werkzeug.serving import WSGIRequestHandler, make_server

app = flask.Flask("service")
downstream = sys.argv[1] if len(sys.argv) > 1 else ""

@app.get("/orders/<oid>")
def orders(oid):
    if not downstream:
        return oid
    headers = {}
    propagate.inject(headers)
    def rows():
        with urllib.request.urlopen(urllib.request.Request(downstream + "/orders/" + oid, headers=headers)) as answer:
            yield answer.headers["X-Request-Id"]
        again = {}
        propagate.inject(again)
        with urllib.request.urlopen(urllib.request.Request(downstream + "/orders/again", headers=again)) as answer:
            yield "," + answer.headers["X-Request-Id"]
    return flask.Response(rows())

class Quiet(WSGIRequestHandler):
    def log(self, *_arguments):
        pass

server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def service(program: Path, name: str, *arguments: str) -> Iterator[str]:
    """Run a service of its own process; gives its URL."""
    command = Path(sys.executable).parent / "opentelemetry-instrument"
    with subprocess.Popen(
        [command, sys.executable, program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OTEL_SERVICE_NAME": name},
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def test_two_services_share_a_trace_and_keep_their_own_ids(
    audit: Audit, receiver: FakeReceiver, tmp_path: Path
) -> None:
    program = tmp_path / "service.py"
    program.write_text(SERVICE)
    audit.set(
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        SPANSEAL_BAGGAGE="true",
    )
    came = threading.Event()

    def taken() -> dict[str, Any]:
        return {
            one.attributes["audit.request.id"]: one
            for one in receiver.taken
            if "http.route" in one.attributes
        }

    with ExitStack() as running:
        back = running.enter_context(service(program, "back"))
        front = running.enter_context(service(program, "front", back))
        with urllib.request.urlopen(f"{front}/orders/5", timeout=30) as answer:  # noqa: S310 - our own
            outer, inner = answer.headers["X-Request-Id"], answer.read().decode().split(",")
        for _ in range(2000):
            if len(taken()) == 3:
                break
            came.wait(0.01)
    found = taken()
    assert set(found) == {outer, *inner}
    assert len({outer, *inner}) == 3
    assert found[outer].resource["service.name"] == "front"
    assert "spanseal.parent.request_id" not in found[outer].attributes
    for one in inner:
        assert found[one].resource["service.name"] == "back"
        assert found[one].attributes["spanseal.parent.request_id"] == outer
    assert found[inner[0]].trace_id == found[outer].trace_id != ""
    assert found[inner[0]].span_id != found[outer].span_id
    assert json.dumps([one.action for one in found.values()]).count("order.") == 3


# --- other frameworks, which are heard of by their spans -----------------------------------------------------------


async def ask(app: Any, headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Call an ASGI application as a server does; return the headers of its answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/patients", "query_string": b"", "headers": headers}
    await app({**scope, "scheme": "http", "asgi": {"version": "3.0"}}, receive, send)
    return dict(sent[0]["headers"])


@pytest.mark.usefixtures("propagators")
def test_fastapi_is_correlated_in_the_same_ways(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi import FastAPI
    from opentelemetry.instrumentation import propagators as response_propagators
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    monkeypatch.setattr(response_propagators, "_RESPONSE_PROPAGATOR", None)
    audit.set(SPANSEAL_BAGGAGE="true", SPANSEAL_SPAN_ATTRIBUTE="true")
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    spanseal.instrument_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = FastAPI()
    seen: list[str | None] = []

    @app.get("/patients")
    def patients() -> str:
        seen.append(injected())
        return spanseal.request_id()

    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    answer = asyncio.run(ask(app, [(b"baggage", b"spanseal.request_id=p-1,a=b")]))
    identifier = answer[b"x-request-id"].decode()
    assert seen == [f"spanseal.request_id={identifier},a=b"]
    assert audit.record().attributes["spanseal.parent.request_id"] == "p-1"
    marked = {(span.attributes or {}).get("audit.request.id") for span in exporter.get_finished_spans()}
    assert identifier in marked <= {identifier, None}
