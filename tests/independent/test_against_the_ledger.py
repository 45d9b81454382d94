"""The program that was written from the document alone, and the project's own verifier: they say the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from spanseal_ledger.checkpoint_log import encode
from spanseal_ledger.record import Record
from spanseal_storage.schema import COLUMN_NAMES
from tests.independent.test_verify_export import document_block
from tests.independent.verify_export import INFORMATION, CannotVerify, verify
from tests.ledger import log_simulator
from tests.ledger.log_simulator import LogSimulator, blank, change, rehash, signing_key, with_personal
from tests.ledger.vectors import VECTORS

EXPORT, LOG = document_block("export"), document_block("checkpoint-log")
(VKEY,) = [
    line.split(maxsplit=1)[1]
    for line in (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8").split("\n")
    if line.startswith("vkey ")
]


def found(export: Iterable[str], log: Iterable[str], keys: list[str]) -> set[str]:
    """The kinds of what makes a log bad."""
    findings = verify([json.loads(line) for line in export], list(log), keys)
    return {finding.kind for finding in findings} - INFORMATION


def test_the_example() -> None:
    assert found(EXPORT, LOG, [VKEY]) == set()
    assert found(EXPORT, LOG, [VECTORS["next_vkey"]]) == {"key_unpinned"}
    assert found(EXPORT[:2], LOG, [VKEY]) == {"unsigned_tail", "truncated"}
    assert found(EXPORT[:1], LOG, [VKEY]) == {"truncated"}
    with pytest.raises(CannotVerify):
        found(EXPORT[:1], LOG, [])
    assert found([], LOG, [VKEY]) == {"chain_missing"}


@pytest.mark.parametrize("name", COLUMN_NAMES)
def test_a_changed_column_of_the_example(name: str) -> None:
    row = json.loads(EXPORT[1])
    value = row[name]
    other: Any = [["k", "v"]] if isinstance(value, list) else ("2" if value[:1] == "1" else "1") + value[1:]
    changed = json.dumps(row | {name: other})
    assert found([EXPORT[0], changed, EXPORT[2]], LOG, [VKEY])


def exported(log: LogSimulator) -> list[str]:
    """What section 13 says, of a simulated log."""
    lines = []
    for row in [row for rows in log.rows.values() for row in rows]:
        columns = {name: getattr(row.record, name) for name in Record.__slots__}
        columns |= {name: getattr(row, name) for name in ("hash", "prev_hash", "checkpoint", "format")}
        for name, value in columns.items():
            if isinstance(value, dict):
                columns[name] = sorted(value.items())
            elif not isinstance(value, str):
                columns[name] = value.hex() if isinstance(value, bytes) else str(value)
        lines.append(json.dumps({name: columns[name] for name in COLUMN_NAMES}))
    return lines


def by_the_program(log: LogSimulator) -> set[str]:
    return found(exported(log), [encode(line).decode() for line in log.lines], [str(log.key.vkey)])


def by_the_ledger(log: LogSimulator) -> set[str]:
    return {finding.kind for finding in log_simulator.verify(log).findings}


@pytest.fixture(scope="module")
def simulated() -> LogSimulator:
    """Three chains: one that was killed, one with an erasure and a rotation, one under the new key."""
    log = LogSimulator()
    log.chain(3, 1, 5)
    chain = log.chain(7)
    seq = with_personal(chain.rows)
    named = {"audit.erasure.chain_id": chain.id, "audit.erasure.seqs": f"[[{seq},{seq}]]"}
    chain.seal([chain.own("audit_log.erased", **named)])
    blank(chain.rows, seq)
    new_key = signing_key(1)
    chain.seal([chain.own("audit_log.key_rotated", **{"audit.chain.next_key": str(new_key.vkey)})])
    log.chain(4, 2, key=new_key, end="audit_log.stopped")
    return log


def change_and_rehash(log: LogSimulator, chains: list[str]) -> None:
    change(log.rows[chains[0]], 2, actor_id="somebody")
    rehash(log.rows[chains[0]], 2)


Forge = Callable[[LogSimulator, list[str]], Any]
FORGERIES: list[tuple[set[str], Forge]] = [
    (set(), lambda _log, _chains: None),
    ({"record_changed"}, lambda log, chains: change(log.rows[chains[0]], 2, actor_id="somebody")),
    ({"checkpoint_invalid", "unsigned_tail", "rewritten", "predecessor_mismatch"}, change_and_rehash),
    (
        {"personal_changed"},
        lambda log, chains: change(log.rows[chains[2]], 1, actor_email="x@example.org", personal_salt=b""),
    ),
    (
        {"personal_missing"},
        lambda log, chains: blank(log.rows[chains[0]], with_personal(log.rows[chains[0]])),
    ),
    ({"chain_missing"}, lambda log, chains: log.rows.pop(chains[0])),
    ({"truncated"}, lambda log, chains: log.rows[chains[2]].__delitem__(slice(5, None))),
    ({"unsigned_tail", "truncated"}, lambda log, chains: log.rows[chains[2]].__delitem__(slice(6, None))),
]


@pytest.mark.parametrize(("expected", "forge"), FORGERIES)
def test_a_forged_log(simulated: LogSimulator, expected: set[str], forge: Forge) -> None:
    log = simulated.copy()
    forge(log, list(log.rows))
    assert by_the_program(log) == by_the_ledger(log) == expected


def test_a_dropped_chain_under_a_key_that_was_rotated_in(simulated: LogSimulator) -> None:
    log = simulated.copy()
    log.rows.pop(list(log.rows)[2])
    assert by_the_ledger(log) == {"chain_missing"}
    # Section 14 asks for the chain's own key or a pinned one: of a chain that is gone the former is not known.
    assert by_the_program(log) == {"checkpoint_log_invalid"}
