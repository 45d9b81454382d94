"""The pipeline: whatever waits becomes one batch, is sealed, stored, entered in the checkpoint log, acknowledged.

One thread owns the chain. Requests hand it what was admitted and get a future; the future is resolved only when
records and checkpoint are durable in ClickHouse *and* a line of the checkpoint log covers them.

A sealed batch is immutable. If the answer to its insert is lost, the same bytes are sent again until they are
seen in the table, and nothing else is sealed before; meanwhile requests are answered with 503 and keep their
records where they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from spanseal_collector.admission import Draft, Rejected
from spanseal_collector.clock import Clock
from spanseal_collector.deduplication import Deduplicator, same_content
from spanseal_collector.errors import UnavailableError
from spanseal_collector.sealer import COLLECTOR_TENANT, Sealer
from spanseal_collector.uuid7 import uuid7
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.record import Record
from spanseal_storage.errors import CheckpointLogError, EngineError
from spanseal_storage.writer import QUARANTINE_COLUMNS, Batch

__all__ = ["CheckpointSink", "Limits", "Pipeline", "RecordSink", "Statistics"]

_log = logging.getLogger(__name__)

_RETRY_FIRST_SECONDS = 0.1
_RETRY_MOST_SECONDS = 5.0


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
class Limits:
    """Bounds of the pipeline."""

    pending_bytes: int = 256 << 20
    """What may wait for its commit; above it a request is answered with 503."""
    batch_records: int = 10_000
    """Records in one insert, at the most (a request is never split)."""
    linger_seconds: float = 0.002
    """How long a commit waits for company."""
    answer_seconds: float = 10.0
    """How long a request waits for its commit before it is answered with 503; its records may still be stored,
    and are known as duplicates when they come again."""
    heartbeat_seconds: float = 3600.0


@dataclass(slots=True)
class Statistics:
    """Counts since the start; written by the committing thread only."""

    sealed: int = 0
    quarantined: int = 0
    duplicates: int = 0
    conflicts: int = 0
    batches: int = 0
    stalls: int = 0
    """Failed attempts to store a batch or to append a checkpoint."""


@dataclass(slots=True)
class _Waiting:
    items: Sequence[Draft | Rejected]
    size: int
    done: Future[None] = field(default_factory=Future)


class Pipeline:
    """Group commit for one collector. Start it once, submit from any thread, stop it once."""

    def __init__(
        self,
        *,
        new_chain: Callable[[Sealer | None], tuple[Sealer, Draft]],
        records: RecordSink,
        checkpoints: CheckpointSink,
        deduplicator: Deduplicator,
        clock: Clock | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Make a pipeline.

        Args:
            new_chain: begins a chain after the one given, which this process ended, or as its first: returns the
                sealer and its `audit_log.started`.
            records: where batches are stored.
            checkpoints: the checkpoint log.
            deduplicator: knows what was stored before.
            clock: the wall clock, watched against the monotonic one.
            limits: bounds.

        """
        self.statistics = Statistics()
        self.limits = limits or Limits()
        self._new_chain = new_chain
        self._records = records
        self._checkpoints = checkpoints
        self._dedup = deduplicator
        self._clock = clock or Clock()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._pending_bytes = 0
        self._pending_lock = threading.Lock()
        self._closing = threading.Event()
        self._broken: BaseException | None = None
        self._sealer: Sealer | None = None
        self._counts_at_heartbeat: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="spanseal-commit", daemon=True)

    def start(self) -> None:
        """Begin a chain, store its first record, and take requests from then on.

        Raises:
            EngineError: the first record could not be stored.
            CheckpointLogError: its checkpoint could not be entered in the log.

        """
        self._begin_chain(once=True)
        self._thread.start()

    def submit(self, items: Sequence[Draft | Rejected], size: int) -> Future[None]:
        """Hand over what was admitted and rejected from one request.

        Args:
            items: in the order of the request.
            size: bytes it holds, for back-pressure.

        Returns:
            A future: a result when all of it is durable, else `UnavailableError`.

        Raises:
            UnavailableError: the collector is stopping, broken, or holds as much as it may.

        """
        if self._broken is not None:
            raise UnavailableError("the collector cannot commit any more and must be restarted", 30)
        if self._closing.is_set():
            raise UnavailableError("the collector is stopping", 5)
        waiting = _Waiting(items, size)
        with self._pending_lock:
            if self._pending_bytes and self._pending_bytes + size > self.limits.pending_bytes:
                raise UnavailableError("more waits to be stored than fits; send it again later", 1)
            self._pending_bytes += size
        self._queue.put(waiting)
        return waiting.done

    def stop(self, timeout: float = 30.0) -> bool:
        """Drain, end the chain with `audit_log.stopped`, and stop.

        Args:
            timeout: seconds to wait for the storage to take what is left.

        Returns:
            Whether the chain was ended; without, the next start names it as it stands.

        """
        self._closing.set()
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive() and self._broken is None

    @property
    def chain_id(self) -> str:
        """The current chain."""
        return self._sealer.chain_id if self._sealer else ""

    # --- the committing thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - whatever it is, nobody may go on waiting
            # What waits is not acknowledged, so its senders keep it.
            _log.exception("the committing thread ended; nothing is acknowledged any more")
            self._broken = error
            self._refuse_all("the collector cannot commit any more and must be restarted")

    def _loop(self) -> None:
        next_heartbeat = time.monotonic() + self.limits.heartbeat_seconds
        while True:
            try:
                first = self._queue.get(timeout=max(0.0, next_heartbeat - time.monotonic()))
            except queue.Empty:
                self._commit([], [self._heartbeat()])
                next_heartbeat = time.monotonic() + self.limits.heartbeat_seconds
                continue
            group, ending = self._gather(first)
            if group:
                self._commit(group, [])
            if ending:
                break
        sealer = self._require_sealer()
        self._commit([], [self._heartbeat(), sealer.own("audit_log.stopped", {})])

    def _gather(self, first: _Waiting | None) -> tuple[list[_Waiting], bool]:
        if first is None:
            return [], True
        group, count = [first], len(first.items)
        deadline = time.monotonic() + self.limits.linger_seconds
        while count < self.limits.batch_records:
            try:
                more = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if more is None:
                return group, True
            group.append(more)
            count += len(more.items)
        return group, False

    def _commit(self, group: Sequence[_Waiting], own: Iterable[Draft]) -> None:
        received_at, jump = self._clock.read()
        if jump is not None:
            received_at = self._end_after_jump(received_at, jump)
        try:
            drafts, rejected = self._deduplicate([item for waiting in group for item in waiting.items])
        except EngineError as error:
            self._answer(group, UnavailableError(str(error), 1))
            return
        sealer = self._require_sealer()
        drafts += own
        quarantined = self._quarantine(rejected, received_at, drafts, sealer)
        if drafts:
            batch = sealer.seal(drafts, received_at, quarantined)
            self._dedup.remember(d.record for d in drafts if d.record.tenant != COLLECTOR_TENANT)
            try:
                self._store(batch)
            except BaseException:
                self._answer(group, UnavailableError("the records could not be stored", 5))
                raise
            self.statistics.sealed += len(batch)
            self.statistics.batches += 1
        self._answer(group, None)

    def _deduplicate(
        self, items: Sequence[Draft | Rejected]
    ) -> tuple[list[Draft], list[tuple[Rejected, Record | None]]]:
        known = self._dedup.known(item for item in items if isinstance(item, Draft))
        fresh: dict[tuple[str, str], Draft] = {}
        rejected: list[tuple[Rejected, Record | None]] = []
        for item in items:
            if isinstance(item, Rejected):
                rejected.append((item, None))
                continue
            record = item.record
            key = (record.tenant, record.record_id)
            twin = fresh[key].record if key in fresh else known.get(key)
            if twin is None:
                fresh[key] = item
            elif same_content(twin, item) or (key in fresh and _same_draft(fresh[key], item)):
                self.statistics.duplicates += 1
            else:
                self.statistics.conflicts += 1
                rejected.append((_conflicting(item), twin))
        return list(fresh.values()), rejected

    def _quarantine(
        self,
        rejected: Iterable[tuple[Rejected, Record | None]],
        received_at: int,
        drafts: list[Draft],
        sealer: Sealer,
    ) -> dict[str, list[Any]] | None:
        columns: dict[str, list[Any]] = {name: [] for name in QUARANTINE_COLUMNS}
        for item, twin in rejected:
            quarantine_id, salt = uuid7(), os.urandom(16)
            digest = hashlib.sha256(salt + item.raw).digest()
            values = (
                quarantine_id,
                received_at,
                item.reason,
                item.producer_id,
                item.producer_seq,
                salt,
                item.raw,
                digest,
            )
            for name, value in zip(QUARANTINE_COLUMNS, values, strict=True):
                columns[name].append(value)
            metadata = {
                "audit.quarantine.id": quarantine_id,
                "audit.quarantine.digest": digest.hex(),
                "audit.quarantine.reason": item.reason,
                "audit.quarantine.producer_id": item.producer_id,
                "audit.quarantine.producer_seq": str(item.producer_seq),
            }
            if twin is not None:
                metadata["audit.conflict.tenant"] = twin.tenant
                metadata["audit.conflict.record_id"] = twin.record_id
                drafts.append(sealer.own("audit_log.conflict", metadata, outcome="success"))
            else:
                drafts.append(sealer.own("audit_log.quarantined", metadata))
            self.statistics.quarantined += 1
        return columns if columns["raw"] else None

    def _store(self, batch: Batch, *, once: bool = False) -> None:
        self._persist("store records", lambda: self._write(batch), once=once)
        line = Line(received_at=batch.received_at, note=batch.note)
        self._persist("append to the checkpoint log", lambda: self._checkpoints.append(line), once=once)

    def _write(self, batch: Batch) -> None:
        try:
            self._records.write(batch)
        except EngineError:
            # The insert may have happened all the same.
            if not self._records.stored(batch):
                raise

    def _persist(self, what: str, attempt: Callable[[], None], *, once: bool) -> None:
        """Try until it is done: a sealed batch has no other future."""
        delay = _RETRY_FIRST_SECONDS
        while True:
            try:
                attempt()
            except (EngineError, CheckpointLogError) as error:
                self.statistics.stalls += 1
                if once:
                    raise
                _log.error("cannot %s, will try again in %.1f s: %s", what, delay, error)
                if self._closing.wait(delay) and delay >= _RETRY_MOST_SECONDS:
                    raise
                if self._closing.is_set():
                    time.sleep(delay)
                delay = min(delay * 2, _RETRY_MOST_SECONDS)
            else:
                return

    def _begin_chain(self, *, once: bool = False) -> int:
        self._sealer, started = self._new_chain(self._sealer)
        self._counts_at_heartbeat = {}
        received_at, _ = self._clock.read()
        self._store(self._sealer.seal([started], received_at), once=once)
        return received_at

    def _end_after_jump(self, received_at: int, jump: float) -> int:
        sealer = self._require_sealer()
        last = max(received_at, sealer.last_received_at)
        draft = sealer.own("audit_log.clock_jump", {"audit.clock.jump_seconds": f"{jump:.3f}"})
        self._store(sealer.seal([draft], last))
        _log.warning("the wall clock jumped by %.3f s: ended chain %s", jump, sealer.chain_id)
        return self._begin_chain()

    def _heartbeat(self) -> Draft:
        sealer = self._require_sealer()
        changed = {
            tenant: count
            for tenant, count in sorted(sealer.counts.items())
            if tenant != COLLECTOR_TENANT and self._counts_at_heartbeat.get(tenant) != count
        }
        self._counts_at_heartbeat = dict(sealer.counts)
        statistics = self.statistics
        return sealer.own(
            "audit_log.heartbeat",
            {
                "audit.heartbeat.clock_offset_ns": str(self._clock.offset),
                "audit.heartbeat.records": str(sealer.size),
                "audit.heartbeat.quarantined": str(statistics.quarantined),
                "audit.heartbeat.duplicates": str(statistics.duplicates),
                "audit.heartbeat.tenants": json.dumps(changed, ensure_ascii=False, separators=(",", ":")),
            },
        )

    def _require_sealer(self) -> Sealer:
        if self._sealer is None:
            raise RuntimeError("the pipeline was not started")
        return self._sealer

    def _answer(self, group: Iterable[_Waiting], error: UnavailableError | None) -> None:
        for waiting in group:
            with self._pending_lock:
                self._pending_bytes -= waiting.size
            with suppress(InvalidStateError):  # its request gave up waiting
                if error is None:
                    waiting.done.set_result(None)
                else:
                    waiting.done.set_exception(error)

    def _refuse_all(self, why: str) -> None:
        while True:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return
            if waiting is not None:
                self._answer([waiting], UnavailableError(why, 30))


def _same_draft(first: Draft, second: Draft) -> bool:
    return first.record == second.record and first.untimed == second.untimed


def _conflicting(item: Draft) -> Rejected:
    """Keep what a conflicting record says, in a form that can be read again."""
    record = item.record
    raw = json.dumps(
        {
            name: dict(value) if isinstance(value := getattr(record, name), dict) else value
            for name in record.__slots__
            if not isinstance(getattr(record, name), bytes)
        },
        ensure_ascii=False,
        sort_keys=True,
    ).encode()
    return Rejected(
        raw,
        "its record_id is that of a stored record that says something else",
        record.producer_id,
        record.producer_seq,
    )
