"""What becomes of a batch, of its chain and of what was sent, when the storage fails in the middle."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from spanseal_collector.admission import Draft
from spanseal_collector.errors import UnavailableError
from spanseal_collector.lineage import read_history
from spanseal_collector.pipeline import Limits
from spanseal_collector.service import CollectorConfig, _chains
from spanseal_storage.checkpoint_file import read_checkpoint_file
from spanseal_storage.keys import trusted_keys
from tests.collector.conftest import Log
from tests.collector.faults import (
    FailingLog,
    FailingWriter,
    GatedWriter,
    HalfWriter,
    items,
    numbered,
    send,
    until,
)

QUICK = Limits(abandon_seconds=0.0, stop_seconds=0.0)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanseal_collector.pipeline._RECOVERY_SECONDS", 0.0)


def quarantined(log: Log) -> tuple[list[str], list[str]]:
    """The ids in the table `quarantine`, and those that sealed records name."""
    stored = log.client.query("SELECT toString(quarantine_id) FROM audit.quarantine").result_rows
    named = log.rows("metadata['audit.quarantine.id']", "mapContains(metadata, 'audit.quarantine.id')")
    return sorted(row[0] for row in stored), sorted(row[0] for row in named)


def predecessors(log: Log, chain_id: str) -> list[tuple[str, int]]:
    ((text,),) = log.rows("metadata['audit.chain.predecessors']", f"chain_id = '{chain_id}' AND seq = 0")
    return [(named["chain_id"], named["size"]) for named in json.loads(text)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("table", ["quarantine", "records"])
def test_a_batch_with_quarantined_records_is_stored_once(log: Log, table: str, moment: str) -> None:
    writer = HalfWriter(log, table, moment, 0)
    pipeline = log.pipeline(records=writer)
    pipeline.start()
    writer.times = 2
    send(pipeline, numbered(0), numbered(1, audit__outcome="maybe"), numbered(2)).result(20)
    assert writer.times == 0 or (table, moment) == ("records", "after")
    writer.times = 0
    assert pipeline.stop()
    assert log.rows("producer_seq", "tenant = 'default'") == [(0,), (2,)]
    stored, named = quarantined(log)
    assert len(stored) == 1
    assert stored == named
    result = log.verify()
    assert (result.findings, result.chains) == ((), 1)


def test_a_row_of_a_commit_that_never_was_is_named_by_the_next_start(log: Log) -> None:
    writer = HalfWriter(log, "records", "before", 0)
    pipeline = log.pipeline(records=writer, limits=QUICK)
    pipeline.start()
    writer.times = 100
    with pytest.raises(UnavailableError):
        send(pipeline, numbered(0, audit__outcome="maybe")).result(20)
    pipeline.stop()
    (left,), named = quarantined(log)
    assert named == []
    lines, _ = read_checkpoint_file(log.directory.checkpoint_log)
    keys = trusted_keys(log.directory)
    history = read_history(log.client, lines, log.identity.log_name, log.key.vkey, keys)
    config = CollectorConfig(data=log.directory.path)
    again = log.pipeline(
        new_chain=_chains(config, log.identity, log.key, history.left_rows), predecessors=history.predecessors
    )
    again.start()
    assert again.stop()
    assert quarantined(log) == ([left], [left])
    ((digest, number),) = log.rows(
        "metadata['audit.quarantine.digest'], metadata['audit.quarantine.producer_seq']",
        "action = 'audit_log.quarantined'",
    )
    ((computed,),) = log.client.query(
        "SELECT lower(hex(SHA256(concat(salt, raw)))) FROM audit.quarantine"
    ).result_rows
    assert (digest, number) == (computed, "0")
    assert not log.verify().findings
    lines, _ = read_checkpoint_file(log.directory.checkpoint_log)
    assert not read_history(log.client, lines, log.identity.log_name, log.key.vkey, keys).left_rows


def test_a_batch_that_cannot_be_stored_ends_its_chain_and_a_new_one_names_it(log: Log) -> None:
    writer = FailingWriter(log)
    pipeline = log.pipeline(records=writer, limits=QUICK)
    pipeline.start()
    first = pipeline.chain_id
    send(pipeline, numbered(0)).result(20)
    writer.broken = True
    with pytest.raises(UnavailableError):
        send(pipeline, numbered(1)).result(20)
    until(lambda: pipeline.chain_id != first)
    # The new chain's first record is tried until it is there: there is nothing else to go on with.
    attempts = len(writer.sent)
    until(lambda: len(writer.sent) > attempts + 1)
    assert writer.sent[-1] is writer.sent[-2]
    writer.broken = False
    until(lambda: pipeline.statistics.chains == 2)
    send(pipeline, numbered(1)).result(20)
    assert pipeline.stop()
    assert log.rows("producer_seq", "tenant = 'default'") == [(0,), (1,)]
    assert predecessors(log, pipeline.chain_id) == [(first, 2)]
    assert log.rows("action", f"chain_id = '{first}'") == [("audit_log.started",), ("patient.viewed",)]
    result = log.verify()
    assert (result.findings, result.chains) == ((), 2)
    assert [finding.kind for finding in result.information] == ["stream_open"]


def test_what_was_stored_after_all_is_acknowledged_only_once_the_log_covers_it(log: Log) -> None:
    writer = FailingWriter(log)
    sink = FailingLog(log.checkpoints, 0)
    pipeline = log.pipeline(records=writer, checkpoints=sink, limits=QUICK)
    pipeline.start()
    first, sent = pipeline.chain_id, numbered(0)
    writer.faults, writer.blind = ["after"], True
    with pytest.raises(UnavailableError):
        send(pipeline, sent).result(20)
    given_up = writer.sent[1]
    writer.blind = False
    until(lambda: pipeline.statistics.chains == 2)
    notes = [line.note for line in read_checkpoint_file(log.directory.checkpoint_log)[0]]
    assert given_up.note not in notes
    sink.failures = 1
    send(pipeline, sent).result(20)
    assert sink.failures == 0
    notes = [line.note for line in read_checkpoint_file(log.directory.checkpoint_log)[0]]
    assert given_up.note in notes
    send(pipeline, sent).result(20)
    assert pipeline.stop()
    assert log.rows("producer_seq", "tenant = 'default'") == [(0,)]
    assert predecessors(log, pipeline.chain_id) == [(first, 1)]
    result = log.verify()
    assert result.findings == ()
    assert [finding.kind for finding in result.information] == ["late_growth", "stream_open"]


def test_a_batch_that_cannot_be_sealed_does_not_stop_the_collector(log: Log) -> None:
    pipeline = log.pipeline()
    pipeline.start()
    send(pipeline, numbered(0)).result(20)
    item, other = items(numbered(1), numbered(2))
    assert isinstance(other, Draft)
    impossible = replace(other, record=replace(other.record, actor_role="\ud800"))
    with pytest.raises(UnavailableError):
        pipeline.submit([item, impossible], 1000).result(20)
    send(pipeline, numbered(1)).result(20)
    assert pipeline.stop()
    assert log.rows("producer_seq, tenant_seq", "tenant = 'default'") == [(0, 0), (1, 0)]
    result = log.verify()
    assert (result.findings, result.chains) == ((), 2)


def test_a_storage_that_cannot_be_asked_costs_the_request_and_not_the_chain(log: Log) -> None:
    pipeline = log.pipeline()
    pipeline.start()

    def broken(_: object) -> None:
        raise RuntimeError("put in: a bug")

    known = pipeline._dedup.known
    pipeline._dedup.known = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(UnavailableError):
        send(pipeline, numbered(0)).result(20)
    pipeline._dedup.known = known  # type: ignore[method-assign]
    send(pipeline, numbered(0)).result(20)
    assert pipeline.stop()
    result = log.verify()
    assert (result.findings, result.chains) == ((), 1)


def test_a_broken_storage_does_not_hold_up_the_stop(log: Log) -> None:
    writer = FailingWriter(log)
    pipeline = log.pipeline(records=writer, limits=Limits(stop_seconds=0.0))
    pipeline.start()
    writer.broken = True
    first = send(pipeline, numbered(0))
    until(lambda: len(writer.sent) > 2)
    second = send(pipeline, numbered(1))
    assert not pipeline.stop()
    for future in (first, second):
        with pytest.raises(UnavailableError):
            future.result(0)
    with pytest.raises(UnavailableError, match="restarted"):
        send(pipeline, numbered(2))
    assert pipeline.ended.result(0) is False
    assert not log.verify().findings


def test_a_storage_that_hangs_does_not_hold_up_the_stop(log: Log) -> None:
    writer = GatedWriter(log)
    pipeline = log.pipeline(records=writer)
    pipeline.start()
    writer.gate.clear()
    future = send(pipeline, numbered(0))
    writer.reached.wait(20)
    assert not pipeline.stop(timeout=0.05)
    assert not future.done()
    writer.gate.set()
    future.result(20)
    assert pipeline.ended.result(20)


def test_while_the_storage_fails_requests_are_refused_at_once(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spanseal_collector.pipeline._STALLED_SECONDS", 0.0)
    writer = FailingWriter(log)
    pipeline = log.pipeline(records=writer)
    pipeline.start()
    writer.broken = True
    first = send(pipeline, numbered(0))
    until(lambda: pipeline.stalls > 0)
    with pytest.raises(UnavailableError, match="takes no records"):
        send(pipeline, numbered(1))
    writer.broken = False
    first.result(20)
    send(pipeline, numbered(1)).result(20)
    assert pipeline.stop()
