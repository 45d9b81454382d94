"""The whole log: what takes several chains, or the checkpoint log as a whole, to say (rules 1, 4, 7, 8, 10)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.errors import LedgerError
from spanseal_ledger.note import VerificationKey, note_text, open_note
from spanseal_ledger.verifier._chain import PERSONAL_MISSING, ChainVerifier
from spanseal_ledger.verifier._findings import ranges
from spanseal_ledger.verifier._model import (
    ChainResult,
    Erasure,
    Finding,
    Predecessor,
    TrustedKeys,
    VerificationResult,
)
from spanseal_ledger.verifier._streams import StreamFacts, judge_streams

__all__ = ["LogVerifier"]

_NO_STREAMS = "streams of producers, and records in two chains, were not given"
_ROWS_LACK = "rows are missing or were changed: what producers' streams lack may be these"
_UNRELIABLE = frozenset(
    {"chain_missing", "conflicting_row", "missing", "not_started", "record_changed", "truncated"}
)
_NOT_CHECKED = (
    (
        11,
        "archives and purges are not looked at yet: a range that was archived or purged is reported as missing",
    ),
)
_NO_LOG = "no checkpoint log was given: a cut tail, a resigned suffix or a dropped last chain cannot be known"


@dataclass(slots=True)
class _Absent:
    """A chain that is not there."""

    chain_id: str
    size: int = 0
    named_by: list[str] = field(default_factory=list)

    def finding(self) -> Finding:
        more = " and others" if len(self.named_by) > 3 else ""
        return Finding(
            "chain_missing",
            self.chain_id,
            None,
            f"the chain is not there; it had at least {self.size} records, as {', '.join(self.named_by[:3])}{more} "
            "says",
        )


@dataclass(slots=True)
class _Verdict:
    """What is found while the chains are held against each other."""

    findings: list[Finding]
    information: list[Finding] = field(default_factory=list)
    absent: dict[str, _Absent] = field(default_factory=dict)

    def is_absent(self, chain_id: str, size: int, by: str) -> None:
        chain = self.absent.setdefault(chain_id, _Absent(chain_id))
        chain.size = max(chain.size, size)
        chain.named_by.append(by)

    def predecessor(self, successor: ChainResult, named: Predecessor, found: ChainResult | None) -> None:
        """Rule 8."""
        by = f"chain {successor.chain_id}"
        if found is None:
            self.is_absent(named.chain_id, named.size, by)
            return
        if found.size < named.size:
            message = f"{by} names it with {named.size} records, only {found.size} are there"
            self.findings.append(
                Finding("truncated", named.chain_id, found.size, message, last_seq=named.size - 1)
            )
            return
        root = found.roots.get(named.size)
        if root is None and found.broken_at is not None and named.size > found.broken_at:
            return  # rows are missing, which was said; the root is not known
        if root != named.root:
            why = "has another root there" if root else "has no valid checkpoint of that size"
            message = f"{by} names it with {named.size} records and the root {named.root.hex()}; it {why}"
            self.findings.append(
                Finding("predecessor_mismatch", named.chain_id, max(named.size - 1, 0), message)
            )
        elif found.size > named.size and found.proved == found.size:
            self.information.append(
                Finding(
                    "late_growth",
                    named.chain_id,
                    named.size,
                    f"{by} names it with {named.size} records, under valid checkpoints it has {found.size}",
                    severity="information",
                    last_seq=found.size - 1,
                )
            )


class LogVerifier:
    """All chains and the checkpoint log.

    For each chain that is stored: `chain`, feed what it gives, `add` its result. Then `finish`. Chains may be
    verified in any order.
    """

    def __init__(
        self,
        *,
        keys: TrustedKeys,
        checkpoint_log: Sequence[Line] | None,
        upper: Mapping[str, int] | None = None,
    ) -> None:
        """Begin with a log.

        Args:
            keys: the keys that count.
            checkpoint_log: all lines; None where there is no checkpoint log. It must have been read before the
                database was: whatever it names was stored by then, so that all of it must be met.
            upper: for a verification while records are being written, the size of each chain's last stored
                checkpoint when it began. Rows past that are passed over, unless the checkpoint log goes further.

        """
        self._keys = keys
        self._upper = upper
        self._lines: dict[str, list[Line]] = {}
        self._has_log = checkpoint_log is not None
        self._findings: list[Finding] = []
        self._results: dict[str, ChainResult] = {}
        for line in checkpoint_log or ():
            self._sort_in(line)

    def chain(self, chain_id: str) -> ChainVerifier:
        """Return the verifier for a chain, with its lines of the checkpoint log."""
        upper = None
        if self._upper is not None:
            upper = max(self._upper.get(chain_id, 0), self._logged(chain_id))
        lines = self._lines.get(chain_id, ()) if self._has_log else None
        return ChainVerifier(chain_id, keys=self._keys, checkpoint_log=lines, upper=upper)

    def add(self, result: ChainResult) -> None:
        """Take in a chain's result.

        Raises:
            ValueError: the chain was added before.

        """
        if result.chain_id in self._results:
            raise ValueError(f"the result of chain {result.chain_id} was added twice")
        self._results[result.chain_id] = result

    def finish(self, streams: StreamFacts | None = None) -> VerificationResult:
        """Apply the rules that take all chains, and give the verdict.

        Args:
            streams: what is stored of producers' streams; without it rule 10 is not checked.

        """
        present = {name: result for name, result in self._results.items() if result.rows}
        trusted = _introduced(frozenset(self._keys.pinned), present.values())
        erasures = _erasures(result for result in present.values() if result.key in trusted)
        verdict = _Verdict(list(self._findings))
        for result in self._results.values():
            verdict.findings += _explained(result, trusted, erasures.get(result.chain_id, []))
            verdict.information += result.information
        for result in present.values():
            for named in result.predecessors:
                verdict.predecessor(result, named, present.get(named.chain_id))
        self._absent_lines(present, trusted, verdict)
        findings = [
            f for f in verdict.findings if f.kind != "chain_missing" or f.chain_id not in verdict.absent
        ]
        findings += [chain.finding() for chain in verdict.absent.values()]
        not_checked = _NOT_CHECKED if self._has_log else ((7, _NO_LOG), *_NOT_CHECKED)
        if streams is None or _UNRELIABLE.intersection(finding.kind for finding in findings):
            why = _NO_STREAMS if streams is None else _ROWS_LACK
            not_checked = tuple(sorted((*not_checked, (10, why))))
        else:
            lost, told = judge_streams(streams)
            findings += lost
            verdict.information += told
        return VerificationResult(
            findings=tuple(findings),
            information=tuple(verdict.information),
            not_checked=not_checked,
            chains=len(present),
            records=sum(result.rows for result in present.values()),
            checkpoints=sum(result.checkpoints for result in present.values()),
            log_lines=sum(result.log_lines for result in present.values()),
        )

    def _logged(self, chain_id: str) -> int:
        """Return how far the checkpoint log says the chain went."""
        lines = self._lines.get(chain_id)
        if not lines:
            return 0
        signed = _largest_signed(lines, {*self._keys.pinned, *self._keys.found})
        # Under a key that is known only once all chains were read, every line counts.
        return max(_sizes(lines)) if signed is None else signed

    def _sort_in(self, line: Line) -> None:
        try:
            chain_id = Checkpoint.parse(note_text(line.note)).chain_id
        except LedgerError as error:
            self._findings.append(
                Finding("checkpoint_log_invalid", "", None, f"a line of the checkpoint log: {error}")
            )
            return
        self._lines.setdefault(chain_id, []).append(line)

    def _absent_lines(
        self, present: Mapping[str, ChainResult], trusted: frozenset[VerificationKey], verdict: _Verdict
    ) -> None:
        """Rule 7 for chains of which nothing is stored."""
        known = {*trusted, *self._keys.found, *(r.key for r in present.values() if r.key is not None)}
        for chain_id, lines in self._lines.items():
            if chain_id in present:
                continue
            size = _largest_signed(lines, known)
            if size is None:
                verdict.findings.append(
                    Finding(
                        "checkpoint_log_invalid",
                        chain_id,
                        None,
                        f"{len(lines)} lines of the checkpoint log name a chain that is not there, and no known key "
                        "signed them",
                    )
                )
            else:
                verdict.is_absent(chain_id, size, "the checkpoint log")


def _introduced(
    pinned: frozenset[VerificationKey], results: Iterable[ChainResult]
) -> frozenset[VerificationKey]:
    """Return the pinned keys and those that chains under them introduced by rotation."""
    trusted = set(pinned)
    waiting = [result for result in results if result.next_key is not None]
    while True:
        news = [r.next_key for r in waiting if r.key in trusted and r.next_key not in trusted]
        if not news:
            return frozenset(trusted)
        trusted.update(key for key in news if key is not None)


def _erasures(results: Iterable[ChainResult]) -> dict[str, list[Erasure]]:
    found: dict[str, list[Erasure]] = {}
    for result in results:
        for erasure in result.erasures:
            found.setdefault(erasure.chain_id, []).append(erasure)
    return found


def _explained(
    result: ChainResult, trusted: frozenset[VerificationKey], erasures: Sequence[Erasure]
) -> list[Finding]:
    """Return a chain's findings without those that other chains explain."""
    explained = {"personal_missing"}
    if result.key in trusted:
        explained.add("key_unpinned")
    findings = [finding for finding in result.findings if finding.kind not in explained]
    named = [pair for erasure in erasures for pair in erasure.ranges]
    lacking = [seq for seq in result.blank if not any(first <= seq <= last for first, last in named)]
    findings += [
        Finding(
            "personal_missing",
            result.chain_id,
            first,
            PERSONAL_MISSING,
            last_seq=last if last != first else None,
        )
        for first, last in ranges(lacking)
    ]
    return findings


def _sizes(lines: Sequence[Line]) -> list[int]:
    return [Checkpoint.parse(note_text(line.note)).size for line in lines]


def _largest_signed(lines: Sequence[Line], keys: Collection[VerificationKey]) -> int | None:
    sized = sorted(zip(_sizes(lines), (line.note for line in lines), strict=True), reverse=True)
    for size, note in sized:
        try:
            open_note(note, keys)
        except LedgerError:
            continue
        return size
    return None
