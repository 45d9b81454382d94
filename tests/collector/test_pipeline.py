from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from spanseal_collector.clock import Clock
from spanseal_collector.errors import BusyError, UnavailableError
from spanseal_collector.pipeline import Limits
from spanseal_ledger.checkpoint_log import Line
from spanseal_storage.checkpoint_file import read_checkpoint_file
from tests.collector.conftest import Log
from tests.collector.faults import STREAM, FailingLog, FailingWriter, GatedWriter, numbered, send, until
from tests.collector.wire import record


def test_a_chain_from_start_to_stop(log: Log) -> None:
    pipeline = log.pipeline()
    pipeline.start()
    send(pipeline, record(), record(audit__tenant="acme")).result(20)
    send(pipeline, record()).result(20)
    assert pipeline.stop()
    rows = log.rows("seq, tenant, tenant_seq, action, checkpoint != ''")
    assert rows == [
        (0, "_collector", 0, "audit_log.started", 1),
        (1, "default", 0, "patient.viewed", 0),
        (2, "acme", 0, "patient.viewed", 1),
        (3, "default", 1, "patient.viewed", 1),
        (4, "_collector", 1, "audit_log.heartbeat", 0),
        (5, "_collector", 2, "audit_log.stopped", 1),
    ]
    lines, problems = read_checkpoint_file(log.directory.checkpoint_log)
    assert problems == []
    assert [line.note for line in lines] == [row[0] for row in log.rows("checkpoint", "checkpoint != ''")]


def test_many_requests_at_once_become_few_batches_and_none_is_lost(log: Log) -> None:
    pipeline = log.pipeline(limits=Limits(linger_seconds=0.05))
    pipeline.start()
    futures = [send(pipeline, numbered(2 * n), numbered(2 * n + 1)) for n in range(100)]
    for future in futures:
        future.result(20)
    assert pipeline.stop()
    assert len(log.rows("1", "tenant = 'default'")) == 200
    assert pipeline.statistics.batches < 30


def test_a_lost_answer_is_not_stored_twice(log: Log) -> None:
    writer = FailingWriter(log, ["", "after"])
    pipeline = log.pipeline(records=writer)
    pipeline.start()
    send(pipeline, record()).result(20)
    assert pipeline.stop()
    assert len(log.rows("1", "tenant = 'default'")) == 1


def test_a_batch_that_failed_is_sent_again_byte_for_byte_before_anything_else(log: Log) -> None:
    writer = FailingWriter(log, ["", "before", "before"])
    pipeline = log.pipeline(records=writer)
    pipeline.start()
    first = send(pipeline, numbered(0))
    while len(writer.sent) < 2:
        time.sleep(0.001)
    second = send(pipeline, numbered(1))
    first.result(20)
    second.result(20)
    assert pipeline.stop()
    assert writer.sent[1] is writer.sent[2] is writer.sent[3]
    assert [row[0] for row in log.rows("producer_seq", "tenant = 'default'")] == [0, 1]


def test_nothing_is_acknowledged_before_the_checkpoint_log_has_it(log: Log) -> None:
    gate = threading.Event()

    class Gated(FailingLog):
        def append(self, line: Line) -> None:
            if "\n1\n" not in line.note:
                gate.wait(20)
            super().append(line)

    pipeline = log.pipeline(checkpoints=Gated(log.checkpoints, 0))
    pipeline.start()
    future = send(pipeline, record())
    until(lambda: len(log.rows("1", "tenant = 'default'")) == 1)
    assert not future.done()
    gate.set()
    future.result(20)
    assert pipeline.stop()


def test_a_checkpoint_log_that_cannot_be_written_is_an_outage_that_ends(log: Log) -> None:
    sink = FailingLog(log.checkpoints, 0)
    pipeline = log.pipeline(checkpoints=sink)
    pipeline.start()
    sink.failures = 2
    send(pipeline, record()).result(20)
    assert pipeline.stalls == 2
    assert pipeline.stop()


