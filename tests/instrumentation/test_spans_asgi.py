"""FastAPI in this process, message by message: what is durable when, WebSockets, and what goes into the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.propagators import (
    TraceResponsePropagator,
    get_global_response_propagator,
    set_global_response_propagator,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import Response, StreamingResponse
from starlette.types import Message

import spanseal
from tests.instrumentation.conftest import Audit
from tests.instrumentation.frameworks.serving import holding


@pytest.fixture
def propagator() -> Iterator[None]:
    before = get_global_response_propagator()  # type: ignore[no-untyped-call]
    set_global_response_propagator(None)  # type: ignore[no-untyped-call]
    yield
    set_global_response_propagator(before)  # type: ignore[no-untyped-call]


@pytest.fixture
def app(audit: Audit, propagator: None) -> FastAPI:  # noqa: ARG001 - they only have to be there
    made = FastAPI()

    @made.post("/patients/{pid}")
    def patients(pid: str) -> str:
        return pid

    @made.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(iter(("a", "b")))

    @made.websocket("/rooms/{room}")
    async def rooms(socket: WebSocket, room: str) -> None:
        if room == "closed":
            await socket.close(4003)
            return
        await socket.accept()
        spanseal.record("room.entered", resource_id=room)
        await socket.send_text("hello")
        if room == "broken":
            raise LookupError("s3cr3t")
        await socket.close()

    provider = TracerProvider(sampler=ALWAYS_OFF)
    spanseal.instrument_provider(provider)
    FastAPIInstrumentor.instrument_app(made, tracer_provider=provider)
    return made


def call(
    app: Any,
    kind: str,
    path: str,
    seen: Any = None,
    headers: list[tuple[bytes, bytes]] | None = None,
    **scope: Any,
) -> list[Message]:
    """Call an application as an ASGI server does; return what it sent."""
    sent: list[Message] = []
    received: list[Message] = (
        [{"type": "websocket.connect"}] if kind == "websocket" else [{"type": "http.request"}]
    )

    async def receive() -> Message:
        if received:
            return received.pop()
        return await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)
        if seen is not None:
            seen(message)

    whole = {
        "type": kind,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"q=s3cr3t",
        "headers": headers or [],
        "client": ("192.0.2.7", 5),
        "server": ("127.0.0.1", 80),
        "scheme": "ws" if kind == "websocket" else "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        **scope,
    }

    async def main() -> None:
        # A server gives each request a task of its own.
        await asyncio.create_task(app(whole, receive, send))

    asyncio.run(main())
    return sent


def names(message: Message) -> list[bytes]:
    return [name.lower() for name, _ in message["headers"]]


def test_the_record_is_durable_before_the_answer_begins(audit: Audit, app: FastAPI) -> None:
    states: dict[str, Any] = {}

    def seen(message: Message) -> None:
        states[message["type"]] = [(row.state, row.attributes["audit.outcome"]) for row in audit.own_rows()]

    with holding(audit.receiver):
        for method, path in (("POST", "/patients/3"), ("GET", "/stream")):
            before = len(audit.own_rows())
            call(app, "http", path, seen, method=method)
            assert states["http.response.start"][before:] == [("answered", "success")], path
    updated, streamed = audit.records()
    assert (updated.action, updated.attributes["audit.target.id"]) == ("patient.updated", "3")
    assert "spanseal.response.incomplete" not in {**updated.attributes, **streamed.attributes}


def test_a_client_that_hangs_up(audit: Audit, app: FastAPI) -> None:
    def gone(message: Message) -> None:
        if message.get("body") == b"b":
            raise OSError

    with pytest.raises((OSError, ExceptionGroup)):
        call(app, "http", "/stream", gone, method="GET")
    found = audit.record().attributes
    assert found["spanseal.response.incomplete"] is True
    assert found["http.response.status_code"] == 200


def test_the_answer_bears_one_request_id_and_what_others_add(audit: Audit, app: FastAPI) -> None:
    set_global_response_propagator(TraceResponsePropagator())  # type: ignore[no-untyped-call]

    @app.get("/own")
    def own() -> Response:
        return Response("x", headers={"x-request-id": "theirs", "content-type": "text/plain"})

    answers = [call(app, "http", "/own", method="GET")[0] for _ in range(2)]
    for answer in answers:
        assert names(answer).count(b"x-request-id") == names(answer).count(b"traceresponse") == 1
        assert names(answer).count(b"content-type") == 1
    records = audit.records()
    ids = [dict(answer["headers"])[b"x-request-id"].decode() for answer in answers]
    assert [record.attributes["audit.request.id"] for record in records] == ids
    assert records[0].attributes["http.response.header.x-request-id"] == ["theirs"]
    assert isinstance(get_global_response_propagator().inner, TraceResponsePropagator)  # type: ignore[no-untyped-call]


def test_websockets(audit: Audit, app: FastAPI) -> None:
    accepted: list[Any] = []

    def seen(message: Message) -> None:
        if message["type"] == "websocket.accept":
            accepted.append([(row.action, row.state) for row in audit.own_rows()][-1])

    with holding(audit.receiver):
        for room in ("open", "closed", "broken"):
            try:
                call(app, "websocket", f"/rooms/{room}", seen)
            except LookupError:
                assert room == "broken"
    assert accepted == [("room.connected", "answered")] * 2
    records = audit.records()
    own = {str(r.attributes["audit.target.id"]): r for r in records if r.action == "room.connected"}
    assert len(records) == 5
    said = {
        room: (r.attributes["audit.outcome"], r.attributes.get("audit.failure.reason"))
        for room, r in own.items()
    }
    assert said == {
        "open": ("success", None),
        "closed": ("failure", "WebSocket not accepted"),
        "broken": ("failure", "LookupError"),
    }
    entered = {r.attributes["audit.request.id"] for r in records if r.action == "room.entered"}
    assert entered == {own[room].attributes["audit.request.id"] for room in ("open", "broken")}
    assert b"s3cr3t" not in audit.bytes()


def test_two_middlewares_that_see_the_same_request(audit: Audit, app: FastAPI) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    spanseal.instrument_provider(provider)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=provider)
    (start, *_) = call(
        app,
        "http",
        "/patients/3",
        method="POST",
        headers=[(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00")],
    )
    record = audit.record()
    assert record.action == "patient.updated"
    assert record.attributes["audit.request.id"] == dict(start["headers"])[b"x-request-id"].decode()


def test_starlettes_own_middleware_alone(audit: Audit) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    spanseal.instrument_provider(provider)
    made = FastAPI()

    @made.post("/patients/{pid}")
    async def patients(pid: str) -> str:
        spanseal.record("patient.checked", resource_id=pid)
        return pid

    call(OpenTelemetryMiddleware(made, tracer_provider=provider), "http", "/patients/100%25", method="POST")
    checked, updated = audit.records()
    assert (updated.action, updated.attributes["audit.target.id"]) == ("patient.updated", "100%25")
    assert updated.attributes["otel.scope.name"] == "starlette"
    assert checked.attributes["audit.request.id"] == updated.attributes["audit.request.id"]


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ALWAYS_ON])
def test_an_application_that_is_mounted_in_another(audit: Audit, propagator: None, sampler: Sampler) -> None:  # noqa: ARG001 - it only has to be there
    provider = TracerProvider(sampler=sampler)
    spanseal.instrument_provider(provider)
    outer, inner = FastAPI(), FastAPI()

    @inner.api_route("/patients/{pid}", methods=["GET", "POST"])
    async def patients(pid: str) -> str:
        return spanseal.request_id() + pid

    outer.mount("/v1", inner)
    for made in (outer, inner):
        FastAPIInstrumentor.instrument_app(made, tracer_provider=provider)
    answers = [call(outer, "http", path, method="POST") for path in ("/v1/patients/3", "/v1/nothing")]
    records = audit.records()
    assert [(r.action, r.attributes.get("audit.target.id"), r.attributes["http.route"]) for r in records] == [
        ("patient.updated", "3", "/v1/patients/<pid>"),
        ("index.submitted", None, "/v1"),
    ]
    assert [dict(a[0]["headers"])[b"x-request-id"].decode() for a in answers] == [
        r.attributes["audit.request.id"] for r in records
    ]


def test_many_requests_at_once(audit: Audit, app: FastAPI) -> None:
    @app.get("/numbers/{number}")
    def numbers(number: int) -> str:
        spanseal.set_actor(str(number))
        spanseal.record("number.seen", resource_id=number)
        return spanseal.request_id()

    async def one(number: int) -> None:
        sent: list[Message] = []

        async def receive() -> Message:
            return await asyncio.Future()

        async def send(message: Message) -> None:
            sent.append(message)

        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": f"/numbers/{number}", "root_path": "", "headers": [],
                 "query_string": b"", "scheme": "http", "server": ("x", 80), "client": None}  # fmt: skip
        await app(scope, receive, send)
        assert sent[1]["body"].decode().strip('"') == dict(sent[0]["headers"])[b"x-request-id"].decode()

    async def main() -> None:
        await asyncio.gather(*(asyncio.create_task(one(number)) for number in range(60)))

    asyncio.run(main())
    records = audit.records()
    by_id: dict[str, set[tuple[str, str]]] = {}
    for record in records:
        key = str(record.attributes["audit.request.id"])
        by_id.setdefault(key, set()).add((record.action, str(record.attributes["audit.actor.id"])))
        assert record.attributes["audit.target.id"] == record.attributes["audit.actor.id"]
    assert len(by_id) == 60
    assert all(len(found) == 2 and len({actor for _, actor in found}) == 1 for found in by_id.values())
