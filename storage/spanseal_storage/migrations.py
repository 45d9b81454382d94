"""Versioned migrations of the database: idempotent, each applied once, in order.

A migration runs under an owner's rights; everything else in this package runs under grants that refuse
ALTER, DELETE, TRUNCATE and DROP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spanseal_storage import schema
from spanseal_storage.errors import SchemaError

__all__ = ["MIGRATIONS", "Migration", "check", "migrate"]


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    statements: tuple[Callable[[], str], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the statements, so that a migration edited after its release is noticed."""
        return hashlib.sha256("\n".join(make() for make in self.statements).encode()).hexdigest()


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "records, events, checkpoints, quarantine",
        (
            schema.records_table,
            schema.events_view,
            schema.checkpoints_view,
            schema.quarantine_table,
        ),
    ),
)

_BOOKKEEPING = f"""CREATE TABLE IF NOT EXISTS {schema.DATABASE}.schema_migrations (
    version UInt32, name String, digest String, applied_at DateTime DEFAULT now()
) ENGINE = MergeTree ORDER BY version SETTINGS {schema.DURABILITY_SETTINGS}"""


def migrate(client: Any) -> list[Migration]:
    """Bring the database up to this version's schema.

    Args:
        client: a clickhouse-connect client with an owner's rights.

    Returns:
        The migrations that were applied now; empty where there was nothing to do.

    Raises:
        SchemaError: the database was made by a newer version, or a migration's text is not the applied one.

    """
    # Atomic by name: chDB's own default database is of another engine and fails under restricted grants.
    client.command(f"CREATE DATABASE IF NOT EXISTS {schema.DATABASE} ENGINE = Atomic")
    client.command(_BOOKKEEPING)
    applied = _applied(client)
    done = []
    for migration in MIGRATIONS:
        if migration.version in applied:
            continue
        for make in migration.statements:
            client.command(make())
        client.insert(
            f"{schema.DATABASE}.schema_migrations",
            [[migration.version, migration.name, migration.digest]],
            column_names=["version", "name", "digest"],
        )
        done.append(migration)
    return done


def check(client: Any) -> None:
    """Refuse a database whose schema this version cannot work with.

    Raises:
        SchemaError: a migration is missing, unknown, or of another text; the message says what to do.

    """
    applied = _applied(client)
    missing = [m.version for m in MIGRATIONS if m.version not in applied]
    if missing:
        raise SchemaError(f"the database lacks schema version {missing[0]}; run `spanseal storage migrate`")


def _applied(client: Any) -> dict[int, str]:
    there = client.query(
        "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'schema_migrations'",
        parameters={"database": schema.DATABASE},
    ).result_rows
    if not there[0][0]:
        return {}
    rows = client.query(
        f"SELECT version, digest FROM {schema.DATABASE}.schema_migrations ORDER BY version"  # noqa: S608 - constant
    ).result_rows
    known = {m.version: m.digest for m in MIGRATIONS}
    for version, digest in rows:
        if version not in known:
            raise SchemaError(
                f"the database has schema version {version}, newer than this program knows; "
                "upgrade Spanseal before you open it"
            )
        if known[version] != digest:
            raise SchemaError(
                f"schema version {version} of the database was made from another text than this program's; "
                "it was edited by hand or by an unreleased version, and is not touched"
            )
    return {int(version): str(digest) for version, digest in rows}
