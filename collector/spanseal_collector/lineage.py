"""What came before a chain: bringing the checkpoint log up to date, and naming the predecessors."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spanseal_collector.quarantine import LeftRow
from spanseal_ledger.checkpoint import Checkpoint, origin
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.errors import LedgerError
from spanseal_ledger.note import VerificationKey, open_note
from spanseal_storage.rows import query
from spanseal_storage.schema import DATABASE

__all__ = ["History", "predecessors_json", "read_history"]

_log = logging.getLogger(__name__)

_MOST_LEFT_ROWS = 10_000
"""To be named by one start; the next one goes on."""


@dataclass(frozen=True, slots=True)
class History:
    """The earlier chains of a collector."""

    missing_lines: Sequence[Line]
    """Stored, validly signed checkpoints that the checkpoint log lacks, oldest first."""
    predecessors: Sequence[Checkpoint]
    """The last checkpoint of every chain that no chain has named yet."""
    left_rows: Sequence[LeftRow]
    """Rows of `quarantine` that were stored, but for which no record was sealed any more."""


def predecessors_json(chains: Sequence[Checkpoint]) -> str:
    """Write chains as `audit.chain.predecessors` has them: JSON without spaces, roots in hex."""
    named = [{"chain_id": c.chain_id, "size": c.size, "root": c.root.hex()} for c in chains]
    return json.dumps(named, separators=(",", ":"))


def read_history(
    client: Any, log: Sequence[Line], log_name: str, key: VerificationKey, trusted: Sequence[VerificationKey]
) -> History:
    """Read the earlier chains of the collector from the database and the checkpoint log.

    Args:
        client: a clickhouse-connect client.
        log: the lines of the checkpoint log.
        log_name: the log's name.
        key: the collector's key now; its name is the collector's.
        trusted: the keys it had.

    Raises:
        EngineError: the engine did not answer.

    """
    keys = [k for k in {key, *trusted} if k.name == key.name]
    logged: dict[str, Checkpoint] = {}
    for line in log:
        checkpoint = _signed(line.note, keys)
        if checkpoint is not None:
            _keep_largest(logged, checkpoint)
    stored: dict[str, Checkpoint] = dict(logged)
    missing: list[Line] = []
    for chain_id, ends_at in query(
        client,
        f"SELECT toString(chain_id), max(seq) + 1 FROM {DATABASE}.records "  # noqa: S608 - a constant
        "WHERE checkpoint != '' GROUP BY chain_id",
    ):
        known = logged.get(origin(log_name, chain_id))
        if known is not None and known.size >= ends_at:
            continue
        for size, note, received_at in query(
            client,
            "SELECT size, note, toUnixTimestamp64Nano(received_at) "  # noqa: S608 - a constant
            f"FROM {DATABASE}.checkpoints WHERE chain_id = {{chain:UUID}} AND size > {{known:UInt64}} ORDER BY size",
            {"chain": chain_id, "known": known.size if known else 0},
        ):
            checkpoint = _signed(note, keys)
            if (
                checkpoint is None
                or checkpoint.size != size
                or checkpoint.origin != origin(log_name, chain_id)
            ):
                _log.warning(
                    "chain %s holds a checkpoint at size %d that this collector did not sign; run `spanseal verify`",
                    chain_id,
                    size,
                )
                continue
            missing.append(Line(received_at=received_at, note=note))
            _keep_largest(stored, checkpoint)
    missing.sort(key=lambda line: line.received_at)
    named = _named(client, log_name)
    predecessors = [stored[name] for name in sorted(stored) if name not in named]
    return History(missing, predecessors, _left_rows(client))


def _left_rows(client: Any) -> list[LeftRow]:
    rows = query(
        client,
        "SELECT toString(quarantine_id), digest, reason, producer_id, producer_seq "  # noqa: S608 - constants
        f"FROM {DATABASE}.quarantine WHERE toString(quarantine_id) NOT IN ("
        f"SELECT metadata['audit.quarantine.id'] FROM {DATABASE}.records "
        "WHERE action IN ('audit_log.quarantined', 'audit_log.conflict')) "
        f"ORDER BY received_at, quarantine_id LIMIT {_MOST_LEFT_ROWS}",
    )
    return [
        LeftRow(quarantine_id, bytes(digest), reason[:1024], producer_id[:1024], producer_seq)
        for quarantine_id, digest, reason, producer_id, producer_seq in rows
    ]


def _signed(note: str, keys: Sequence[VerificationKey]) -> Checkpoint | None:
    try:
        text, _ = open_note(note, keys)
        return Checkpoint.parse(text)
    except LedgerError:
        return None


def _keep_largest(found: dict[str, Checkpoint], checkpoint: Checkpoint) -> None:
    known = found.get(checkpoint.origin)
    if known is None or known.size < checkpoint.size:
        found[checkpoint.origin] = checkpoint


def _named(client: Any, log_name: str) -> set[str]:
    named: set[str] = set()
    for (text,) in query(
        client,
        f"SELECT metadata['audit.chain.predecessors'] FROM {DATABASE}.records "  # noqa: S608 - a constant
        "WHERE seq = 0 AND action = 'audit_log.started'",
    ):
        try:
            named.update(origin(log_name, str(entry["chain_id"])) for entry in json.loads(text))
        except (ValueError, TypeError, KeyError, LedgerError):
            _log.warning("a chain's list of predecessors cannot be read; run `spanseal verify`")
    return named
