"""Tiles: ranges of 256 records that ClickHouse hashes by itself, and what of them the verifier must see.

The engine recomputes every hash, commitment and link of a tile and the root of its subtree. A tile in which
all of that fits is handed to the verifier as a few runs; every other one row by row, so that it is the verifier
that finds and names what is wrong.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spanseal_ledger.verifier import ChainVerifier, CheckedRun, StoredRow
from spanseal_storage.hash_sql import ROW_IS_CLEAN, TREE_OF_256
from spanseal_storage.rows import query, read_rows
from spanseal_storage.schema import DATABASE

__all__ = ["TILE", "Tile", "load_tiles"]

TILE = 256
_LEVEL = 8

_SPECIAL = "startsWith(action, 'audit_log.')"

_RANGE = "chain_id = {chain:UUID} AND seq >= {first:UInt64} AND seq <= {last:UInt64}"

_SQL = f"""
SELECT
    lowest, n,
    clean AND arrayPopFront(prevs) = arrayPopBack(hashes) AND seqs = range(lowest, lowest + n) AS fits,
    fits AND n = {TILE} AND lowest % {TILE} = 0 AND empty(breaks) AND empty(special) AS whole,
    prevs[1], hashes[-1],
    if(whole, {TREE_OF_256}, toFixedString('', 32)) AS root,
    if(whole OR NOT fits, [], hashes) AS some_hashes,
    breaks, special,
    one_tenant, first_tenant_seq
FROM (
    SELECT
        intDiv(seq, {TILE}) AS tile,
        count() AS n,
        min(seq) AS lowest,
        min({ROW_IS_CLEAN}) AS clean,
        arraySort(groupArray((seq, hash, prev_hash))) AS rows,
        arrayMap(x -> x.1, rows) AS seqs,
        arrayMap(x -> x.2, rows) AS hashes,
        arrayMap(x -> x.3, rows) AS prevs,
        arraySort(groupArrayIf((seq, checkpoint), checkpoint != '' AND NOT {_SPECIAL})) AS breaks,
        arraySort(groupArrayIf(seq, {_SPECIAL})) AS special,
        -- One tenant whose numbers rise with seq is the common case, told without looking at each row.
        if(min(tenant) = max(tenant) AND min(seq - tenant_seq) = max(seq - tenant_seq), min(tenant), '')
            AS one_tenant,
        min(tenant_seq) AS first_tenant_seq
    FROM {DATABASE}.records
    WHERE {_RANGE}
    GROUP BY tile
)
"""  # noqa: S608 - made of constants; values are bound

# Asked only where there are tiles of several tenants: nearly always there are none.
_TENANTS_SQL = f"""
SELECT min(seq), arraySort(groupArray((seq, tenant, tenant_seq))) AS rows,
    arrayMap(x -> x.2, rows), arrayMap(x -> x.3, rows)
