"""The clinic's SQLite file: made once, opened once per request."""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flask import current_app, g

from . import seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

BUSY_TIMEOUT_S = 10.0
SCHEMA_VERSION = 1
SCHEMA = Path(__file__).with_name("schema.sql")


class UnknownSchemaError(RuntimeError):
    """The database file was made by another version of the clinic."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database in autocommit mode; transactions are begun explicitly by `transaction`."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def ensure(path: Path, *, password_method: str) -> bool:
    """Make and fill the database if it is not there yet; returns whether this call made it.

    Several workers start at once, so one of them does it under a file lock while the others wait. The
    schema, the demo data and the version number are one transaction: a worker that dies in the middle
    leaves nothing behind, and the next one begins again.

    Raises:
        UnknownSchemaError: the file holds another schema version than this code knows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection = connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == SCHEMA_VERSION:
                return False
            if version != 0:
                raise UnknownSchemaError(
                    f"{path} has schema version {version}, this clinic knows {SCHEMA_VERSION}: "
                    "point CLINIC_DATABASE at another file"
                )
            with _immediate(connection):
                for statement in SCHEMA.read_text(encoding="utf-8").split(";\n"):
                    connection.execute(statement)
                seed.fill(connection, password_method=password_method)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return True
        finally:
            connection.close()


def secret_key(path: Path) -> str:
    """Return the key that was made with the database: every worker that shares the file shares it."""
    connection = connect(path)
    try:
        row = connection.execute("SELECT value FROM setting WHERE name = 'secret_key'").fetchone()
        return str(row["value"])
    finally:
        connection.close()


def db() -> sqlite3.Connection:
    """Return this request's connection."""
    if "db" not in g:
        g.db = connect(Path(current_app.config["DATABASE"]))
    connection: sqlite3.Connection = g.db
    return connection


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """Write in one transaction. It takes the write lock at once, so that it never has to upgrade a read."""
    with _immediate(db()) as connection:
        yield connection


def close(_error: BaseException | None = None) -> None:
    """Close this request's connection, if it opened one."""
    connection = g.pop("db", None)
    if connection is not None:
        connection.close()


def init_app(app: Flask) -> None:
    app.teardown_appcontext(close)


@contextmanager
def _immediate(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
