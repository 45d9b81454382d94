"""What somebody with full rights on the database could do, done to a copy of a log.

Each forgery is the work of an administrator who can run any statement; the last one has stolen the signing key
as well. None of this is part of the product: it is what verification is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spanseal_ledger.checkpoint import sign_checkpoint
from spanseal_ledger.note import SigningKey
from spanseal_ledger.record import canonical, record_hash
from spanseal_ledger.tree import Frontier
from spanseal_ledger.verifier import StoredRow
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.keys import load_signing_key
from spanseal_storage.rows import query, read_rows
from spanseal_storage.schema import COLUMN_NAMES, COLUMNS

__all__ = ["FORGERIES", "Forgery", "insert_rows", "owner", "rows_of_chain", "run_sql"]

_NOW = {"mutations_sync": 2}


@dataclass(frozen=True, slots=True)
class Forgery:
    """One thing that an administrator does to the log."""

    name: str
    title: str
    expected: str
    """The kind of the finding that must name it."""
    commit: Callable[[Path], str]
    """Does it to a data directory; returns a sentence on what was done."""


@contextmanager
def owner(data: Path) -> Iterator[tuple[DataDirectory, Any]]:
    """Open a log with every right there is."""
    directory = DataDirectory(data)
    with directory.hold("forgery"), open_engine(directory, Role.OWNER) as engine:
        client = engine.client()
        try:
            yield directory, client
        finally:
            client.close()


def run_sql(client: Any, sql: str, **parameters: object) -> None:
    """Run a statement and wait until it is done to every row."""
    client.command(sql, parameters=parameters, settings=_NOW)


def rows_of_chain(client: Any, chain_id: str, first: int = 0) -> list[StoredRow]:
    """Read a chain's rows from a position on."""
    where = "chain_id = {chain:UUID} AND seq >= {first:UInt64}"
    return list(read_rows(client, where, {"chain": chain_id, "first": first}))


def insert_rows(client: Any, rows: list[StoredRow]) -> None:
    """Insert rows as they are, whatever they say."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMN_NAMES}
    for row in rows:
        for name in COLUMN_NAMES:
            source = row if name in ("hash", "prev_hash", "checkpoint", "format") else row.record
            columns[name].append(getattr(source, name))
    client.insert(
        "audit.records",
        [columns[name] for name in COLUMN_NAMES],
        column_names=list(COLUMN_NAMES),
        column_type_names=[column.type for column in COLUMNS],
        column_oriented=True,
    )


def _failed_request(client: Any) -> tuple[str, int, str]:
    """Pick a failed request in the middle of the log: the natural thing to hide."""
    rows = query(
        client,
        "SELECT toString(chain_id), seq, action FROM audit.records "
        "WHERE outcome = 'failure' AND tenant != '_collector' ORDER BY received_at, seq",
    )
    if not rows:
        raise RuntimeError("the log holds no failed request to tamper with")
    chain_id, seq, action = rows[len(rows) // 2]
    return str(chain_id), int(seq), str(action)


def _change_outcome(data: Path) -> str:
    with owner(data) as (_, client):
        chain_id, seq, action = _failed_request(client)
        run_sql(
            client,
            "ALTER TABLE audit.records UPDATE outcome = 'success', failure_reason = '' "
            "WHERE chain_id = {chain:UUID} AND seq = {seq:UInt64}",
            chain=chain_id,
            seq=seq,
        )
    return f"the failed {action} at seq {seq} now reads as a success"


def _delete_row(data: Path) -> str:
    with owner(data) as (_, client):
        chain_id, seq, action = _failed_request(client)
        run_sql(
            client,
            "ALTER TABLE audit.records DELETE WHERE chain_id = {chain:UUID} AND seq = {seq:UInt64}",
            chain=chain_id,
            seq=seq,
        )
    return f"the failed {action} at seq {seq} is gone"


def _last_chain(client: Any) -> str:
    rows = query(
        client, "SELECT toString(chain_id) FROM audit.records WHERE seq = 0 ORDER BY received_at DESC LIMIT 1"
    )
    return str(rows[0][0])


def _cut_tail(data: Path) -> str:
    with owner(data) as (_, client):
        chain_id = _last_chain(client)
        sizes = query(
            client,
            "SELECT size FROM audit.checkpoints WHERE chain_id = {chain:UUID} ORDER BY size",
            {"chain": chain_id},
        )
        # At a checkpoint, so that what is left ends as a log should.
        size = int(sizes[len(sizes) // 2][0])
        gone = int(sizes[-1][0]) - size
        run_sql(
            client,
            "ALTER TABLE audit.records DELETE WHERE chain_id = {chain:UUID} AND seq >= {size:UInt64}",
            chain=chain_id,
            size=size,
        )
    return f"the last {gone} records are gone, cut exactly at a signed checkpoint"


def _rewrite_suffix(data: Path) -> str:
    with owner(data) as (directory, client):
        key = load_signing_key(directory)
        log_name = directory.identity().log_name
        chain_id, seq, action = _failed_request(client)
        rows = rows_of_chain(client, chain_id)
        rows[seq] = replace(rows[seq], record=replace(rows[seq].record, outcome="success", failure_reason=""))
        forged = reseal(rows, seq, key, log_name)
        run_sql(
            client,
            "ALTER TABLE audit.records DELETE WHERE chain_id = {chain:UUID} AND seq >= {seq:UInt64}",
            chain=chain_id,
            seq=seq,
        )
        insert_rows(client, forged)
    return f"the failed {action} at seq {seq} is a success, {len(forged)} records re-hashed, re-signed with the key"


def reseal(rows: list[StoredRow], first: int, key: SigningKey, log_name: str) -> list[StoredRow]:
    """Hash and sign a chain's rows anew from a position on; returns those rows."""
    frontier = Frontier()
    forged: list[StoredRow] = []
    previous = bytes(32)
    for index, row in enumerate(rows):
        changed = row
        if index >= first:
            digest = record_hash(canonical(row.record), previous)
            changed = replace(row, prev_hash=previous, hash=digest)
        previous = changed.hash
        frontier.append(previous)
        if index >= first:
            if row.checkpoint:
                note = sign_checkpoint(key, log_name, row.record.chain_id, index + 1, frontier.root())
                changed = replace(changed, checkpoint=note)
            forged.append(changed)
    return forged


FORGERIES: tuple[Forgery, ...] = (
    Forgery("change", "an outcome is changed", "record_changed", _change_outcome),
    Forgery("delete", "a row is deleted", "missing", _delete_row),
    Forgery("cut", "the tail is cut", "truncated", _cut_tail),
    Forgery("rewrite", "a suffix is rewritten with valid hashes", "rewritten", _rewrite_suffix),
)
