"""Server spans become records: what they say, when it is written down, and what belongs to them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import flask
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.propagators import FuncSetter, get_global_response_propagator
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, Status, StatusCode

import spanseal
from spanseal import flask_app
from tests.instrumentation.conftest import Audit, Client
from tests.instrumentation.frameworks.serving import holding

SERVER = SpanKind.SERVER


def provider_of(sampler: Sampler = ALWAYS_OFF, **options: Any) -> TracerProvider:
    provider = TracerProvider(sampler=sampler, **options)
    spanseal.instrument_provider(provider)
    return provider


def http(
    method: str = "GET", route: str = "/patients/{pid}", path: str = "/patients/3", **more: Any
) -> dict[str, Any]:
    return {"http.request.method": method, "http.route": route, "url.path": path, **more}


@pytest.fixture
def tracer(audit: Audit) -> trace.Tracer:
    assert audit.runtime.keeper.spool is None
    return provider_of().get_tracer("a.framework")


def test_a_record_of_a_span(audit: Audit, tracer: trace.Tracer) -> None:
    attributes = http(
        **{
            "client.address": "192.0.2.7",
            "user_agent.original": "curl",
            "enduser.id": "42",
            "enduser.role": "doctor",
        }
    )
    with tracer.start_as_current_span("GET", kind=SERVER, attributes=attributes) as span:
        span.set_attribute("http.response.status_code", 200)
        span.set_attribute("http.request.header.x_request_id", ("theirs",))
        ids = span.get_span_context()
    record = audit.record()
    assert record.action == "patient.viewed"
    assert (record.trace_id, record.span_id) == (f"{ids.trace_id:032x}", f"{ids.span_id:016x}")
    found = dict(record.attributes)
    assert len(found.pop("audit.record.id")) == len(found.pop("audit.request.id")) == 36
    assert found.pop("audit.stream_id").startswith("desk-1/")
    assert found == {
        "audit.sequence.number": 1,
        "audit.schema.version": "1",
        "audit.outcome": "success",
        "audit.actor.type": "user",
        "audit.actor.id": "42",
        "audit.actor.role": "doctor",
        "audit.target.type": "patient",
        "audit.target.id": "3",
        "client.address": "192.0.2.7",
        "user_agent.original": "curl",
        "audit.capture": "span",
        "otel.scope.name": "a.framework",
        "http.request.method": "GET",
        "http.route": "/patients/<pid>",
        "http.response.status_code": 200,
        "http.request.header.x-request-id": ["theirs"],
    }


def test_the_old_conventions(audit: Audit, tracer: trace.Tracer) -> None:
    old = {
        "http.method": "DELETE",
        "http.target": "/patients/a%20b?token=s3cr3t",
        "http.url": "http://x/patients/a%20b?token=s3cr3t",
        "net.peer.ip": "192.0.2.7",
    }
    with tracer.start_as_current_span("DELETE /patients/a b", kind=SERVER, attributes=old) as span:
        span.set_attributes({"http.route": "patients/<str:pid>", "http.status_code": 404})
    record = audit.record()
    assert (record.action, record.attributes["audit.target.id"]) == ("patient.deleted", "a b")
    assert record.attributes["audit.outcome"] == "failure"
    assert record.attributes["audit.failure.reason"] == "Not Found"
    assert record.attributes["client.address"] == "192.0.2.7"
    assert b"s3cr3t" not in audit.bytes()


def test_what_may_be_a_secret_is_not_recorded(audit: Audit, tracer: trace.Tracer) -> None:
    reset = http(
        "POST",
        "/widgets/{token}",
        "/widgets/s3cr3t-1",
        **{"url.query": "a=s3cr3t-2", "url.full": "http://x/?s3cr3t-3"},
    )
    with (
        suppress(ValueError),
        tracer.start_as_current_span("POST /widgets/s3cr3t-4", kind=SERVER, attributes=reset),
    ):
        raise ValueError("s3cr3t-5")
    with tracer.start_as_current_span(
        "GET /s3cr3t-6", kind=SERVER, attributes={"http.method": "GET", "url.path": "/s3cr3t-6"}
    ):
        pass
    assert b"s3cr3t" not in audit.bytes()
    assert [record.action for record in audit.records()] == ["widget.updated", "request.unmatched"]


@pytest.mark.parametrize(
    ("status", "code", "event", "outcome", "reason"),
    [
        (200, None, None, "success", ""),
        (302, StatusCode.OK, None, "success", ""),
        (404, StatusCode.ERROR, LookupError("s3cr3t"), "failure", "Not Found"),
        (403, None, None, "failure", "Forbidden"),
        (500, StatusCode.ERROR, ValueError("s3cr3t"), "failure", "ValueError"),
        (500, None, LookupError(), "failure", "LookupError"),
        (500, StatusCode.ERROR, None, "failure", "Internal Server Error"),
        (200, None, ValueError("s3cr3t"), "success", ""),  # handled: it was worth a note
        (200, StatusCode.ERROR, flask.cli.NoAppException("s3cr3t"), "failure", "flask.cli.NoAppException"),
        (200, StatusCode.ERROR, None, "failure", "error"),
        (0, StatusCode.ERROR, RuntimeError("s3cr3t"), "failure", "RuntimeError"),
        (0, None, None, "unknown", ""),
    ],
)
def test_outcomes(
    audit: Audit,
    tracer: trace.Tracer,
    status: int,
    code: StatusCode | None,
    event: Exception | None,
    outcome: str,
    reason: str,
) -> None:
    span = tracer.start_span("x", kind=SERVER, attributes=http())
    if event is not None:
        span.record_exception(event)
    if code is not None:
        span.set_status(Status(code, "s3cr3t" if code is StatusCode.ERROR else None))
    if status:
        span.set_attribute("http.response.status_code", status)
    span.end()
    found = audit.record().attributes
    assert (found["audit.outcome"], found.get("audit.failure.reason", "")) == (outcome, reason)
    assert b"s3cr3t" not in audit.bytes()


def test_calls_websockets_and_what_nobody_knows(audit: Audit, tracer: trace.Tracer) -> None:
    call = {"rpc.system": "grpc", "rpc.service": "clinic.PatientService"}
    for attributes, end in (
        ({**call, "rpc.method": "GetPatient"}, {"rpc.grpc.status_code": 0}),
        ({**call, "rpc.method": "Discharge"}, {"rpc.grpc.status_code": 7}),
        ({"http.scheme": "ws", "http.route": "/rooms/{room}", "http.target": "/rooms/5"}, {}),
        ({"messaging.system": "kafka"}, {}),
        ({}, {}),
    ):
        span = tracer.start_span("x", kind=SERVER, attributes=attributes)
        span.set_attributes(end)
        span.end()
    records = audit.records()
    assert [
        (
            r.action,
            r.attributes["audit.outcome"],
            r.attributes.get("audit.failure.reason"),
            r.attributes.get("http.request.method"),
        )
        for r in records
    ] == [
        ("patient.viewed", "success", None, None),
        ("patient.discharged", "failure", "PERMISSION_DENIED", None),
        ("room.connected", "success", None, "GET"),
        ("request.unmatched", "success", None, None),
        ("request.unmatched", "success", None, None),
    ]
    assert records[1].attributes["rpc.method"] == "Discharge"
    assert records[2].attributes["audit.target.id"] == "5"


def test_only_server_spans(audit: Audit) -> None:
    tracer = provider_of(ALWAYS_ON).get_tracer("t")
    for kind in SpanKind:
        with tracer.start_as_current_span("x", kind=kind, attributes=http()):
            pass
    assert audit.record().action == "patient.viewed"


def test_what_may_change_something_is_written_down_before_it_does(audit: Audit, tracer: trace.Tracer) -> None:
    states = {}
    with holding(audit.receiver):
        for name, attributes in (
            ("GET", http("GET")),
            ("POST", http("POST")),
            ("BREW", {"http.method": "_OTHER"}),
            ("get call", {"rpc.system": "grpc", "rpc.service": "S", "rpc.method": "GetX"}),
            ("call", {"rpc.system": "grpc", "rpc.service": "S", "rpc.method": "DoX"}),
        ):
            before = len(audit.own_rows())
            span = tracer.start_span("x", kind=SERVER, attributes=attributes)
            states[name] = [(row.state, row.attributes["audit.outcome"]) for row in audit.own_rows()[before:]]
            span.end()
            # And when it has ended all of it is there, with nobody having to wait.
            assert audit.own_rows()[-1].state in ("answered", "final")
    begun = [("open", "unknown")]
    assert states == {"GET": [], "POST": begun, "BREW": begun, "get call": [], "call": begun}
    assert len(audit.records()) == 5


# --- what belongs together ---------------------------------------------------------------------------------


def shared(audit: Audit) -> dict[str, str]:
    """Return the request id of each action; all must be there once."""
    records = audit.records()
    found = {record.action: str(record.attributes.get("audit.request.id", "")) for record in records}
    assert len(found) == len(records)
    return found


def test_records_of_an_application_share_the_requests_id_and_actor(
    audit: Audit, tracer: trace.Tracer
) -> None:
    assert spanseal.request_id() == ""
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http("POST")) as span:
        spanseal.set_actor("42")
        with tracer.start_as_current_span("child"), tracer.start_as_current_span("grandchild"):
            spanseal.record("invoice.approved")
        with tracer.start_as_current_span("another trace", context=otel_context.Context()):
            spanseal.record("invoice.printed")
        outside = spanseal.request_id()
        spanseal.annotate(resource_id="9", attributes={"ward": "b"})
        span.set_attribute("http.status_code", 200)
    assert spanseal.request_id() == ""
    spanseal.record("job.run")
    records = {record.action: record.attributes for record in audit.records()}
    assert records["job.run"].get("audit.request.id") is None
    assert (records["patient.updated"]["audit.target.id"], records["patient.updated"]["ward"]) == ("9", "b")
    for action in ("patient.updated", "invoice.approved", "invoice.printed"):
        assert records[action]["audit.request.id"] == outside
        assert records[action]["audit.actor.id"] == "42"


def test_requests_of_tasks_that_take_turns_are_kept_apart(audit: Audit, tracer: trace.Tracer) -> None:
    async def handler(name: str, turn: asyncio.Barrier, pool: ThreadPoolExecutor) -> str:
        with tracer.start_as_current_span("x", kind=SERVER, attributes=http("POST", f"/{name}")):
            await turn.wait()
            mine = spanseal.request_id()
            await asyncio.gather(*(asyncio.create_task(aside(f"{name}.task{n}")) for n in range(3)))
            # As frameworks run handlers that are no coroutines: in a thread, with a copy of the context.
            context = contextvars.copy_context()
            await asyncio.get_running_loop().run_in_executor(
                pool, context.run, spanseal.record, f"{name}.threaded"
            )
            await turn.wait()
            assert spanseal.request_id() == mine
        return mine

    async def aside(action: str) -> None:
        await asyncio.sleep(0)
        spanseal.record(action)

    async def main() -> list[str]:
        turn = asyncio.Barrier(4)
        with ThreadPoolExecutor() as pool:
            return await asyncio.gather(*(handler(f"h{n}", turn, pool) for n in range(4)))

    ids = asyncio.run(main())
    assert len(set(ids)) == 4
    found = shared(audit)
    assert len(found) == 4 * 5
    for number, identifier in enumerate(ids):
        assert {found[action] for action in found if action.startswith(f"h{number}.")} == {identifier}


def test_a_thread_that_was_given_only_opentelemetrys_context(audit: Audit, tracer: trace.Tracer) -> None:
    def work(context: otel_context.Context) -> None:
        token = otel_context.attach(context)
        spanseal.record("work.done")
        with provider.get_tracer("t").start_as_current_span("child"):
            spanseal.record("child.done")
        otel_context.detach(token)
        spanseal.record("nothing.done")

    provider = provider_of(ALWAYS_ON)
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http()):
        mine = spanseal.request_id()
        thread = threading.Thread(target=work, args=(otel_context.get_current(),))
        thread.start()
        thread.join()
    assert mine
    found = shared(audit)
    assert found["work.done"] == found["child.done"] == found["patient.viewed"] == mine
    assert found["nothing.done"] == ""


def test_spans_that_are_begun_by_hand_side_by_side(audit: Audit, tracer: trace.Tracer) -> None:
    first = tracer.start_span("x", kind=SERVER, attributes=http("GET", "/first"))
    second = tracer.start_span("x", kind=SERVER, attributes=http("GET", "/second"))
    assert spanseal.request_id() == ""  # neither is current
    with trace.use_span(first):
        one = spanseal.request_id()
    with trace.use_span(second):
        two = spanseal.request_id()
    second.end()
    first.end()
    assert spanseal.request_id() == ""
    found = shared(audit)
    assert (found["first.viewed"], found["second.viewed"]) == (one, two)
    assert one != two


def test_a_route_inside_counts_where_the_path_is_one_of_it(audit: Audit, tracer: trace.Tracer) -> None:
    for mount, path, route in (
        ("/v1", "/v1/patients/3", "/patients/{pid}"),
        ("/v1", "/v1/patients/3", "/doctors/{did}"),  # of a call that a handler makes
        ("/orders", "/orders", "/patients/{pid}"),
    ):
        with tracer.start_as_current_span("x", kind=SERVER, attributes=http("POST", mount, path)):
            tracer.start_span("y", attributes={"http.route": route}).end()
            tracer.start_span("y", attributes={"http.route": 5}).end()
    assert [record.action for record in audit.records()] == [
        "patient.updated",
        "index.submitted",
        "order.created",
    ]


def test_what_was_begun_is_not_left_out_by_a_rule_that_is_found_later(
    audit: Audit, tracer: trace.Tracer, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nrules:\n  - route: /health\n    skip: nobody's business\n", "utf-8")
    audit.set(SPANSEAL_RULES=str(rules))
    for method, early in (("GET", False), ("POST", True), ("POST", False), ("GET", True)):
        attributes = http(method, "/health" if early else "", "/health")
        with tracer.start_as_current_span("x", kind=SERVER, attributes=attributes) as span:
            span.set_attributes({"http.route": "/health", "http.status_code": 200})
    # It was on record, and would be there without an end.
    record = audit.record()
    assert (record.attributes["http.request.method"], record.attributes["audit.outcome"]) == (
        "POST",
        "success",
    )


def test_a_server_span_inside_of_another(audit: Audit, tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http("POST", "/outer", "/outer")):
        outer = spanseal.request_id()
        with tracer.start_as_current_span("x", kind=SERVER, attributes=http("POST", "/inner", "/inner")):
            inner = spanseal.request_id()
        with tracer.start_as_current_span("child"):
            assert spanseal.request_id() == outer
    assert inner != outer
    assert shared(audit) == {"inner.submitted": inner, "outer.submitted": outer}


def test_answers_of_any_kind_bear_the_requests_id(audit: Audit, tracer: trace.Tracer) -> None:
    given: list[tuple[str, str]] = []
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http()) as span:
        propagator = get_global_response_propagator()  # type: ignore[no-untyped-call]
        # As Tornado's and Falcon's instrumentations call it.
        propagator.inject(object(), setter=FuncSetter(lambda _, *pair: given.append(pair)))  # type: ignore[no-untyped-call]
        headers = {"X-Request-Id": "theirs"}
        propagator.inject(headers, trace.set_span_in_context(span))
        mine = spanseal.request_id()
    assert given == [("X-Request-Id", mine)]
    assert headers == {"X-Request-Id": mine}
    assert audit.record().attributes["http.response.header.x-request-id"] == ["theirs"]


def test_what_goes_on_after_the_answer_still_belongs_to_it(audit: Audit, tracer: trace.Tracer) -> None:
    # As ASGI's instrumentation does it: the span ends with the answer, background tasks come after.
    def task() -> None:
        with tracer.start_as_current_span(
            "x", kind=SERVER, attributes=http("POST"), end_on_exit=False
        ) as span:
            span.end()
            with tracer.start_as_current_span("BackgroundTask"):
                spanseal.record("mail.sent")
        assert spanseal.request_id() == ""

    contextvars.copy_context().run(task)
    found = shared(audit)
    assert found["mail.sent"] == found["patient.updated"] != ""


def test_a_span_that_nobody_can_end_any_more(audit: Audit, tracer: trace.Tracer) -> None:
    def begin() -> None:
        for method in ("GET", "POST"):
            tracer.start_span("lost", kind=SERVER, attributes=http(method))

    contextvars.copy_context().run(begin)
    gc.collect()
    spanseal.record("job.run")  # a finalizer wakes nobody
    for action in ("patient.viewed", "patient.updated"):
        (record,) = audit.receiver.wait_for(action)
        assert record.attributes["audit.outcome"] == "unknown"
    assert len(audit.records()) == 3


def test_the_bound_of_spans_that_are_followed(
    audit: Audit, tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spanseal.spans.processor._MOST", 2)
    spans = [tracer.start_span("x", kind=SERVER, attributes=http("GET", f"/r{n}")) for n in range(4)]
    for span in spans:
        span.set_attribute("http.status_code", 200)
        span.end()
    assert sorted((r.action, r.attributes["audit.outcome"]) for r in audit.records()) == [
        ("r0.viewed", "unknown"),
        ("r1.viewed", "unknown"),
        ("r2.viewed", "success"),
        ("r3.viewed", "success"),
    ]


# --- Flask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
@pytest.mark.parametrize(("every", "concurrent"), [(True, False), (True, True), (False, False)])
def test_a_flask_request_is_recorded_at_its_boundary_only(
    audit: Audit, sampler: Sampler, monkeypatch: pytest.MonkeyPatch, *, every: bool, concurrent: bool
) -> None:
    monkeypatch.setattr(flask_app, "_every", every)
    active = ConcurrentMultiSpanProcessor(2) if concurrent else None
    provider = provider_of(sampler, active_span_processor=active)
    app = flask.Flask("both")
    app.test_client_class = Client
    app.add_url_rule("/patients/<pid>", view_func=lambda **_: spanseal.request_id(), methods=["GET", "POST"])
    FlaskInstrumentor.instrument_app(app, tracer_provider=provider)  # type: ignore[no-untyped-call]
    spanseal.instrument_app(app)
    said = [app.test_client().open("/patients/3", method=method) for method in ("GET", "POST")]
    records = audit.records()
    assert [(record.action, record.attributes["audit.capture"]) for record in records] == [
        ("patient.viewed", "wsgi"),
        ("patient.updated", "wsgi"),
    ]
    for answer, record in zip(said, records, strict=True):
        assert answer.text == record.attributes["audit.request.id"] == answer.headers["X-Request-Id"]
        assert len(answer.headers.getlist("X-Request-Id")) == 1
    provider.shutdown()


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["open", "closed"])
def test_a_spool_that_cannot_be_made_ends_no_request(
    audit: Audit, tracer: trace.Tracer, log: pytest.LogCaptureFixture, on_error: str
) -> None:
    audit.set(SPANSEAL_SPOOL_DIR="/proc/nowhere", SPANSEAL_ON_ERROR=on_error)
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http("POST")):
        pass
    assert "/proc/nowhere" in log.text
    assert ("cannot be refused" in log.text) is (on_error == "closed")


def test_a_wrong_setting_ends_no_request(
    audit: Audit, tracer: trace.Tracer, log: pytest.LogCaptureFixture
) -> None:
    audit.set(SPANSEAL_TRUSTED_PROXIES="many")
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http("POST")):
        assert spanseal.request_id() == ""
    assert "SPANSEAL_TRUSTED_PROXIES" in log.text


def test_limits_of_the_sdk_make_no_wrong_record(audit: Audit) -> None:
    limits = SpanLimits(max_span_attribute_length=12)
    tracer = provider_of(span_limits=limits).get_tracer("t")
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http("GET", "/p/{pid}", "/p/1234567890")):
        pass
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http("GET", "/p/{pid}", "/p/1")):
        pass
    assert [record.attributes.get("audit.target.id") for record in audit.records()] == [None, "1"]


def test_an_attribute_of_any_type_ends_nothing(audit: Audit, tracer: trace.Tracer) -> None:
    odd: Any = {
        "http.method": 7,
        "http.route": ("/a",),
        "http.status_code": "many",
        "enduser.id": 5.5,
        "net.peer.ip": True,
    }
    with tracer.start_as_current_span("x", kind=SERVER, attributes=odd):
        pass
    assert audit.record().action == "request.unmatched"


def test_proxies_that_are_trusted(audit: Audit, tracer: trace.Tracer) -> None:
    audit.set(SPANSEAL_TRUSTED_PROXIES="1")
    with tracer.start_as_current_span(
        "x", kind=SERVER, attributes=http(**{"client.address": "10.0.0.1"})
    ) as span:
        span.set_attribute("http.request.header.x_forwarded_for", ("203.0.113.9, 192.0.2.5",))
    assert audit.record().attributes["client.address"] == "192.0.2.5"


def test_by_hand_as_well_it_can_be_switched_off(audit: Audit) -> None:
    audit.set(SPANSEAL_SPANS="false")
    with (
        provider_of(ALWAYS_ON)
        .get_tracer("t")
        .start_as_current_span("x", kind=SERVER, attributes=http("POST"))
    ):
        assert spanseal.request_id() == ""
    assert audit.records() == []


def test_a_resolver_is_asked(audit: Audit, tracer: trace.Tracer) -> None:
    audit.set(SPANSEAL_ACTOR_RESOLVER="tests.instrumentation.frameworks.resolver:who")
    for status in (200, 403):
        with tracer.start_as_current_span(
            "x", kind=SERVER, attributes=http(**{"enduser.id": "span"})
        ) as span:
            span.set_attribute("http.status_code", status)
    assert [record.attributes["audit.actor.id"] for record in audit.records()] == ["resolved", "resolved"]


def test_an_exception_of_our_own_ends_no_request(
    tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("spanseal.spans.request.facts_of", broken)
    with tracer.start_as_current_span("x", kind=SERVER, attributes=http("POST")):
        pass
    monkeypatch.undo()
    assert "ZeroDivisionError" in log.text
