"""From the spool to the collector: what each answer means for the records."""

from __future__ import annotations

import hashlib
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

import spanseal
from spanseal.delivery import shipper
from spanseal.delivery.exporter import Answer, Verdict
from spanseal.delivery.spool import Spool
from spanseal.delivery.spool_file import SpoolFile
from spanseal.errors import SpoolUnavailable
from tests.instrumentation.conftest import Audit, until
from tests.instrumentation.fake_receiver import FakeReceiver, Received, Reply, rejecting
from tests.instrumentation.test_adoption import check_streams

# --- batches ------------------------------------------------------------------------------------------------------


def targets(receiver: FakeReceiver) -> list[str]:
    return [r.attributes["audit.target.id"] for r in receiver.taken if r.action == "test.done"]


def fill(audit: Audit, count: int, reply: Reply | None = None) -> None:
    """Record while the receiver takes nothing; then nothing has been numbered twice or sent."""
    audit.receiver.answer = lambda _records: reply or Reply(503)
    for number in range(count):
        spanseal.record("test.done", resource_id=number)


def go_on(audit: Audit, reply: Callable[[list[Received]], Reply]) -> None:
    audit.receiver.answer = reply
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    ship._not_before = 0.0  # the time of the next attempt has come
    ship.wake()


def test_what_is_stored_is_forgotten_and_nothing_else(audit: Audit) -> None:
    fill(audit, 3)
    audit.receiver.wait(lambda receiver: receiver.requests)
    assert len(audit.own_rows()) == 3
    go_on(audit, lambda _records: Reply())
    audit.receiver.wait_for("test.done", 3)
    spanseal.record("test.done", resource_id=3)
    audit.everything()
    assert targets(audit.receiver) == ["0", "1", "2", "3"]
    assert list(audit.directory.glob("*.db")) == []
    check_streams(audit.receiver)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Type": "text/html"}, body=b"<p>welcome"),
        Reply(headers={}),
        Reply(302, {"Location": "/"}),
        Reply(401),
        Reply(500),
        Reply(silent=True),
        Reply(length=3),
        Reply(400),
        Reply(413),
        rejecting(5),
    ],
    ids=repr,
)
def test_without_a_true_yes_nothing_is_deleted_nor_set_aside(audit: Audit, reply: Reply) -> None:
    """An endpoint that answers 400 to everything has something against the sender."""
    fill(audit, 5, reply)
    audit.receiver.wait(lambda receiver: len(receiver.requests) >= 2)
    audit.runtime.stop()
    assert len(audit.own_rows()) == 5
    (path,) = audit.directory.glob("*.db")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM aside").fetchone() == (0,)
    # The next process brings it all.
    audit.receiver.answer = lambda _records: Reply()
    audit.receiver.taken.clear()
    audit.restart()
    spanseal.record("test.begun")
    audit.receiver.wait_for("test.done", 5)
    audit.everything()
    assert sorted(targets(audit.receiver)) == ["0", "1", "2", "3", "4"]
    check_streams(audit.receiver)


@pytest.mark.parametrize("how", [Reply(400), Reply(413), rejecting(1)], ids=["400", "413", "rejected"])
def test_a_batch_that_is_refused_is_halved_down_to_the_bad_one(
    audit: Audit, log: pytest.LogCaptureFixture, how: Reply
) -> None:
    fill(audit, 100)
    bad: list[Received] = []

    def reply(records: list[Received]) -> Reply:
        found = [record for record in records if record.attributes["audit.target.id"] == "66"]
        bad[:] = found or bad
        return how if found else Reply()

    audit.receiver.wait(lambda receiver: receiver.requests)
    sent = len(audit.receiver.requests)
    go_on(audit, reply)
    (gap,) = audit.receiver.wait_for("producer.gap")
    (record,) = bad
    named = {key.removeprefix("audit.producer.gap."): value for key, value in gap.attributes.items()}
    assert (named["first"], named["last"], named["count"]) == (record.number, record.number, 1)
    assert (named["stream_id"], named["reason"], named["record_id"]) == (record.stream, "refused", record.id)
    # Not each record by itself: two requests for each halving, and one with nothing in it.
    assert len(audit.receiver.requests) - sent < 30
    assert "set aside" in log.text
    audit.everything()
    stored = set(targets(audit.receiver)) - {"66"} if how.status == 200 else set(targets(audit.receiver))
    assert stored == {str(number) for number in range(100) if number != 66}
    (aside,) = audit.directory.glob("*.aside")
    with closing(sqlite3.connect(aside)) as connection:
        ((number, body, reason),) = connection.execute("SELECT seq, body, reason FROM aside").fetchall()
    assert number == record.number
    assert hashlib.sha256(body).hexdigest() == named["sha256"]
    assert audit.receiver.url in reason


