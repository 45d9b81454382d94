"""Every request that a real server answers is on record once, whatever is killed, and while the collector is away."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from spanseal.commands.spool_report import look
from tests.instrumentation import served
from tests.instrumentation.conftest import until
from tests.instrumentation.fake_receiver import FakeReceiver, Reply
from tests.instrumentation.live import FLASK_RUN, Server, Visitors, check_visits, gunicorn, missing
from tests.instrumentation.test_adoption import check_streams

ROUNDS = int(os.environ.get("TEST_ROUNDS", "4"))
BETWEEN = 15
"""Answers between two kills."""

RNG = random.Random(7)  # noqa: S311 - which worker, no secret
Round = Callable[[random.Random], None]

SERVERS = {
    "sync": gunicorn("--worker-class", "sync"),
    "gthread": gunicorn("--worker-class", "gthread", "--threads", "4"),
    "gevent": gunicorn("--worker-class", "gevent"),
    "preload": gunicorn("--worker-class", "gthread", "--threads", "2", "--preload"),
    "gevent preload": gunicorn("--worker-class", "gevent", "--preload"),
    "max-requests": gunicorn("--max-requests", "12", "--max-requests-jitter", "6"),
}


def away(receiver: FakeReceiver, visitors: Visitors, reply: Reply) -> Round:
    """Make a round in which nothing is taken."""

    def be_away(_: random.Random) -> None:
        taking = receiver.answer
        receiver.answer = lambda _records: reply
        visitors.wait_for_more(BETWEEN)
        receiver.answer = taking

    return be_away


def go_through(rounds: list[Round], visitors: Visitors) -> None:
    """Have visitors while things happen."""
    with visitors:
        for number in range(ROUNDS):
            visitors.wait_for_more(BETWEEN)
            rounds[number % len(rounds)](RNG)
        visitors.wait_for_more(BETWEEN)


def check(server: Server, receiver: FakeReceiver, visitors: Visitors, name: str) -> None:
    """See that everything is on record, once."""
    receiver.wait(lambda seen: not missing(visitors, seen.taken), 60)
    # What the dead left is taken over by the living.
    until(lambda: all(file.owner == "alive" for file in look(server.spool).files))
    server.stop()
    more = check_visits(visitors, receiver.taken)
    check_streams(receiver, again=True)
    print(f"{name}: {ROUNDS} rounds, {len(visitors.answered)} answered, {more} more on record")  # noqa: T201
    assert "Traceback" not in server.text()


@pytest.mark.parametrize("name", SERVERS)
def test_gunicorn(tmp_path: Path, receiver: FakeReceiver, name: str) -> None:
    server = Server(
        tmp_path,
        SERVERS[name],
        endpoint=receiver.url,
        source=Path(served.__file__),
        # Under gevent a record made in the master would load there what gevent must replace first.
        env={} if name == "gevent preload" else {"SERVED_RECORDS": "app.loaded"},
    )
    visitors = Visitors(server.port)
    rounds = [
        server.kill_worker,
        away(receiver, visitors, Reply(silent=True)),
        server.kill_and_start,
        server.end_worker,
        server.restart,
        away(receiver, visitors, Reply(503)),
    ]
    with server:
        go_through(rounds, visitors)
        check(server, receiver, visitors, name)
    loaded = [record for record in receiver.taken if record.action == "app.loaded"]
    assert loaded or name == "gevent preload"
    # Everything is sent, and nothing is left of those that died.
    assert list(server.spool.glob("*.db*")) == []
    assert "MonkeyPatchWarning" not in server.text()


def test_flask_run_with_its_reloader(tmp_path: Path, receiver: FakeReceiver) -> None:
    server = Server(tmp_path, FLASK_RUN, endpoint=receiver.url, source=Path(served.__file__))
    visitors = Visitors(server.port)

    def touch(_: random.Random) -> None:
        reloads = server.text().count("Restarting with")
        # The reloader ends Python while this server's threads go on answering.
        with server.source.open("a") as source:
            source.write("# saved again\n")
        until(lambda: server.text().count("Restarting with") > reloads)

    rounds = [touch, server.kill_and_start, away(receiver, visitors, Reply(silent=True)), server.restart]
    with server:
        go_through(rounds, visitors)
        # What it left on SIGTERM or SIGKILL is sent by the next start.
        server.restart(RNG)
        check(server, receiver, visitors, "flask run --debug")


ASYNC = """
import asyncio
import flask
import spanseal

app = flask.Flask("awaited")

@app.get("/healthz")
def health():
    return "ok"

@app.route("/patients/<pid>", methods=["GET", "POST"])
async def patients(pid):
    if flask.request.method == "GET":
        return pid
    before = spanseal.request_id()
    await asyncio.sleep(0.01)
    spanseal.record("patient.checked", resource_id=pid)
    return {"before": before, "after": spanseal.request_id()}
"""


def test_async_views(tmp_path: Path, receiver: FakeReceiver) -> None:
    server = Server(tmp_path, SERVERS["gthread"], endpoint=receiver.url)
    server.source.write_text(ASYNC)
    visitors = Visitors(server.port)
    with server:
        with visitors:
            visitors.wait_for_more(100)
        check(server, receiver, visitors, "async views")
