"""Deduplication on (tenant, record_id): a record is a duplicate only if it was found, never by inference.

A producer numbers the records of a stream. For each stream this remembers from which number on nothing can be
in the table yet (`base`, read from the table when the stream is first met), and which numbers above it were
sealed since. A number above the base that was not seen is new without asking; everything else is looked up in
the table by its record id. Records that carry no stream are looked up unless their id was made here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spanseal_collector.admission import Draft
from spanseal_ledger.record import Record

__all__ = ["Deduplicator", "Stored"]


class Stored(Protocol):
    """What deduplication asks of the table."""

    def last_of_stream(self, tenant: str, producer_id: str) -> int | None:
        """Return the highest number of a stream in the table; None where it has none."""

    def by_record_ids(self, ids: Iterable[str]) -> Mapping[tuple[str, str], Record]:
        """Return the earliest stored record for each (tenant, record_id) with one of these ids."""


_MAX_INTERVALS = 64
_NEW_STREAMS = 32


@dataclass(slots=True)
class _Stream:
    base: int
    """Numbers from here on are not in the table but through this process."""
    lows: list[int] = field(default_factory=list)
    """Where the disjoint closed intervals of numbers that were seen begin, ascending."""
    highs: list[int] = field(default_factory=list)
    """Where they end."""

    def holds(self, number: int) -> bool:
        index = bisect_right(self.lows, number)
        return index > 0 and number <= self.highs[index - 1]

    def add(self, number: int) -> None:
        lows, highs = self.lows, self.highs
        index = bisect_right(lows, number)
        if index and number <= highs[index - 1] + 1:
            index -= 1
            highs[index] = max(highs[index], number)
        else:
            lows.insert(index, number)
            highs.insert(index, number)
        if index + 1 < len(lows) and lows[index + 1] <= highs[index] + 1:
            highs[index] = max(highs[index], highs.pop(index + 1))
            del lows[index + 1]
        if len(lows) > _MAX_INTERVALS:
            # The numbers between the two lowest now count as seen, which costs a look-up and is never wrong.
            del lows[1], highs[0]


class Deduplicator:
    """Remembers a bounded number of streams and of recent record ids. Used by the committing thread alone."""

    def __init__(self, table: Stored, *, streams: int = 65_536, recent: int = 262_144) -> None:
        self._table = table
        self._streams: OrderedDict[tuple[str, str], _Stream] = OrderedDict()
        self._max_streams = streams
        self._recent: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._max_recent = recent

    def known(self, drafts: Sequence[Draft]) -> dict[tuple[str, str], Record]:
        """Look up which of these may be in the table already.

        Returns:
            The stored records, by (tenant, record_id), of those that are.

        Raises:
            EngineError: the table could not be asked.

        """
        self._meet(drafts)
        doubtful = [d.record.record_id for d in drafts if not self._surely_new(d.record)]
        return dict(self._table.by_record_ids(doubtful)) if doubtful else {}

    def remember(self, records: Iterable[Record]) -> None:
        """Remember records as sealed by this process."""
        for record in records:
            self._recent[record.tenant, record.record_id] = None
            stream = self._streams.get((record.tenant, record.producer_id)) if record.producer_id else None
            if stream is not None:
                stream.add(record.producer_seq)
        while len(self._recent) > self._max_recent:
            self._recent.popitem(last=False)

    def _meet(self, drafts: Iterable[Draft]) -> None:
        """Read where the streams end of which nothing is known yet."""
        met = dict.fromkeys((d.record.tenant, d.record.producer_id) for d in drafts if d.record.producer_id)
        new = 0
        for key in met:
            if key in self._streams:
                self._streams.move_to_end(key)
            elif new < _NEW_STREAMS:
                # Each costs a query. Records of streams beyond that are looked up by their ids, many at once.
                last = self._table.last_of_stream(*key)
                self._streams[key] = _Stream(base=0 if last is None else last + 1)
                new += 1
        while len(self._streams) > self._max_streams:
            # A stream that is forgotten is met again with a base read from the table: slower, never wrong.
            self._streams.popitem(last=False)

    def _surely_new(self, record: Record) -> bool:
        if (record.tenant, record.record_id) in self._recent:
            return False
        if record.metadata.get("audit.record_id") == "collector":
            return True
        stream = self._streams.get((record.tenant, record.producer_id)) if record.producer_id else None
        return (
            stream is not None
            and record.producer_seq >= stream.base
            and not stream.holds(record.producer_seq)
        )
