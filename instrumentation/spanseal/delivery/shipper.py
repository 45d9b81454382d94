"""The background thread that brings the spool to the collector, and what dead processes left with it.

It gives finished records their numbers, sends them in batches, and deletes them only when the collector has
said that they are stored. What the collector refuses is narrowed down to single records; one that is refused
alone is set aside, its number is named by a `producer.gap`, and the rest goes on.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from spanseal.errors import SpoolDamaged, SpoolError, SpoolUnavailable
from spanseal.settings import Settings
from spanseal.throttle import Throttle
from spanseal.wire import attribute, export_request

from . import adoption, metrics, producer
from .adoption import Adopted, Adopter
from .exporter import Answer, Exporter, Verdict, open_exporter
from .locks import directory_lock
from .registry import ended_streams
from .spool import Spool
from .spool_file import Access, Row, SpoolFile

logger = logging.getLogger("spanseal")

BATCH_RECORDS = 512
BATCH_BYTES = 2 << 20

_LINGER = 0.2
"""Seconds. Company for the first record: at 1,000 requests a second a tenth of it costs three times the processor time."""
_FIRST_DELAY, _MOST_DELAY = 0.5, 30.0


class Shipper:
    """One thread for one process."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        resource: bytes,
        access: Access,
        before_settling: Callable[[], None] = lambda: None,
        *,
        adopter: Adopter | None = None,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """Prepare to ship: `start` does it in a thread, `round` and `end` do it here.

        Args:
            settings: Of this process.
            spool: Its own.
            resource: Of its records, serialised.
            access: Of its spool files.
            before_settling: Called at the beginning of every round.
            adopter: Finds what dead processes left; one of this destination and directory, if not given.
            progress: Told how many records have left the spool.
        """
        self._progress = progress
        self._settings = settings
        self._spool = spool
        self._resource = resource
        self._exporter: Exporter | None = None
        self._adopter = adopter or Adopter(settings, access, spool.lock.path)
        self._adopted: list[Adopted] = []
        self._before_settling = before_settling
        self._throttle = Throttle()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._failures = 0
        self._not_before = 0.0
        self._next_look = 0.0
        self._left: dict[Path, int] = {}
        self.trouble = ""
        """Why the last request brought nothing; empty once one did."""
        self.begun = False
        """Whether anything of this process's own stream was sent: it cannot be taken back then."""
        self._thread = threading.Thread(target=self._run, name="spanseal-shipper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Tell it that there is something to send."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Send what can be sent in the time, end the stream, and let the files go.

        Args:
            timeout: Seconds. What is left then stays in the spool, for another process.
        """
        self._deadline = time.monotonic() + timeout
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout + 1)

    @property
    def adopted(self) -> int:
        """How many records of dead processes are being sent. For any thread."""
        return sum(list(self._left.values()))

    @property
    def retry_in(self) -> float:
        """Seconds to wait before the next round, after one that failed."""
        return max(self._not_before - time.monotonic(), 0.0) if self._failures else 0.0

    def limit(self, deadline: float) -> None:
        """Begin no request after a time of the monotonic clock."""
        self._deadline = deadline

    # --- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.round()
            except Exception:
                # Nothing is lost by it: what is not acknowledged stays in the spool.
                logger.exception("a round of the audit shipper failed; it goes on")
                self._failed(Answer(Verdict.LATER, "internal error"))
            self._wake.wait(self._pause())
            self._wake.clear()
            # Company for the first one: one request for many records.
            self._stop.wait(_LINGER)
        try:
            self.end()
        except (SpoolError, OSError) as error:
            logger.error("the audit spool could not be closed; another process will take it over: %s", error)  # noqa: TRY400
        except Exception:
            logger.exception("the audit spool could not be closed; another process will take it over")

    def _pause(self) -> float:
        now = time.monotonic()
        pause = self._next_look - now
        if self._failures:
            pause = min(pause, self._not_before - now)
        return max(pause, 0.01)

    def round(self) -> bool:
        """Look for what dead processes left, number what is finished, and send, unless it is too early for that.

        Returns:
            Whether there was nothing new of dead processes and everything is sent.
        """
        now = time.monotonic()
        before = len(self._adopted)
        if now >= self._next_look:
            self._next_look = now + self._settings.adopt_interval
            self._look()
        self._settle()
        if now < self._not_before:
            return False
        found = len(self._adopted) > before
        sent = self._send_all()
        if sent:
            self._failures = 0
        return sent and not found

    def _settle(self) -> None:
        self._before_settling()
        try:
            self._merge()
            while self._spool.settle():
                self._merge()
        except SpoolError as error:
            # No space: they stay in memory and in their rows, to be settled later.
            if self._throttle.due("settle"):
                logger.error("audit records wait to be numbered: %s", error)  # noqa: TRY400

    def _merge(self) -> None:
        # Where room becomes scarce, at once: afterwards the WAL's place serves for what follows.
        self._spool.file.checkpoint(force=self._spool.narrow)

    def _look(self) -> None:
        try:
            self._spool.fit()
            found = self._adopter.look(adoption.MOST_AT_ONCE - len(self._adopted))
            self._adopted += found
            self._left.update((adopted.file.path, adopted.file.count()) for adopted in found)
            self._name_damaged()
        except Exception as error:
            if self._throttle.due(f"look {error}"):
                logger.exception(
                    "the audit spool's directory %s could not be looked through", self._spool.directory
                )

    def _name_damaged(self) -> None:
        if names := list(self._adopter.damaged):
            gap = producer.damaged(self._spool.stream, self._settings.tenant, names)
            self._spool.append(gap, beyond=True)
            del self._adopter.damaged[: len(names)]

    def _send_all(self) -> bool:
        """Send everything that is final, the dead processes' first: it is older. Returns whether all of it is sent."""
        for adopted in list(self._adopted):
            try:
                if not self._drain(adopted.file, adopted.resource):
                    return False
                self._adopted.remove(adopted)
                self._left.pop(adopted.file.path, None)
                self._adopter.done(adopted)
            except (SpoolError, OSError) as error:
                # One bad file must not keep the others, and this process's own, from being sent.
                self._give_up(adopted, error)
        return self._drain(self._spool.file, self._resource)

    def _give_up(self, adopted: Adopted, error: Exception) -> None:
        if adopted in self._adopted:
            self._adopted.remove(adopted)
        self._left.pop(adopted.file.path, None)
        if isinstance(error, SpoolDamaged):
            try:
                self._adopter.put_aside(adopted, error)
            except OSError as reason:
                logger.error("%s; it could not be put aside: %s", error, reason)  # noqa: TRY400
            return
        if self._throttle.due(str(adopted.file.path)):
            logger.error("the audit spool %s is left for later: %s", adopted.file.path, error)
        self._adopter.leave(adopted)

    def _drain(self, file: SpoolFile, resource: bytes) -> bool:
        while rows := file.final(BATCH_RECORDS, BATCH_BYTES):
            if time.monotonic() > self._deadline:
                return False
            # What was sent must not be numbered anew after a power cut.
            file.sync()
            self.begun = self.begun or file is self._spool.file
            if not self._ship(file, resource, rows):
                return False
        return True

    def _ship(self, file: SpoolFile, resource: bytes, rows: Sequence[Row]) -> bool:
        """Send rows; halve what is refused. Returns whether all of them are off the spool."""
        answer = self._send(resource, rows)
        if answer.verdict is Verdict.STORED:
            self._forget(file, rows)
            self._spool.tally.sent += len(rows)
            self._gone(file, len(rows))
            self._failures = 0
            self.trouble = ""
            return True
        if answer.verdict is Verdict.REFUSED:
            if len(rows) > 1 and time.monotonic() <= self._deadline:
                half = len(rows) // 2
                return self._ship(file, resource, rows[:half]) and self._ship(file, resource, rows[half:])
            # A server that refuses even nothing has something against the sender, not against this record.
            if len(rows) == 1 and self._send(resource, ()).verdict is Verdict.STORED:
                self._set_aside(file, rows[0], answer.reason)
                self._spool.tally.refused += 1
                self._gone(file, 1)
                return True
        self._failed(answer)
        return False

    def _gone(self, file: SpoolFile, count: int) -> None:
        if file is self._spool.file:
            self._spool.tally.forgotten += count
        elif file.path in self._left:
            self._left[file.path] -= count
        self._progress(count)

    def _forget(self, file: SpoolFile, rows: Sequence[Row]) -> None:
        ids = [row.id for row in rows]
        file.checkpoint(force=self._spool.narrow)
        try:
            file.delete(ids)
        except SpoolUnavailable:
            # On a full disk even forgetting needs room: the WAL's, once it is in the database.
            file.checkpoint(force=True)
            file.delete(ids)

    def _send(self, resource: bytes, rows: Sequence[Row]) -> Answer:
        left = max(self._deadline - time.monotonic(), 0.5)
        body = export_request(resource, ((row.body, row.stream_id, row.seq) for row in rows))
        if self._exporter is None:
            # In this thread: no request waits for gRPC to be imported, and no other process has its channel.
            try:
                self._exporter = open_exporter(self._settings.export)
            except ImportError as error:
                return Answer(
                    Verdict.LATER,
                    f"gRPC cannot be used ({error}): install grpcio and googleapis-common-protos, or set "
                    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http/protobuf",
                )
        began = time.monotonic()
        answer = self._exporter.send(body, min(self._settings.export.timeout, left))
        metrics.exported(self._settings.export, answer.verdict, time.monotonic() - began)
        return answer

    def _set_aside(self, file: SpoolFile, row: Row, reason: str) -> None:
        logger.error(
            "an audit record is refused and set aside in %s (stream %s, number %d): %s",
            file.path,
            row.stream_id,
            row.seq,
            reason,
        )
        try:
            record_id = attribute(row.body, ("audit.record.id",)).get("audit.record.id", "")
        except DecodeError:  # that is why it is refused
            record_id = ""
        named = {
            "audit.producer.gap.record_id": record_id,
            "audit.producer.gap.sha256": hashlib.sha256(row.body).hexdigest(),
        }
        gap = producer.gap(row.stream_id, self._settings.tenant, row.seq, row.seq, "refused", named)
        # Named before it is set aside: killed in between, it is named twice rather than never.
        try:
            self._spool.append(gap, beyond=True)
        except SpoolDamaged as error:  # this process's own file is, not `file`
            raise SpoolUnavailable(str(error)) from error
        file.set_aside(row, reason)

    def _failed(self, answer: Answer) -> None:
        self._failures += 1
        self.trouble = answer.reason
        delay = min(_FIRST_DELAY * 2 ** min(self._failures - 1, 10), _MOST_DELAY)
        delay *= 0.5 + random.random() / 2  # noqa: S311 - spreads producers over time, no secret
        if answer.retry_after is not None:
            delay = max(delay, answer.retry_after)
        now = time.monotonic()
        self._not_before = now + delay
        if self._throttle.due(answer.reason):
            logger.warning("audit records wait in %s: %s", self._spool.directory, answer.reason)

    def leave(self) -> None:
        """Let dead processes' files go as they are, and send nothing more."""
        for adopted in self._adopted:
            self._adopter.leave(adopted)
        self._adopted.clear()
        self._left.clear()
        self._close_exporter()

    def end(self) -> None:
        """Send what can be sent before the deadline, end the stream, and let the files go.

        Raises:
            SpoolError: The spool cannot be written or read.
            OSError: The streams' end cannot be noted.
        """
        spool = self._spool
        self._settle()
        self._send_all()
        spool.stop()
        # The last attempt is one for the record that ends the stream, too.
        self._send_all()
        if not spool.file.count():
            with directory_lock(spool.directory), ended_streams(spool.directory) as ended:
                ended.add(
                    self._settings.export.destination,
                    self._settings.instance,
                    self._settings.tenant,
                    spool.stream,
                    spool.last,
                )
        adoption.close(spool.file, spool.lock)
        for adopted in self._adopted:
            adoption.close(adopted.file, adopted.lock)
        self._close_exporter()

    def _close_exporter(self) -> None:
        if self._exporter is not None:
            self._exporter.close()
