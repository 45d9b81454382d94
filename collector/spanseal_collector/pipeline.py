"""The pipeline: whatever waits becomes one batch, is sealed, stored, entered in the checkpoint log, acknowledged.

One thread owns the chain. Requests hand it what was admitted and get a future; the future is resolved only when
records and checkpoint are durable in ClickHouse *and* a line of the checkpoint log covers them.

A batch that cannot be stored within a bound, or cannot be sealed, ends its chain where it was last known to be
stored: without a last record of its own, as if the process had been killed. A new chain begins and names it.
What was in the batch is not acknowledged, so its senders keep it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from spanseal_collector.admission import Draft, Rejected
from spanseal_collector.clock import Clock
from spanseal_collector.deduplication import Deduplicator
from spanseal_collector.errors import BusyError, StalledError, UnavailableError
from spanseal_collector.exporter import CheckpointSink, Exporter, RecordSink
from spanseal_collector.heartbeat import Heartbeat
from spanseal_collector.quarantine import conflicting, quarantine
from spanseal_collector.sealer import COLLECTOR_TENANT, Notice, Sealer
from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.content import same_content
from spanseal_ledger.record import Record
from spanseal_storage.errors import EngineError

__all__ = ["Limits", "NewChain", "Pipeline", "Statistics"]

_log = logging.getLogger(__name__)

_RECOVERY_SECONDS = 1.0
_STALLED_SECONDS = 2.0

NewChain = Callable[[Sequence[Checkpoint]], tuple[Sealer, list[Draft]]]
"""Begins a chain that names these predecessors: the sealer, and its first drafts, `audit_log.started` first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the pipeline."""

    pending_bytes: int = 256 << 20
    """What may wait for its commit, in memory; above it a request is answered with 429."""
    request_bytes: int = 192 << 20
    """What one request may come to in memory; above it, it is answered with 413."""
    batch_records: int = 10_000
    """Records from which on a batch takes in no further request (a request is never split)."""
    batch_bytes: int = 64 << 20
    """The same in bytes of memory."""
    linger_seconds: float = 0.002
    """How long a commit waits for company."""
    answer_seconds: float = 10.0
    """How long a request waits for its commit before it is answered with 503; its records may still be stored,
    and are known as duplicates when they come again."""
    heartbeat_seconds: float = 3600.0
    abandon_seconds: float = 120.0
    """How long a batch is tried before its chain is given up."""
    stop_seconds: float = 3.0
    """How long the storage may fail when the process is to end."""


@dataclass(slots=True)
class Statistics:
    """Counts since the start; written by the committing thread only."""

    sealed: int = 0
    quarantined: int = 0
    duplicates: int = 0
    batches: int = 0
    chains: int = 0


@dataclass(slots=True)
class _Waiting:
    items: Sequence[Draft | Rejected | Notice]
    size: int
    done: Future[None] = field(default_factory=Future)


class Pipeline:
    """Group commit for one collector. Start it once, submit from any thread, stop it once."""

    def __init__(
        self,
        *,
        new_chain: NewChain,
        predecessors: Sequence[Checkpoint],
        records: RecordSink,
        checkpoints: CheckpointSink,
        deduplicator: Deduplicator,
        clock: Clock | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Make a pipeline.

        Args:
            new_chain: begins a chain.
            predecessors: the last checkpoint of each chain that no chain names yet.
            records: where batches are stored.
            checkpoints: the checkpoint log.
            deduplicator: knows what was stored before.
            clock: the wall clock, watched against the monotonic one.
            limits: bounds.

        """
        self.statistics = Statistics()
        self.limits = limits or Limits()
        self.ended: Future[bool] = Future()
        """Resolved when nothing is committed any more: whether the chain was ended."""
        self._new_chain = new_chain
        self._unnamed = list(predecessors)
        self._exporter = Exporter(
            records,
            checkpoints,
            abandon_seconds=self.limits.abandon_seconds,
            stop_seconds=self.limits.stop_seconds,
        )
        self._dedup = deduplicator
        self._clock = clock or Clock()
        self._heartbeat = Heartbeat(self.limits.heartbeat_seconds)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending_bytes = 0
        self._refusal = "the collector has not started"
        self._sealer: Sealer | None = None
        self._stored: Checkpoint | None = None
        """How far the current chain is known to be stored."""
        self._torn = False
        """Whether the current chain was sealed further than that."""
        self._thread = threading.Thread(target=self._run, name="spanseal-commit", daemon=True)

    def start(self) -> None:
        """Begin a chain, store its first record, and take requests from then on.

        Raises:
            EngineError: the first record could not be stored.
            CheckpointLogError: its checkpoint could not be entered in the log.

        """
        self._begin_chain(first=True)
        self._refusal = ""
        self._thread.start()

    def submit(self, items: Sequence[Draft | Rejected | Notice], size: int) -> Future[None]:
        """Hand over what was admitted and rejected from one request, or what the collector has to say itself.

        Args:
            items: in the order of the request.
            size: bytes it holds, for back-pressure.

        Returns:
            A future: a result when all of it is durable, else `UnavailableError`.

        Raises:
            BusyError: it holds as much as it may.
            UnavailableError: the collector is stopping or broken, or its storage fails.

        """
        waiting = _Waiting(items, size)
        if self._exporter.stalled_seconds() > _STALLED_SECONDS:
            # It would wait until it is answered the same.
            raise UnavailableError("the storage takes no records; see the collector's log", 5)
        with self._lock:
            if self._refusal:
                raise UnavailableError(self._refusal, 5)
            if self._pending_bytes and self._pending_bytes + size > self.limits.pending_bytes:
                raise BusyError("more waits to be stored than fits; send it again later", 1)
            self._pending_bytes += size
            self._queue.put(waiting)
        return waiting.done

    def hurry(self) -> None:
        """The process is to end: requests are still taken, but the storage may not keep them waiting for long."""
        self._exporter.hurry()

    def stop(self, timeout: float = 30.0) -> bool:
        """Drain, end the chain with `audit_log.stopped`, and stop.

        Args:
            timeout: seconds to wait for the storage to take what is left.

        Returns:
            Whether the chain was ended; without, the next start names it as it stands.

        """
        self.hurry()
        with self._lock:
            self._refusal = self._refusal or "the collector is stopping"
            self._queue.put(None)
        self._thread.join(timeout)
        return self.ended.done() and self.ended.result()

    @property
    def chain_id(self) -> str:
        """The current chain."""
        return self._sealer.chain_id if self._sealer else ""

    def stalled_seconds(self) -> float:
        """How long the storage has been failing; 0 where it is not."""
        return self._exporter.stalled_seconds()

    @property
    def stalls(self) -> int:
        """Failed attempts to store a batch or to append a checkpoint."""
        return self._exporter.stalls

    # --- the committing thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        try:
            self._loop()
            ended = True
        except StalledError as error:
            _log.error("the chain could not be ended: %s", error)
        except BaseException:  # noqa: BLE001 - whatever it is, nobody may go on waiting
            _log.exception("the committing thread failed; nothing is acknowledged any more")
        # What waits is not acknowledged, so its senders keep it.
        with self._lock:
            self._refusal = "the collector is stopping" if ended else "the collector must be restarted"
        with suppress(queue.Empty):
            while True:
                if (waiting := self._queue.get_nowait()) is not None:
                    self._answer([waiting], UnavailableError(self._refusal, 5))
        with suppress(InvalidStateError):
            self.ended.set_result(ended)

    def _loop(self) -> None:
        ending = False
        while not ending:
            try:
                first = self._queue.get(timeout=self._heartbeat.remaining())
            except queue.Empty:
                self._commit([])
                continue
            group, ending = self._gather(first)
            if group:
                self._commit(group)
        self._commit([], last=True)

    def _gather(self, first: _Waiting | None) -> tuple[list[_Waiting], bool]:
        group: list[_Waiting] = []
        count = size = 0
        deadline = time.monotonic() + self.limits.linger_seconds
        waiting = first
        while waiting is not None:
            # Whoever gave up waiting keeps what it sent; it is stored when it comes again.
            if waiting.done.cancelled():
                self._answer([waiting], None)
            else:
                group.append(waiting)
                count += len(waiting.items)
                size += waiting.size
            if count >= self.limits.batch_records or size >= self.limits.batch_bytes:
                return group, False
            try:
                waiting = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: Sequence[_Waiting], *, last: bool = False) -> None:
        try:
            self._seal_and_store([item for waiting in group for item in waiting.items], last=last)
        except EngineError as error:
            # Nothing was sealed: the table could not be asked what it holds already.
            self._answer(group, UnavailableError(str(error), 1))
        except BaseException as error:
            self._answer(group, UnavailableError("the records could not be stored", 5))
            if self._exporter.hurried or not isinstance(error, Exception):
                raise
            self._recover(error)
        else:
            self._answer(group, None)

    def _seal_and_store(self, items: Sequence[Draft | Rejected | Notice], *, last: bool) -> None:
        received_at, jump = self._clock.read()
        if jump is not None:
            received_at = self._end_after_jump(received_at, jump)
        drafts, rejected = self._deduplicate([item for item in items if not isinstance(item, Notice)])
        # The collector's own records name their chain, so they are made once it is known which one it is.
        sealer = self._require_sealer()
        quarantined, named = quarantine(rejected, received_at, sealer)
        drafts += named
        drafts += [
            sealer.own(item.action, item.metadata, outcome=item.outcome)
            for item in items
            if isinstance(item, Notice)
        ]
        statistics = self.statistics
        beat = last or self._heartbeat.remaining() == 0
        if beat:
            counts = {
                "audit.heartbeat.quarantined": statistics.quarantined,
                "audit.heartbeat.duplicates": statistics.duplicates,
            }
            drafts += self._heartbeat.drafts(sealer, self._clock.offset, counts)
        if last:
            drafts.append(sealer.own("audit_log.stopped", {}))
        if not drafts:
            return
        self._torn = True
        batch = sealer.seal(drafts, received_at, quarantined)
        self._dedup.remember(d.record for d in drafts if d.record.tenant != COLLECTOR_TENANT)
        self._exporter.export(batch)
        self._stored, self._torn = sealer.checkpoint(), False
        if beat:
            self._heartbeat.sealed()
        statistics.sealed += len(batch)
        statistics.quarantined += len(rejected)
        statistics.batches += 1

    def _deduplicate(
        self, items: Sequence[Draft | Rejected]
    ) -> tuple[list[Draft], list[tuple[Rejected, Record | None]]]:
        known = self._dedup.known([item for item in items if isinstance(item, Draft)])
        fresh: dict[tuple[str, str], Draft] = {}
        rejected: list[tuple[Rejected, Record | None]] = []
        for item in items:
            if isinstance(item, Rejected):
                rejected.append((item, None))
                continue
            key = (item.record.tenant, item.record.record_id)
            twin = fresh[key].record if key in fresh else known.get(key)
            if twin is None:
                fresh[key] = item
            elif same_content(twin, item.record, timed=not item.untimed):
                self.statistics.duplicates += 1
            else:
                rejected.append((conflicting(item), twin))
        self._exporter.cover(known.values())
        return list(fresh.values()), rejected

    # --- the life of a chain -----------------------------------------------------------------------------

    def _begin_chain(self, *, first: bool = False) -> int:
        self._sealer, drafts = self._new_chain(tuple(self._unnamed))
        self._stored, self._torn = None, True
        self._heartbeat.new_chain()
        received_at, _ = self._clock.read()
        batch = self._sealer.seal(drafts, received_at)
        if first:
            self._exporter.export_once(batch)
        else:
            self._exporter.export(batch, patient=True)
        self._stored, self._torn = self._sealer.checkpoint(), False
        self._unnamed.clear()
        self.statistics.chains += 1
        return received_at

    def _end_after_jump(self, received_at: int, jump: float) -> int:
        sealer = self._require_sealer()
        last = max(received_at, sealer.last_received_at)
        draft = sealer.own("audit_log.clock_jump", {"audit.clock.jump_seconds": f"{jump:.3f}"})
        self._torn = True
        self._exporter.export(sealer.seal([draft], last))
        _log.warning("the wall clock jumped by %.3f s: ended chain %s", jump, sealer.chain_id)
        self._unnamed.append(sealer.checkpoint())
        return self._begin_chain()

    def _recover(self, error: Exception) -> None:
        """Go on after a commit that failed: with the same chain where it is whole, else with a new one."""
        known = isinstance(error, StalledError)
        _log.error("a batch could not be committed: %s", error, exc_info=None if known else error)
        if self._torn:
            _log.error("gave up chain %s where it was last known to be stored", self.chain_id)
            if self._stored is not None:
                self._unnamed.append(self._stored)
            # What cannot be committed may come again at once: chains are not to be begun at that pace.
            self._exporter.pause(_RECOVERY_SECONDS)
            self._begin_chain()

    def _require_sealer(self) -> Sealer:
        if self._sealer is None:
            raise RuntimeError("the pipeline was not started")
        return self._sealer

    def _answer(self, group: Iterable[_Waiting], error: UnavailableError | None) -> None:
        for waiting in group:
            with self._lock:
                self._pending_bytes -= waiting.size
            with suppress(InvalidStateError):  # its request gave up waiting
                if error is None:
                    waiting.done.set_result(None)
                else:
                    waiting.done.set_exception(error)
