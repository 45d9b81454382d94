"""A producer's own records: its stream began, ended, or lacks numbers.

Their attributes, all of them metadata of the stored record:

| attribute | in | meaning |
|---|---|---|
| `audit.producer.previous` | `producer.started` | JSON list of `{"stream_id", "last"}`: streams of this instance that ended before, with the last number known, -1 for none |
| `audit.producer.last` | `producer.stopped` | the stream's final number, which is this record's own |
| `audit.producer.gap.stream_id` | `producer.gap` | the stream that lacks numbers |
| `audit.producer.gap.first`, `.last`, `.count` | `producer.gap` | which numbers |
| `audit.producer.gap.reason` | `producer.gap` | why |
| `audit.producer.gap.record_id`, `.sha256` | `producer.gap` | of a record that was refused and set aside: its id and the digest of its bytes |
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from spanseal.actors.actor import Actor
from spanseal.identifiers import uuid7
from spanseal.wire import AuditRecord

STARTED = "producer.started"
STOPPED = "producer.stopped"
GAP = "producer.gap"
_SELF = Actor("spanseal", type="system")


def started(stream: str, tenant: str, previous: Sequence[tuple[str, int]]) -> bytes:
    """Make the first record of a stream.

    Args:
        stream: The new stream.
        tenant: Its tenant, or empty.
        previous: Ended streams that nobody has named yet, each with its last known number.
    """
    named = [{"stream_id": name, "last": last} for name, last in previous]
    return _event(
        STARTED, stream, tenant, {"audit.producer.previous": json.dumps(named, separators=(",", ":"))}
    )


def stopped(stream: str, tenant: str, number: int) -> bytes:
    """Make the last record of a stream, which bears `number`."""
    return _event(STOPPED, stream, tenant, {"audit.producer.last": number})


def gap(
    stream: str, tenant: str, first: int, last: int, reason: str, extra: Mapping[str, object] | None = None
) -> bytes:
    """Name numbers of a stream that no record will bear."""
    attributes: dict[str, object] = {
        "audit.producer.gap.stream_id": stream,
        "audit.producer.gap.first": first,
        "audit.producer.gap.last": last,
        "audit.producer.gap.count": last - first + 1,
        "audit.producer.gap.reason": reason,
    }
    return _event(GAP, stream, tenant, {**attributes, **(extra or {})})


def damaged(stream: str, tenant: str, files: Sequence[str]) -> bytes:
    """Tell that files of dead processes cannot be read: what they held is not known."""
    reason = "spool_damaged: " + ", ".join(files)
    return _event(GAP, stream, tenant, {"audit.producer.gap.reason": reason})


def _event(action: str, stream: str, tenant: str, attributes: Mapping[str, object]) -> bytes:
    now = time.time_ns()
    return AuditRecord(
        record_id=uuid7(now),
        event_time=now,
        action=action,
        outcome="success",
        actor=_SELF,
        resource_type="producer",
        resource_id=stream,
        tenant=tenant,
        attributes=attributes,
    ).encode()
