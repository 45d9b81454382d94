"""Processes that fork after the audit has begun: as gunicorn's with `--preload`, and multiprocessing's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import spanseal
from spanseal import settings
from spanseal.delivery.adoption import Adopter
from spanseal.delivery.spool_file import Access
from tests.instrumentation.conftest import Audit
from tests.instrumentation.fake_receiver import Reply
from tests.instrumentation.test_adoption import check_streams

ROOT = Path(__file__).resolve().parents[2]

# Each program prints what it is told to; `spool()` is the runtime's own.
PRELUDE = """
import multiprocessing, os, sys, threading
import spanseal
from spanseal import runtime
from spanseal.delivery import keeper

def spool():
    return runtime.current().keeper.spool

def tell(text):
    print(text, flush=True)

spanseal.record("parent.begun")
mine = spool()
"""

FORK = """
child = os.fork()
if child == 0:
    assert spool() is None
    spanseal.record("child.done")
    assert spool() is not mine and spool().stream != mine.stream
    {end}
_, status = os.waitpid(child, 0)
assert status == 0, status
assert mine.lock.held and mine.file.path.exists() and mine.lock.path.exists()
spanseal.record("parent.done")
assert spool() is mine
"""

MULTIPROCESSING = """
def work(number):
    spanseal.record("child.done", resource_id=number)
    runtime.current().stop()

context = multiprocessing.get_context("fork")
children = [context.Process(target=work, args=(number,)) for number in range(3)]
for child in children: child.start()
for child in children: child.join()
assert [child.exitcode for child in children] == [0, 0, 0]
spanseal.record("parent.done")
"""

IN_THE_MIDDLE = """
held, go = threading.Event(), threading.Event()

def hold():
    with runtime.current().keeper._creation, mine._dropping:
        held.set()
        go.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    spanseal.record("child.done")
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
go.set()
spanseal.record("parent.done")
"""


def run(program: str, *, quietly: bool = True) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # A machine that is very busy may make it say that the receiver is slow.
    said = [line for line in done.stderr.splitlines() if not line.startswith("audit records wait")]
    assert said == [] or not quietly


@pytest.mark.parametrize(
    ("program", "children"),
    [
        (FORK.format(end="sys.exit(0)"), 1),
        (FORK.format(end="runtime.current().stop(); os._exit(0)"), 1),
        (FORK.format(end="import gc; keeper._abandoned.clear(); gc.collect(); sys.exit(0)"), 1),
        (MULTIPROCESSING, 3),
        (IN_THE_MIDDLE, 1),
    ],
    ids=["exit", "_exit", "collected", "multiprocessing", "locks held"],
)
def test_a_child_has_a_spool_of_its_own_and_leaves_its_parents_alone(
    audit: Audit, program: str, children: int
) -> None:
    run(program)
    audit.receiver.wait_for("producer.stopped", children + 1)
    assert len(check_streams(audit.receiver)) == children + 1
    actions = [record.action for record in audit.receiver.taken if not record.action.startswith("producer.")]
    assert sorted(actions) == ["child.done"] * children + ["parent.begun", "parent.done"]
    assert {path.suffix for path in audit.directory.iterdir()} <= {".flock", ".json"}


IN_A_VIEW = """
import flask
from tests.instrumentation.calling import call, environ

app = flask.Flask("forking")
spanseal.instrument_app(app)

@app.post("/reports")
def reports():
    child = os.fork()
    if child == 0:
        spanseal.record("child.done")
        if flask.request.args["end"] == "exit":
            sys.exit(0)
        return "child"
    _, status = os.waitpid(child, 0)
    return str(status)

for end in ("exit", "return"):
    me = os.getpid()
    body, begun = call(app, environ(app, "/reports", method="POST", query_string={"end": end}))
    text = b"".join(body)
    body.close()
    if os.getpid() != me:
        sys.exit(0)
    assert (text, begun[0][0]) == (b"0", "200 OK")
"""


def test_a_fork_in_a_view_leaves_the_request_to_the_parent(audit: Audit) -> None:
    run(IN_A_VIEW)
    audit.receiver.wait_for("producer.stopped", 3)
    assert len(check_streams(audit.receiver)) == 3
    done = audit.receiver.wait_for("child.done", 2)
    made = audit.receiver.wait_for("report.created", 2)
    assert len(made) == len(done) == 2
    assert {record.stream for record in made}.isdisjoint(record.stream for record in done)
    ids = {record.attributes["audit.request.id"] for record in made}
    assert {record.attributes["audit.request.id"] for record in done} == ids


BUSY = """
import signal

enough = threading.Event()

def work():
    while not enough.is_set():
        mine.file.write("UPDATE stream SET next = next")
        mine.file.checkpoint(force=True)

threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # a lock of SQLite's that nobody is left to give back would be waited for for ever
        spanseal.record("child.done")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
enough.set()
for thread in threads: thread.join()
"""


def test_a_fork_under_load_leaves_a_child_that_can_record(audit: Audit) -> None:
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.05")
    run(BUSY, quietly=False)  # the spool's lists are waited for in such a crowd
    spanseal.record("test.begun")
    audit.receiver.wait_for("child.done", 30)
    audit.everything()
    # A child that ends between sending and forgetting has its records sent again.
    check_streams(audit.receiver, again=True)


ORPHAN = """
child = os.fork()
if child == 0:
    spanseal.record("child.done")
    tell(os.getpid())
    threading.Event().wait()
threading.Event().wait()
"""


def test_a_child_does_not_keep_a_dead_parents_spool_from_being_adopted(audit: Audit) -> None:
    audit.receiver.answer = lambda _records: Reply(503)
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + ORPHAN], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            adopter = Adopter(settings.load(), Access(), audit.directory / "own.lock")
            assert adopter.look() == []
            parent.send_signal(signal.SIGKILL)
            os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
            found = adopter.look()
            assert len(found) <= 1
            names = {row.action for row in audit.rows()}
            assert names >= {"parent.begun", "child.done"}
            # The living child may have been faster: it looks for what the dead leave, too.
            dead = found[0].file.path if found else None
            for adopted in found:
                adopter.leave(adopted)
            assert dead is not None or "producer.stopped" in names
        finally:
            os.kill(child, signal.SIGKILL)
