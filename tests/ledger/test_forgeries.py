"""Every forgery is found, named by its kind, chain and seq, and not drowned in findings that follow from it."""

from dataclasses import replace
from typing import Any

import pytest

from spanseal_ledger.checkpoint import sign_checkpoint
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.errors import RunNotTaken
from spanseal_ledger.note import VerificationKey
from spanseal_ledger.record import canonical, record_hash
from spanseal_ledger.verifier import ChainVerifier, StoredRow, TrustedKeys, VerificationResult
from tests.ledger.log_simulator import (
    LOG_NAME,
    LogSimulator,
    blank,
    change,
    checkpointed,
    rehash,
    renumber,
    resign,
    run_of,
    signing_key,
    verify,
    with_personal,
)


@pytest.fixture
def log() -> LogSimulator:
    log = LogSimulator()
    log.chain(5, 3, 12, end="audit_log.stopped")
    log.chain(4, 9, 6, 1)
    return log


@pytest.fixture
def ended(log: LogSimulator) -> str:
    return next(iter(log.rows))


@pytest.fixture
def running(log: LogSimulator) -> str:
    return list(log.rows)[1]


def found(result: VerificationResult) -> list[tuple[str, str, int | None, int | None]]:
    return [(f.kind, f.chain_id, f.seq, f.last_seq) for f in result.findings]


def informed(result: VerificationResult) -> list[tuple[str, str, int | None]]:
    return [(f.kind, f.chain_id, f.seq) for f in result.information]


def test_an_untouched_log_is_clean(log: LogSimulator) -> None:
    result = verify(log)
    assert result.clean
    assert not result.findings
    assert not result.information
    assert (result.chains, result.records, result.checkpoints) == (2, 43, 10)
    assert result.log_lines == len(log.lines) == 10
    assert [rule for rule, _ in result.not_checked] == [10, 11]


def test_without_a_checkpoint_log_it_says_what_it_cannot_know(log: LogSimulator) -> None:
    result = verify(log, with_log=False)
    assert result.clean
    assert [rule for rule, _ in result.not_checked] == [7, 10, 11]


# A record is changed.


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": "failure"},
        {"tenant": "other"},
        {"tenant_seq": 99},
        {"received_at": 1},
        {"metadata": {}},
        {"metadata_types": "ss"},
        {"action": "audit_log.stopped", "tenant": "_collector"},
        {"actor_id": "\udcff"},
        {"producer_seq": -1},
    ],
    ids=lambda fields: next(iter(fields)),
)
@pytest.mark.parametrize("seq", [3, 8])
def test_a_changed_column(log: LogSimulator, running: str, fields: dict[str, Any], seq: int) -> None:
    change(log.rows[running], seq, **fields)
    assert found(verify(log)) == [("record_changed", running, seq, None)]


