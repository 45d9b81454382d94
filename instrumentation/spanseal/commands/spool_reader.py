"""Reading a spool file from outside, whoever holds it, without changing anything.

A file in WAL mode is read through its `-wal`, and SQLite wants the `-shm` for that, which it makes where there is
none. So that nothing is made in a directory that is only looked at:

- with a `-shm`, SQLite is told to take it as it is. A living process's is right; a dead one's SQLite does not trust,
  and makes itself an index of the WAL in memory;
- without a `-wal`, everything is in the file itself, and nobody has it open;
- with a `-wal` alone, as in a copy, both are copied to a private temporary directory and read there.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from spanseal.delivery.spool_file import FORMAT, TABLES, translated
from spanseal.errors import SpoolDamaged, SpoolUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["reading"]

_TIMEOUT = 2.0
_TRIES = 3


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a spool file for reading; what is read through it is of one moment.

    Yields:
        The connection; None for a file without tables, whose process had or has no time to make them.

    Raises:
        FileNotFoundError: It is gone: sent, as a rule.
        SpoolDamaged: It is no spool, or not as it was written.
        SpoolUnavailable: It cannot be read now, or another version of this program made it.
    """
    with tempfile.TemporaryDirectory(prefix="spanseal-") as folder:
        connection = _open(path, Path(folder))
        with closing(connection):
            try:
                tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
                if tables and not tables.issuperset(TABLES):
                    raise SpoolDamaged(f"the audit spool {path} lacks tables")
                if tables:
                    found = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
                    if found != (FORMAT,):
                        raise SpoolUnavailable(
                            f"the audit spool {path} has format {found and found[0]!r}, this program knows {FORMAT!r}"
                        )
                yield connection if tables else None
            except sqlite3.Error as error:
                raise translated(error, path, "read") from error


def _open(path: Path, folder: Path) -> sqlite3.Connection:
    """Open a file in one of the ways, and begin to read."""
    problem: sqlite3.Error | None = None
    for _ in range(_TRIES):  # it may be closed, or opened, in the middle
        if not path.exists():
            raise FileNotFoundError(path)
        for place, options in _ways(path, folder):
            try:
                return _begin(place, options)
            except sqlite3.Error as error:
                problem = error
    assert problem is not None  # noqa: S101 - there is a way for every file
    raise translated(problem, path, "read") from problem


def _ways(path: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    wal, shm = Path(f"{path}-wal"), Path(f"{path}-shm")
    if shm.exists():
        yield path, "mode=ro&readonly_shm=1"
        # A living process that never marked how far its WAL may be read: this marks it.
        yield path, "mode=ro"
    if not wal.exists():
        yield path, "mode=ro&immutable=1"
        return
    for name in (path, wal):
        try:
            shutil.copyfile(name, folder / name.name)
        except FileNotFoundError:
            (folder / name.name).unlink(missing_ok=True)
    yield folder / path.name, "mode=rw"


def _begin(path: Path, options: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?{options}"
    connection = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT, isolation_level=None)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
