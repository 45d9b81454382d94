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

from spanseal.errors import SpoolDamaged, SpoolError, SpoolUnavailable
from spanseal.identifiers import stream_id
from spanseal.throttle import Throttle

from . import producer
from .locks import FileLock, directory_lock
from .registry import ended_streams
from .spool_file import FINAL, Access, SpoolFile, is_unused, remove

if TYPE_CHECKING:
    from spanseal.settings import Settings

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

    def __init__(
        self,
        settings: Settings,
        access: Access,
        own: Path,
        *,
        moved: bool = False,
        orphans: bool = False,
        only: Path | None = None,
    ) -> None:
        """Prepare to look.

        Args:
            settings: Of this process.
            access: Of this process.
            own: Its own lock file.
            moved: Whether files that went elsewhere are taken as well, and go where this process sends.
            orphans: Whether files without a lock file are taken as well: copies, as a rule. A living process
                leaves them: it would not know a file that is just being copied.
            only: The one spool file to take.
        """
        self._moved = moved
        self._orphans = orphans
        self._only = only
        self._directory = settings.spool_dir
        self._destination = settings.export.destination
        self._instance = settings.instance
        self._access = access
        self._own = own
        self._elsewhere: set[Path] = set()
        self._throttle = Throttle()
        self.damaged: list[str] = []
        """Names of files found damaged that no record names yet: numbers may be lost in them."""
        self.spoiled: list[str] = []
        """All of them."""

    def look(self, room: int = MOST_AT_ONCE) -> list[Adopted]:
        """Take over up to `room` files of dead processes that sent to the same destination."""
        found: list[Adopted] = []
        paths = set(self._directory.glob("*.lock"))
        if self._orphans:
            paths.update(path.with_suffix(".lock") for path in self._directory.glob("*.db"))
        for path in sorted(paths):
            if len(found) >= room:
                break
            if path == self._own or path in self._elsewhere:
                continue
            if self._only is not None and path.stem != self._only.stem:
                continue
            try:
                lock = FileLock.take(path)
                if lock is None and self._orphans:
                    lock = _lock_orphan(path)
                if lock is not None and (adopted := self._take(lock)) is not None:
                    found.append(adopted)
            except (OSError, SpoolError) as error:
                if self._throttle.due(str(path)):
                    logger.error("the audit spool beside %s cannot be taken over now: %s", path, error)  # noqa: TRY400
        return found

    def done(self, adopted: Adopted) -> None:
        """Put away a file of which everything is sent. Records set aside stay, under another name.

        Raises:
            OSError: The streams' end cannot be noted now; the file is left as it is.
            SpoolUnavailable: It cannot be read.
        """
        streams = adopted.file.read("SELECT stream_id, next FROM stream")
        with directory_lock(self._directory), ended_streams(self._directory) as ended:
            for stream, following in streams:
                ended.add(self._destination, adopted.instance, adopted.tenant, stream, following - 1)
        close(adopted.file, adopted.lock)

    def leave(self, adopted: Adopted) -> None:
        """Let a file go as it is: it is a dead process's again. This one takes no orphan a second time."""
        if self._orphans:
            self._elsewhere.add(adopted.lock.path)
        adopted.file.close()
        adopted.lock.release()

    def put_aside(self, adopted: Adopted, error: SpoolDamaged) -> None:
        """Keep a file that turned out to be damaged under another name."""
        adopted.file.close()
        self._put_aside(adopted.lock, error)

    def _take(self, lock: FileLock) -> Adopted | None:
        file: SpoolFile | None = None
        try:
            file = self._open(lock)
            adopted = self._adopted(file, lock) if file is not None else None
        except SpoolDamaged as error:
            if file is not None:
                file.close()
            self._put_aside(lock, error)
            return None
        except BaseException:
            if file is not None:
                file.close()
            lock.release()
            raise
        if adopted is None:
            if file is not None:
                file.close()
            lock.release()
        return adopted

    def _open(self, lock: FileLock) -> SpoolFile | None:
        """Open the file beside a lock; nothing is left of one that never held a record."""
        path = lock.path.with_suffix(".db")
        # SQLite would delete the WAL of a file without a byte.
        holds = path.exists() and path.stat().st_size > 0
        file = SpoolFile.open(path, self._access) if holds else None
        if file is not None:
            return file
        if lock.used:
            raise SpoolDamaged(f"the audit spool {path} is {'empty' if path.exists() else 'gone'}")
        remove(path)
        lock.release(remove=True)
        return None

    def _adopted(self, file: SpoolFile, lock: FileLock) -> Adopted | None:
        destination = file.meta("destination")
        if destination != self._destination and not self._moved:
            self._elsewhere.add(lock.path)
            logger.warning(
                "the audit spool %s of a dead process waits for a process that sends where it did; if that endpoint has "
                "moved: spanseal spool drain --to URL",
                file.path,
            )
            return None
        resource, tenant, instance = (file.meta(key) for key in ("resource", "tenant", "instance"))
        if not (isinstance(resource, bytes) and isinstance(tenant, str) and isinstance(instance, str)):
            raise SpoolDamaged(f"the audit spool {file.path} lacks what it is of")
        adopted = Adopted(file, lock, resource, tenant, instance)
        try:
            self._close_out(adopted)
        except (TypeError, ValueError) as error:
            raise SpoolDamaged(f"the audit spool {file.path} holds what nobody wrote: {error}") from error
        return adopted

    def _put_aside(self, lock: FileLock, error: SpoolDamaged) -> None:
        path = lock.path.with_suffix(".db")
        logger.critical("a dead process's audit spool is damaged and kept as it is: %s", error)
        try:
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").rename(f"{path.with_suffix(DAMAGED_SUFFIX)}{suffix}")
        except OSError:
            lock.release()
            raise
        self.damaged.append(path.stem)
        self.spoiled.append(path.stem + DAMAGED_SUFFIX)
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


def _lock_orphan(path: Path) -> FileLock | None:
    """Make the lock file that a spool file lacks, and hold it; None if somebody else is faster.

    Raises:
        OSError: It cannot be made.
        SpoolUnavailable: A process has the file open all the same.
    """
    database = path.with_suffix(".db")
    try:
        # Before the file is opened here: SQLite's locks go when any descriptor of it is closed.
        if not is_unused(database):
            raise SpoolUnavailable(
                f"the audit spool {database} has lost its lock file, but a process has it open"
            )
        lock = FileLock.create(path)
    except (FileNotFoundError, FileExistsError, BlockingIOError):
        return None
    lock.set_used(used=True)
    return lock


def close(file: SpoolFile, lock: FileLock) -> None:
    """Close and delete a spool file whose records are all sent; keep it where records are set aside.

    Where requests still have rows in it, it stays open and held until the process ends.

    Raises:
        SpoolUnavailable: It cannot be read; it stays open.
    """
    keep = file.count("aside")
    left = file.close_idle()
    if left is None:
        return
    if left:
        lock.release()
        return
    # Before the file goes: a lock without its file tells of a loss otherwise.
    with suppress(OSError):
        lock.set_used(used=False)
    if keep:
        # With its WAL, which is still there where the disk had no room to merge it.
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                Path(f"{file.path}{suffix}").rename(f"{file.path.with_suffix(ASIDE_SUFFIX)}{suffix}")
    remove(file.path)
    lock.release(remove=True)
