"""What dead processes left: a live process of the same destination takes it over.

A dead process's final records are sent unchanged, under the numbers they have. What never became final
is finished here with what is known, under a stream that the adopter opens for it inside the dead file:
`producer.started` (naming the dead stream and its last number), the records, `producer.stopped`, all in
one transaction. So an adopter that dies at any moment leaves a file that the next one can take in the
same way, and no record gets two numbers.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import producer
from .errors import SpoolUnavailable
from .identifiers import stream_id
from .locks import FileLock, directory_lock
from .registry import ended_streams
from .spool_file import FINAL, SpoolFile

if TYPE_CHECKING:
    import threading

    from .settings import Settings

logger = logging.getLogger("spanseal")

MOST_AT_ONCE = 16
DAMAGED_SUFFIX = ".damaged"
ASIDE_SUFFIX = ".aside"


@dataclass(frozen=True, slots=True)
class Adopted:
    """A dead process's file, held by this process."""

    file: SpoolFile
    lock: FileLock
    resource: bytes
    tenant: str
    instance: str


class Adopter:
    """Looks for dead processes' files and closes them out."""

    def __init__(self, settings: Settings, lock: threading.Lock, own: Path) -> None:
        self._directory = settings.spool_dir
        self._destination = settings.export.endpoint
        self._instance = settings.instance
        self._lock = lock
        self._own = own
        self._damaged: list[str] = []

    def look(self, room: int = MOST_AT_ONCE) -> list[Adopted]:
        """Take over up to `room` files of dead processes that sent to the same destination."""
        found: list[Adopted] = []
        for path in sorted(self._directory.glob("*.lock")):
            if len(found) >= room:
                break
            if path == self._own:
                continue
            try:
                lock = FileLock.take(path)
                if lock is not None and (adopted := self._take(lock)) is not None:
                    found.append(adopted)
            except OSError:
                logger.exception("the audit spool beside %s could not be looked at", path)
        return found

    def damaged(self) -> list[str]:
        """Names of files found damaged since the last call: numbers may be lost in them."""
        names, self._damaged = self._damaged, []
        return names

    def done(self, adopted: Adopted) -> None:
        """Put away a file of which everything is sent. Records set aside stay, under another name."""
        with directory_lock(self._directory), ended_streams(self._directory) as ended:
            for stream, following in adopted.file.read("SELECT stream_id, next FROM stream"):
                ended.add(self._destination, adopted.instance, adopted.tenant, stream, following - 1)
        close(adopted.file, adopted.lock)

    def _take(self, lock: FileLock) -> Adopted | None:
        path = lock.path.with_suffix(".db")
        if not path.exists():
            lock.release(remove=True)
            return None
        try:
            file = SpoolFile.open(path, self._lock)
        except SpoolUnavailable as error:
            if "locked" not in str(error) and "format" not in str(error):
                self._put_aside(lock, path, error)
            lock.release()
            return None
        try:
            if file.meta("destination") != self._destination:
                file.close()
                lock.release()
                return None
            adopted = Adopted(
                file, lock, bytes(file.meta("resource")), str(file.meta("tenant")), str(file.meta("instance"))
            )
            self._close_out(adopted)
        except Exception as error:
            file.close()
            if _is_damage(error):
                self._put_aside(lock, path, error)
            else:
                logger.exception("the audit spool %s of a dead process cannot be taken over now", path)
            lock.release()
            return None
        return adopted

    def _put_aside(self, lock: FileLock, path: Path, error: Exception) -> None:
        logger.critical("the audit spool %s of a dead process is damaged, kept as it is: %s", path, error)
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{path.with_suffix(DAMAGED_SUFFIX)}{suffix}")
        self._damaged.append(path.stem)
        lock.release(remove=True)

    def _close_out(self, adopted: Adopted) -> None:
        """Make everything in the file final, once. Does nothing to a file that is closed out already."""
        file = adopted.file
        # With no page bound of its own: the file was bounded when it was written, and must now end well.
        with file.transaction() as execute:
            named = execute("SELECT value FROM meta WHERE key = 'drops_named'").fetchone()
            dropped = adopted.lock.dropped - (named[0] if named else 0)
            rows = execute("SELECT id FROM record WHERE state <> ? ORDER BY id", (FINAL,)).fetchall()
            living = execute("SELECT stream_id, next FROM stream WHERE ended = 0").fetchall()
            if not rows and not living and dropped <= 0:
                return
            stream = stream_id(self._instance)
            number = 0

            def insert(body: bytes) -> None:
                nonlocal number
                execute(
                    "INSERT INTO record (state, stream_id, seq, body) VALUES (?, ?, ?, ?)",
                    (FINAL, stream, number, body),
                )
                number += 1

            insert(
                producer.started(
                    stream, adopted.tenant, [(name, following - 1) for name, following in living]
                )
            )
            for (row,) in rows:
                execute(
                    "UPDATE record SET state = ?, stream_id = ?, seq = ? WHERE id = ?",
                    (FINAL, stream, number, row),
                )
                number += 1
            if dropped > 0:
                first, number = number, number + dropped
                insert(producer.gap(stream, adopted.tenant, first, number - 1, "spool_unavailable"))
                execute("UPDATE meta SET value = value + ? WHERE key = 'drops_named'", (dropped,))
            insert(producer.stopped(stream, adopted.tenant, number))
            execute("UPDATE stream SET ended = 1")
            execute("INSERT INTO stream VALUES (?, ?, 1)", (stream, number))


def close(file: SpoolFile, lock: FileLock) -> None:
    """Close and delete a spool file whose records are all sent; keep it where records are set aside."""
    keep = file.count("aside")
    left = file.count()
    file.close()
    if left:
        lock.release()
        return
    if keep:
        # With its WAL, which is still there where the disk had no room to merge it.
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                Path(f"{file.path}{suffix}").rename(f"{file.path.with_suffix(ASIDE_SUFFIX)}{suffix}")
    file.remove()
    lock.release(remove=True)


def _is_damage(error: Exception) -> bool:
    text = str(error)
    return any(sign in text for sign in ("malformed", "not a database", "no such table", "NoneType"))
