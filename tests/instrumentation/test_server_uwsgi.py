"""uWSGI: it forks without Python's knowledge, and had threads off unless asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spanseal.commands.spool_report import look
from tests.cached_venv import cached_venv
from tests.instrumentation import served
from tests.instrumentation.conftest import spool_rows, until
from tests.instrumentation.fake_receiver import FakeReceiver, Reply
from tests.instrumentation.live import Server, Visitors, check_visits, missing
from tests.instrumentation.test_adoption import check_streams
from tests.instrumentation.test_server_kills import away, check, go_through


def uwsgi(name: str, *options: str) -> tuple[str, ...]:
    program = str(cached_venv(name) / "uwsgi")
    command = (program, "--home", sys.prefix, "--http-socket", "127.0.0.1:{port}", "--module", "{module}:app")
    # As containers want it: SIGTERM ends it, and workers that hang are not waited for. (With threads, Python's own end
    # sometimes waits for ever in a worker that uWSGI ends in another thread than its first one.)
    ending = ("--die-on-term", "--worker-reload-mercy", "10")
    return (*command, "--master", *ending, "--need-app", "--disable-logging", *options)


@pytest.mark.parametrize("options", [(), ("--lazy-apps", "--threads", "4")], ids=["forked", "lazy, threads"])
def test_kills(tmp_path: Path, receiver: FakeReceiver, options: tuple[str, ...]) -> None:
    server = Server(
        tmp_path,
        uwsgi("uwsgi", "--processes", "2", *options),
        endpoint=receiver.url,
        source=Path(served.__file__),
        # In the master, where the application is loaded in it: the workers must leave that record alone.
        env={"SERVED_RECORDS": "app.loaded"},
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
        check(server, receiver, visitors, f"uwsgi {' '.join(options)}")
    assert len([record for record in receiver.taken if record.action == "app.loaded"]) >= 2
    if list(server.spool.glob("*.db*")):  # of a worker that had to be killed in the end
        with server:
            until(lambda: all(file.owner == "alive" for file in look(server.spool).files))


def test_without_threads_it_is_said_and_nothing_is_lost(tmp_path: Path, receiver: FakeReceiver) -> None:
    command = uwsgi("uwsgi-threadless", "--processes", "1")
    server = Server(tmp_path, command, endpoint=receiver.url, source=Path(served.__file__))
    visitors = Visitors(server.port)
    with server:
        with visitors:
            visitors.wait_for_more(30)
        assert "start it with --enable-threads" in server.text()
        kept = {row.attributes.get("audit.request.id") for row in spool_rows(server.spool)}
        sent = {record.attributes.get("audit.request.id") for record in receiver.taken}
        assert kept | sent >= {visit.request_id for visit in visitors.answered.values()}
        server.kill()
    server.log.unlink()
    with Server(tmp_path, (*command, "--enable-threads"), endpoint=receiver.url) as enabled:
        receiver.wait(lambda seen: not missing(visitors, seen.taken))
        assert "audit records" not in enabled.text()
    check_visits(visitors, receiver.taken)
    check_streams(receiver, again=True)


FORKED_BY_C = """
import ctypes, os
import spanseal
from spanseal import runtime

spanseal.record("parent.begun")
mine = runtime.current().keeper.spool
child = ctypes.PyDLL(None).fork()  # as a server in C does: nothing that Python registered is run
if child == 0:
    alone = runtime.current().keeper.spool is None and not mine.lock.held
    os._exit(0 if alone else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
spanseal.record("parent.done")
assert runtime.current().keeper.spool is mine and mine.lock.held
"""


def test_a_fork_that_python_is_not_told_of(tmp_path: Path, receiver: FakeReceiver) -> None:
    variables = {"SPANSEAL_SPOOL_DIR": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    command = [sys.executable, "-c", FORKED_BY_C]
    subprocess.run(command, env={**os.environ, **variables}, check=True, timeout=60)
    actions = [record.action for record in receiver.taken]
    assert actions == ["producer.started", "parent.begun", "parent.done", "producer.stopped"]
