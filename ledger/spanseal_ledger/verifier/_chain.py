"""One chain, in the order of seq: rules 1 to 7, 9 and 12."""

from __future__ import annotations

from collections.abc import Sequence

from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.errors import LedgerError, RunNotTaken
from spanseal_ledger.note import VerificationKey, note_text
from spanseal_ledger.record import FORMAT, ZERO32, Record
from spanseal_ledger.verifier._collector_rows import erasure, predecessors
from spanseal_ledger.verifier._findings import Findings, ranges
from spanseal_ledger.verifier._growth import Heartbeats, Tenants, Tree
from spanseal_ledger.verifier._judge import judge, judge_link
from spanseal_ledger.verifier._lines import ChainLines
from spanseal_ledger.verifier._model import (
    COLLECTOR_TENANT,
    ENDING_ACTIONS,
    ChainResult,
    CheckedRun,
    Erasure,
    Predecessor,
    StoredRow,
    TrustedKeys,
)
from spanseal_ledger.verifier._rows import Copies, Following, is_blank, personal_changed
from spanseal_ledger.verifier._signatures import ChainKeys, Untrusted, key_of

__all__ = ["PERSONAL_MISSING", "ChainVerifier"]

PERSONAL_MISSING = "the personal data is gone, and no proved audit_log.erased names this record"

_HEARD = ENDING_ACTIONS | {"audit_log.started", "audit_log.heartbeat"}


