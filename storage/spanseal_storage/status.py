"""What there is in a data directory: `spanseal storage status`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanseal_storage.directory import DataDirectory
from spanseal_storage.rows import query
from spanseal_storage.schema import DATABASE

__all__ = ["Status", "read_status"]


@dataclass(frozen=True, slots=True)
class Status:
    """Numbers of a log."""

    schema_version: int
    records: int
    chains: int
    quarantined: int
    first_received_at: int | None
    """ns since the Unix epoch; None where there is no record."""
    last_received_at: int | None
    table_bytes: int
    """Of the tables' active parts, as compressed."""
    directory_bytes: int
    """Of all files in the data directory, as allocated on disk."""


def read_status(client: Any, directory: DataDirectory) -> Status:
    """Count what a log holds.

    Args:
        client: of `access.open_reader`.
        directory: the data directory.

    Raises:
        EngineError: the engine did not answer.

    """
    records, chains, first, last = query(
        client,
        "SELECT count(), uniqExact(chain_id), toUnixTimestamp64Nano(min(received_at)), "  # noqa: S608 - a constant
        f"toUnixTimestamp64Nano(max(received_at)) FROM {DATABASE}.records",
    )[0]
    version = query(client, f"SELECT max(version) FROM {DATABASE}.schema_migrations")[0][0]  # noqa: S608 - likewise
    quarantined = query(client, f"SELECT count() FROM {DATABASE}.quarantine")[0][0]  # noqa: S608 - likewise
    table_bytes = query(
        client,
        "SELECT sum(total_bytes) FROM system.tables WHERE database = {database:String}",
        {"database": DATABASE},
    )[0][0]
    return Status(
        schema_version=int(version),
        records=int(records),
        chains=int(chains),
        quarantined=int(quarantined),
        first_received_at=int(first) if records else None,
        last_received_at=int(last) if records else None,
        table_bytes=int(table_bytes or 0),
        directory_bytes=_allocated(directory.path),
    )


def _allocated(path: Path) -> int:
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                found = Path(folder, name).lstat()
            except OSError:
                continue  # a part that was merged away meanwhile
            if (key := (found.st_dev, found.st_ino)) not in seen:  # parts share files by hard links
                seen.add(key)
                total += found.st_blocks * 512
    return total
