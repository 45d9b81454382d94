"""What the user's own OpenTelemetry and Sentry see is the same with Spanseal and without it."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.instrumentation.fake_receiver import PROTOBUF, FakeReceiver, plain, receiving
from tests.instrumentation.live import Server, gunicorn

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
REQUESTS: list[tuple[str, str, dict[str, str]]] = [
    ("GET", "/patients/5?name=x", {}),
    ("POST", "/patients/6", {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"}),
    ("POST", "/patients/7", {"traceparent": f"00-{TRACE}-{PARENT}-00"}),
    ("GET", "/error", {"X-Request-Id": "theirs"}),
    ("GET", "/stream", {}),
    ("GET", "/nowhere", {}),
    ("PUT", "/patients/5", {}),
]

# Each begins with what sets up tracing; the views are the same.
VIEWS = """
import flask
from opentelemetry import trace

app = flask.Flask("traced")

@app.get("/healthz")
def health():
    return "ok"

@app.route("/patients/<int:pid>", methods=["GET", "POST"])
def patients(pid):
    with trace.get_tracer("application").start_as_current_span("look", attributes={"pid": pid}) as span:
        span.add_event("looked")
    return str(pid)

@app.get("/error")
def error():
    raise LookupError("secret")

@app.get("/stream")
def stream():
    return flask.Response(str(n) for n in range(3))
"""

OWN_PROVIDER = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource({"own": "provider"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""

OWN_INSTRUMENTATION = """
from opentelemetry.instrumentation.flask import FlaskInstrumentor

def named(span, environ):
    span.set_attribute("asked", environ["PATH_INFO"])

FlaskInstrumentor().instrument_app(app, request_hook=named)
import spanseal

spanseal.instrument_app(app)
"""

SENTRY = """
import json, os
import sentry_sdk
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.transport import Transport

class Written(Transport):
    def capture_envelope(self, envelope):
        with open(os.environ["SENTRY_FILE"], "a") as file:
            for item in envelope.items:
                if item.payload.json:
                    file.write(json.dumps([item.type, item.payload.json], default=str) + "\\n")

sentry_sdk.init(
    dsn="http://key@127.0.0.1:1/1", transport=Written, traces_sample_rate=1.0, integrations=[FlaskIntegration()]
)
"""

DISTRO = """
import os
from opentelemetry.instrumentation.distro import BaseDistro

class OwnDistro(BaseDistro):
    def _configure(self, **kwargs):
        os.environ["OTEL_RESOURCE_ATTRIBUTES"] = "own=distro"
        os.environ["OTEL_TRACES_SAMPLER"] = "parentbased_always_on"
        os.environ["OTEL_TRACES_EXPORTER"] = "otlp"
"""


class TraceReceiver:
    """Takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, Any], str, Span]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    resource = {item.key: plain(item.value) for item in group.resource.attributes}
                    for scope in group.scope_spans:
                        receiver.spans += [(resource, scope.scope.name, span) for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Type", PROTOBUF)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def normalised(self) -> list[Any]:
        """What is the same in two runs: everything but ids, times and ports."""
        names = {span.span_id: span.name for _, _, span in self.spans}
        found = []
        for resource, scope, span in self.spans:
            attributes = {item.key: plain(item.value) for item in span.attributes}
            if attributes.get("http.target", attributes.get("url.path")) == "/healthz":
                continue
            for name in ("net.peer.port", "client.port", "net.host.port", "server.port", "http.host"):
                attributes.pop(name, None)
            parent = names.get(span.parent_span_id, span.parent_span_id.hex())
            kept = [
                item for item in sorted(resource.items()) if not item[0].endswith((".pid", "instance.id"))
            ]
            events = [
                (event.name, sorted(item.key for item in event.attributes), plain_type(event))
                for event in span.events
            ]
            told = span.trace_id.hex() == TRACE
            found.append(
                (
                    *(
                        span.name,
                        span.kind,
                        scope,
                        parent,
                        told,
                        span.trace_state,
                        span.flags,
                        len(span.links),
                    ),
                    *(span.status.code, sorted(attributes.items()), events, kept),
                )
            )
        return sorted(found, key=repr)


def plain_type(event: Any) -> str:
    return "".join(item.value.string_value for item in event.attributes if item.key == "exception.type")


@contextmanager
def trace_receiver() -> Iterator[TraceReceiver]:
    receiver = TraceReceiver()
    try:
        yield receiver
    finally:
        receiver.close()


def without_spanseal(folder: Path) -> Path:
    """Make a folder that hides Spanseal where it is first in the path: its hook does nothing, nothing else is there."""
    package = folder / "hidden" / "spanseal"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def instrument_app(app):\n    pass\n")
    (package / "hook.py").write_text("def pre_instrument():\n    pass\n")
    return package.parent


def with_distro(folder: Path) -> Path:
    """Install a distribution of the user's own into a folder."""
    metadata = folder / "own" / "own_distro-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata.parent / "own_distro.py").write_text(DISTRO)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-distro\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[opentelemetry_distro]\nown = own_distro:OwnDistro\n")
    return metadata.parent


