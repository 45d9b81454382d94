"""Proofs out of the log: that a record is in a tree that was signed, and that one tree continues another.

Hashes are taken as they are stored; what they prove is checked before it is given away, so that a tampered log yields
an error here and not a proof that fails at somebody else's.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.errors import LedgerError
from spanseal_ledger.note import VerificationKey, open_note
from spanseal_ledger.proof import encode_proof, verify_proof
from spanseal_ledger.tree import Frontier, consistency_ranges, inclusion_ranges, verify_consistency
from spanseal_storage.errors import NoProofError
from spanseal_storage.hash_sql import TREE_OF_256
from spanseal_storage.rows import query, read_rows
from spanseal_storage.schema import DATABASE
from spanseal_storage.tiles import TILE

__all__ = ["latest_checkpoint", "prove_consistency", "prove_record"]

_LEVEL = 8
_AT_ONCE = 1 << 20
"""Records whose hashes the engine folds in one statement: bounds its memory."""

_NODES = f"""
SELECT lowest, if(n = {TILE}, {TREE_OF_256}, toFixedString('', 32)), if(n = {TILE}, [], hashes), n
FROM (
    SELECT min(seq) AS lowest, count() AS n, arrayMap(x -> x.2, arraySort(groupArray((seq, hash)))) AS hashes
    FROM {DATABASE}.records
    WHERE chain_id = {{chain:UUID}} AND seq >= {{first:UInt64}} AND seq < {{end:UInt64}}
    GROUP BY intDiv(seq, {TILE})
)
"""  # noqa: S608 - made of constants; values are bound

_LATEST = f"""
SELECT checkpoint FROM {DATABASE}.records
WHERE chain_id = {{chain:UUID}} AND checkpoint != '' ORDER BY seq DESC LIMIT 1
"""  # noqa: S608 - as above


def prove_record(
    client: Any,
    record_id: str,
    keys: Collection[VerificationKey],
    *,
    tenant: str | None = None,
    checkpoint: str | None = None,
    personal: bool = True,
) -> str:
    """Make the proof that a record is in the log.

    Args:
        client: a clickhouse-connect client.
        record_id: the record's id.
        keys: the keys that are trusted.
        tenant: whose record; where it is not given, the id must be one tenant's only.
        checkpoint: the signed checkpoint to prove it by, such as one that was kept elsewhere; the chain's latest where
            it is not given.
        personal: whether the record's personal data goes along.

    Returns:
        C2SP tlog-proof text; it was verified.

    Raises:
        NoProofError: there is no such record, several have the id, or what is stored does not prove it.
        EngineError: the engine did not answer.

    """
    where, values = "record_id = {record:UUID}", {"record": _uuid(record_id)}
    if tenant is not None:
        where, values = f"{where} AND tenant = {{tenant:String}}", {**values, "tenant": tenant}
    rows = list(read_rows(client, where, values, order="received_at, chain_id, seq"))
    if not rows:
        raise NoProofError(
            f"the log has no record {record_id}" + (f" of tenant {tenant!a}" if tenant else "")
        )
    tenants = sorted({row.record.tenant for row in rows})
    if len(tenants) > 1:
        raise NoProofError(f"record {record_id} is there for several tenants, name one: {', '.join(tenants)}")
    # Delivered twice over a collector's restart, it is in two chains: the first one counts.
    row = rows[0]
    record = row.record
    if not personal:
        record = replace(record, personal_salt=b"", actor_email="", actor_ip="", personal={})
    note = checkpoint or latest_checkpoint(client, record.chain_id)
    tree = _opened(note, keys)
    if not tree.origin.endswith(f"/chain/{record.chain_id}"):
        raise NoProofError(f"the checkpoint is of {tree.origin}, the record is in chain {record.chain_id}")
    if record.seq >= tree.size:
        raise NoProofError(
            f"the record is number {record.seq}, the checkpoint covers {tree.size} records: take a later one"
        )
    path = _roots(client, record.chain_id, inclusion_ranges(record.seq, tree.size))
    proof = encode_proof(record, row.prev_hash, path, note)
    try:
        verify_proof(proof, keys)
    except LedgerError as error:
        raise NoProofError(f"what is stored does not prove it ({error}): run spanseal verify") from error
    return proof


def prove_consistency(
    client: Any, old: str, new: str | None, keys: Collection[VerificationKey]
) -> Checkpoint:
    """Check that the tree of an older checkpoint is the beginning of a newer one's.

    Args:
        client: a clickhouse-connect client.
        old: a signed checkpoint, such as one that was kept elsewhere.
        new: a later one of the same chain; the chain's latest where it is not given.
        keys: the keys that are trusted.

    Returns:
        The newer checkpoint.

    Raises:
        NoProofError: it is not, or cannot be shown from what is stored.
        EngineError: the engine did not answer.

    """
    before = _opened(old, keys)
    after = _opened(new or latest_checkpoint(client, before.chain_id), keys)
    if before.origin != after.origin:
        raise NoProofError(f"the checkpoints are of two chains: {before.origin} and {after.origin}")
    if before.size > after.size:
        raise NoProofError(f"the older checkpoint covers {before.size} records, the newer one {after.size}")
    ranges = consistency_ranges(before.size, after.size) if 0 < before.size < after.size else []
    try:
        path = _roots(client, before.chain_id, ranges)
        verify_consistency(before.size, before.root, after.size, after.root, path)
    except LedgerError as error:
        raise NoProofError(f"the newer tree does not continue the older one: {error}") from error
    return after


def latest_checkpoint(client: Any, chain_id: str) -> str:
    """Return a chain's latest stored checkpoint, a signed note.

    Raises:
        NoProofError: it has none.
        EngineError: the engine did not answer.

    """
    found = query(client, _LATEST, {"chain": _uuid(chain_id)})
    if not found:
        raise NoProofError(f"chain {chain_id} has no stored checkpoint")
    return str(found[0][0])


def _opened(note: str, keys: Collection[VerificationKey]) -> Checkpoint:
    try:
        text, _ = open_note(note, keys)
        checkpoint = Checkpoint.parse(text)
        _ = checkpoint.chain_id
    except LedgerError as error:
        raise NoProofError(f"the checkpoint cannot be trusted: {error}") from error
    return checkpoint


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise NoProofError(f"{text[:60]!a} is not a record's id: a UUID is expected") from None


def _roots(client: Any, chain_id: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the roots of subtrees; each begins at a multiple of the largest power of two within it."""
    return [_root(client, chain_id, first, end) for first, end in ranges]


def _root(client: Any, chain_id: str, first: int, end: int) -> bytes:
    frontier = Frontier()
    for start in range(first, end, _AT_ONCE):
        stop = min(start + _AT_ONCE, end)
        answers = query(client, _NODES, {"chain": chain_id, "first": start, "end": stop})
        for lowest, root, hashes, n in sorted(answers, key=lambda answer: answer[0]):
            if lowest != first + frontier.size:
                raise NoProofError(f"record {first + frontier.size} of chain {chain_id} is missing")
            if n == TILE:
                frontier.append_subtree(_LEVEL, bytes(root))
            else:
                for entry in hashes:
                    frontier.append(bytes(entry))
    if frontier.size != end - first:
        raise NoProofError(f"record {first + frontier.size} of chain {chain_id} is missing")
    return frontier.root()
