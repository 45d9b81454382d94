"""What could not be admitted: its row in the table `quarantine`, and the record that is sealed for it.

The rows are stored before the records of the same commit, so that a sealed record never names a row that is not
there. Where the process dies between the two, the row stands alone: nobody was told that it is stored, its sender
sends the same again, and the next start seals a record for the row that was left (`lineage`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from spanseal_collector.admission import Draft, Rejected
from spanseal_collector.sealer import Sealer
from spanseal_collector.uuid7 import uuid7
from spanseal_ledger.record import Record
from spanseal_storage.writer import QUARANTINE_COLUMNS

__all__ = ["LeftRow", "conflicting", "own_record", "quarantine"]

_CONFLICT = "its record_id is that of a stored record that says something else"


@dataclass(frozen=True, slots=True)
class LeftRow:
    """What a sealed record says of a row in `quarantine`."""

    quarantine_id: str
    digest: bytes
    """SHA-256(salt, raw bytes)."""
    reason: str
    producer_id: str
    producer_seq: int


def quarantine(
    rejected: Iterable[tuple[Rejected, Record | None]], received_at: int, sealer: Sealer
) -> tuple[dict[str, list[Any]] | None, list[Draft]]:
    """Make rows of `quarantine`, and the collector's own records that name them.

    Args:
        rejected: what was rejected; with the stored record that it conflicts with, where that is why.
        received_at: the time of the commit, ns since the epoch.
        sealer: the chain that the records are for.

    Returns:
        Columns by name, None where nothing was rejected; and a draft for each row.

    """
    columns: dict[str, list[Any]] = {name: [] for name in QUARANTINE_COLUMNS}
    drafts = []
    for item, twin in rejected:
        salt = os.urandom(16)
        digest = hashlib.sha256(salt + item.raw).digest()
        row = LeftRow(uuid7(), digest, item.reason, item.producer_id, item.producer_seq)
        values = (
            row.quarantine_id,
            received_at,
            row.reason,
            row.producer_id,
            row.producer_seq,
            salt,
            item.raw,
            digest,
        )
        for name, value in zip(QUARANTINE_COLUMNS, values, strict=True):
            columns[name].append(value)
        drafts.append(own_record(row, sealer, twin))
    return (columns if drafts else None), drafts


def own_record(row: LeftRow, sealer: Sealer, twin: Record | None = None) -> Draft:
    """Make the collector's own record that names a row, and the stored record that it conflicts with."""
    metadata = {
        "audit.quarantine.id": row.quarantine_id,
        "audit.quarantine.digest": row.digest.hex(),
        "audit.quarantine.reason": row.reason,
        "audit.quarantine.producer_id": row.producer_id,
        "audit.quarantine.producer_seq": str(row.producer_seq),
    }
    if twin is None:
        return sealer.own("audit_log.quarantined", metadata)
    metadata["audit.conflict.tenant"] = twin.tenant
    metadata["audit.conflict.record_id"] = twin.record_id
    return sealer.own("audit_log.conflict", metadata)


def conflicting(draft: Draft) -> Rejected:
    """Keep what a conflicting record says, in a form that can be read again: JSON of its columns."""
    record = draft.record
    raw = json.dumps(
        {
            name: dict(value) if isinstance(value := getattr(record, name), dict) else value
            for name in record.__slots__
            if not isinstance(getattr(record, name), bytes)
        },
        ensure_ascii=False,
        sort_keys=True,
    ).encode()
    return Rejected(raw, _CONFLICT, record.producer_id, record.producer_seq)
