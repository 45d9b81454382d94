"""Rule 10 over real rows: numbers that never came, and records that came twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic import new_log, synthetic_draft, write_chain
from spanseal_collector.admission import Draft
from spanseal_ledger.verifier import GRACE_NS, TrustedKeys, VerificationResult
from spanseal_storage import streams
from spanseal_storage.checkpoint_file import read_checkpoint_file
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.keys import trusted_keys
from spanseal_storage.verification import verify_log

LONG_AGO = time.time_ns() - 2 * GRACE_NS


def draft(stream: str, number: int, action: str = "patient.viewed", **changes: Any) -> Draft:
    metadata: Mapping[str, str] = changes.pop("metadata", {})
    made = synthetic_draft(number)
    record = replace(
        made.record,
        producer_id=stream,
        action=action,
        metadata=metadata,
        metadata_types="s" * len(metadata),
        **changes,
    )
    return replace(made, record=record)


def started(stream: str, *previous: tuple[str, int]) -> Draft:
    named = json.dumps([{"stream_id": name, "last": last} for name, last in previous])
    return draft(stream, 0, "producer.started", metadata={"audit.producer.previous": named})


def gap(stream: str, number: int, of: str, first: int, last: int) -> Draft:
    names = {"stream_id": of, "first": str(first), "last": str(last)}
    metadata = {f"audit.producer.gap.{key}": value for key, value in names.items()}
    return draft(stream, number, "producer.gap", metadata=metadata)


def set_aside(action: str, of: str, number: int) -> Draft:
    metadata = {"audit.quarantine.producer_id": of, "audit.quarantine.producer_seq": str(number)}
    return draft("", 0, action, tenant="_collector", metadata=metadata)


def whole(stream: str, numbers: Iterable[int], end: int) -> list[Draft]:
    return [started(stream), *(draft(stream, n) for n in numbers), draft(stream, end, "producer.stopped")]


def verified(directory: DataDirectory) -> VerificationResult:
    lines, _ = read_checkpoint_file(directory.checkpoint_log)
    with directory.hold("test"), open_engine(directory, Role.READER) as engine:
        client = engine.client()
        try:
            return verify_log(client, keys=TrustedKeys(pinned=trusted_keys(directory)), checkpoint_log=lines)
        finally:
            client.close()


def told(result: VerificationResult) -> list[str]:
    return [f"{f.kind} {f.seq} {f.message}" for f in (*result.findings, *result.information)]


def test_numbers_that_never_came_are_named_behind_the_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_STREAMS_AT_ONCE", 2)
    directory = new_log(tmp_path / "data")
    batches = [
        whole("desk/whole", range(1, 4), 4),
        # Out of order, and some of it in another batch, as relays deliver.
        [*reversed(whole("desk/holes", (1, 2, 5, 6, 9), 10)), draft("desk/headless", 2)],
        [draft("desk/holes", 3), draft("desk/excused", 3), gap("desk/whole", 5, "desk/excused", 0, 2)],
        [draft("desk/tail", n) for n in range(3)],
        [draft("desk/excused", 6), set_aside("audit_log.quarantined", "desk/excused", 4)],
        [set_aside("audit_log.conflict", "desk/excused", 5)],
        [started("desk/next", ("desk/tail", 4), ("desk/gone", 1))],
        [draft("desk/holes", 7, tenant="other")],
    ]
    write_chain(directory, batches, clock=lambda: LONG_AGO)
    with directory.hold("test"), open_engine(directory, Role.READER) as engine:
        client = engine.client()
        seqs = dict(
            client.query(
                "SELECT concat(tenant, ' ', producer_id, ' ', toString(producer_seq)), seq FROM audit.records"
            ).result_rows
        )
        client.close()
    result = verified(directory)
    behind = {
        ("default desk/headless 2", "'desk/headless' lacks numbers 0 to 1 (2)"),
        ("default desk/holes 5", "'desk/holes' lacks number 4:"),
        ("default desk/holes 9", "'desk/holes' lacks numbers 7 to 8 (2)"),
        ("other desk/holes 7", "'desk/holes' lacks numbers 0 to 6 (7)"),
        ("default desk/tail 2", "'desk/tail' lacks numbers 3 to 4 (2)"),
        ("", "'desk/gone' lacks numbers 0 to 1 (2)"),
    }
    assert {finding.kind for finding in result.findings} == {"lost_before_collector"}
    assert len(result.findings) == len(behind)
    for place, words in behind:
        (finding,) = [f for f in result.findings if words in f.message and f.seq == seqs.get(place)]
        assert bool(finding.chain_id) == bool(place)
    (opened,) = result.information
    assert opened.kind == "stream_open"
    for name, is_open in {
        "whole": False,
        "tail": False,
        "excused": True,
        "next": True,
        "headless": True,
    }.items():
        assert (f"desk/{name}" in opened.message) == is_open, name


def test_numbers_are_waited_for_while_they_may_be_on_their_way(tmp_path: Path) -> None:
    directory = new_log(tmp_path / "data")
    write_chain(directory, [whole("desk/1", (1, 3), 4)])
    result = verified(directory)
    assert not result.findings
    assert [f.kind for f in result.information] == ["pending"]


@pytest.mark.parametrize("at_once", [4_000_000, 3])
def test_records_in_two_chains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(streams, "_TWINS_AT_ONCE", at_once)
    directory = new_log(tmp_path / "data")
    first = whole("desk/1", (1, 2, 3), 4)
    once = draft("", 0)
    untimed = draft("", 0, metadata={"audit.event_time": "collector"})
    write_chain(directory, [[*first, once, untimed]], clock=lambda: LONG_AGO)
    assert told(verified(directory)) == []
    other = replace(first[2], record=replace(first[2].record, outcome="unknown"))
    elsewhere = replace(once, record=replace(once.record, tenant="other"))
    later = replace(untimed, record=replace(untimed.record, event_time=5))
    write_chain(directory, [[first[1], other, first[3], elsewhere, later]], clock=lambda: LONG_AGO + 1)
    result = verified(directory)
    assert [(f.kind, f.seq) for f in result.findings] == [("conflict", 2)]
    assert other.record.record_id in result.findings[0].message
    assert [f.kind for f in result.information] == ["delivered_twice"]
    assert "3 records" in result.information[0].message
