"""The engine under a role's rights, and what it syncs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from benchmarks.synthetic import make_log
from spanseal_storage import migrations
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.errors import EngineError, SchemaError
from spanseal_storage.rows import query


@contextmanager
def opened(directory: DataDirectory, role: Role) -> Iterator[Any]:
    with directory.hold("test"), open_engine(directory, role) as engine:
        client = engine.client()
        try:
            yield client
        finally:
            client.close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> DataDirectory:
    return make_log(tmp_path_factory.mktemp("engine") / "data", 50)


def code_of(client: Any, statement: str) -> int:
    with pytest.raises(ClickHouseError) as caught:
        client.command(statement)
    return int(getattr(caught.value, "code", 0) or 0)


DESTROYING = (
    "ALTER TABLE audit.records UPDATE outcome = 'success' WHERE 1",
    "ALTER TABLE audit.records DELETE WHERE 1",
    "DELETE FROM audit.records WHERE 1",
    "TRUNCATE TABLE audit.records",
    "DROP TABLE audit.records",
    "DROP VIEW audit.events",
    "DROP DATABASE audit",
    "DETACH TABLE audit.records",
    "RENAME TABLE audit.records TO audit.gone",
    "EXCHANGE TABLES audit.records AND audit.quarantine",
    "ALTER TABLE audit.records MODIFY TTL received_at + INTERVAL 1 SECOND",
    "ALTER TABLE audit.records DROP COLUMN hash",
    "ALTER TABLE audit.records MODIFY SETTING fsync_after_insert = 0",
    "ALTER TABLE audit.records DROP PARTITION tuple()",
    "CREATE TABLE audit.another (a Int8) ENGINE = Memory",
    "CREATE USER mallory",
    "GRANT ALL ON *.* TO default",
)


@pytest.mark.parametrize("role", [Role.WRITER, Role.READER])
def test_neither_who_writes_nor_who_reads_can_destroy(directory: DataDirectory, role: Role) -> None:
    with opened(directory, role) as client:
        before = query(client, "SELECT count(), groupBitXor(cityHash64(*)) FROM audit.records")
        for statement in DESTROYING:
            assert code_of(client, statement) == 497, statement
        assert query(client, "SELECT count(), groupBitXor(cityHash64(*)) FROM audit.records") == before


def test_who_reads_cannot_insert(directory: DataDirectory) -> None:
    with opened(directory, Role.READER) as client:
        assert code_of(client, "INSERT INTO audit.records (actor_id) VALUES ('x')") == 497


def test_merges_are_synced_too(directory: DataDirectory) -> None:
    def syncs(client: Any) -> int:
        rows = query(
            client, "SELECT sum(value) FROM system.events WHERE event IN ('FileSync', 'DirectorySync')"
        )
        return int(rows[0][0])

    with opened(directory, Role.OWNER) as client:
        parts = "SELECT count() FROM system.parts WHERE active AND database = 'audit' AND table = 'records'"
        assert query(client, parts)[0][0] > 1
        before = syncs(client)
        client.command("OPTIMIZE TABLE audit.records FINAL")
        assert query(client, parts) == [(1,)]
        assert syncs(client) - before > 10
        client.command(
            "CREATE TABLE audit.unsynced AS audit.records ENGINE = MergeTree ORDER BY (chain_id, seq)"
        )
        for _ in range(2):
            client.command("INSERT INTO audit.unsynced SELECT * FROM audit.records")
        before = syncs(client)
        client.command("OPTIMIZE TABLE audit.unsynced FINAL")
        # What a table does that has not been told to: this is why the settings stand in the schema.
        assert syncs(client) == before
        client.command("DROP TABLE audit.unsynced SYNC")


def test_migrating_twice_is_migrating_once(directory: DataDirectory) -> None:
    with opened(directory, Role.OWNER) as client:
        assert migrations.migrate(client) == []
        assert query(client, "SELECT version FROM audit.schema_migrations") == [(1,)]


def test_a_newer_or_edited_schema_is_refused(tmp_path: Path) -> None:
    for version, digest, expected in ((99, "x", "newer"), (1, "edited", "another text")):
        directory = make_log(tmp_path / str(version), 1)
        with opened(directory, Role.OWNER) as client:
            if version == 1:
                client.command("TRUNCATE TABLE audit.schema_migrations")
            client.insert(
                "audit.schema_migrations",
                [[version, "?", digest]],
                column_names=["version", "name", "digest"],
            )
        with pytest.raises(SchemaError, match=expected), opened(directory, Role.READER):
            pass


def test_a_database_without_schema_says_what_to_do(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    with pytest.raises(SchemaError, match="spanseal storage migrate"), opened(directory, Role.READER):
        pass


def test_an_engine_that_cannot_be_opened(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    directory.engine_path.write_text("a file in the place of the engine's directory")
    with pytest.raises(EngineError, match="cannot open"), opened(directory, Role.READER):
        pass