def test_duplicates_are_found_in_memory_and_in_the_table(log: Log) -> None:
    once, twice = numbered(0), record(audit__record__id="0192f000-0000-7000-8000-000000000001")
    pipeline = log.pipeline()
    pipeline.start()
    send(pipeline, once, twice, once).result(20)
    send(pipeline, once, twice).result(20)
    assert pipeline.stop()
    assert pipeline.statistics.duplicates == 3
    again = log.pipeline()
    again.start()
    send(again, once, numbered(1), twice).result(20)
    assert again.stop()
    assert again.statistics.duplicates == 2
    assert len(log.rows("1", "tenant = 'default'")) == 3


def test_a_late_number_below_the_window_is_stored(log: Log) -> None:
    pipeline = log.pipeline()
    pipeline.start()
    send(pipeline, numbered(5)).result(20)
    assert pipeline.stop()
    again = log.pipeline()
    again.start()
    send(again, numbered(3), numbered(6)).result(20)
    assert again.stop()
    assert sorted(row[0] for row in log.rows("producer_seq", "tenant = 'default'")) == [3, 5, 6]


def test_one_record_id_in_two_tenants_is_two_records(log: Log) -> None:
    shared = "0192f000-0000-7000-8000-000000000001"
    pipeline = log.pipeline()
    pipeline.start()
    records = (record(audit__record__id=shared), record(audit__record__id=shared, audit__tenant="acme"))
    send(pipeline, *records).result(20)
    assert pipeline.stop()
    assert len(log.rows("1", "tenant != '_collector'")) == 2


def test_other_content_under_a_known_id_is_quarantined_and_sealed_as_a_conflict(log: Log) -> None:
    shared = "0192f000-0000-7000-8000-000000000001"
    pipeline = log.pipeline()
    pipeline.start()
    send(pipeline, record(audit__record__id=shared, amount=1)).result(20)
    send(pipeline, record(audit__record__id=shared, amount=2)).result(20)
    assert pipeline.stop()
    ((amount,),) = log.rows("metadata['amount']", "tenant = 'default'")
    assert amount == "1"
    ((record_id, quarantine_id),) = log.rows(
        "metadata['audit.conflict.record_id'], metadata['audit.quarantine.id']",
        "action = 'audit_log.conflict'",
    )
    assert record_id == shared
    found = log.client.query("SELECT toString(quarantine_id), raw FROM audit.quarantine").result_rows
    assert [row[0] for row in found] == [quarantine_id]
    assert '"amount": "2"' in found[0][1]


def test_an_inadmissible_record_is_kept_raw_and_sealed_and_its_neighbours_are_stored(log: Log) -> None:
    pipeline = log.pipeline()
    pipeline.start()
    send(pipeline, numbered(0), numbered(1, audit__outcome="maybe"), numbered(2)).result(20)
    assert pipeline.stop()
    assert [row[0] for row in log.rows("producer_seq", "tenant = 'default'")] == [0, 2]
    ((digest, number, stream),) = log.rows(
        "metadata['audit.quarantine.digest'], metadata['audit.quarantine.producer_seq'], "
        "metadata['audit.quarantine.producer_id']",
        "action = 'audit_log.quarantined'",
    )
    assert (number, stream) == ("1", STREAM)
    ((computed,),) = log.client.query(
        "SELECT lower(hex(SHA256(concat(salt, raw)))) FROM audit.quarantine"
    ).result_rows
    assert computed == digest


