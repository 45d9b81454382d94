"""The application whose cost is measured: one reading route, one changing route, and by request an audit by hand.

`AUDIT_BY_HAND=FILE` adds what people write today: a row in SQLite for every request, committed before the answer.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid

import flask

app = flask.Flask("cost")
app.secret_key = "a made-up key"  # noqa: S105 - of a benchmark

_INVOICES = {str(number): {"id": number, "cents": number * 100} for number in range(1, 1000)}


@app.get("/invoices/<invoice_id>")
def invoice(invoice_id: str) -> flask.typing.ResponseReturnValue:
    """Give one invoice as JSON."""
    return flask.jsonify(_INVOICES[invoice_id])


@app.post("/invoices/<invoice_id>/approve")
def approve(invoice_id: str) -> flask.typing.ResponseReturnValue:
    """Change one invoice."""
    _INVOICES[invoice_id]["approved"] = 1
    return flask.jsonify(_INVOICES[invoice_id]), 201


@app.before_request
def _who() -> None:
    flask.g.user = "42"


if _file := os.environ.get("AUDIT_BY_HAND"):
    _local = threading.local()

    def _connection() -> sqlite3.Connection:
        if not hasattr(_local, "connection"):
            _local.connection = sqlite3.connect(_file, isolation_level=None)
            _local.connection.execute("PRAGMA journal_mode = WAL")
            _local.connection.execute(f"PRAGMA synchronous = {os.environ['SYNCHRONOUS']}")
            _local.connection.execute(
                "CREATE TABLE IF NOT EXISTS audit (id TEXT PRIMARY KEY, at INTEGER, actor TEXT, action TEXT, "
                "resource TEXT, status INTEGER, address TEXT, agent TEXT)"
            )
        found: sqlite3.Connection = _local.connection
        return found

    @app.after_request
    def _write(response: flask.Response) -> flask.Response:
        request = flask.request
        _connection().execute(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                str(uuid.uuid4()),
                time.time_ns(),
                flask.g.user,
                f"{request.method} {request.url_rule}",
                str((request.view_args or {}).get("invoice_id")),
                response.status_code,
                request.remote_addr,
                request.headers.get("User-Agent"),
            ),
        )
        return response
