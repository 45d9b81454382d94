"""The spool of a living process: where a record is durable before its request is answered.

The life of a request's record: `begin` (a state-changing request, before the view runs), `answer`
(before the first byte of the answer), `finish` (the answer has ended; costs the request nothing),
`settle` (in the background: the record gets its number and may be sent). `append` is for a record
that is final at once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spanseal.errors import SpoolUnavailable
from spanseal.identifiers import stream_id, uuid7

from . import metrics, producer
from .locks import FileLock, directory_lock
from .registry import ended_streams
from .spool_file import ANSWERED, FINAL, OPEN, Access, SpoolFile, remove
from .tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

    from spanseal.settings import Settings

logger = logging.getLogger("spanseal")

_TRIES = 8
_FREE = 8 << 20
"""Bytes of the disk that are left for what is in the spool already: twice what a settled and a forgotten batch
can add to the WAL before it is merged."""
_LOOK_EVERY = 16
_SETTLED_AT_ONCE = 128


@dataclass(slots=True)
class Finished:
    """A record whose request has ended, on its way to its number."""

    row: int
    body: bytes | None
    """What is known in the end; None if nothing new."""


class Spool:
    """This process's own spool file and stream.

    Raises:
        SpoolUnavailable: The directory or the file cannot be made.
    """

    def __init__(self, settings: Settings, resource: bytes, access: Access) -> None:
        self._tenant = settings.tenant
        self.directory = settings.spool_dir
        self.stream = stream_id(settings.instance)
        # Before anything can fail: what is lost without a spool is told, too.
        metrics.install()
        self.closed = False
        """Whether the stream has ended: what comes now has no number, and is for who takes the file over."""
        self.tally = Tally()
        self._identity = settings.export.destination, settings.instance, settings.tenant
        self._previous: list[tuple[str, int]] = []
        self._finished: deque[Finished] = deque()
        self._dropped = 0
        self._dropping = threading.Lock()
        self._max_bytes = settings.max_bytes
        self._refuses = settings.on_error == "closed"
        self._until_look = 0
        self.narrow = False
        """Whether the disk becomes full, as far as is known: the WAL is then to be kept merged."""
        file: SpoolFile | None = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.lock = _new_lock(self.directory)
            path = self.lock.path.with_suffix(".db")
            try:
                self.file = file = SpoolFile.create(
                    path,
                    access,
                    durability=settings.durability,
                    max_bytes=settings.max_bytes,
                    meta={
                        "destination": settings.export.destination,
                        "service": str(settings.resource.get("service.name", "")),
                        "instance": settings.instance,
                        "tenant": settings.tenant,
                        "resource": resource,
                    },
                )
                self._start()
                self.lock.set_used(used=True)
            except BaseException:
                if file is not None:
                    file.close()
                remove(path)
                self.lock.release(remove=True)
                raise
        except OSError as error:
            raise SpoolUnavailable(f"the audit spool in {self.directory} cannot be made: {error}") from error

    def _start(self) -> None:
        """Begin the stream: its first record names the streams that ended before."""
        try:
            with directory_lock(self.directory), ended_streams(self.directory) as ended:
                self._previous = ended.take(*self._identity)
                self._begin_stream(self._previous)
        except BlockingIOError:
            # Someone holds the list for long. A later stream will name them: nobody waits for that.
            self._begin_stream([])

    def _begin_stream(self, previous: list[tuple[str, int]]) -> None:
        body = producer.started(self.stream, self._tenant, previous)
        with self.file.transaction() as execute:
            execute("INSERT INTO meta VALUES ('drops_named', 0)")
            execute("INSERT INTO stream VALUES (?, 1, 0)", (self.stream,))
            execute(
                "INSERT INTO record (state, stream_id, seq, body) VALUES (?, ?, 0, ?)",
                (FINAL, self.stream, body),
            )
        self.tally.final += 1

    def begin(self, body: bytes) -> int:
        """Write down that a request is about to do something.

        Returns:
            The row, for `answer` and `finish`.

        Raises:
            SpoolUnavailable: It is not stored.
        """
        row = self._insert(OPEN, body)
        self.tally.begun += 1
        return row

    def answer(self, row: int | None, body: bytes) -> int:
        """Write down what is known when the answer begins. Arguments and errors as in `begin`."""
        if row is None:
            row = self._insert(ANSWERED, body)
        else:
            self.file.write(
                "UPDATE record SET state = ?, body = ? WHERE id = ?", (ANSWERED, body, row), beyond=True
            )
        self.tally.answered += 1
        return row

    def finish(self, row: int, body: bytes | None) -> None:
        """Take notice that a request has ended. Nothing is written now, unless the stream has ended.

        Raises:
            SpoolUnavailable: What is known in the end is not stored; what was known before is.
        """
        if not self.closed:
            self._finished.append(Finished(row, body))
        elif body is not None:
            self.file.write("UPDATE record SET body = ? WHERE id = ?", (body, row), beyond=True)

    def append(self, body: bytes, *, beyond: bool = False) -> None:
        """Store a record that is final at once, with its number.

        Args:
            body: The record.
            beyond: Whether it is about the spool itself: it is then stored although the bound is reached.

        Raises:
            SpoolUnavailable: It is not stored, and no number is drawn.
        """
        if not beyond:
            self._check_room()
        with self.file.transaction(beyond=beyond) as execute:
            if self.closed:  # in here: nothing may follow the stream's end
                execute("INSERT INTO record (state, body) VALUES (?, ?)", (ANSWERED, body))
                self.tally.entered += 1
                self.tally.answered += 1
                return
            (following,) = execute(
                "UPDATE stream SET next = next + 1 WHERE stream_id = ? RETURNING next", (self.stream,)
            ).fetchone()
            execute(
                "INSERT INTO record (state, stream_id, seq, body) VALUES (?, ?, ?, ?)",
                (FINAL, self.stream, following - 1, body),
            )
        self.tally.final += 1

    def settle(self) -> int:
        """Give finished records their numbers, in one transaction, and name what had to be dropped.

        Returns:
            How many records became final; call it again until it is none.

        Raises:
            SpoolUnavailable: Nothing changed; they stay finished, to be settled later.
        """
        waiting = [self._finished.popleft() for _ in range(min(len(self._finished), _SETTLED_AT_ONCE))]
        with self._dropping:
            unnamed = self._dropped
        if not waiting and not unnamed:
            return 0
        try:
            with self.file.transaction(beyond=True) as execute:
                (number,) = execute("SELECT next FROM stream WHERE stream_id = ?", (self.stream,)).fetchone()
                for item in waiting:
                    execute(
                        "UPDATE record SET state = ?, stream_id = ?, seq = ?, body = coalesce(?, body) WHERE id = ?",
                        (FINAL, self.stream, number, item.body, item.row),
                    )
                    number += 1
                if unnamed:
                    last = number + unnamed - 1
                    body = producer.gap(self.stream, self._tenant, number, last, "spool_unavailable")
                    execute(
                        "INSERT INTO record (state, stream_id, seq, body) VALUES (?, ?, ?, ?)",
                        (FINAL, self.stream, last + 1, body),
                    )
                    execute("UPDATE meta SET value = value + ? WHERE key = 'drops_named'", (unnamed,))
                    number = last + 2
                execute("UPDATE stream SET next = ? WHERE stream_id = ?", (number, self.stream))
        except BaseException:
            self._finished.extendleft(reversed(waiting))
            raise
        self.tally.settled += len(waiting)
        self.tally.final += len(waiting) + bool(unnamed)
        if unnamed:
            logger.warning(
                "%d audit records could not be stored; a producer.gap names their numbers", unnamed
            )
            with self._dropping:
                self._dropped -= unnamed
        return len(waiting)

    @property
    def gone(self) -> bool:
        """Whether the file is closed and takes nothing more."""
        return self.file.closed

    @property
    def last(self) -> int:
        """The highest number drawn in this stream so far.

        Raises:
            SpoolUnavailable: The file cannot be read.
        """
        rows = self.file.read("SELECT next FROM stream WHERE stream_id = ?", (self.stream,))
        return int(rows[0][0]) - 1

    @property
    def finished(self) -> int:
        """How many records wait to be settled."""
        return len(self._finished) + self._dropped

    def drop(self, count: int = 1) -> None:
        """Count records that could not be stored: they will be named when space returns."""
        with self._dropping:
            self._dropped += count
            self.tally.dropped += count
            try:
                if self.lock.held:  # after the end nobody would read it
                    self.lock.set_dropped(self.lock.dropped + count)
            except OSError:
                logger.exception("the count of dropped audit records could not be written down")

    def fit(self) -> None:
        """Take what the other files of the directory leave of its bound.

        Raises:
            OSError: The directory cannot be read.
            SpoolUnavailable: The file cannot be.
        """
        own = self.file.path.name
        others = 0
        for entry in self.directory.iterdir():
            if not entry.name.startswith(own):
                try:
                    others += entry.stat().st_size
                except FileNotFoundError:
                    continue
        self.file.limit(self._max_bytes - others)

    def stop(self) -> None:
        """End the stream with its final number. What comes afterwards has none.

        Raises:
            SpoolUnavailable: The end could not be written: the stream stays open, whoever adopts it ends it.
        """
        if self.closed:
            return
        self.closed = True
        while self.settle():
            pass
        with self.file.transaction(beyond=True) as execute:
            (number,) = execute("SELECT next FROM stream WHERE stream_id = ?", (self.stream,)).fetchone()
            execute(
                "INSERT INTO record (state, stream_id, seq, body) VALUES (?, ?, ?, ?)",
                (FINAL, self.stream, number, producer.stopped(self.stream, self._tenant, number)),
            )
            execute("UPDATE stream SET next = next + 1, ended = 1 WHERE stream_id = ?", (self.stream,))
        self.tally.final += 1

    def discard(self) -> None:
        """Delete a spool that nothing was written to yet, and of which nothing was sent."""
        self.closed = True
        if self._previous:
            try:
                with directory_lock(self.directory), ended_streams(self.directory) as ended:
                    for stream, last in self._previous:
                        ended.add(*self._identity, stream, last)
            except OSError as error:
                logger.warning("earlier streams will not be named by later ones: %s", error)
        self.file.close()
        self.lock.set_used(used=False)
        remove(self.file.path)
        self.lock.release(remove=True)

    def _check_room(self) -> None:
        """Refuse what is new while the disk is nearly full: what is in the spool needs some of it to get out.

        Sending alone does not empty a full disk: SQLite needs room for forgetting, too. That is there as long as
        the file can take in its WAL, whose place is then used again.
        """
        self._until_look -= 1  # two threads at once: one look more or less
        if self._until_look > 0:
            return
        try:
            found = os.statvfs(self.directory)
        except OSError as error:
            # Removed under our feet, the file still takes records, but none would outlive the process.
            if self._refuses:
                raise SpoolUnavailable(
                    f"the audit spool {self.directory} cannot be found: {error}"
                ) from error
            return
        free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        least, growth = min(_FREE, self._max_bytes // 4, total // 4), self.file.growth()
        self.narrow = free < 4 * (least + max(growth, 0))
        self._until_look = 1 if self.narrow else _LOOK_EVERY
        if free < least + growth:
            raise SpoolUnavailable(f"the disk of the audit spool {self.directory} is nearly full")

    def _insert(self, state: int, body: bytes) -> int:
        self._check_room()
        row = self.file.write("INSERT INTO record (state, body) VALUES (?, ?)", (state, body)).lastrowid
        if row is None:
            raise SpoolUnavailable(f"the audit spool {self.file.path} gave no row")
        self.tally.entered += 1
        return row


def _new_lock(directory: Path) -> FileLock:
    """Make this process's lock file; another process may take a new one for a dead process's."""
    for _ in range(_TRIES - 1):
        try:
            return FileLock.create(directory / f"{uuid7()}.lock")
        except BlockingIOError:
            continue
    return FileLock.create(directory / f"{uuid7()}.lock")
