"""The embedded ClickHouse engine (chDB), opened through clickhouse-connect under the rights of a role.

The embedded session is always the user `default`; the `<grants>` of that user in a users.xml bind the whole
engine. So a role is chosen when the engine is opened, and a process that collects cannot ALTER, DELETE,
TRUNCATE or DROP anything, whatever SQL reaches it.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

import clickhouse_connect
from clickhouse_connect import common
from clickhouse_connect.driver.exceptions import ClickHouseError

from spanseal_storage import migrations
from spanseal_storage.directory import DataDirectory, write_private
from spanseal_storage.errors import EngineError, first_line
from spanseal_storage.schema import DATABASE

__all__ = ["Engine", "Role", "open_engine"]


class Role(enum.Enum):
    """What an opened engine may do; the names are those of the roles in server mode."""

    OWNER = "audit_owner"
    """Everything; for migrations and operator's orders only."""
    WRITER = "audit_writer"
    """INSERT and SELECT."""
    READER = "audit_reader"
    """SELECT."""


_READ = (f"GRANT SELECT ON {DATABASE}.*", "GRANT SELECT ON system.*", "GRANT SHOW ON *.*")
_GRANTS: Mapping[Role, tuple[str, ...]] = {
    Role.OWNER: ("GRANT ALL ON *.* WITH GRANT OPTION",),
    Role.WRITER: (*_READ, f"GRANT INSERT ON {DATABASE}.*"),
    Role.READER: _READ,
}

_CONFIG = """<clickhouse>
  <users_config>{users}</users_config>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <logger><level>none</level><console>false</console></logger>
</clickhouse>
"""

_USERS = """<clickhouse>
  <profiles><default>
    <async_insert>0</async_insert>
    <input_format_parallel_parsing>0</input_format_parallel_parsing>
  </default></profiles>
  <quotas><default></default></quotas>
  <users><default>
    <password></password>
    <networks><ip>::1</ip><ip>127.0.0.1</ip></networks>
    <profile>default</profile>
    <quota>default</quota>
    <grants>
{grants}
    </grants>
  </default></users>
</clickhouse>
"""

_DEFAULT_MEMORY_BYTES = 4 << 30


class Engine:
    """An open engine. Not thread-safe: every thread takes a client of its own with `client()`."""

    def __init__(self, connection: Mapping[str, Any], role: Role) -> None:
        self._connection = dict(connection)
        self.role = role

    def client(self, **settings: object) -> Any:
        """Open a client for the calling thread.

        Args:
            settings: ClickHouse settings that hold for this client.

        Raises:
            EngineError: the engine did not answer.

        """
        try:
            return clickhouse_connect.get_client(**self._connection, settings=settings or None)
        except (ClickHouseError, OSError, ImportError) as error:
            raise EngineError(_explain(error, self._connection["path"])) from error


@contextlib.contextmanager
def open_engine(
    directory: DataDirectory, role: Role, *, memory_bytes: int = _DEFAULT_MEMORY_BYTES
) -> Iterator[Engine]:
    """Open the engine of a data directory that the caller holds (`DataDirectory.hold`).

    Args:
        directory: the data directory.
        role: the rights the whole engine runs with.
        memory_bytes: cap on the engine's memory.

    Raises:
        EngineError: it cannot be opened.
        SchemaError: the schema is not one this version works with (not for the owner, who migrates it).

    """
    common.set_setting("autogenerate_session_id", False)  # noqa: FBT003 - clickhouse-connect's own signature
    config = _write_config(directory, role, memory_bytes)
    connection = {
        "interface": "chdb",
        "path": str(directory.engine_path),
        "chdb_options": {"config-file": config},
    }
    engine = Engine(connection, role)
    # Held open as long as the engine is used: the last client's end is the engine's end.
    keeper = engine.client()
    try:
        if role is not Role.OWNER:
            migrations.check(keeper)
        yield engine
    finally:
        keeper.close()


def _write_config(directory: DataDirectory, role: Role, memory_bytes: int) -> str:
    folder = directory.engine_config
    grants = "\n".join(f"      <query>{escape(grant)}</query>" for grant in _GRANTS[role])
    users = folder / f"{role.value}-users.xml"
    config = folder / f"{role.value}.xml"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        write_private(users, _USERS.format(grants=grants))
        write_private(config, _CONFIG.format(users=escape(str(users)), memory=memory_bytes))
    except OSError as error:
        raise EngineError(f"cannot write the engine's configuration in {folder}: {error}") from error
    return str(config)


def _explain(error: Exception, path: str) -> str:
    if isinstance(error, ImportError):
        return "the embedded engine is not installed: pip install 'spanseal[embedded]'"
    return f"cannot open the ClickHouse engine at {path}: {first_line(error)}"
