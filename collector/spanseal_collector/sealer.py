"""Sealing: position, link, hash, tree and signature for a batch of drafts of one chain."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from spanseal_collector.admission import Draft
from spanseal_collector.uuid7 import uuid7
from spanseal_ledger.checkpoint import Checkpoint, origin, sign_checkpoint
from spanseal_ledger.note import SigningKey
from spanseal_ledger.personal import commitment
from spanseal_ledger.record import Record, canonical, record_hash
from spanseal_ledger.tree import Frontier
from spanseal_storage.schema import COLUMN_NAMES
from spanseal_storage.writer import Batch

__all__ = ["COLLECTOR_TENANT", "FORMAT", "Notice", "Sealer"]

FORMAT = "SSR1"
COLLECTOR_TENANT = "_collector"

# Columns of `records` that are attributes of a Record under the same name.
_RECORD_COLUMNS = tuple(
    name for name in COLUMN_NAMES if name not in {"format", "prev_hash", "hash", "checkpoint"}
)


_values = attrgetter(*_RECORD_COLUMNS)


@dataclass(frozen=True, slots=True)
class Notice:
    """One of the collector's own records, for whichever chain it will be sealed in."""

    action: str
    metadata: Mapping[str, str]
    outcome: str = "success"

    @property
    def size(self) -> int:
        """About how many bytes it holds in memory."""
        return 1024 + sum(map(len, self.metadata.values()))


class Sealer:
    """One chain, from its first record to its last. Used by one thread.

    Sealing advances the chain: a batch that was sealed must be stored before the next one is sealed, or the
    chain be abandoned.
    """

    def __init__(self, key: SigningKey, log_name: str, collector_name: str) -> None:
        self.chain_id = uuid7()
        self.size = 0
        self.counts: dict[str, int] = {}
        """Records of each tenant in this chain."""
        self._key = key
        self._log_name = log_name
        self._collector_name = collector_name
        self._frontier = Frontier()
        self._prev_hash = bytes(32)
        self.last_received_at = 0

    def checkpoint(self) -> Checkpoint:
        """Return what would be signed now."""
        return Checkpoint(origin(self._log_name, self.chain_id), self.size, self._frontier.root())

    def own(self, action: str, metadata: Mapping[str, str], *, outcome: str = "success") -> Draft:
        """Make a draft of one of the collector's own records.

        Args:
            action: an action of the form `audit_log.<verb>`.
            metadata: text values by key.
            outcome: of the action.

        """
        record = Record(
            chain_id="",
            seq=0,
            tenant_seq=0,
            received_at=0,
            event_time=0,
            producer_seq=0,
            record_id=uuid7(),
            tenant=COLLECTOR_TENANT,
            producer_id="",
            service="spanseal-collector",
            actor_type="system",
            actor_id=self._collector_name,
            actor_role="",
            session_id="",
            action=action,
            outcome=outcome,
            failure_reason="",
            resource_type="audit_log",
            resource_id=self.chain_id,
            request_id="",
            trace_id="",
            span_id="",
            metadata=dict(sorted(metadata.items())),
            metadata_types="s" * len(metadata),
        )
        return Draft(record, untimed=True, size=1024)

    def seal(
        self,
        drafts: Iterable[Draft],
        received_at: int,
        quarantined: Mapping[str, Sequence[Any]] | None = None,
    ) -> Batch:
        """Seal a batch: at least one draft, all received at one time, one checkpoint on the last.

        Args:
            drafts: in the order they shall have in the chain.
            received_at: the collector's clock, ns since the epoch; never less than for the batch before.
            quarantined: columns of `quarantine` that are stored with the batch.

        Raises:
            ValueError: there is no draft, or the time is less than the last one.

        """
        if received_at < self.last_received_at:
            raise ValueError("received_at went back within a chain")
        self.last_received_at = received_at
        first_seq = self.size
        rows = []
        hashes = [self._prev_hash]
        for draft in drafts:
            record = self._place(draft, received_at)
            digest = record_hash(canonical(record), hashes[-1])
            self._frontier.append(digest)
            hashes.append(digest)
            rows.append(_values(record))
            self.size += 1
        count = len(rows)
        if not count:
            raise ValueError("a batch without records")
        self._prev_hash = hashes[-1]
        note = sign_checkpoint(self._key, self._log_name, self.chain_id, self.size, self._frontier.root())
        columns: dict[str, Sequence[Any]] = dict(zip(_RECORD_COLUMNS, zip(*rows, strict=True), strict=True))
        columns["prev_hash"], columns["hash"] = hashes[:-1], hashes[1:]
        columns["format"] = [FORMAT] * count
        columns["checkpoint"] = [""] * (count - 1) + [note]
        return Batch(self.chain_id, first_seq, columns, note, received_at, quarantined)

    def _place(self, draft: Draft, received_at: int) -> Record:
        record = draft.record
        tenant_seq = self.counts.get(record.tenant, 0)
        self.counts[record.tenant] = tenant_seq + 1
        personal = record.actor_email or record.actor_ip or record.personal
        salt = os.urandom(16) if personal else b""
        # Written out: dataclasses.replace costs several times as much, once for every record.
        return Record(
            chain_id=self.chain_id,
            seq=self.size,
            tenant_seq=tenant_seq,
            received_at=received_at,
            event_time=received_at if draft.untimed else record.event_time,
            producer_seq=record.producer_seq,
            record_id=record.record_id,
            tenant=record.tenant,
            producer_id=record.producer_id,
            service=record.service,
            actor_type=record.actor_type,
            actor_id=record.actor_id,
            actor_role=record.actor_role,
            session_id=record.session_id,
            action=record.action,
            outcome=record.outcome,
            failure_reason=record.failure_reason,
            resource_type=record.resource_type,
            resource_id=record.resource_id,
            request_id=record.request_id,
            trace_id=record.trace_id,
            span_id=record.span_id,
            actor_email=record.actor_email,
            actor_ip=record.actor_ip,
            personal=record.personal,
            metadata=record.metadata,
            metadata_types=record.metadata_types,
            personal_salt=salt,
            personal_commitment=commitment(salt, record.actor_email, record.actor_ip, record.personal),
        )
