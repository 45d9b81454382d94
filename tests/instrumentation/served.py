"""The application that real servers serve in these tests. Copied beside its server, so that a reloader sees it."""

from __future__ import annotations

import os
import threading

import flask

import spanseal

app = flask.Flask("served")

if action := os.environ.get("SERVED_RECORDS"):
    # While the application is loaded, as one does that tells of its start.
    spanseal.record(action)


@app.get("/healthz")
def health() -> str:
    return "ok"


@app.get("/patients/<pid>")
def view(pid: str) -> str:
    return pid


@app.post("/patients/<pid>")
def change(pid: str) -> dict[str, str]:
    before = spanseal.request_id()
    # Others' requests come in between here: nothing of them may get into this one.
    threading.Event().wait(0.01)
    spanseal.record("patient.checked", resource_id=pid)
    return {"before": before, "after": spanseal.request_id()}
