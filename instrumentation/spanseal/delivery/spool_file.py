"""One SQLite file of the spool: its tables and the statements over them.

A record is *open* while its request runs, *answered* once its answer may reach the client, and *final*
when it has its number and may be sent. Rows are made and changed in single transactions; the file is in
WAL mode, so what is committed survives the death of the process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanseal.errors import SpoolDamaged, SpoolUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OPEN, ANSWERED, FINAL = 0, 1, 2
FORMAT = "1"
PAGE = 4096
_LEAST_PAGES = 16
_MOST_PAGES = (1 << 30) - 1  # what every SQLite takes
_RESERVE = 64
_WAL_BYTES = 8 << 20
# The checkpoint of the WAL is done by the background thread; this is the bound if it cannot.
_AUTOCHECKPOINT_PAGES = 8192
_CHECKPOINT_WRITES = 500
# Of SQLite: the bytes are wrong. Everything else (no space, no permission, too many open files, I/O) may pass.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# The bytes that every reader of a database locks together with the others (SQLite's file format, locking).
_SHARED = (510, 0x40000002)

TABLES = frozenset({"meta", "stream", "record", "aside"})
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE stream (stream_id TEXT PRIMARY KEY, next INTEGER NOT NULL, ended INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE record (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, stream_id TEXT, seq INTEGER, body BLOB NOT NULL);
CREATE TABLE aside (id INTEGER PRIMARY KEY, stream_id TEXT, seq INTEGER, body BLOB NOT NULL, reason TEXT, at INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A final record, ready to be sent."""

    id: int
    stream_id: str
    seq: int
    body: bytes


class Access:
    """Held by whoever is inside SQLite, of all spool files of a process.

    SQLite has locks of its own for the whole process. A child forked while another thread holds one would wait
    for it for ever, so `os.fork` waits until nobody is inside: `hold`.
    """

    def __init__(self) -> None:
        self.statements = threading.Lock()
        self.checkpoints = threading.Lock()
        """Apart, since a checkpoint waits for the disk, and requests do not wait for that."""
        self._held: list[threading.Lock] = []

    def hold(self, seconds: float = 10.0) -> None:
        """Wait until nobody is inside, and keep everybody out. A fork from within is let go on after a while."""
        self._held = [lock for lock in (self.statements, self.checkpoints) if lock.acquire(timeout=seconds)]

    def let_go(self) -> None:
        """End what `hold` began."""
        held, self._held = self._held, []
        for lock in held:
            lock.release()