def test_a_changed_last_record(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    change(rows, len(rows) - 1, outcome="failure")
    assert found(verify(log)) == [("record_changed", running, len(rows) - 1, None)]


def test_a_changed_first_record(log: LogSimulator, running: str) -> None:
    change(log.rows[running], 0, actor_id="somebody")
    assert found(verify(log)) == [("record_changed", running, 0, None)]


def test_a_changed_commitment_is_a_changed_record(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    seq = with_personal(rows, 2)
    change(rows, seq, personal_commitment=bytes(32))
    assert found(verify(log)) == [
        ("personal_changed", running, seq, None),
        ("record_changed", running, seq, None),
    ]


def test_adjacent_changed_records_are_one_finding(log: LogSimulator, running: str) -> None:
    for seq in (6, 7, 8):
        change(log.rows[running], seq, outcome="failure")
    assert found(verify(log)) == [("record_changed", running, 6, 8)]


@pytest.mark.parametrize("seq", [3, -1])
def test_a_changed_hash(log: LogSimulator, running: str, seq: int) -> None:
    rows = log.rows[running]
    change(rows, seq, hash=bytes(32))
    assert found(verify(log)) == [("hash_changed", running, seq % len(rows), None)]


def test_a_changed_prev_hash(log: LogSimulator, running: str) -> None:
    change(log.rows[running], 3, prev_hash=bytes(32))
    assert found(verify(log)) == [("link_broken", running, 3, None)]


def test_a_changed_prev_hash_of_the_first_row(log: LogSimulator, running: str) -> None:
    change(log.rows[running], 0, prev_hash=bytes([1] * 32))
    assert found(verify(log)) == [("link_broken", running, 0, None)]


def test_a_changed_record_with_its_hash(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    change(rows, 7, outcome="failure")
    rehash(rows, 7, 7)
    assert found(verify(log)) == [("hash_changed", running, 7, None)]


def test_an_unknown_format(log: LogSimulator, running: str) -> None:
    change(log.rows[running], 4, format="SSR9")
    assert found(verify(log)) == [("format_unknown", running, 4, None)]


def test_a_chain_of_an_unknown_format(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    change(rows, 0, metadata=dict(rows[0].record.metadata) | {"audit.chain.format": "SSR9"})
    rehash(rows, 0)
    resign(rows, 0, log.key)
    log.lines = [line for line in log.lines if running not in line.note]
    assert found(verify(log)) == [("format_unknown", running, 0, None)]


# Rows come, go, or change places.


def test_a_deleted_row(log: LogSimulator, running: str) -> None:
    del log.rows[running][7]
    assert found(verify(log)) == [("missing", running, 7, None)]
    assert not informed(verify(log))  # its hash is known from the next row: all roots are still checked


def test_deleted_rows(log: LogSimulator, running: str) -> None:
    del log.rows[running][7:10]
    result = verify(log)
    assert found(result) == [("missing", running, 7, 9)]
    assert informed(result) == [("roots_unchecked", running, 7)]


def test_a_deleted_first_row(log: LogSimulator, running: str) -> None:
    del log.rows[running][0]
    assert found(verify(log)) == [("missing", running, 0, None)]


def test_two_holes_are_two_findings_and_what_is_between_is_checked(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    change(rows, 10, outcome="failure")
    del rows[13:15], rows[5:7]
    result = verify(log)
    assert found(result) == [
        ("missing", running, 5, 6),
        ("record_changed", running, 10, None),
        ("missing", running, 13, 14),
    ]
    assert informed(result) == [("roots_unchecked", running, 5)]


def test_a_deleted_row_whose_followers_move_up(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    size = len(rows)
    del rows[7]
    renumber(rows, 7)
    kinds = {f.kind for f in verify(log).findings}
    assert ("record_changed", running, 7, size - 2) in found(verify(log))
    assert {"record_changed", "truncated"} <= kinds
    assert len(verify(log).findings) < 8


def test_a_deleted_row_whose_followers_are_hashed_anew(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    size = len(rows)
    del rows[7]
    renumber(rows, 7)
    rehash(rows, 7)
    assert ("truncated", running, size - 1, None) in found(verify(log))
    assert ("rewritten", running, 5, 13) in found(verify(log))
    assert ("checkpoint_invalid", running, 12, size - 2) in found(verify(log))


def test_a_cut_tail_at_a_checkpoint_is_named_by_the_checkpoint_log(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    size = len(rows)
    del rows[checkpointed(rows)[-3] + 1 :]
    assert found(verify(log)) == [("truncated", running, len(rows), size - 1)]
    assert not verify(log, with_log=False).findings
    assert 7 in [rule for rule, _ in verify(log, with_log=False).not_checked]


def test_a_cut_tail_within_a_batch(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    size = len(rows)
    last = checkpointed(rows)[-3]
    del rows[last + 4 :]
    assert found(verify(log)) == [
        ("unsigned_tail", running, last + 1, last + 3),
        ("truncated", running, last + 4, size - 1),
    ]
    assert found(verify(log, with_log=False)) == [("unsigned_tail", running, last + 1, last + 3)]


def test_a_cut_tail_is_named_by_a_successor(log: LogSimulator, ended: str) -> None:
    rows = log.rows[ended]
    size = len(rows)
    del rows[checkpointed(rows)[-2] + 1 :]
    assert found(verify(log, with_log=False)) == [("truncated", ended, len(rows), size - 1)]


def test_a_rewritten_suffix_with_valid_hashes(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    change(rows, 7, outcome="failure")
    rehash(rows, 7)
    result = verify(log)
    at = [seq for seq in checkpointed(rows) if seq >= 7]
    assert found(result) == [
        ("rewritten", running, 5, at[0]),
        ("unsigned_tail", running, 5, len(rows) - 1),
        ("checkpoint_invalid", running, at[0], at[-1]),
    ]
    assert ("checkpoint_invalid", running, at[0], at[-1]) in found(verify(log, with_log=False))


def test_a_rewritten_suffix_signed_with_the_stolen_key(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    change(rows, 7, outcome="failure")
    rehash(rows, 7)
    resign(rows, 7, log.key)
    at = [seq for seq in checkpointed(rows) if seq >= 7]
    assert found(verify(log)) == [("rewritten", running, 5, at[0])]
    assert not verify(log, with_log=False).findings


def test_a_wholly_rewritten_chain(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    change(rows, 0, actor_id="somebody")
    rehash(rows, 0)
    resign(rows, 0, log.key)
    assert found(verify(log)) == [("rewritten", running, 0, None)]


def test_a_rewritten_predecessor_is_named_by_its_successor(log: LogSimulator, ended: str) -> None:
    rows = log.rows[ended]
    change(rows, 4, outcome="failure")
    rehash(rows, 4)
    resign(rows, 4, log.key)
    assert found(verify(log, with_log=False)) == [("predecessor_mismatch", ended, len(rows) - 1, None)]


def test_an_inserted_row_with_an_equal_seq(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    forged = replace(rows[7], record=replace(rows[7].record, outcome="failure"))
    for place in (7, 8):
        copy = log.copy()
        copy.rows[running].insert(place, forged)
        result = verify(copy)
        assert found(result) == [("conflicting_row", running, 7, None)]
        assert rows[7].hash.hex() in result.findings[0].message


@pytest.mark.parametrize("place", [7, 8])
def test_an_inserted_row_with_a_valid_hash(log: LogSimulator, running: str, place: int) -> None:
    rows = log.rows[running]
    record = replace(rows[7].record, outcome="failure")
    forged = replace(rows[7], record=record, hash=record_hash(canonical(record), rows[7].prev_hash))
    rows.insert(place, forged)
    result = verify(log)
    assert found(result) == [("conflicting_row", running, 7, None)]
    assert rows[15 - place].hash.hex() in result.findings[0].message


def test_an_inserted_row_chained_to_another_hash(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    forged = replace(rows[7], prev_hash=bytes(32), hash=record_hash(canonical(rows[7].record), bytes(32)))
    rows.insert(7, forged)
    result = verify(log)
    assert found(result) == [("conflicting_row", running, 7, None)]
    assert rows[8].hash.hex() in result.findings[0].message


def test_copies_that_differ_in_columns_that_are_not_hashed(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    seq = with_personal(rows, 2)
    rows.insert(seq, rows[seq])
    blank(rows, seq)
    result = verify(log)
    assert found(result) == [("conflicting_row", running, seq, None)]
    assert "several" in result.findings[0].message


def test_an_inserted_row_whose_followers_move_down(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    size = len(rows)
    rows.insert(7, replace(rows[7], record=replace(rows[7].record, record_id=log.uuid())))
    renumber(rows, 7)
    rehash(rows, 7)
    result = found(verify(log))
    assert ("rewritten", running, 5, 13) in result
    assert ("unsigned_tail", running, 5, size) in result


def test_a_repeated_row_is_information(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    rows[7:8] = [rows[7]] * 3
    result = verify(log)
    assert result.clean
    assert informed(result) == [("repeated_row", running, 7)]


def test_a_repeated_last_row(log: LogSimulator, running: str) -> None:
    log.rows[running].append(log.rows[running][-1])
    assert informed(verify(log)) == [("repeated_row", running, len(log.rows[running]) - 2)]


def test_reordered_rows(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    first, second = rows[7], rows[8]
    rows[7] = replace(second, record=replace(second.record, seq=7))
    rows[8] = replace(first, record=replace(first.record, seq=8))
    result = found(verify(log))
    assert ("record_changed", running, 7, 8) in result
    assert ("link_broken", running, 7, None) in result
    assert len(result) < 8


def test_reordered_rows_with_valid_hashes(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    rows[7], rows[8] = rows[8], rows[7]
    renumber(rows, 7)
    rehash(rows, 7)
    assert ("rewritten", running, 5, 13) in found(verify(log))


def test_rows_fed_out_of_order_are_reported(log: LogSimulator, running: str) -> None:
    rows = list(log.rows[running])
    rows[5], rows[8] = rows[8], rows[5]
    chain = ChainVerifier(running, keys=TrustedKeys([log.key.vkey]))
    for row in rows:
        chain.row(row)
    kinds = [(f.kind, f.seq) for f in chain.finish().findings]
    assert ("out_of_order", 5) in kinds
    assert ("missing", 5) in kinds


def test_a_row_at_a_far_place(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    size = len(rows)
    rows.append(replace(rows[-1], record=replace(rows[-1].record, seq=1 << 60)))
    result = found(verify(log))
    assert ("missing", running, size, (1 << 60) - 1) in result
    assert ("record_changed", running, 1 << 60, None) in result


# The end of a chain, and what is signed for it.


def test_rows_with_valid_hashes_after_the_end(log: LogSimulator, ended: str) -> None:
    rows = log.rows[ended]
    size = len(rows)
    last = rows[-1].record
    for _ in range(3):
        record = replace(rows[2].record, seq=len(rows), tenant_seq=len(rows), record_id=log.uuid())
        rows.append(
            StoredRow(record, record_hash(canonical(record), rows[-1].hash), rows[-1].hash, "", "SSR1")
        )
    renumber(rows, size)
    rehash(rows, size)
    assert last.action == "audit_log.stopped"
    assert found(verify(log)) == [
        ("after_end", ended, size, size + 2),
        ("unsigned_tail", ended, size, size + 2),
    ]
    rows[-1] = replace(rows[-1], checkpoint="x")
    resign(rows, size, log.key)
    result = verify(log)
    assert found(result) == [("after_end", ended, size, size + 2)]
    assert informed(result) == [("late_growth", ended, size)]


def test_a_row_without_checkpoint_at_the_end(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    rows[-1] = replace(rows[-1], checkpoint="")
    log.lines.pop()
    assert found(verify(log)) == [("unsigned_tail", running, len(rows) - 1, None)]


def test_a_checkpoint_moved_to_another_row(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    seq = checkpointed(rows)[1]
    change(rows, seq + 2, checkpoint=rows[seq].checkpoint)
    change(rows, seq, checkpoint="")
    result = verify(log)
    assert found(result) == [("checkpoint_invalid", running, seq + 2, None)]
    assert f"size {seq + 1}" in result.findings[0].message


def test_checkpoints_of_two_rows_swapped(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    _, first, second, *_ = checkpointed(rows)
    notes = rows[first].checkpoint, rows[second].checkpoint
    change(rows, first, checkpoint=notes[1])
    change(rows, second, checkpoint=notes[0])
    assert found(verify(log)) == [("checkpoint_invalid", running, first, second)]


def test_another_chain_s_checkpoint(log: LogSimulator, ended: str, running: str) -> None:
    change(log.rows[running], 4, checkpoint=log.rows[ended][5].checkpoint)
    result = verify(log)
    assert found(result) == [("checkpoint_invalid", running, 4, None)]
    assert ended in result.findings[0].message


@pytest.mark.parametrize(
    ("note", "why"),
    [("nonsense", "malformed"), ("a\nb\nc\n\n— k YWJjZGVm\n", "no trusted key"), ("\udcff", "malformed")],
)
def test_a_checkpoint_that_is_none(log: LogSimulator, running: str, note: str, why: str) -> None:
    change(log.rows[running], 4, checkpoint=note)
    result = verify(log)
    assert found(result) == [("checkpoint_invalid", running, 4, None)]
    assert why in result.findings[0].message


def test_a_checkpoint_with_a_bad_signature(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    seq = checkpointed(rows)[1]
    lines = rows[seq].checkpoint.split("\n")
    lines[1] = str(int(lines[1]) + 1)
    change(rows, seq, checkpoint="\n".join(lines))
    result = verify(log)
    assert found(result) == [("checkpoint_invalid", running, seq, None)]
    assert "does not verify" in result.findings[0].message


def test_a_checkpoint_of_a_pinned_key_that_is_not_the_chain_s(log: LogSimulator, running: str) -> None:
    other = signing_key(5)
    rows = log.rows[running]
    seq = checkpointed(rows)[1]
    root = ChainVerifier(running, keys=TrustedKeys([log.key.vkey]))
    for row in rows[: seq + 1]:
        root.row(row)
    known = root.finish().root
    assert known is not None
    change(rows, seq, checkpoint=sign_checkpoint(other, LOG_NAME, running, seq + 1, known))
    result = verify(log, keys=TrustedKeys([log.key.vkey, other.vkey]))
    assert found(result) == [("checkpoint_invalid", running, seq, None)]
    assert "chain's key" in result.findings[0].message


def test_another_log_s_key_signs_nothing_here() -> None:
    log = LogSimulator(key=signing_key(0, "elsewhere.example/collector-1"))
    log.chain(2)
    kinds = {f.kind for f in verify(log).findings}
    assert kinds == {"checkpoint_invalid", "unsigned_tail", "checkpoint_log_invalid"}


# Keys.


def test_a_chain_rebuilt_under_another_key(log: LogSimulator, running: str) -> None:
    other = signing_key(1)
    rows = log.rows[running]
    change(rows, 0, metadata=dict(rows[0].record.metadata) | {"audit.chain.key": str(other.vkey)})
    rehash(rows, 0)
    resign(rows, 0, other)
    assert found(verify(log)) == [
        ("key_unpinned", running, 0, None),
        ("rewritten", running, 0, None),
    ]
    assert found(verify(log, with_log=False)) == [("key_unpinned", running, 0, None)]


def test_a_chain_signed_by_another_key_than_it_names(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    resign(rows, 0, signing_key(1))
    result = verify(log)
    assert found(result) == [
        ("checkpoint_invalid", running, 0, len(rows) - 1),
        ("unsigned_tail", running, 0, len(rows) - 1),
    ]


def test_without_pinned_keys_every_chain_is_unpinned(log: LogSimulator, ended: str, running: str) -> None:
    result = verify(log, keys=TrustedKeys([]))
    assert found(result) == [("key_unpinned", ended, 0, None), ("key_unpinned", running, 0, None)]


def test_keys_found_in_the_data_are_not_pinned(log: LogSimulator, ended: str, running: str) -> None:
    result = verify(log, keys=TrustedKeys([], [log.key.vkey]))
    assert found(result) == [("key_unpinned", ended, 0, None), ("key_unpinned", running, 0, None)]
    del log.rows[running][0]
    assert {f.kind for f in verify(log, keys=TrustedKeys([], [log.key.vkey])).findings} == {
        "key_unpinned",
        "missing",
    }


def rotated(log: LogSimulator, key: VerificationKey) -> str:
    chain = log.chain(3)
    chain.seal([chain.own("audit_log.key_rotated", **{"audit.chain.next_key": str(key)})])
    return chain.id


def test_a_key_that_a_pinned_key_s_chain_introduces_counts_as_pinned() -> None:
    log = LogSimulator()
    second, third = signing_key(1), signing_key(2)
    rotated(log, second.vkey)
    log.key, first = second, log.key
    rotated(log, third.vkey)
    log.key = third
    last = log.chain(4).id
    assert verify(log, keys=TrustedKeys([first.vkey])).clean
    assert not verify(log, keys=TrustedKeys([second.vkey])).clean
    # Dropped, the last chain's lines are signed by a key that is known through rotation alone.
    log.rows.pop(last)
    assert found(verify(log, keys=TrustedKeys([first.vkey]))) == [("chain_missing", last, None, None)]


def test_a_rotation_that_no_checkpoint_covers_introduces_nothing() -> None:
    log = LogSimulator()
    second = signing_key(1)
    chain = log.chain(3)
    chain.seal([chain.own("audit_log.key_rotated", **{"audit.chain.next_key": str(second.vkey)})], note=False)
    forged = log.chain(4, key=second)
    result = verify(log)
    assert ("key_unpinned", forged.id, 0, None) in found(result)
    assert ("unsigned_tail", chain.id, 4, None) in found(result)


def test_a_rotation_written_into_a_record_introduces_nothing() -> None:
    log = LogSimulator()
    second = signing_key(1)
    chain = log.chain(3, end="audit_log.stopped")
    change(
        log.rows[chain.id],
        4,
        action="audit_log.key_rotated",
        metadata={"audit.chain.next_key": str(second.vkey)},
        metadata_types="s",
    )
    forged = log.chain(4, key=second)
    assert ("key_unpinned", forged.id, 0, None) in found(verify(log))


# Chains.


def test_a_dropped_last_chain_is_named_by_the_checkpoint_log(log: LogSimulator, running: str) -> None:
    del log.rows[running]
    assert found(verify(log)) == [("chain_missing", running, None, None)]
    assert not verify(log, with_log=False).findings


def test_a_dropped_earlier_chain_is_named_by_its_successor(log: LogSimulator, ended: str) -> None:
    del log.rows[ended]
    assert found(verify(log, with_log=False)) == [("chain_missing", ended, None, None)]
    result = verify(log)
    assert found(result) == [("chain_missing", ended, None, None)]
    assert "checkpoint log" in result.findings[0].message


def test_a_chain_whose_rows_are_all_gone(log: LogSimulator, running: str) -> None:
    log.rows[running] = []
    assert found(verify(log)) == [("chain_missing", running, None, None)]


def test_a_chain_without_start(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    change(rows, 0, action="audit_log.heartbeat")
    rehash(rows, 0)
    resign(rows, 0, log.key)
    log.lines = [line for line in log.lines if running not in line.note]
    assert found(verify(log)) == [("not_started", running, 0, None)]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"chain_id":"x","size":1,"root":""}]', "[" * 100_000])
def test_predecessors_that_cannot_be_read(log: LogSimulator, running: str, text: str) -> None:
    rows = log.rows[running]
    change(rows, 0, metadata=dict(rows[0].record.metadata) | {"audit.chain.predecessors": text})
    rehash(rows, 0)
    resign(rows, 0, log.key)
    log.lines = [line for line in log.lines if running not in line.note]
    assert found(verify(log)) == [("predecessors_unreadable", running, 0, None)]


def test_growth_after_a_chain_was_named_is_information(log: LogSimulator) -> None:
    chain = log.chain(2)
    size = chain.size
    log.chain(1)
    chain.seal([chain.client()])
    result = verify(log)
    assert result.clean
    assert informed(result) == [("late_growth", chain.id, size)]


def test_a_tenant_s_gap(log: LogSimulator) -> None:
    chain = log.chain(3)
    chain.tenants["acme"] = chain.tenants.get("acme", 0) + 2
    chain.seal([chain.client(tenant="acme")])
    assert found(verify(log)) == [("tenant_gap", chain.id, 4, None)]


def test_a_tenant_s_number_given_twice(log: LogSimulator) -> None:
    chain = log.chain()
    chain.seal([chain.client(tenant="acme")])
    chain.tenants["acme"] = 0
    chain.seal([chain.client(tenant="acme")])
    assert found(verify(log)) == [("tenant_gap", chain.id, 2, None)]


# Personal data.


@pytest.mark.parametrize(
    "fields",
    [
        {"actor_email": "other@example.org"},
        {"actor_ip": ""},
        {"personal": {}},
        {"personal_salt": b"x" * 16},
        {"personal_salt": b"x"},
        {"personal_salt": b""},
        {"actor_email": "", "actor_ip": "", "personal": {}},
    ],
    ids=str,
)
def test_changed_personal_data(log: LogSimulator, running: str, fields: dict[str, Any]) -> None:
    seq = with_personal(log.rows[running], 2)
    change(log.rows[running], seq, **fields)
    assert found(verify(log)) == [("personal_changed", running, seq, None)]


def test_personal_data_put_where_there_was_none(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    seq = next(row.record.seq for row in rows if not row.record.personal_salt and row.record.seq > 1)
    change(rows, seq, actor_email="a@example.org", personal_salt=b"x" * 16)
    assert found(verify(log)) == [("personal_changed", running, seq, None)]


def test_blanked_personal_data(log: LogSimulator, running: str) -> None:
    seq = with_personal(log.rows[running], 2)
    blank(log.rows[running], seq)
    assert found(verify(log)) == [("personal_missing", running, seq, None)]


def test_an_erasure_that_a_chain_names_is_none(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    first = with_personal(rows, 2)
    second = with_personal(rows, first + 1)
    for seq in (first, second):
        blank(rows, seq)
    chain = log.chain()
    named = {"audit.erasure.chain_id": running, "audit.erasure.seqs": f"[{first}]"}
    chain.seal([chain.own("audit_log.erased", **named)])
    assert found(verify(log)) == [("personal_missing", running, second, None)]
    named["audit.erasure.seqs"] = f"[[{first},{second}]]"
    chain.seal([chain.own("audit_log.erased", **named)])
    assert verify(log).clean


def test_an_erasure_that_is_not_proved_excuses_nothing(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    seq = with_personal(rows, 2)
    blank(rows, seq)
    chain = log.chain(key=signing_key(3))
    named = {"audit.erasure.chain_id": running, "audit.erasure.seqs": f"[{seq}]"}
    chain.seal([chain.own("audit_log.erased", **named)])
    assert ("personal_missing", running, seq, None) in found(verify(log))


def test_a_client_s_record_erases_nothing(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    seq = with_personal(rows, 2)
    blank(rows, seq)
    chain = log.chain()
    named = {"audit.erasure.chain_id": running, "audit.erasure.seqs": f"[{seq}]"}
    chain.seal([chain.client(action="audit_log.erased", metadata=named, metadata_types="ss")])
    assert ("personal_missing", running, seq, None) in found(verify(log))


# The checkpoint log.


def test_a_line_that_nobody_trusted_signed(log: LogSimulator, running: str) -> None:
    note = sign_checkpoint(signing_key(1), LOG_NAME, running, 100, bytes(32))
    log.lines.append(Line(log.now, note))
    assert found(verify(log)) == [("checkpoint_log_invalid", running, 99, None)]


def test_a_line_for_a_chain_that_nobody_knows(log: LogSimulator) -> None:
    note = sign_checkpoint(signing_key(1), LOG_NAME, log.uuid(), 100, bytes(32))
    log.lines.append(Line(log.now, note))
    assert [f.kind for f in verify(log).findings] == ["checkpoint_log_invalid"]


def test_a_line_that_is_no_checkpoint(log: LogSimulator) -> None:
    log.lines.append(Line(log.now, "nonsense"))
    assert [f.kind for f in verify(log).findings] == ["checkpoint_log_invalid"]


def test_a_line_twice_and_one_with_a_witness_are_met(log: LogSimulator) -> None:
    known = log.lines[-1].note
    witness = signing_key(9, "witness.example/w1").sign(known.split("\n\n")[0] + "\n").split("\n\n")[1]
    log.lines += [log.lines[-1], Line(log.now, known + witness)]
    result = verify(log)
    assert result.clean
    assert result.log_lines == 11


def test_two_roots_of_one_size(log: LogSimulator, running: str) -> None:
    log.lines.insert(0, Line(log.now, sign_checkpoint(log.key, LOG_NAME, running, 5, bytes(32))))
    assert found(verify(log)) == [("rewritten", running, 1, 4)]


# While records are being written.


def test_rows_past_the_upper_bound_are_passed_over(log: LogSimulator) -> None:
    chain = log.chain(3)
    lines = list(log.lines)
    upper = {chain_id: len(rows) for chain_id, rows in log.rows.items()}
    size = chain.size
    chain.seal([chain.client() for _ in range(4)])
    chain.seal([chain.client() for _ in range(2)], note=False)
    log.lines = lines
    result = verify(log, upper=upper)
    assert result.clean
    assert informed(result) == [("not_yet", chain.id, size)]
    assert result.records == sum(upper.values())


def test_a_tail_cut_before_the_verification_began_is_found_with_an_upper_bound(
    log: LogSimulator, running: str
) -> None:
    rows = log.rows[running]
    size = len(rows)
    del rows[checkpointed(rows)[-2] + 1 :]
    upper = {chain_id: len(rows) for chain_id, rows in log.rows.items()}
    assert ("truncated", running, len(rows)) in [f[:3] for f in found(verify(log, upper=upper))]
    assert size == len(rows) + 1


def test_lines_beyond_a_chain_s_upper_bound_are_not_findings(log: LogSimulator, running: str) -> None:
    rows = log.rows[running]
    lines = [line for line in log.lines if running in line.note]
    chain = ChainVerifier(running, keys=TrustedKeys([log.key.vkey]), checkpoint_log=lines, upper=5)
    for row in rows[:5]:
        chain.row(row)
    assert not chain.finish().findings
    chain = ChainVerifier(running, keys=TrustedKeys([log.key.vkey]), checkpoint_log=lines, upper=5)
    for row in rows[:1]:
        chain.row(row)
    assert [f.kind for f in chain.finish().findings] == ["truncated", "truncated"]


# Use.


def test_misuse_is_refused(log: LogSimulator, ended: str, running: str) -> None:
    rows = log.rows[running]
    keys = TrustedKeys([log.key.vkey])
    chain = ChainVerifier(running, keys=keys, checkpoint_log=[x for x in log.lines if running in x.note])
    with pytest.raises(ValueError, match="was fed to chain"):
        chain.row(log.rows[ended][0])
    chain.row(rows[0])
    with pytest.raises(RunNotTaken):
        chain.run(run_of(rows[1:9]))  # the checkpoint log has a line of size 5
    with pytest.raises(ValueError, match="do not cover"):
        chain.run(replace(run_of(rows[1:5]), count=3, nodes=[(0, bytes(32))]))
    chain = ChainVerifier(running, keys=keys)
    with pytest.raises(ValueError, match="cannot stand"):
        chain.run(replace(run_of(rows[1:5]), nodes=[(2, bytes(32))]))
