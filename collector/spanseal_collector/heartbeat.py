"""The heartbeat: at least hourly a record that the collector is there, with its clock and its counts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256

from spanseal_collector.admission import Draft
from spanseal_collector.sealer import COLLECTOR_TENANT, Sealer

__all__ = ["Heartbeat"]

_LONGEST_NAME = 255
_MOST_BYTES = 60_000


class Heartbeat:
    """Knows when the next one is due and what the last one said. Used by the committing thread."""

    def __init__(self, interval: float) -> None:
        """Make one that is due after its first interval, in seconds."""
        self._interval = interval
        self._due = time.monotonic() + interval
        self._counts: Mapping[str, int] = {}
        self._said: Mapping[str, int] = {}

    def remaining(self) -> float:
        """Seconds until it is due, 0 where it is overdue."""
        return max(0.0, self._due - time.monotonic())

    def drafts(self, sealer: Sealer, clock_offset: int, counts: Mapping[str, int]) -> list[Draft]:
        """Make the records of a heartbeat: one, or as many as it takes to name every tenant that changed.

        Args:
            sealer: the chain they are for; what it has sealed by now is what they tell.
            clock_offset: of the wall clock against the monotonic one, in ns.
            counts: further counts, by metadata key.

        """
        metadata = {
            "audit.heartbeat.clock_offset_ns": str(clock_offset),
            "audit.heartbeat.records": str(sealer.size),
            **{key: str(count) for key, count in counts.items()},
        }
        self._said = dict(sealer.counts)
        changed = {
            _name(tenant): count
            for tenant, count in sorted(self._said.items())
            if tenant != COLLECTOR_TENANT and self._counts.get(tenant) != count
        }
        return [
            sealer.own("audit_log.heartbeat", {**metadata, "audit.heartbeat.tenants": text})
            for text in _json(changed)
        ]

    def sealed(self) -> None:
        """Take note that what `drafts` made last is stored."""
        self._counts = self._said
        self._due = time.monotonic() + self._interval

    def new_chain(self) -> None:
        """Take note that a chain begins, in which every tenant counts from 0."""
        self._counts = {}


def _json(counts: Mapping[str, int]) -> list[str]:
    """Write counts as JSON objects, each of which fits into one value of metadata."""
    texts: list[str] = []
    pairs: list[str] = []
    size = 0
    for tenant, count in counts.items():
        pair = f"{json.dumps(tenant, ensure_ascii=False)}:{count}"
        size += len(pair.encode()) + 1
        if size > _MOST_BYTES:
            texts.append(_object(pairs))
            pairs, size = [], len(pair.encode()) + 1
        pairs.append(pair)
    return [*texts, _object(pairs)]


def _object(pairs: Iterable[str]) -> str:
    return "{" + ",".join(pairs) + "}"


def _name(tenant: str) -> str:
    """Return a tenant's name, or a digest where it is long: a value has 64 KiB for all of them."""
    if len(tenant) <= _LONGEST_NAME:
        return tenant
    return f"sha256:{sha256(tenant.encode()).hexdigest()}"
