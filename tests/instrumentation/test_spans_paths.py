"""Paths with anything in them: one request is one record, and its ids are those that the application was given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import flask
import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.propagators import (
    get_global_response_propagator,
    set_global_response_propagator,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from starlette.middleware.wsgi import WSGIMiddleware
from werkzeug.test import create_environ

import spanseal
from tests.instrumentation.conftest import Audit

WRITTEN = ["7", "a%20b", "%C3%A4", "%E6%97%A5", "%FF", "what%3F", "100%25", "a;b"]


@pytest.fixture
def provider(audit: Audit) -> Iterator[TracerProvider]:
    before = get_global_response_propagator()  # type: ignore[no-untyped-call]
    assert audit.own_rows() == []
    made = TracerProvider()
    spanseal.instrument_provider(made)
    yield made
    set_global_response_propagator(before)  # type: ignore[no-untyped-call]


def ask(app: Any, written: str) -> None:
    """Ask an application as uvicorn does."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": unquote(written),
        "raw_path": written.encode(),
        "root_path": "",
        "query_string": b"q=s3cr3t",
        "headers": [],
        "client": ("192.0.2.7", 5),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(_message: Any) -> None:
        pass

    async def main() -> None:
        await asyncio.create_task(app(scope, receive, send))

    asyncio.run(main())


def test_in_fastapi_and_in_flask_inside_of_it(
    audit: Audit, provider: TracerProvider, app: flask.Flask
) -> None:
    outer = FastAPI()
    given: list[str] = []

    @outer.post("/patients/{pid}")
    def patients(pid: str) -> None:
        given.append(pid)

    @app.post("/notes/<nid>")
    def notes(nid: str) -> str:
        given.append(nid)
        return ""

    outer.mount("/inner", WSGIMiddleware(app))
    FastAPIInstrumentor.instrument_app(outer, tracer_provider=provider)
    for written in WRITTEN:
        for path in ("/patients/", "/inner/notes/"):
            ask(outer, path + written)
    said = [(record.action, record.attributes.get("audit.target.id")) for record in audit.records()]
    assert [identifier for _, identifier in said] == given == [unquote(w) for w in WRITTEN for _ in range(2)]
    assert {action for action, _ in said} == {"patient.updated", "note.updated"}
    assert b"s3cr3t" not in audit.bytes()


def test_in_flask_inside_of_what_tells_paths_as_they_were_written(
    audit: Audit, provider: TracerProvider, app: flask.Flask
) -> None:
    app.add_url_rule("/notes/<nid>", view_func=lambda nid: nid, methods=["POST"])
    application: Any = app
    for written in WRITTEN:
        said = {"http.method": "POST", "http.target": f"/inner/notes/{written}?q=s3cr3t"}
        environ = create_environ(f"/notes/{written}", method="POST")
        with provider.get_tracer("a.framework").start_as_current_span(
            "x", kind=SpanKind.SERVER, attributes=said
        ):
            body = application(environ, lambda *_: None)
            list(body)
            body.close()
    found = [record.attributes["audit.target.id"] for record in audit.records()]
    assert found == [unquote(written) for written in WRITTEN]
