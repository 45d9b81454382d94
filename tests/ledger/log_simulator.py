"""An audit log in memory: honest chains in small batches, and the ways in which somebody may tamper with them.

`LogSimulator` plays the collectors, the database (`rows`, by chain) and the checkpoint log (`lines`). The
functions after it are the forger: each changes what is stored as somebody with full rights on the database could.
`verify` gives everything to the verifier; `export` writes what `spanseal events --format records` writes.
"""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spanseal_ledger.checkpoint import sign_checkpoint
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.note import SigningKey
from spanseal_ledger.personal import commitment
from spanseal_ledger.record import Record, canonical, record_hash
from spanseal_ledger.tree import Frontier, leaf_hash, tree_root
from spanseal_ledger.verifier import (
    CheckedRun,
    LogVerifier,
    StoredRow,
    TrustedKeys,
    VerificationResult,
)

LOG_NAME = "audit.example.org/test"
COLLECTOR = "collector-1"
KEY_NAME = f"{LOG_NAME}/{COLLECTOR}"
EPOCH = 1_764_000_000_000_000_000


def signing_key(number: int = 0, name: str = KEY_NAME) -> SigningKey:
    return SigningKey.from_seed(name, hashlib.sha256(b"key %d" % number).digest())


@dataclass
class LogSimulator:
    """All that is stored. `rows` and `lines` may be tampered with at will."""

    key: SigningKey = field(default_factory=signing_key)
    rows: dict[str, list[StoredRow]] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    random: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - repeatable on purpose
    now: int = EPOCH
    unnamed: list[dict[str, Any]] = field(default_factory=list)
    """Chains that no chain has named yet, as they are named."""

    def chain(self, *sizes: int, end: str = "", key: SigningKey | None = None) -> SimulatedChain:
        """Make a chain: its start, a batch of clients' records for each size, and its end."""
        chain = SimulatedChain(self, key or self.key)
        chain.seal([chain.started()])
        for size in sizes:
            chain.seal([chain.client() for _ in range(size)])
        if end:
            chain.seal([chain.own(end)])
        return chain

    def uuid(self) -> str:
        self.now += 1_000_000
        raw = bytearray((self.now // 1_000_000).to_bytes(6, "big") + self.random.randbytes(10))
        raw[6] = raw[6] & 0x0F | 0x70
        raw[8] = raw[8] & 0x3F | 0x80
        return str(uuid.UUID(bytes=bytes(raw)))

    def copy(self) -> LogSimulator:
        """A copy to be tampered with."""
        return replace(
            self, rows={name: list(rows) for name, rows in self.rows.items()}, lines=list(self.lines)
        )


class SimulatedChain:
    """One collector start."""

    def __init__(self, log: LogSimulator, key: SigningKey) -> None:
        self.log = log
        self.key = key
        self.id = log.uuid()
        self.tenants: dict[str, int] = {}
        self.frontier = Frontier()
        self.prev_hash = bytes(32)
        self.named: dict[str, Any] | None = None
        log.rows[self.id] = []

    @property
    def rows(self) -> list[StoredRow]:
        return self.log.rows[self.id]

    @property
    def size(self) -> int:
        return self.frontier.size

    def started(self) -> dict[str, Any]:
        named, self.log.unnamed[:] = list(self.log.unnamed), []
        return self.own(
            "audit_log.started",
            **{
                "audit.chain.format": "SSR1",
                "audit.chain.key": str(self.key.vkey),
                "audit.chain.predecessors": json.dumps(named, separators=(",", ":")),
                "audit.collector.name": COLLECTOR,
                "audit.collector.version": "0.1.0",
                "audit.config.sha256": "0" * 64,
            },
        )

    def own(self, action: str, **metadata: str) -> dict[str, Any]:
        return {
            "tenant": "_collector",
            "service": "spanseal-collector",
            "actor_type": "system",
            "actor_id": COLLECTOR,
            "action": action,
            "resource_type": "audit_log",
            "resource_id": self.id,
            "metadata": metadata,
            "metadata_types": "s" * len(metadata),
        }

    def client(self, **fields: Any) -> dict[str, Any]:
        """Fields of a client's record; about half of them with personal data."""
        chance = self.log.random
        made: dict[str, Any] = {
            "tenant": chance.choice(("default", "default", "acme", "zoë")),
            "service": "clinic",
            "actor_type": "user",
            "actor_id": f"u-{chance.randrange(100)}",
            "actor_role": "nurse",
            "action": chance.choice(("patient.viewed", "invoice.approved", "user.signed_in")),
            "resource_type": "patient",
            "resource_id": f"p/{chance.randrange(1000)}",
            "request_id": self.log.uuid(),
            "metadata": {"http.request.method": "GET", "http.response.status_code": "200"},
            "metadata_types": "si",
        }
        if chance.random() < 0.5:
            made["actor_email"] = f"zoë{chance.randrange(100)}@example.org"
            made["actor_ip"] = "2001:db8::7"
            made["personal"] = {"user.full_name": "Zoë 张"}
        return made | fields

    def seal(self, drafts: Iterable[Mapping[str, Any]], *, note: bool = True, line: bool = True) -> None:
        """Seal a batch: rows, the checkpoint on the last one, and a line of the checkpoint log."""
        log = self.log
        log.now += 1_000_000_000
        received_at = log.now
        for draft in drafts:
            record = self._record(draft, received_at)
            digest = record_hash(canonical(record), self.prev_hash)
            self.rows.append(StoredRow(record, digest, self.prev_hash, "", "SSR1"))
            self.prev_hash = digest
            self.frontier.append(digest)
        if not note:
            return
        root = self.frontier.root()
        signed = sign_checkpoint(self.key, LOG_NAME, self.id, self.size, root)
        self.rows[-1] = replace(self.rows[-1], checkpoint=signed)
        if line:
            log.lines.append(Line(received_at, signed))
        if self.named in log.unnamed:
            log.unnamed.remove(self.named)
        self.named = {"chain_id": self.id, "size": self.size, "root": root.hex()}
        log.unnamed.append(self.named)

    def _record(self, draft: Mapping[str, Any], received_at: int) -> Record:
        fields: dict[str, Any] = dict.fromkeys(
            (
                "producer_id",
                "actor_role",
                "session_id",
                "failure_reason",
                "request_id",
                "trace_id",
                "span_id",
            ),
            "",
        )
        fields |= draft
        tenant = fields["tenant"]
        number = self.tenants.get(tenant, 0)
        self.tenants[tenant] = number + 1
        personal: tuple[str, str, dict[str, str]] = (
            fields.get("actor_email", ""),
            fields.get("actor_ip", ""),
            dict(fields.get("personal") or {}),
        )
        salt = self.log.random.randbytes(16) if any(personal) else b""
        placed: dict[str, Any] = {
            "chain_id": self.id,
            "seq": self.size,
            "tenant_seq": number,
            "received_at": received_at,
            "event_time": received_at - 1000,
            "producer_seq": 0,
            "record_id": self.log.uuid(),
            "outcome": "success",
            "personal_salt": salt,
            "personal_commitment": commitment(salt, *personal),
        }
        return Record(**(placed | fields))


# The forger.


def change(rows: list[StoredRow], seq: int, **fields: Any) -> None:
    """Change columns of a row, and nothing else."""
    own = {name: fields.pop(name) for name in ("hash", "prev_hash", "checkpoint", "format") if name in fields}
    rows[seq] = replace(rows[seq], record=replace(rows[seq].record, **fields), **own)


def rehash(rows: list[StoredRow], first: int, last: int | None = None) -> None:
    """Compute the hashes of rows from `first` on anew, each chained to the one before it."""
    end = len(rows) if last is None else last + 1
    for seq in range(first, end):
        prev = rows[seq - 1].hash if seq else bytes(32)
        rows[seq] = replace(rows[seq], prev_hash=prev, hash=record_hash(canonical(rows[seq].record), prev))


def resign(rows: list[StoredRow], first: int, key: SigningKey) -> None:
    """Sign the checkpoints from row `first` on anew, as one can who has stolen the key."""
    entries = [row.hash for row in rows]
    for seq in range(first, len(rows)):
        if rows[seq].checkpoint:
            note = sign_checkpoint(
                key, LOG_NAME, rows[seq].record.chain_id, seq + 1, tree_root(entries[: seq + 1])
            )
            rows[seq] = replace(rows[seq], checkpoint=note)


def renumber(rows: list[StoredRow], first: int = 0) -> None:
    """Give rows from `first` on the seq and tenant_seq that their place asks for."""
    counts: dict[str, int] = {}
    for seq, row in enumerate(rows):
        number = counts.get(row.record.tenant, 0)
        counts[row.record.tenant] = number + 1
        if seq >= first:
            rows[seq] = replace(row, record=replace(row.record, seq=seq, tenant_seq=number))


def blank(rows: list[StoredRow], seq: int) -> None:
    """Take the personal data and the salt out of a row, as an erasure does."""
    change(rows, seq, actor_email="", actor_ip="", personal={}, personal_salt=b"")


def with_personal(rows: Sequence[StoredRow], start: int = 0) -> int:
    """The first seq from `start` on whose row has personal data."""
    return next(row.record.seq for row in rows if row.record.seq >= start and row.record.personal_salt)


def checkpointed(rows: Sequence[StoredRow]) -> list[int]:
    """The seqs of the rows that carry a checkpoint."""
    return [row.record.seq for row in rows if row.checkpoint]


# Reading what is stored.


def verify(
    log: LogSimulator,
    *,
    keys: TrustedKeys | None = None,
    with_log: bool = True,
    upper: Mapping[str, int] | None = None,
    parts: Callable[[list[StoredRow], Sequence[int]], Iterable[StoredRow | CheckedRun]] | None = None,
) -> VerificationResult:
    """Give all that is stored to the verifier, rows in the order of seq."""
    verifier = LogVerifier(
        keys=keys or TrustedKeys([log.key.vkey]), checkpoint_log=log.lines if with_log else None, upper=upper
    )
    for chain_id, stored in log.rows.items():
        chain = verifier.chain(chain_id)
        rows = sorted(stored, key=lambda row: row.record.seq)
        for part in parts(rows, chain.stops) if parts else rows:
            if isinstance(part, CheckedRun):
                chain.run(part)
            else:
                chain.row(part)
        verifier.add(chain.finish())
    return verifier.finish()


def run_of(rows: Sequence[StoredRow]) -> CheckedRun:
    """Make a run of clean, adjacent rows, with subtrees as large as their alignment allows."""
    first, end = rows[0].record.seq, rows[-1].record.seq + 1
    nodes = []
    at = first
    while at < end:
        level = 0
        while at % (2 << level) == 0 and at + (2 << level) <= end:
            level += 1
        frontier = Frontier()
        for row in rows[at - first : at - first + (1 << level)]:
            frontier.append(row.hash)
        nodes.append((level, frontier.root() if level else leaf_hash(rows[at - first].hash)))
        at += 1 << level
    tenants: dict[str, tuple[int, int]] = {}
    for row in rows:
        number, count = tenants.get(row.record.tenant, (row.record.tenant_seq, 0))
        tenants[row.record.tenant] = (number, count + 1)
    return CheckedRun(
        first_seq=first,
        count=len(rows),
        first_prev_hash=rows[0].prev_hash,
        last_hash=rows[-1].hash,
        nodes=nodes,
        tenants=tenants,
        checkpoint=rows[-1].checkpoint,
        first_received_at=rows[0].record.received_at,
        last_received_at=rows[-1].record.received_at,
    )


def in_runs(
    rows: Sequence[StoredRow], stops: Sequence[int], wanted: Callable[[int], bool] = lambda _: False
) -> Iterator[StoredRow | CheckedRun]:
    """Split clean rows into runs, and rows of the collector's own; also after each seq that `wanted` names."""
    waiting: list[StoredRow] = []
    for row in rows:
        special = row.record.action.startswith("audit_log.")
        if not special:
            waiting.append(row)
        seq = row.record.seq
        if waiting and (special or row.checkpoint or seq + 1 in stops or wanted(seq)):
            yield run_of(waiting)
            waiting = []
        if special:
            yield row
    if waiting:
        yield run_of(waiting)
