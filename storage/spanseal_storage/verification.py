"""Verification of a stored log at the engine's speed: the verifier's rules over tiles that ClickHouse hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.verifier import LogVerifier, TrustedKeys, VerificationResult
from spanseal_storage.rows import query
from spanseal_storage.schema import DATABASE
from spanseal_storage.streams import read_streams
from spanseal_storage.tiles import TILE, Tile, load_tiles

__all__ = ["Progress", "verify_log"]

_CHUNK = 4096 * TILE  # large enough for the engine to use every core

Progress = Callable[[int, int], None]
"""Called with the records verified so far and all that will be."""


@dataclass(frozen=True, slots=True)
class _Chain:
    chain_id: str
    records: int
    last: int
    """The highest seq that was there when the verification began."""
    chunks: Sequence[int]
    """Which chunks hold records: a forged seq may be far away."""


def verify_log(
    client: Any,
    *,
    keys: TrustedKeys,
    checkpoint_log: Sequence[Line] | None,
    progress: Progress | None = None,
) -> VerificationResult:
    """Verify every chain in the database, and the checkpoint log against them.

    The checkpoint log must have been read before this is called: every line of it is then covered by rows that
    are in the database, also while a collector goes on writing.

    Args:
        client: a clickhouse-connect client; used from one thread at a time.
        keys: the keys that are trusted, from outside the database.
        checkpoint_log: the lines of the checkpoint log; None where there is none.
        progress: told how far it is.

    Raises:
        EngineError: the engine did not answer: nothing can be said of the log.

    """
    chains = [
        _Chain(*row)
        for row in query(
            client,
            "SELECT toString(chain_id) AS chain, count(), max(seq), "  # noqa: S608 - made of constants
            f"arraySort(groupUniqArray(intDiv(seq, {_CHUNK}))) FROM {DATABASE}.records "
            "GROUP BY chain ORDER BY min(received_at), chain",
        )
    ]
    total = sum(chain.records for chain in chains)
    done = 0
    log = LogVerifier(keys=keys, checkpoint_log=checkpoint_log)
    for chain in chains:
        verifier = log.chain(chain.chain_id)
        for tiles in _read_ahead(client, chain, verifier.stops):
            for tile in tiles:
                tile.feed(verifier)
                done += tile.records
            if progress is not None:
                progress(done, total)
        log.add(verifier.finish())
    return log.finish(read_streams(client, records=total, chains=len(chains)))


def _read_ahead(client: Any, chain: _Chain, stops: Sequence[int]) -> Iterator[list[Tile]]:
    """Let the engine hash the next chunk while the verifier goes through this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="spanseal-verify") as worker:
        ahead = None
        for chunk in chain.chunks:
            first = chunk * _CHUNK
            last = min(first + _CHUNK - 1, chain.last)
            following = worker.submit(load_tiles, client, chain.chain_id, first, last, stops)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()
