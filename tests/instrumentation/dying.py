"""A process that stops in a certain state and waits to be killed. Run as a program, with the state's name.

Its settings come from the environment. It writes one line when it is there: the number of records it has made.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, NoReturn

import flask

import spanseal
from spanseal import runtime
from spanseal.delivery.adoption import Adopter
from spanseal.delivery.spool_file import Access
from tests.instrumentation.calling import call, environ


def wait(made: int) -> NoReturn:
    sys.stdout.write(f"{made}\n")
    sys.stdout.flush()
    threading.Event().wait()
    raise AssertionError


def application() -> flask.Flask:
    app = flask.Flask("dying")
    spanseal.instrument_app(app)

    @app.post("/patients/<pid>")
    def patients(pid: str) -> str:
        if pid == "stop":
            wait(2)
        return pid

    return app


def request(app: flask.Flask, pid: str) -> Any:
    body, _ = call(app, environ(app, f"/patients/{pid}", method="POST"))
    return body


def main(state: str) -> NoReturn:
    app = application()
    if state == "adopting":
        settings = runtime.current().settings
        found = Adopter(settings, Access(), settings.spool_dir / "own.lock").look()
        wait(len(found))
    body = request(app, "first")
    list(body)
    body.close()
    if state == "open":
        request(app, "stop")
    body = request(app, "second")
    if state == "answered":
        wait(2)
    list(body)
    body.close()
    spool = runtime.current().keeper.spool
    assert spool is not None
    spool.settle()
    if state == "dropping":
        spool.lock.set_dropped(3)  # it dies before it can name them
    if state == "stopped":
        runtime.current().stop()
    wait(2)


if __name__ == "__main__":
    main(sys.argv[1])