class ChainVerifier:
    """The rules for one chain, fed in the order of seq; copies of one seq come one after the other.

    A row is judged when the row after the next one comes, because it takes both neighbours to say which of
    several copies is genuine, and whether a row or its hash was changed.
    """

    def __init__(
        self,
        chain_id: str,
        *,
        keys: TrustedKeys,
        checkpoint_log: Sequence[Line] | None = None,
        upper: int | None = None,
    ) -> None:
        """Begin with a chain.

        Args:
            chain_id: the chain.
            keys: the keys that count.
            checkpoint_log: the lines for this chain; None where there is no checkpoint log.
            upper: the chain's size that is to be verified, where more may be written meanwhile: rows past it and
                lines beyond it are passed over. It must not be less than any line that was read before the
                database was, or a cut tail would go unseen (see `LogVerifier`).

        """
        self.chain_id = chain_id
        self._upper = upper
        self._passed_over = 0
        self._findings = Findings(chain_id)
        self._keys = ChainKeys(chain_id, keys)
        self._lines = ChainLines(checkpoint_log or (), self._keys, self._findings, upper)
        self._tree = Tree()
        self._tenants = Tenants()
        self._waiting: list[Copies] = []
        self._size = 0
        self._rows = 0
        self._link: bytes | None = ZERO32
        self._after_run = False
        self._started = False
        self._unpinned_said = False
        self._heartbeats = Heartbeats()
        self._ended = ""
        self._valid = 0
        self._proved = 0
        self._checkpoints = 0
        self._roots: dict[int, bytes] = {}
        self._times: tuple[int, int] | None = None
        self._next_key: VerificationKey | None = None
        self._next_key_at = 0
        self._predecessors: tuple[Predecessor, ...] = ()
        self._erasures: list[Erasure] = []
        self._blank: list[int] = []

    @property
    def stops(self) -> Sequence[int]:
        """Sizes of the chain, ascending, that must not lie inside a run: the checkpoint log has lines for them."""
        return self._lines.stops

    def row(self, row: StoredRow) -> None:
        """Take in a row.

        Raises:
            ValueError: it is another chain's.

        """
        if row.record.chain_id != self.chain_id:
            raise ValueError(f"a row of chain {row.record.chain_id} was fed to chain {self.chain_id}")
        seq = row.record.seq
        if self._upper is not None and seq >= self._upper:
            self._passed_over += 1
            return
        waiting = self._waiting
        if waiting and waiting[-1].seq == seq:
            waiting[-1].add(row)
            return
        if seq < (waiting[-1].seq + 1 if waiting else self._size):
            self._findings.on_row("out_of_order", seq, "the row comes after rows that follow it in the chain")
            return
        if len(waiting) == 2:
            before = waiting.pop(0)
            self._settle(before, _following(before, waiting[0]))
        waiting.append(Copies(row))

    def run(self, run: CheckedRun) -> None:
        """Take in a run of rows that were found clean: the same as its rows one by one, without hashing them.

        Raises:
            RunNotTaken: a line of the checkpoint log (see `stops`) or the upper bound lies inside the run; nothing
                was changed, feed its rows one by one.
            ValueError: its nodes do not cover it or are not aligned.

        """
        first, end = run.first_seq, run.first_seq + run.count
        if self._upper is not None and first >= self._upper:
            self._passed_over += run.count
            return
        if not self.takes(run):
            raise RunNotTaken(f"rows {first} to {end - 1} of chain {self.chain_id} must be fed one by one")
        following = Following(run.first_prev_hash, None)
        self._settle_all(first, following)
        if first < self._size:
            self._findings.on_row(
                "out_of_order",
                first,
                "the rows come after rows that follow them in the chain",
                last_seq=end - 1,
            )
            return
        self._arrive(first, following)
        self._tree.append_nodes(run.nodes, run.count)
        if first == 0:
            self._not_started()
        self._after_end(first, end - 1)
        for tenant, (number, count) in run.tenants.items():
            self._tenant(tenant, number, count, first)
        if run.first_received_at is not None and run.last_received_at is not None:
            self._time(run.first_received_at, run.last_received_at)
        self._grow(end, run.count, run.last_hash, run.checkpoint)
        self._after_run = True

    def takes(self, run: CheckedRun) -> bool:
        """Tell whether a run can be taken as a whole."""
        first, end = run.first_seq, run.first_seq + run.count
        if self._upper is not None and first < self._upper < end:
            return False
        return self._lines.free_between(first, end)

    def finish(self) -> ChainResult:
        """Judge what is still waiting, and give the result."""
        self._settle_all(None, None)
        size = self._size
        self._end(size)
        findings, information = self._findings.split()
        return ChainResult(
            chain_id=self.chain_id,
            size=size,
            rows=self._rows,
            root=self._tree.root(),
            last_hash=self._link if size else None,
            started=self._started,
            ended=self._ended,
            first_time=self._times[0] if self._times else None,
            last_time=self._times[1] if self._times else None,
            findings=findings,
            information=information,
            key=self._keys.own,
            next_key=self._next_key if self._next_key_at < self._proved else None,
            predecessors=self._predecessors,
            erasures=tuple(e for e in self._erasures if e.seq < self._proved),
            blank=tuple(self._blank),
            proved=self._proved,
            broken_at=self._tree.broken_at,
            roots=self._roots,
            tenants=dict(self._tenants.counts),
            checkpoints=self._checkpoints,
            log_lines=self._lines.met,
        )

    def _end(self, size: int) -> None:
        """Rules 6 and 7, and what takes the whole chain to say."""
        if size > self._valid:
            count = size - self._valid
            self._findings.add(
                "unsigned_tail",
                self._valid,
                f"no valid checkpoint covers the {count} rows from here to the end of the chain",
                last_seq=size - 1,
            )
        self._lines.finish(size)
        if self._upper is not None and size < self._upper:
            self._findings.add(
                "truncated",
                size,
                f"{self._upper} records were to be there when the verification began, {size} are",
                last_seq=self._upper - 1,
            )
        if self._passed_over:
            self._findings.add(
                "not_yet",
                self._upper,
                f"{self._passed_over} rows past the bound of this verification were passed over",
                severity="information",
            )
        for first, last in ranges(self._blank):
            self._findings.on_row("personal_missing", first, PERSONAL_MISSING, last_seq=last)
        self._say_unpinned(None)

    def _settle_all(self, first: int | None, following: Following | None) -> None:
        """Judge all that is waiting; `following` begins at seq `first`."""
        waiting, self._waiting = self._waiting, []
        for at, copies in enumerate(waiting):
            if at + 1 < len(waiting):
                self._settle(copies, _following(copies, waiting[at + 1]))
            else:
                self._settle(copies, following if copies.seq + 1 == first else None)

    def _settle(self, copies: Copies, following: Following | None) -> None:
        """Judge the row of one seq, now that both neighbours are known (rules 1 to 5 and 9)."""
        seq = copies.seq
        known = copies.likely([self._link] if self._link is not None else [])
        self._arrive(seq, Following(known.prev_hash, known))
        verdict = copies.verdict(self._link, following)
        if verdict is not None:
            kind, message = verdict
            repeated = kind == "repeated_row"
            self._findings.add(kind, seq, message, severity="information" if repeated else "finding")
        row = copies.best(self._link, following)
        judgement = judge(row, self._link, following, lambda own: self._fits_root(row, own))
        for kind, at, message in judgement.found:
            self._findings.on_row(kind, at, message)
        if wrong := personal_changed(row):
            self._findings.on_row("personal_changed", seq, wrong)
        elif is_blank(row):
            self._blank.append(seq)
        self._after_end(seq, seq)
        if judgement.trusted:
            self._columns(row.record)
        else:
            self._tenants.unknown += 1
        self._tree.append(judgement.entry)
        self._grow(seq + 1, 1, judgement.entry, row.checkpoint)
        self._after_run = False

    def _arrive(self, seq: int, row: Following) -> None:
        """Rule 2, and the link to what came before, where that was not judged together with it."""
        if seq > self._size:
            self._gap(seq, row.prev_hash)
        elif seq == 0 and row.prev_hash != ZERO32:
            self._findings.add("link_broken", 0, "the first row's prev_hash is not 32 zero bytes")
        elif self._after_run and self._link is not None:
            judgement = judge_link(seq - 1, self._link, row)
            for kind, at, message in judgement.found if judgement else ():
                self._findings.on_row(kind, at, message)

    def _gap(self, seq: int, prev_hash: bytes) -> None:
        first, count = self._size, seq - self._size
        self._findings.add(
            "missing",
            first,
            "the row is missing" if count == 1 else f"{count} rows are missing",
            last_seq=seq - 1,
        )
        self._tenants.unknown += count
        self._link = None
        if count == 1:
            # The hash of a single missing row is known: the next one is chained to it.
            self._tree.append(prev_hash)
            self._link = prev_hash
            self._size = seq
            self._lines_at(seq, "")
        elif self._tree.lose(first):
            self._findings.add(
                "roots_unchecked",
                first,
                "roots over the missing rows cannot be recomputed: of the checkpoints that follow, only signatures, "
                "names and sizes were checked",
                severity="information",
            )
        self._size = seq

    def _columns(self, record: Record) -> None:
        """Rules 1 and 9 for a row whose columns are right."""
        if record.seq == 0:
            self._start(record)
        self._tenant(record.tenant, record.tenant_seq, 1, record.seq)
        self._time(record.received_at, record.received_at)
        if record.tenant != COLLECTOR_TENANT:
            return
        if record.action in ENDING_ACTIONS:
            self._ended = record.action
        if record.action in _HEARD and (silence := self._heartbeats.take(record.received_at)):
            self._findings.add("silent", record.seq, silence, severity="information")
        if record.action == "audit_log.key_rotated":
            self._next_key = key_of(record.metadata.get("audit.chain.next_key", ""))
            self._next_key_at = record.seq
        elif record.action == "audit_log.erased":
            try:
                self._erasures.append(erasure(record.seq, record.metadata))
            except ValueError as error:
                self._findings.add("erasure_unreadable", record.seq, str(error), severity="information")

    def _start(self, record: Record) -> None:
        """Rule 1."""
        if record.action != "audit_log.started" or record.tenant != COLLECTOR_TENANT:
            self._not_started()
            return
        self._started = True
        form = record.metadata.get("audit.chain.format", "")
        if form != FORMAT:
            self._findings.add("format_unknown", 0, f"the chain's format is {form[:32]!a}, not {FORMAT}")
        key = key_of(record.metadata.get("audit.chain.key", ""))
        if key is None:
            self._findings.add("key_unpinned", 0, "the chain's first record names no key that can be read")
        self._keys.own = key
        if key is not None and key not in self._keys.trusted.pinned:
            self._keys.unpinned = key
            self._say_unpinned(0)
        try:
            self._predecessors = predecessors(record.metadata)
        except ValueError as error:
            self._findings.add("predecessors_unreadable", 0, f"audit.chain.predecessors: {error}")

    def _not_started(self) -> None:
        self._findings.add("not_started", 0, "the chain does not begin with audit_log.started")

    def _say_unpinned(self, seq: int | None) -> None:
        key = self._keys.unpinned
        if key is not None and not self._unpinned_said:
            self._unpinned_said = True
            self._findings.add(
                "key_unpinned",
                seq,
                f"signed by {key}, which is not pinned: whoever wrote the data may have made this key",
            )

    def _after_end(self, first: int, last: int) -> None:
        if self._ended:
            self._findings.on_row(
                "after_end", first, f"the chain ended before with {self._ended}", last_seq=last
            )

    def _tenant(self, tenant: str, first: int, count: int, seq: int) -> None:
        if wrong := self._tenants.take(tenant, first, count):
            self._findings.add("tenant_gap", seq, wrong)

    def _time(self, first: int, last: int) -> None:
        self._times = (self._times[0] if self._times else first, last)

    def _grow(self, size: int, count: int, entry: bytes, note: str) -> None:
        """Take note of the chain's new end, and check what is signed for it (rules 5 and 7)."""
        self._size = size
        self._rows += count
        self._link = entry
        self._lines_at(size, note if note and self._checkpoint(size, note) else "")

    def _lines_at(self, size: int, stored: str) -> None:
        if self._lines.at(size):
            root = self._tree.root()
            if root is not None and self._lines.check(size, root, stored):
                self._roots[size] = root

    def _checkpoint(self, size: int, note: str) -> bool:
        """Rule 5."""
        root = self._tree.root()
        try:
            checkpoint = self._keys.open(note, own_only=True)
            if checkpoint.size != size:
                raise Untrusted(
                    "size", f"it is the checkpoint of size {checkpoint.size}, here is size {size}"
                )
            if root is not None and checkpoint.root != root:
                raise Untrusted("root", f"the {size} rows up to here are not those that were signed")
        except Untrusted as error:
            message = f"the stored checkpoint is not valid: {error}"
            self._findings.in_streak("checkpoint_invalid", error.why, size - 1, message)
            return False
        self._findings.end_streak("checkpoint_invalid")
        self._say_unpinned(size - 1)
        self._valid = size
        if root is not None:
            self._checkpoints += 1
            self._proved = size
            self._roots[size] = root
        return True

    def _fits_root(self, row: StoredRow, entry: bytes) -> bool:
        """Tell whether a hash for the last row gives the root that its checkpoint states."""
        try:
            stated = Checkpoint.parse(note_text(row.checkpoint)).root
        except LedgerError:
            return False
        return self._tree.root_with(entry) == stated


def _following(before: Copies, after: Copies) -> Following | None:
    if after.seq != before.seq + 1:
        return None
    row = after.likely([row.hash for row in before.rows])
    return Following(row.prev_hash, row)
