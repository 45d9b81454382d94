"""The exporter: a sealed batch into ClickHouse, then its checkpoint into the checkpoint log, however often it takes.

A sealed batch is immutable. The answer to an insert can be lost, so after a failure the same bytes are sent again
until they are seen in the table, and nothing else of the chain is sealed before. If that is not reached within a
bound the batch is given up, and its chain with it: nothing may follow what may or may not be there. A checkpoint
log that cannot be written has no bound: no other chain could be acknowledged either.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from spanseal_collector.errors import StalledError
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.record import Record
from spanseal_storage.errors import CheckpointLogError, EngineError
from spanseal_storage.writer import Batch

__all__ = ["CheckpointSink", "Exporter", "RecordSink"]

_log = logging.getLogger(__name__)

_RETRY_FIRST_SECONDS = 0.1
_RETRY_MOST_SECONDS = 5.0
_RETRY_HURRIED_SECONDS = 0.2


class RecordSink(Protocol):
    """Where batches go; `spanseal_storage.writer.Writer` is one."""

    def write(self, batch: Batch) -> None:
        """Store a batch durably."""

    def stored(self, batch: Batch) -> bool:
        """Tell whether the batch stands there whole."""


class CheckpointSink(Protocol):
    """Where checkpoints go; `spanseal_storage.checkpoint_file.CheckpointFile` is one."""

    def append(self, line: Line) -> None:
        """Append a line durably."""


@dataclass(frozen=True, slots=True)
class _Unlogged:
    """The end of a chain that was given up: its rows may be in the table, the log does not cover them."""

    first_seq: int
    line: Line


class Exporter:
    """Stores one batch after the other. Used by the committing thread, but for `hurry`."""

    def __init__(
        self,
        records: RecordSink,
        checkpoints: CheckpointSink,
        *,
        abandon_seconds: float,
        stop_seconds: float,
    ) -> None:
        """Make an exporter.

        Args:
            records: where batches are stored.
            checkpoints: the checkpoint log.
            abandon_seconds: how long a batch is tried before it is given up.
            stop_seconds: the same, for everything, from `hurry` on.

        """
        self.stalls = 0
        """Failed attempts."""
        self._records = records
        self._checkpoints = checkpoints
        self._abandon_seconds = abandon_seconds
        self._stop_seconds = stop_seconds
        self._hurry = threading.Event()
        self._hurried_at = 0.0
        self._unlogged: dict[str, _Unlogged] = {}
        self._stalled_since: float | None = None

    def stalled_seconds(self) -> float:
        """How long the storage has been failing; 0 where it is not. Callable from any thread."""
        since = self._stalled_since
        return 0.0 if since is None else time.monotonic() - since

    def hurry(self) -> None:
        """The process is to end: what cannot be stored soon is given up. Callable from any thread."""
        if not self._hurry.is_set():
            self._hurried_at = time.monotonic()
            self._hurry.set()

    @property
    def hurried(self) -> bool:
        """Whether the process is to end."""
        return self._hurry.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, but not when the process is to end."""
        self._hurry.wait(seconds)

    def export(self, batch: Batch, *, patient: bool = False) -> None:
        """Store a batch and enter its checkpoint in the log.

        Args:
            batch: a sealed batch.
            patient: try the insert without bound, because there is nothing else that could be done.

        Raises:
            StalledError: it could not be stored, or not be seen to be, within the bound; it may be there or not.

        """
        line = Line(received_at=batch.received_at, note=batch.note)
        self._unlogged[batch.chain_id] = _Unlogged(batch.first_seq, line)
        self._persist("store records", lambda: self._write(batch), None if patient else self._abandon_seconds)
        self._append(line)
        del self._unlogged[batch.chain_id]

    def export_once(self, batch: Batch) -> None:
        """Store a batch and enter its checkpoint in the log, with one attempt at each.

        Raises:
            EngineError: it could not be stored.
            CheckpointLogError: its checkpoint could not be entered in the log.

        """
        self._write(batch)
        self._checkpoints.append(Line(received_at=batch.received_at, note=batch.note))

    def cover(self, stored: Iterable[Record]) -> None:
        """Have a line of the checkpoint log over each of these stored records, before they are acknowledged.

        A batch that was given up may be in the table all the same. Its insert was atomic: where one of its
        records is found, the batch is whole and its checkpoint is true.

        Raises:
            StalledError: the log could not be written while the process was to end.

        """
        for record in stored:
            unlogged = self._unlogged.get(record.chain_id)
            if unlogged is not None and record.seq >= unlogged.first_seq:
                self._append(unlogged.line)
                del self._unlogged[record.chain_id]

    def _append(self, line: Line) -> None:
        self._persist("append to the checkpoint log", lambda: self._checkpoints.append(line), None)

    def _write(self, batch: Batch) -> None:
        try:
            self._records.write(batch)
        except EngineError:
            # The insert may have happened all the same.
            if not self._records.stored(batch):
                raise

    def _persist(self, what: str, attempt: Callable[[], None], patience: float | None) -> None:
        begun = time.monotonic()
        delay = _RETRY_FIRST_SECONDS
        while True:
            try:
                attempt()
            except (EngineError, CheckpointLogError) as error:
                self.stalls += 1
                if self._stalled_since is None:
                    self._stalled_since = time.monotonic()
                if self._out_of_time(begun, patience):
                    raise StalledError(f"cannot {what}: {error}") from error
                _log.error("cannot %s, will try again: %s", what, error)
            else:
                self._stalled_since = None
                return
            if self._hurry.wait(delay):
                time.sleep(_RETRY_HURRIED_SECONDS)
            delay = min(delay * 2, _RETRY_MOST_SECONDS)

    def _out_of_time(self, begun: float, patience: float | None) -> bool:
        now = time.monotonic()
        if self._hurry.is_set():
            return now - self._hurried_at >= self._stop_seconds
        return patience is not None and now - begun >= patience
