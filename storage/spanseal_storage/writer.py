"""Insertion of sealed batches: whole, durable, and the same bytes again where the answer was lost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from spanseal_storage.errors import EngineError, first_line
from spanseal_storage.rows import query
from spanseal_storage.schema import COLUMN_NAMES, COLUMNS, DATABASE

__all__ = ["QUARANTINE_COLUMNS", "Batch", "Writer"]

QUARANTINE_COLUMNS = (
    "quarantine_id",
    "received_at",
    "reason",
    "producer_id",
    "producer_seq",
    "salt",
    "raw",
    "digest",
)
_QUARANTINE_TYPES = (
    "UUID",
    "DateTime64(9, 'UTC')",
    "String",
    "String",
    "UInt64",
    "FixedString(16)",
    "String",
    "FixedString(32)",
)


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed batch: immutable, one insert, one checkpoint on its last row."""

    chain_id: str
    first_seq: int
    columns: Mapping[str, Sequence[Any]]
    """The columns of `records` by name; times are int nanoseconds since the epoch, hashes are bytes."""
    note: str
    """The signed checkpoint over everything up to the last row."""
    received_at: int
    """ns since the epoch, the same for every row."""
    quarantined: Mapping[str, Sequence[Any]] | None = None
    """Columns of `quarantine` that are stored before the records which name them."""

    def __len__(self) -> int:
        return len(self.columns["seq"])

    @property
    def token(self) -> str:
        """Names this very batch: SHA-256 of its hashes, in hex."""
        return hashlib.sha256(b"".join(self.columns["hash"])).hexdigest()


class Writer:
    """Writes batches through one client; used by one thread."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def write(self, batch: Batch) -> None:
        """Insert a batch: returns when it is on disk.

        Raises:
            EngineError: the engine refused it or did not answer; it may or may not be stored. Ask `stored`,
                then write the same batch again.

        """
        token = batch.token
        if batch.quarantined:
            self._insert("quarantine", batch.quarantined, QUARANTINE_COLUMNS, _QUARANTINE_TYPES, f"q{token}")
        self._insert("records", batch.columns, COLUMN_NAMES, tuple(c.type for c in COLUMNS), token)

    def stored(self, batch: Batch) -> bool:
        """Tell whether a batch stands in the table, whole and as it was sealed.

        Raises:
            EngineError: the engine did not answer, or holds other rows in this place.

        """
        rows = query(
            self._client,
            f"SELECT hash FROM {DATABASE}.records "  # noqa: S608 - a constant
            "WHERE chain_id = {chain:UUID} AND seq >= {first:UInt64} ORDER BY seq",
            {"chain": batch.chain_id, "first": batch.first_seq},
        )
        found = [bytes(row[0]) for row in rows]
        if not found:
            return False
        if found == list(batch.columns["hash"]):
            return True
        raise EngineError(
            f"chain {batch.chain_id} holds {len(found)} rows from seq {batch.first_seq} that are not the batch "
            f"of {len(batch)} which was sent"
        )

    def _insert(
        self,
        table: str,
        columns: Mapping[str, Sequence[Any]],
        names: Sequence[str],
        types: Sequence[str],
        token: str,
    ) -> None:
        try:
            self._client.insert(
                f"{DATABASE}.{table}",
                [columns[name] for name in names],
                column_names=list(names),
                column_type_names=list(types),
                column_oriented=True,
                settings={
                    "async_insert": 0,
                    "insert_deduplication_token": token,
                    # One block, so one part: a batch is there whole or not at all.
                    "max_insert_block_size": 1 << 24,
                    "min_insert_block_size_rows": 1 << 24,
                    "min_insert_block_size_bytes": 1 << 32,
                },
            )
        except (ClickHouseError, OSError) as error:
            raise EngineError(f"cannot insert into {DATABASE}.{table}: {first_line(error)}") from error
