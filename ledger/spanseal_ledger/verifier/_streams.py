"""Streams of producers, and records in two chains (rule 10): what was lost before it reached a collector.

The rows' columns are believed here: rules 1 to 9 have judged them. So whoever reads for this gives what is stored,
counted and compressed, and need not give each row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from spanseal_ledger.verifier._model import Finding

__all__ = ["GRACE_NS", "Absent", "Stream", "StreamFacts", "Twin", "gap_of", "judge_streams", "previous_of"]

GRACE_NS = 3600 * 10**9
"""How long a number may be on its way, ns: producers send again until they are answered, relays reorder."""

_NAMED = 5
_MOST = 1000
"""Findings of one kind; further ones are counted."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Numbers of a stream that no stored record bears."""

    first: int
    last: int
    chain_id: str
    """Of the record with the next higher number, as are the following; empty where that is not known."""
    seq: int
    received_at: int
    """ns since the Unix epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What is stored of one stream of one tenant."""

    tenant: str
    stream_id: str
    last: int
    """The highest number."""
    chain_id: str
    """Of the record with that number, as are the following."""
    seq: int
    received_at: int
    ended: bool
    """Whether a record of it is ``producer.stopped``."""
    absent: Sequence[Absent] = ()
    """Numbers from 0 to `last` that are not there, ascending."""


@dataclass(frozen=True, slots=True)
class Twin:
    """One record_id of a tenant in two chains."""

    tenant: str
    record_id: str
    chain_id: str
    """Of the later copy."""
    seq: int
    equal: bool
    """Whether both say the same (format, "Content of a record")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """What is stored, for rule 10. `streams` must have been read before the others."""

    streams: Iterable[Stream]
    gaps: Iterable[tuple[str, int, int]] = ()
    """Stream, first and last number: what ``producer.gap`` records name."""
    quarantined: Iterable[tuple[str, int]] = ()
    """Stream and number of what ``audit_log.quarantined`` and ``audit_log.conflict`` records name."""
    previous: Iterable[tuple[str, int]] = ()
    """Streams that ``producer.started`` records name, with the last number known, -1 for none."""
    twins: Iterable[Twin] = ()
    now: int
    """When they were read, ns since the Unix epoch."""


@dataclass(slots=True)
class _Said:
    """Findings and information, each kind up to a bound."""

    findings: list[Finding] = field(default_factory=list)
    information: list[Finding] = field(default_factory=list)
    more: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] = self.counts.get(finding.kind, 0) + 1
        if self.counts[finding.kind] > _MOST:
            self.more[finding.kind] = self.more.get(finding.kind, 0) + 1
            return
        (self.findings if finding.severity == "finding" else self.information).append(finding)

    def rest(self) -> Iterator[Finding]:
        for kind, count in self.more.items():
            bad = kind in ("lost_before_collector", "conflict")
            yield Finding(
                kind,
                "",
                None,
                f"and {count} more that are not listed",
                severity="finding" if bad else "information",
            )


def judge_streams(facts: StreamFacts) -> tuple[list[Finding], list[Finding]]:
    """Apply rule 10.

    Returns:
        Findings and information.

    """
    streams = list(facts.streams)
    gaps: dict[str, list[tuple[int, int]]] = {}
    for name, first, last in facts.gaps:
        gaps.setdefault(name, []).append((first, last))
    for name, number in facts.quarantined:
        gaps.setdefault(name, []).append((number, number))
    named: dict[str, int] = {}
    for name, last in facts.previous:
        named[name] = max(last, named.get(name, -1))
    said = _Said()
    for stream in streams:
        _judge_one(stream, gaps.get(stream.stream_id, []), named.get(stream.stream_id), facts.now, said)
    known = {stream.stream_id for stream in streams}
    for name, last in named.items():
        if name not in known and last >= 0 and _without(0, last, gaps.get(name, [])):
            # No row is there to point at: its successor names it, and nothing of it ever came.
            said.add(_lost(name, 0, last, "", None))
    unended = [s.stream_id for s in streams if not s.ended and s.stream_id not in named]
    if unended:
        said.add(
            _information(
                "stream_open",
                f"{_count(unended, 'stream has', 'streams have')} no end yet: {_some(unended)}; loss at an end cannot be "
                "excluded",
            )
        )
    _judge_twins(facts.twins, said)
    for rest in said.rest():
        (said.findings if rest.severity == "finding" else said.information).append(rest)
    return said.findings, said.information


def gap_of(metadata: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Read what a ``producer.gap`` names; None where that is no range of a stream."""
    name = metadata.get("audit.producer.gap.stream_id", "")
    try:
        first = int(metadata["audit.producer.gap.first"])
        last = int(metadata["audit.producer.gap.last"])
    except (KeyError, ValueError):
        return None
    return (name, first, last) if name and 0 <= first <= last else None


def previous_of(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """Read which streams a ``producer.started`` names; what cannot be read is left out."""
    try:
        items = json.loads(metadata.get("audit.producer.previous", "[]"))
    except (ValueError, RecursionError):
        return []
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            name, last = item.get("stream_id"), item.get("last")
            if isinstance(name, str) and type(last) is int:
                found.append((name, last))
    return found


def _judge_one(
    stream: Stream, excused: list[tuple[int, int]], named: int | None, now: int, said: _Said
) -> None:
    absent = list(stream.absent)
    if named is not None and named > stream.last:
        absent.append(Absent(stream.last + 1, named, stream.chain_id, stream.seq, stream.received_at))
    for hole in absent:
        for first, last in _without(hole.first, hole.last, excused):
            if now - hole.received_at < GRACE_NS:
                said.add(
                    _information(
                        "pending",
                        f"stream {stream.stream_id[:200]!a} lacks {_numbers(first, last)}; they may still be on "
                        "their way",
                        hole.chain_id,
                        hole.seq,
                    )
                )
            else:
                said.add(_lost(stream.stream_id, first, last, hole.chain_id, hole.seq))


def _lost(name: str, first: int, last: int, chain_id: str, seq: int | None) -> Finding:
    return Finding(
        "lost_before_collector",
        chain_id,
        seq,
        f"stream {name[:200]!a} lacks {_numbers(first, last)}: no record, no quarantine and no producer.gap has them",
    )


def _judge_twins(twins: Iterable[Twin], said: _Said) -> None:
    equal = []
    for twin in twins:
        if twin.equal:
            equal.append(twin.record_id)
        else:
            message = (
                f"record {twin.record_id} of tenant {twin.tenant[:64]!a} says something else in another chain"
            )
            said.add(Finding("conflict", twin.chain_id, twin.seq, message))
    if equal:
        said.add(
            _information(
                "delivered_twice",
                f"{_count(equal, 'record is', 'records are')} in two chains, the same in both: {_some(equal)}",
            )
        )


def _without(first: int, last: int, excused: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what is left of a range of numbers without those of others, ascending."""
    left = []
    at = first
    for begin, end in sorted(excused):
        if begin > last:
            break
        if end < at:
            continue
        if begin > at:
            left.append((at, begin - 1))
        at = max(at, end + 1)
    if at <= last:
        left.append((at, last))
    return left


def _information(kind: str, message: str, chain_id: str = "", seq: int | None = None) -> Finding:
    return Finding(kind, chain_id, seq, message, severity="information")


def _numbers(first: int, last: int) -> str:
    return f"number {first}" if first == last else f"numbers {first} to {last} ({last - first + 1})"


def _count(names: Sequence[str], one: str, many: str) -> str:
    return f"1 {one}" if len(names) == 1 else f"{len(names)} {many}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"{name[:200]}" for name in names[:_NAMED]) + more