FROM {DATABASE}.records
WHERE {_RANGE} AND intDiv(seq, {TILE}) IN {{tiles:Array(UInt64)}}
GROUP BY intDiv(seq, {TILE})
"""  # noqa: S608 - as above


@dataclass(frozen=True, slots=True)
class Tile:
    """What the engine found of one tile: either runs and rows to feed, or all of its rows."""

    records: int
    parts: Sequence[CheckedRun | StoredRow]

    def feed(self, verifier: ChainVerifier) -> None:
        """Hand the tile to the verifier, in order."""
        for part in self.parts:
            if isinstance(part, CheckedRun):
                verifier.run(part)
            else:
                verifier.row(part)


def load_tiles(client: Any, chain_id: str, first: int, last: int, stops: Sequence[int]) -> list[Tile]:
    """Let the engine check the records `first` to `last` of a chain.

    Args:
        client: a clickhouse-connect client.
        chain_id: the chain.
        first: a multiple of 256.
        last: one before a multiple of 256, or the last record that is looked at.
        stops: sizes of the chain, ascending, at which a run must end.

    Raises:
        EngineError: the engine did not answer.

    """
    bounds = {"chain": chain_id, "first": first, "last": last}
    # Sorted here: an ORDER BY would make the engine compute the trees in one thread.
    answers = sorted((_Answer(*row) for row in query(client, _SQL, bounds)), key=lambda answer: answer.lowest)
    _add_tenants(client, answers, bounds)
    special: dict[int, StoredRow] = {}
    if any(answer.special for answer in answers if answer.fits):
        special = {row.record.seq: row for row in read_rows(client, f"{_RANGE} AND {_SPECIAL}", bounds)}
    tiles: list[Tile] = []
    together: list[_Answer] = []
    for answer in answers:
        inner = [
            size - 1
            for size in stops[
                bisect_left(stops, answer.lowest + 1) : bisect_left(stops, answer.lowest + answer.n)
            ]
        ]
        if answer.whole and answer.one_tenant and not inner:
            if together and not (_continues(together[-1], answer) and not _holds(stops, answer.lowest)):
                tiles.append(_one_run(together))
                together = []
            together.append(answer)
            continue
        if together:
            tiles.append(_one_run(together))
            together = []
        if answer.usable(special) and not (answer.whole and inner):
            parts: Sequence[CheckedRun | StoredRow] = list(answer.parts(special, inner))
        else:
            start = answer.lowest // TILE * TILE
            rows = {"chain": chain_id, "first": start, "last": min(start + TILE - 1, last)}
            parts = list(read_rows(client, _RANGE, rows))
        tiles.append(Tile(answer.n, parts))
    if together:
        tiles.append(_one_run(together))
    return tiles


def _add_tenants(client: Any, answers: list[_Answer], bounds: Mapping[str, Any]) -> None:
    """Find out whose rows are in the tiles that hold several tenants'."""
    mixed = {answer.lowest: at for at, answer in enumerate(answers) if answer.fits and not answer.one_tenant}
    if not mixed:
        return
    tiles = [lowest // TILE for lowest in mixed]
    for lowest, _, names, numbers in query(client, _TENANTS_SQL, {**bounds, "tiles": tiles}):
        at = mixed.get(lowest)
        if at is not None:
            answers[at] = replace(answers[at], names=names, tenant_seqs=numbers)


def _holds(stops: Sequence[int], size: int) -> bool:
    at = bisect_left(stops, size)
    return at < len(stops) and stops[at] == size


def _continues(before: _Answer, after: _Answer) -> bool:
    """Tell whether two whole tiles of one tenant can be handed over as one run."""
    return (
        after.lowest == before.lowest + TILE
        and after.first_prev == before.last_hash
        and after.one_tenant == before.one_tenant
        and after.first_tenant_seq == before.first_tenant_seq + TILE
    )


def _one_run(tiles: Sequence[_Answer]) -> Tile:
    """Hand over adjacent whole tiles at once, which is what most of a large log is."""
    first, last, count = tiles[0], tiles[-1], TILE * len(tiles)
    run = CheckedRun(
        first_seq=first.lowest,
        count=count,
        first_prev_hash=bytes(first.first_prev),
        last_hash=bytes(last.last_hash),
        nodes=tuple((_LEVEL, bytes(tile.root)) for tile in tiles),
        tenants={first.one_tenant: (first.first_tenant_seq, count)},
        checkpoint="",
    )
    return Tile(count, [run])


@dataclass(frozen=True, slots=True)
class _Answer:
    lowest: int
    n: int
    fits: bool
    whole: bool
    first_prev: bytes
    last_hash: bytes
    root: bytes
    hashes: Sequence[bytes]
    breaks: Sequence[tuple[int, str]]
    special: Sequence[int]
    one_tenant: str
    first_tenant_seq: int
    names: Sequence[str] = ()
    """Of each row, where there are several tenants."""
    tenant_seqs: Sequence[int] = ()

    def usable(self, special: Mapping[int, StoredRow]) -> bool:
        """Tell whether the tile can be handed over as runs."""
        return self.fits and self._tenants_fit() and all(seq in special for seq in self.special)

    def parts(
        self, special: Mapping[int, StoredRow], inner: Sequence[int]
    ) -> Iterator[CheckedRun | StoredRow]:
        if self.whole:
            yield CheckedRun(
                first_seq=self.lowest,
                count=self.n,
                first_prev_hash=bytes(self.first_prev),
                last_hash=bytes(self.last_hash),
                nodes=((_LEVEL, bytes(self.root)),),
                tenants=self._tenants(0, self.n),
                checkpoint="",
            )
            return
        done = 0
        notes = dict(self.breaks)
        for seq in sorted({*notes, *self.special, *inner}):
            at = seq - self.lowest
            if seq in special:
                yield from self._run(done, at, "")
                yield special[seq]
            else:
                yield from self._run(done, at + 1, notes.get(seq, ""))
            done = at + 1
        yield from self._run(done, self.n, "")

    def _tenants_fit(self) -> bool:
        """Tell whether the tenants are known and each one's numbers rise by one within the tile."""
        if not self.one_tenant and len(self.names) != self.n:
            return False
        following: dict[str, int] = {}
        for name, number in zip(self.names, self.tenant_seqs, strict=True):
            if following.get(name, number) != number:
                return False
            following[name] = number + 1
        return True

    def _run(self, start: int, end: int, checkpoint: str) -> Iterator[CheckedRun]:
        if start == end:
            return
        yield CheckedRun(
            first_seq=self.lowest + start,
            count=end - start,
            first_prev_hash=bytes(self.hashes[start - 1] if start else self.first_prev),
            last_hash=bytes(self.hashes[end - 1]),
            nodes=tuple((0, hashlib.sha256(b"\x00" + h).digest()) for h in self.hashes[start:end]),
            tenants=self._tenants(start, end),
            checkpoint=checkpoint,
        )

    def _tenants(self, start: int, end: int) -> dict[str, tuple[int, int]]:
        if self.one_tenant:
            return {self.one_tenant: (self.first_tenant_seq + start, end - start)}
        found: dict[str, tuple[int, int]] = {}
        for name, number in zip(self.names[start:end], self.tenant_seqs[start:end], strict=True):
            first, count = found.get(name, (number, 0))
            found[name] = (first, count + 1)
        return found
