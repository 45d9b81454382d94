"""A FastAPI application: coroutines and plain functions, dependencies, errors, streams, background tasks, Flask inside."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import flask
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Response
from fastapi.responses import StreamingResponse
from starlette.middleware.wsgi import WSGIMiddleware

import spanseal

app = FastAPI()


def user() -> str:
    spanseal.set_actor(spanseal.Actor("42", role="doctor"))
    return "42"


@app.get("/healthz")
async def health() -> str:
    return "ok"


@app.get("/patients/{pid}")
async def view(pid: int) -> str:
    await asyncio.sleep(0)
    del pid
    return spanseal.request_id()


@app.post("/patients/{pid}")
async def change(pid: int, _user: Annotated[str, Depends(user)]) -> str:
    spanseal.record("patient.checked", resource_id=pid)
    await asyncio.gather(*(asyncio.create_task(note(pid)) for _ in range(2)))
    return spanseal.request_id()


async def note(pid: int) -> None:
    await asyncio.sleep(0)
    spanseal.record("patient.noted", resource_id=pid)


@app.put("/patients/{pid}")
def change_in_a_thread(pid: int, tasks: BackgroundTasks, _user: Annotated[str, Depends(user)]) -> str:
    spanseal.record("patient.checked", resource_id=pid)
    tasks.add_task(spanseal.record, "mail.sent", resource_id=pid)
    return spanseal.request_id()


@app.get("/widgets/{token}")
async def widget(token: str) -> str:
    return token


@app.get("/boom")
async def boom() -> str:
    raise LookupError("s3cr3t")


@app.get("/forbidden")
def forbidden() -> str:
    raise HTTPException(403, "s3cr3t")


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def rows() -> AsyncIterator[str]:
        yield "1,"
        await asyncio.sleep(0)
        yield "2"

    return StreamingResponse(rows())


@app.get("/broken-stream")
async def broken_stream() -> StreamingResponse:
    def rows() -> Iterator[str]:
        yield "1,"
        raise LookupError("s3cr3t")

    return StreamingResponse(rows())


@app.get("/own")
async def own() -> Response:
    return Response("own", headers={"X-Request-Id": "the application's"})


@app.post("/hang/{pid}/")
def hang(pid: int) -> str:
    sys.stderr.write(f"hanging {pid}\n")
    sys.stderr.flush()
    threading.Event().wait()
    return "never"


@app.get("/begin/{pid}/")
async def begin(pid: int) -> StreamingResponse:
    async def rows() -> AsyncIterator[str]:
        yield f"patient {pid}"
        await asyncio.Event().wait()

    return StreamingResponse(rows())


inner = flask.Flask("inner")


@inner.route("/invoices/<iid>", methods=["GET", "POST"])
def invoice(iid: str) -> str:
    spanseal.record("invoice.looked_at", resource_id=iid)
    return spanseal.request_id()


app.mount("/flask", WSGIMiddleware(inner))