class SpoolFile:
    """An open spool file. Every method holds `access` while it is inside SQLite."""

    def __init__(self, path: Path, connection: sqlite3.Connection, access: Access) -> None:
        self.path = path
        self._access = access
        self._lock = access.statements
        self._connection = connection
        self._writes = 0
        self.closed = False
        self._pages = _MOST_PAGES

    @classmethod
    def create(
        cls,
        path: Path,
        access: Access,
        *,
        meta: Mapping[str, str | bytes],
        durability: str,
        max_bytes: int,
    ) -> SpoolFile:
        """Make a new file.

        Raises:
            SpoolUnavailable: It cannot be made.
        """
        spool: SpoolFile | None = None
        try:
            # SQLite gives its side files the permissions of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with access.statements:
                spool = cls._connect(path, access, durability)
            spool.limit(max_bytes)
            with spool.transaction() as execute:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    execute(statement)
                for key, value in {"format": FORMAT, **meta}.items():
                    execute("INSERT INTO meta VALUES (?, ?)", (key, value))
            if durability == "disk":
                _sync_directory(path.parent)
        except (OSError, sqlite3.Error, SpoolUnavailable) as error:
            if spool is not None:
                spool.close()
            raise SpoolUnavailable(f"the audit spool {path} cannot be made: {error}") from error
        return spool

    @classmethod
    def open(cls, path: Path, access: Access) -> SpoolFile | None:
        """Open the file of a dead process.

        Returns:
            None for a file without tables: its process died before it could use it.

        Raises:
            SpoolDamaged: It is no spool, or not as it was written.
            SpoolUnavailable: It cannot be read now, or another version of this program made it.
        """
        try:
            with access.statements:
                spool = cls._connect(path, access, "process")
        except sqlite3.Error as error:
            raise translated(error, path, "read") from error
        try:
            tables = {name for (name,) in spool.read("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                spool.close()
                return None
            if not tables.issuperset(TABLES):
                raise SpoolDamaged(f"the audit spool {path} lacks tables")
            found = spool.meta("format")
            if found != FORMAT:
                raise SpoolUnavailable(
                    f"the audit spool {path} has format {found!r}, this program knows {FORMAT!r}"
                )
        except SpoolUnavailable:
            spool.close()
            raise
        return spool

    @classmethod
    def _connect(cls, path: Path, access: Access, durability: str) -> SpoolFile:
        connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={'FULL' if durability == 'disk' else 'NORMAL'}")
            connection.execute(f"PRAGMA wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
        except sqlite3.Error:
            connection.close()
            raise
        return cls(path, connection, access)

    @contextmanager
    def transaction(self, *, beyond: bool = False) -> Iterator[Any]:
        """Run statements in one transaction; gives `Connection.execute`.

        Args:
            beyond: Whether the file may become somewhat larger than its bound by this: it is about records
                that are in it already, and must not wait for room that only they can make.

        Raises:
            SpoolUnavailable: A statement or the commit failed; nothing of it is kept.
        """
        with self._lock, self._raised() if beyond else nullcontext():
            self._writes += 1
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection.execute
                    self._connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise translated(error, self.path, "written") from error

    def write(self, statement: str, values: Sequence[object] = (), *, beyond: bool = False) -> sqlite3.Cursor:
        """Run one statement as one transaction. Arguments and errors as in `transaction`."""
        with self._lock:
            self._writes += 1
            try:
                try:
                    return self._connection.execute(statement, values)
                except sqlite3.OperationalError as error:
                    if not beyond or error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                        raise
                with self._raised():
                    return self._connection.execute(statement, values)
            except sqlite3.Error as error:
                raise translated(error, self.path, "written") from error

    def read(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Read rows.

        Raises:
            SpoolUnavailable: The file cannot be read.
        """
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise translated(error, self.path, "read") from error

    def meta(self, key: str) -> Any:
        """Read one fact about the file, or None. Raises as `read` does."""
        rows = self.read("SELECT value FROM meta WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def final(self, rows: int, size: int) -> list[Row]:
        """The next records to send: the oldest, in the order of their numbers.

        Args:
            rows: The most.
            size: Bytes of all bodies, about: one record is always given.
        """
        found = self.read(
            "SELECT id, stream_id, seq, body FROM record WHERE state = ? ORDER BY id LIMIT ?", (FINAL, rows)
        )
        batch: list[Row] = []
        total = 0
        for row in found:
            total += len(row[3])
            if batch and total > size:
                break
            batch.append(Row(*row))
        # Numbers are drawn when requests end, rows are made when they begin.
        return sorted(batch, key=lambda row: (row.stream_id, row.seq))

    def delete(self, ids: Sequence[int]) -> None:
        """Forget records that the collector has acknowledged."""
        with self.transaction() as execute:
            for identifier in ids:
                execute("DELETE FROM record WHERE id = ?", (identifier,))

    def set_aside(self, row: Row, reason: str) -> None:
        """Keep a record that the collector refuses where it is not sent again."""
        with self.transaction(beyond=True) as execute:
            execute(
                "INSERT INTO aside (stream_id, seq, body, reason, at) VALUES (?, ?, ?, ?, ?)",
                (row.stream_id, row.seq, row.body, reason, time.time_ns()),
            )
            execute("DELETE FROM record WHERE id = ?", (row.id,))

    def count(self, table: str = "record") -> int:
        """How many rows a table has."""
        return int(self.read(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608  # own table names only

    def limit(self, max_bytes: int) -> None:
        """Bound the file's size. It never shrinks by this: free pages are used again."""
        with self._lock:
            self._pages = min(max(max_bytes // PAGE, _LEAST_PAGES), _MOST_PAGES)
            self._bound(self._pages)

    @contextmanager
    def _raised(self) -> Iterator[None]:
        self._bound(min(self._pages + self._pages // 4 + _RESERVE, _MOST_PAGES))
        try:
            yield
        finally:
            self._bound(self._pages)

    def _bound(self, pages: int) -> None:
        with suppress(sqlite3.Error):  # a file that cannot be read says so when it is used
            self._connection.execute(f"PRAGMA max_page_count={pages}")

    def growth(self) -> int:
        """By how many bytes the file must still grow to take in what its WAL holds, less what is unused in it.

        Below zero where there is more unused than that. Errors as in `read`.
        """
        ((pages,),) = self.read("PRAGMA page_count")
        ((unused,),) = self.read("PRAGMA freelist_count")
        try:
            return max(int(pages) * PAGE - self.path.stat().st_size, 0) - int(unused) * PAGE
        except OSError:
            return 0

    def checkpoint(self, *, force: bool = False) -> None:
        """Move what is in the WAL into the database, now and then, so that the WAL stays small.

        This waits for the disk, so it has a connection of its own: requests go on meanwhile.
        """
        if not force and self._writes < _CHECKPOINT_WRITES:
            return
        self._writes = 0
        with (
            self._access.checkpoints,
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self.path, timeout=0)) as connection,
        ):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def sync(self) -> None:
        """Bring everything committed so far to the disk.

        The numbers that a batch bears must not be drawn a second time after a power cut, so this is
        done before a batch leaves. A descriptor of the WAL may be opened and closed: SQLite holds its
        POSIX locks on the other two files.
        """
        with suppress(FileNotFoundError):
            descriptor = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Close the file; its WAL is gone afterwards."""
        with self._lock, suppress(sqlite3.Error):
            self.closed = True
            self._connection.close()

    def close_idle(self) -> int | None:
        """Close the file, unless it holds rows of requests that may still run; nothing comes in between.

        Returns:
            How many rows are left in it; None where it stays open.

        Raises:
            SpoolUnavailable: It cannot be read; it stays open.
        """
        with self._lock:
            try:
                counted = "SELECT count(*), coalesce(sum(state <> ?), 0) FROM record"
                left, running = self._connection.execute(counted, (FINAL,)).fetchone()
            except sqlite3.Error as error:
                raise translated(error, self.path, "read") from error
            if running:
                return None
            self.closed = True
            with suppress(sqlite3.Error):
                self._connection.close()
            return int(left)


def remove(path: Path) -> None:
    """Delete a closed file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def is_unused(path: Path) -> bool:
    """Say whether no process has a spool file open, by SQLite's own lock: in WAL mode everybody shares it all the time.

    Raises:
        OSError: It is gone, or cannot be opened for writing.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, *_SHARED)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def translated(error: sqlite3.Error, path: Path, done: str) -> SpoolUnavailable:
    """Return the spool's own error for one of SQLite's: damaged, or not to be had now."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells more of the same
    kind = SpoolDamaged if code in _DAMAGE else SpoolUnavailable
    return kind(f"the audit spool {path} cannot be {done}: {error}")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
