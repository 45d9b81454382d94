"""Deduplication on (tenant, record_id): a record is a duplicate only if it was found, never by inference.

A producer numbers the records of a stream. For each stream this remembers from which number on nothing can be
in the table yet (`base`, read from the table when the stream is first met), and which numbers above it were
sealed since. A number above the base that was not seen is new without asking; everything else is looked up in
the table by its record id. Records that carry no stream are looked up unless their id was made here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from spanseal_collector.admission import Draft
from spanseal_ledger.record import Record

__all__ = ["Deduplicator", "Stored", "same_content"]

_CONTENT = (
    "producer_seq",
    "record_id",
    "tenant",
    "producer_id",
    "service",
    "actor_type",
    "actor_id",
    "actor_role",
    "session_id",
    "action",
    "outcome",
    "failure_reason",
    "resource_type",
    "resource_id",
    "request_id",
    "trace_id",
    "span_id",
    "metadata_types",
)


class Stored(Protocol):
    """What deduplication asks of the table."""

    def last_of_stream(self, tenant: str, producer_id: str) -> int | None:
        """Return the highest number of a stream in the table; None where it has none."""

    def by_record_ids(self, ids: Iterable[str]) -> Mapping[tuple[str, str], Record]:
        """Return the earliest stored record for each (tenant, record_id) with one of these ids."""


@dataclass(slots=True)
class _Stream:
    base: int
    """Numbers from here on are not in the table but through this process."""
    seen: list[tuple[int, int]] = field(default_factory=list)
    """Disjoint closed intervals in ascending order."""

    def holds(self, number: int) -> bool:
        return any(low <= number <= high for low, high in reversed(self.seen))

    def add(self, number: int) -> None:
        intervals = self.seen
        index = len(intervals)
        while index and intervals[index - 1][0] > number:
            index -= 1
        low = high = number
        if index < len(intervals) and intervals[index][0] == number + 1:
            high = intervals.pop(index)[1]
        if index and intervals[index - 1][1] >= number - 1:
            low, old = intervals.pop(index - 1)
            high, index = max(high, old), index - 1
        intervals.insert(index, (low, high))


class Deduplicator:
    """Remembers a bounded number of streams and of recent record ids. Used by the committing thread alone."""

    def __init__(self, table: Stored, *, streams: int = 65_536, recent: int = 262_144) -> None:
        self._table = table
        self._streams: OrderedDict[tuple[str, str], _Stream] = OrderedDict()
        self._max_streams = streams
        self._recent: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._max_recent = recent

    def known(self, drafts: Iterable[Draft]) -> dict[tuple[str, str], Record]:
        """Look up which of these may be in the table already.

        Returns:
            The stored records, by (tenant, record_id), of those that are.

        Raises:
            EngineError: the table could not be asked.

        """
        doubtful = [d.record.record_id for d in drafts if not self._surely_new(d)]
        return dict(self._table.by_record_ids(doubtful)) if doubtful else {}

    def remember(self, records: Iterable[Record]) -> None:
        """Remember records as sealed by this process."""
        for record in records:
            key = (record.tenant, record.record_id)
            self._recent[key] = None
            if record.producer_id:
                self._stream(record).add(record.producer_seq)
        while len(self._recent) > self._max_recent:
            self._recent.popitem(last=False)
        while len(self._streams) > self._max_streams:
            # A stream that is forgotten is met again with a base read from the table: slower, never wrong.
            self._streams.popitem(last=False)

    def _surely_new(self, draft: Draft) -> bool:
        record = draft.record
        if (record.tenant, record.record_id) in self._recent:
            return False
        if record.metadata.get("audit.record_id") == "collector":
            return True
        if not record.producer_id:
            return False
        stream = self._stream(record)
        return record.producer_seq >= stream.base and not stream.holds(record.producer_seq)

    def _stream(self, record: Record) -> _Stream:
        key = (record.tenant, record.producer_id)
        stream = self._streams.get(key)
        if stream is None:
            last = self._table.last_of_stream(*key)
            stream = self._streams[key] = _Stream(base=0 if last is None else last + 1)
        else:
            self._streams.move_to_end(key)
        return stream


def same_content(stored: Record, sent: Draft) -> bool:
    """Tell whether a record says the same as one that is stored (docs/format.md, "Content of a record").

    Where the stored copy's personal data was erased, only the rest is compared. A time that the collector gave
    is not content.
    """
    record = sent.record
    if any(getattr(stored, name) != getattr(record, name) for name in _CONTENT):
        return False
    if not sent.untimed and stored.event_time != record.event_time:
        return False
    if dict(stored.metadata) != dict(record.metadata):
        return False
    erased = not stored.personal_salt
    mine: tuple[Any, ...] = (record.actor_email, record.actor_ip, dict(record.personal))
    return erased or (stored.actor_email, stored.actor_ip, dict(stored.personal)) == mine