def test_batches_are_bounded(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "BATCH_RECORDS", 10)
    monkeypatch.setattr(shipper, "BATCH_BYTES", 5000)
    fill(audit, 50)
    spanseal.record("test.done", resource_id=50, attributes={"fill": "x" * 20_000})
    audit.receiver.wait(lambda receiver: receiver.requests)
    go_on(audit, lambda _records: Reply())
    audit.receiver.wait_for("test.done", 51)
    sizes = [len(request.records) for request in audit.receiver.requests]
    assert max(sizes) <= 10
    assert targets(audit.receiver) == [str(number) for number in range(51)]


def test_what_cannot_be_reached_is_tried_again(audit: Audit, log: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        audit.set(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        spanseal.record("test.done")
        ship = audit.runtime.keeper.shipper
        assert ship is not None
        until(lambda: ship._failures)
    assert "cannot be reached" in log.text
    server = FakeReceiver(port=int(endpoint.rpartition(":")[2]))
    server.start()
    try:
        server.wait_for("test.done")
        audit.runtime.stop()
        check_streams(server)
    finally:
        server.stop()
    assert log.text.count("cannot be reached") == 1


def test_it_waits_longer_and_longer_but_never_too_long(audit: Audit) -> None:
    spanseal.record("test.done")
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    audit.everything()
    least, most = [], []
    for _ in range(12):
        before = time.monotonic()
        ship._failed(Answer(Verdict.LATER, "no"))
        # However long that took: the delay itself is between these.
        most.append(ship._not_before - before)
        least.append(ship._not_before - time.monotonic())
    assert least[0] <= 0.5
    assert most[-1] >= 15
    assert least[-1] <= 30
    ship._failed(Answer(Verdict.LATER, "no", 200.0))
    assert ship._not_before - time.monotonic() > 190


def test_an_error_of_its_own_does_not_end_it_nor_make_it_spin(
    audit: Audit, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = []
    settle = shipper.Shipper._settle

    def fail_once(self: shipper.Shipper) -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise ZeroDivisionError
        settle(self)

    spanseal.record("test.done")
    audit.receiver.wait_for("test.done")
    monkeypatch.setattr(shipper.Shipper, "_settle", fail_once)
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    ship.wake()
    until(lambda: len(rounds) >= 2 and not ship._failures)
    assert "it goes on" in log.text
    # There was nothing to send, so no answer told that all is well.
    assert ship._pause() > 1


def test_what_the_spool_cannot_do_now_is_done_later(
    audit: Audit, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at the directory, giving numbers, forgetting what was sent: each fails, and not for ever."""
    failing = {"fit": 3, "settle": 3, "delete": 3}

    def fail(owner: Any, name: str, error: Exception) -> None:
        work = getattr(owner, name)

        def failing_at_first(*arguments: Any) -> Any:
            failing[name] -= 1
            if failing[name] >= 0:
                raise error
            return work(*arguments)

        monkeypatch.setattr(owner, name, failing_at_first)

    fail(Spool, "fit", PermissionError("not now"))
    fail(Spool, "settle", SpoolUnavailable("not now"))
    fail(SpoolFile, "delete", SpoolUnavailable("not now"))
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.01")
    for number in range(3):
        spanseal.record("test.done", resource_id=number)
    ship = audit.runtime.keeper.shipper
    assert ship is not None

    def all_is_sent() -> bool:
        ship._not_before = 0.0  # the time of the next attempt has come
        ship.wake()
        return audit.own_rows() == [] and all(left < 0 for left in failing.values())

    until(all_is_sent)
    assert log.text.count("could not be looked through") == 1
    assert log.text.count("wait to be numbered") == 1
    audit.everything()
    check_streams(audit.receiver, again=True)


def test_progress_ends_the_waiting(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "BATCH_RECORDS", 1)
    fill(audit, 2)
    audit.receiver.wait(lambda receiver: receiver.requests)
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    until(lambda: ship._failures)
    ship._failures = 9
    go_on(audit, lambda records: Reply(503 if records[0].attributes["audit.target.id"] == "1" else 200))
    audit.receiver.wait_for("test.done")
    audit.receiver.wait(
        lambda receiver: receiver.requests[-1].records[0].attributes["audit.target.id"] == "1"
    )
    audit.runtime.stop()
    assert ship._failures < 9


# --- the end ------------------------------------------------------------------------------------------------------


def test_the_end_is_the_last_record_and_the_next_stream_names_it(audit: Audit) -> None:
    spanseal.record("test.done")
    audit.runtime.stop()
    audit.restart()
    spanseal.record("test.done")
    everything = audit.everything()
    first, second = everything[:3], everything[3:]
    assert [record.action for record in first] == ["producer.started", "test.done", "producer.stopped"]
    assert first[-1].attributes["audit.producer.last"] == first[-1].number == 2
    assert json.loads(second[0].attributes["audit.producer.previous"]) == [
        {"stream_id": first[0].stream, "last": 2}
    ]
    assert first[0].stream.startswith("desk-1/")
    assert first[0].attributes["audit.actor.type"] == "system"


def test_a_hanging_server_does_not_hold_up_the_end_of_the_process(audit: Audit) -> None:
    audit.set(SPANSEAL_SHUTDOWN_TIMEOUT="0.2")
    hanging = threading.Event()
    audit.receiver.answer = lambda _records: Reply(wait=hanging)
    spanseal.record("test.done", resource_id=1)
    audit.receiver.wait(lambda receiver: receiver.requests)
    spanseal.record("test.done", resource_id=2)
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    done = threading.Event()

    def stop() -> None:
        audit.runtime.stop()
        done.set()

    threading.Thread(target=stop, daemon=True).start()
    # The request's own timeout is 10 s.
    assert done.wait(8)
    hanging.set()
    ship._thread.join(20)
    # What was not sent in time is the next process's.
    audit.receiver.answer = lambda _records: Reply()
    audit.restart()
    spanseal.record("test.begun")
    audit.receiver.wait(lambda receiver: {"1", "2"} <= set(targets(receiver)))


def test_after_the_time_for_the_end_nothing_more_is_sent(audit: Audit) -> None:
    audit.set(SPANSEAL_SHUTDOWN_TIMEOUT="0")
    fill(audit, 3)
    audit.receiver.wait(lambda receiver: receiver.requests)
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    audit.receiver.answer = lambda _records: Reply()
    audit.runtime.stop()
    ship._thread.join(20)
    assert audit.receiver.taken == []
    assert [row.action for row in audit.rows()][-1] == "producer.stopped"


def test_a_server_that_begins_to_hang_at_the_end(audit: Audit) -> None:
    audit.set(SPANSEAL_SHUTDOWN_TIMEOUT="0.2")
    spanseal.record("test.done", resource_id=1)
    audit.receiver.wait_for("test.done")
    hanging = threading.Event()
    audit.receiver.answer = lambda _records: Reply(wait=hanging)
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    audit.runtime.stop()
    ship._thread.join(8)
    assert not ship._thread.is_alive()
    hanging.set()
    # Its stream was ended in the file, whoever sends it.
    assert [row.action for row in audit.rows()] == ["producer.stopped"]
