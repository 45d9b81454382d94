"""What is stored of producers' streams, counted in ClickHouse, for the verifier's rule 10."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanseal_ledger.content import same_content
from spanseal_ledger.record import Record
from spanseal_ledger.verifier import Absent, Stream, StreamFacts, Twin, gap_of, previous_of
from spanseal_storage.rows import query, read_rows
from spanseal_storage.schema import DATABASE

__all__ = ["read_streams"]

_TWINS_AT_ONCE = 4_000_000
"""Records whose ids the engine holds in memory at once while it looks for those in two chains."""
_COPIES_AT_ONCE = 500
_MOST_TWINS = 10_000
_STREAMS_AT_ONCE = 200
_MOST_HOLES = 100_000

# A bitmap of the numbers: exact, and small where they are dense.
_STREAMS = f"""
SELECT tenant, producer_id, groupBitmap(producer_seq), max(producer_seq),
    argMax((toString(chain_id), seq, toUnixTimestamp64Nano(received_at)), producer_seq),
    countIf(action = 'producer.stopped')
FROM {DATABASE}.records WHERE producer_id != ''
GROUP BY tenant, producer_id ORDER BY producer_id, tenant
"""  # noqa: S608 - made of constants; values are bound

_HOLES = f"""
SELECT tenant, producer_id, before, number, place FROM (
    SELECT tenant, producer_id, number, place,
        lagInFrame(number, 1, toInt128(-1)) OVER (
            PARTITION BY tenant, producer_id ORDER BY number ROWS BETWEEN 1 PRECEDING AND CURRENT ROW
        ) AS before
    FROM (
        SELECT tenant, producer_id, toInt128(producer_seq) AS number,
            min((toString(chain_id), seq, toUnixTimestamp64Nano(received_at))) AS place
        FROM {DATABASE}.records
        WHERE tenant IN {{tenants:Array(String)}} AND producer_id IN {{streams:Array(String)}}
        GROUP BY tenant, producer_id, number
    )
)
WHERE number > before + 1 ORDER BY producer_id, tenant, number LIMIT {_MOST_HOLES}
"""  # noqa: S608 - as above

_OF_PRODUCERS = f"""
SELECT action, arrayZip(mapKeys(metadata), mapValues(metadata)) FROM {DATABASE}.records
WHERE action IN ('producer.gap', 'producer.started')
"""  # noqa: S608 - as above

_QUARANTINED = f"""
SELECT metadata['audit.quarantine.producer_id'], toUInt64OrNull(metadata['audit.quarantine.producer_seq'])
FROM {DATABASE}.records WHERE action IN ('audit_log.quarantined', 'audit_log.conflict') AND tenant = '_collector'
"""  # noqa: S608 - as above

_TWINS = f"""
SELECT tenant, toString(record_id) AS id FROM {DATABASE}.records
WHERE cityHash64(record_id) % {{parts:UInt64}} = {{part:UInt64}}
GROUP BY tenant, record_id HAVING min(chain_id) != max(chain_id) ORDER BY id LIMIT {_MOST_TWINS}
"""  # noqa: S608 - as above


def read_streams(client: Any, *, records: int, chains: int) -> StreamFacts:
    """Read what rule 10 needs.

    Args:
        client: a clickhouse-connect client.
        records: how many there are, roughly.
        chains: how many chains there are: with one no record can be in two.

    Raises:
        EngineError: the engine did not answer.

    """
    # In this order: what excuses a missing number may be stored later than the numbers around it.
    streams = list(_streams(client))
    gaps, previous = [], []
    for action, pairs in query(client, _OF_PRODUCERS):
        metadata: Mapping[str, str] = dict(pairs)
        if action == "producer.started":
            previous += previous_of(metadata)
        elif (gap := gap_of(metadata)) is not None:
            gaps.append(gap)
    quarantined = [
        (name, number) for name, number in query(client, _QUARANTINED) if name and number is not None
    ]
    return StreamFacts(
        streams=streams,
        gaps=gaps,
        quarantined=quarantined,
        previous=previous,
        twins=list(_twins(client, records)) if chains > 1 else (),
        now=time.time_ns(),
    )


def _streams(client: Any) -> Iterator[Stream]:
    found = query(client, _STREAMS)
    incomplete = [(tenant, name) for tenant, name, count, last, _, _ in found if count != last + 1]
    absent = _absent(client, incomplete)
    for tenant, name, count, last, (chain_id, seq, received_at), ends in found:
        holes = absent.get((tenant, name), [])
        if count != last + 1 and not holes:
            # Its name is no text, or there were too many: the number is known, not the places.
            holes = [Absent(0, last, chain_id, seq, received_at)]
        yield Stream(
            tenant=tenant,
            stream_id=name,
            last=last,
            chain_id=chain_id,
            seq=seq,
            received_at=received_at,
            ended=ends > 0,
            absent=holes,
        )


def _absent(client: Any, streams: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Absent]]:
    found: dict[tuple[str, str], list[Absent]] = {}
    for start in range(0, len(streams), _STREAMS_AT_ONCE):
        some = streams[start : start + _STREAMS_AT_ONCE]
        names = {"tenants": sorted({t for t, _ in some}), "streams": sorted({s for _, s in some})}
        for tenant, name, before, number, place in query(client, _HOLES, names):
            hole = Absent(int(before) + 1, int(number) - 1, *place)
            found.setdefault((tenant, name), []).append(hole)
    return found


def _twins(client: Any, records: int) -> Iterator[Twin]:
    parts = records // _TWINS_AT_ONCE + 1
    for part in range(parts):
        found = query(client, _TWINS, {"parts": parts, "part": part})
        for start in range(0, len(found), _COPIES_AT_ONCE):
            yield from _judged(client, found[start : start + _COPIES_AT_ONCE])


def _judged(client: Any, keys: Sequence[tuple[str, str]]) -> Iterator[Twin]:
    """Read all copies of some records, each a tenant and a record_id, and hold them against each other."""
    copies: dict[tuple[str, str], list[Record]] = {(tenant, record_id): [] for tenant, record_id in keys}
    ids = {"ids": sorted({record_id for _, record_id in keys})}
    for row in read_rows(client, "record_id IN {ids:Array(UUID)}", ids, order="received_at, chain_id, seq"):
        # An id of one tenant may be another one's, too, which is no twin.
        copies.get((row.record.tenant, row.record.record_id), []).append(row.record)
    for (tenant, record_id), found in copies.items():
        if not found:  # the tenant's name is no text, which the rules on rows tell
            continue
        first, *others = found
        different = [record for record in others if not _same(first, record)]
        last = (different or others or [first])[-1]
        yield Twin(tenant, record_id, last.chain_id, last.seq, not different)


def _same(one: Record, other: Record) -> bool:
    # A time that a collector gave differs from chain to chain.
    return same_content(one, other, timed=one.metadata.get("audit.event_time") != "collector")