def test_a_clock_that_jumps_ends_the_chain_and_a_new_one_begins(log: Log) -> None:
    skew = [0]
    clock = Clock(lambda: time.time_ns() + skew[0])
    # A heartbeat is due with every commit, so also with the one in which the jump is seen.
    pipeline = log.pipeline(clock=clock, limits=Limits(heartbeat_seconds=0.0))
    pipeline.start()
    first = pipeline.chain_id
    send(pipeline, record()).result(20)
    for jump in (-3600, 400):
        skew[0] += jump * 10**9
        before = pipeline.chain_id
        send(pipeline, record()).result(20)
        assert pipeline.chain_id != before
    assert pipeline.stop()
    rows = log.rows("action, metadata['audit.clock.jump_seconds']", f"chain_id = '{first}'")
    actions = [action for action, _ in rows if action != "audit_log.heartbeat"]
    assert actions == ["audit_log.started", "patient.viewed", "audit_log.clock_jump"]
    assert float(rows[-1][1]) == pytest.approx(-3600, abs=1)
    # What the collector says of a chain, it says in that chain.
    assert log.rows("action", "tenant = '_collector' AND resource_id != toString(chain_id)") == []
    assert len(log.rows("1", "action = 'audit_log.heartbeat'")) > 3
    result = log.verify()
    assert (result.findings, result.chains) == ((), 3)


def test_more_than_fits_is_refused_and_room_comes_back(log: Log) -> None:
    writer = FailingWriter(log, [])
    pipeline = log.pipeline(records=writer, limits=Limits(pending_bytes=1500))
    pipeline.start()
    writer.faults = ["before"]
    first = send(pipeline, numbered(0))
    with pytest.raises(BusyError, match="more waits"):
        send(pipeline, numbered(1))
    first.result(20)
    send(pipeline, numbered(1)).result(20)
    assert pipeline.stop()


def test_a_stopping_pipeline_takes_nothing_more(log: Log) -> None:
    pipeline = log.pipeline()
    pipeline.start()
    assert pipeline.stop()
    with pytest.raises(UnavailableError, match="stopping"):
        send(pipeline, record())


def test_heartbeats_count_the_tenants_that_changed(log: Log) -> None:
    pipeline = log.pipeline(limits=Limits(heartbeat_seconds=0.2))
    pipeline.start()
    send(pipeline, record(), record(audit__tenant="acme")).result(20)
    until(lambda: len(log.rows("1", "action = 'audit_log.heartbeat'")) >= 2)
    assert pipeline.stop()
    counts = [
        row[0] for row in log.rows("metadata['audit.heartbeat.tenants']", "action = 'audit_log.heartbeat'")
    ]
    assert '{"acme":1,"default":1}' in counts
    assert counts[-1] == "{}"


def test_heartbeats_come_under_constant_traffic(log: Log) -> None:
    # One request in each batch: while these are stored, the queue is never empty.
    pipeline = log.pipeline(limits=Limits(heartbeat_seconds=0.02, batch_records=1))
    pipeline.start()
    for future in [send(pipeline, record()) for _ in range(100)]:
        future.result(20)
    assert pipeline.stop()
    actions = [row[0] for row in log.rows("action")]
    last = len(actions) - 1 - actions[::-1].index("patient.viewed")
    assert actions[:last].count("audit_log.heartbeat") >= 2
    assert not log.verify().findings


def test_what_gave_up_waiting_is_not_stored(log: Log) -> None:
    writer = GatedWriter(log)
    pipeline = log.pipeline(records=writer)
    pipeline.start()
    writer.gate.clear()
    first = send(pipeline, numbered(0))
    writer.reached.wait(20)
    second, third = send(pipeline, numbered(1)), send(pipeline, numbered(2))
    assert second.cancel()
    writer.gate.set()
    first.result(20)
    third.result(20)
    assert pipeline.stop()
    assert log.rows("producer_seq", "tenant = 'default'") == [(0,), (2,)]


def test_a_batch_takes_in_no_more_than_its_bytes(log: Log) -> None:
    writer = GatedWriter(log)
    pipeline = log.pipeline(records=writer, limits=Limits(batch_bytes=2000, linger_seconds=0.05))
    pipeline.start()
    writer.gate.clear()
    first = send(pipeline, numbered(0))
    writer.reached.wait(20)
    futures = [send(pipeline, numbered(n)) for n in range(1, 5)]
    writer.gate.set()
    for future in (first, *futures):
        future.result(20)
    assert pipeline.stop()
    received = log.rows("received_at", "tenant = 'default'")
    assert list(Counter(received).values()) == [1, 2, 2]