def traffic(port: int) -> list[tuple[int, bytes, list[tuple[str, str]]]]:
    """Send the same requests; return status, body, and headers but for the date and the id."""
    answers = []
    for method, path, headers in REQUESTS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request(method, path, headers={"Host": "served.example", **headers})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = [(name, value) for name, value in answer.getheaders() if name not in ("Date", "X-Request-Id")]
        answers.append((answer.status, content, kept))
    return answers


def ran(
    folder: Path, source: str, variables: Mapping[str, str], *, audited: bool, instrument: bool = True
) -> tuple[Any, list[Any], FakeReceiver]:
    """Run an application; return its answers, the spans that came, and what was audited."""
    folder.mkdir()
    path = [] if audited else [str(without_spanseal(folder))]
    if "OTEL_PYTHON_DISTRO" in variables:
        path.append(str(with_distro(folder)))
    with receiving() as receiver, trace_receiver() as traces:
        server = Server(
            folder / "app",
            gunicorn(workers=1),
            endpoint=receiver.url,
            instrument=instrument,
            env={
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": traces.url,
                "PYTHONHASHSEED": "0",  # the order of methods in Allow
                "SENTRY_FILE": str(folder / "sentry.jsonl"),
                "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]),
                **variables,
            },
        )
        server.source.write_text(source)
        with server:
            answers = traffic(server.port)
        return answers, traces.normalised(), receiver


PLAIN: dict[str, str] = {}
CASES = {
    "distribution": (VIEWS, PLAIN, True, 8),
    "sampler": (VIEWS, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, True, 2),
    "own provider": (OWN_PROVIDER + VIEWS + OWN_INSTRUMENTATION, PLAIN, False, 8),
    "own distro": (VIEWS, {"OTEL_PYTHON_DISTRO": "own"}, True, 8),
    "excluded": (VIEWS, {"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "patients"}, True, 6),
    "Sentry": (SENTRY + VIEWS, PLAIN, True, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_spans_are_the_same_with_and_without(tmp_path: Path, case: str) -> None:
    source, variables, instrument, most = CASES[case]
    folders = {audited: tmp_path / str(audited) for audited in (True, False)}
    with_it, spans, receiver = ran(folders[True], source, variables, audited=True, instrument=instrument)
    without, spans_without, nothing = ran(
        folders[False], source, variables, audited=False, instrument=instrument
    )
    assert with_it == without
    assert spans == spans_without
    assert len(spans) == most
    assert nothing.taken == []
    routes = [record for record in receiver.taken if record.attributes.get("audit.capture") == "wsgi"]
    routes = [record for record in routes if record.attributes.get("http.route") != "/healthz"]
    assert len(routes) == len(REQUESTS)
    sent = [sentry_events(folder / "sentry.jsonl") for folder in folders.values()]
    assert sent[0] == sent[1]
    assert bool(sent[0]) == (case == "Sentry")


def sentry_events(file: Path) -> list[Any]:
    """What Sentry was told: each event's type, name, error and spans."""
    if not file.exists():
        return []
    events = []
    for line in file.read_text().splitlines():
        kind, event = json.loads(line)
        if event.get("transaction") == "health":
            continue
        errors = [
            (
                error["type"],
                [
                    frame["function"]
                    for frame in error["stacktrace"]["frames"]
                    if "/spanseal/" not in frame["abs_path"]
                ],
            )
            for error in event.get("exception", {}).get("values", [])
        ]
        spans = [(span["op"], span.get("description")) for span in event.get("spans", [])]
        request = event.get("request", {})
        tags = {"status": event.get("contexts", {}).get("trace", {}).get("status")}
        events.append(
            (
                kind,
                event.get("transaction"),
                request.get("method"),
                errors,
                spans,
                tags,
                sorted(event.get("tags", {})),
            )
        )
    return sorted(events, key=repr)
