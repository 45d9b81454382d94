"""What goes into the verifier and what comes out of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from spanseal_ledger.note import VerificationKey
from spanseal_ledger.record import Record

__all__ = [
    "COLLECTOR_TENANT",
    "ENDING_ACTIONS",
    "ChainResult",
    "CheckedRun",
    "Erasure",
    "Finding",
    "Predecessor",
    "Severity",
    "StoredRow",
    "TrustedKeys",
    "VerificationResult",
]

COLLECTOR_TENANT = "_collector"

ENDING_ACTIONS = frozenset({"audit_log.stopped", "audit_log.key_rotated", "audit_log.clock_jump"})
"""Nothing follows a record with one of these actions in its chain."""

Severity = Literal["finding", "information"]


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row as it is stored."""

    record: Record
    hash: bytes
    """32 bytes."""
    prev_hash: bytes
    """32 bytes."""
    checkpoint: str
    """A signed note, or empty."""
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRun:
    """Adjacent rows for which somebody else has recomputed rules 2, 3 and 4, and found them clean.

    The rows are `first_seq` to `first_seq + count - 1`, each there once, of a known format, each chained to the
    one before it, their hashes recomputed from the columns; each has its salt and a commitment that fits, or
    neither a commitment nor personal data. None of them has an action ``audit_log.*``: those rows mean something
    to the verifier and are fed by `ChainVerifier.row`. Only the last one may carry a checkpoint, and no size of
    `ChainVerifier.stops` lies inside the run.
    """

    first_seq: int
    count: int
    first_prev_hash: bytes
    """The stored prev_hash of the first row."""
    last_hash: bytes
    """The recomputed hash of the last row."""
    nodes: Sequence[tuple[int, bytes]]
    """Aligned subtrees (level, root) that cover the run from left to right; level 0 is a leaf hash."""
    tenants: Mapping[str, tuple[int, int]]
    """Tenant -> (first tenant_seq, count), contiguous within the run."""
    checkpoint: str = ""
    """The last row's checkpoint."""
    first_received_at: int | None = None
    """Of the first row, where it is known."""
    last_received_at: int | None = None
    """Of the last row, where it is known."""


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Which keys' signatures count."""

    pinned: Collection[VerificationKey]
    """Known from outside the database."""
    found: Collection[VerificationKey] = ()
    """Found only in the data: used, and reported as `key_unpinned`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    kind: str
    """A word of the rules in the package's docstring."""
    chain_id: str
    seq: int | None
    """The first row it is about; None where it is about no row."""
    message: str
    severity: Severity = "finding"
    """Information does not make a log bad; a finding does."""
    last_seq: int | None = None
    """The last row it is about, where there are several."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An earlier chain that a chain's first record names."""

    chain_id: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Erasure:
    """What one ``audit_log.erased`` names."""

    seq: int
    """The record that says so, in the chain that holds it."""
    chain_id: str
    """The chain of the erased records."""
    ranges: tuple[tuple[int, int], ...]
    """Their seqs, first and last of each range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainResult:
    """What was found of one chain.

    Alone it is a verdict on one chain; put together with the others' by `LogVerifier` findings
    `key_unpinned` and `personal_missing` may turn out to be explained by other chains.
    """

    chain_id: str
    size: int
    """One more than the highest seq met."""
    rows: int
    """Rows met, without copies."""
    root: bytes | None
    """Root of the tree over all of them; None where rows are missing."""
    last_hash: bytes | None
    started: bool
    """Whether seq 0 is there and is ``audit_log.started``."""
    ended: str
    """The action that ended the chain, or empty."""
    first_time: int | None
    """received_at of the first row, ns."""
    last_time: int | None
    """received_at of the last row, ns."""
    findings: tuple[Finding, ...]
    information: tuple[Finding, ...]
    key: VerificationKey | None
    """The key that seq 0 names."""
    next_key: VerificationKey | None
    """The key that ``audit_log.key_rotated`` introduces, if a proved record does."""
    predecessors: tuple[Predecessor, ...]
    """The chains that seq 0 names."""
    erasures: tuple[Erasure, ...]
    """What proved ``audit_log.erased`` records name."""
    blank: tuple[int, ...] = ()
    """Rows whose personal data is gone though they are committed to it."""
    proved: int
    """The size of the last checkpoint that is right in every respect."""
    broken_at: int | None
    """From this size on no root can be recomputed, because rows are missing."""
    roots: Mapping[int, bytes] = field(repr=False)
    """Root by size, for every checkpoint that is right and every line of the checkpoint log that is met."""
    tenants: Mapping[str, int] = field(repr=False)
    """Records of each tenant."""
    checkpoints: int
    """Stored checkpoints that are right."""
    log_lines: int
    """Lines of the checkpoint log for this chain that are met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """The verdict on a log."""

    findings: tuple[Finding, ...]
    information: tuple[Finding, ...]
    not_checked: tuple[tuple[int, str], ...]
    """Rules that were not checked, or not wholly, each with the reason."""
    chains: int
    records: int
    checkpoints: int
    """Stored checkpoints that are right."""
    log_lines: int
    """Lines of the checkpoint log that are met."""

    @property
    def clean(self) -> bool:
        """Whether nothing was found. Information does not count, and `not_checked` says what this leaves open."""
        return not self.findings
