"""Rule 7 for one chain: every line of the checkpoint log is met in size and root."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.errors import LedgerError
from spanseal_ledger.note import note_text
from spanseal_ledger.verifier._findings import Findings
from spanseal_ledger.verifier._signatures import ChainKeys, Untrusted

__all__ = ["ChainLines"]


class ChainLines:
    """The lines of the checkpoint log for one chain, and which of them are met."""

    def __init__(self, lines: Iterable[Line], keys: ChainKeys, findings: Findings, upper: int | None) -> None:
        self.met = 0
        """Lines met."""
        self._keys = keys
        self._findings = findings
        self._by_size: dict[int, list[tuple[bytes, str]]] = {}
        self._last_met = 0
        self._rewritten: tuple[int, int] | None = None
        self._unmet = 0
        for line in lines:
            try:
                checkpoint = Checkpoint.parse(note_text(line.note))
            except LedgerError as error:
                findings.add("checkpoint_log_invalid", None, f"a line of the checkpoint log: {error}")
                continue
            if upper is None or checkpoint.size <= upper:
                notes = self._by_size.setdefault(checkpoint.size, [])
                if (checkpoint.root, line.note) not in notes:
                    notes.append((checkpoint.root, line.note))
        self.stops: Sequence[int] = sorted(self._by_size)
        """The sizes of the lines, ascending."""

    def free_between(self, first: int, end: int) -> bool:
        """Tell whether no line's size is greater than `first` and less than `end`."""
        at = bisect_right(self.stops, first)
        return at == len(self.stops) or self.stops[at] >= end

    def at(self, size: int) -> bool:
        """Tell whether there is a line of this size."""
        return size in self._by_size

    def check(self, size: int, root: bytes, stored: str) -> bool:
        """Compare the lines of one size with the tree's root at that size.

        Args:
            size: number of records.
            root: the recomputed root.
            stored: the checkpoint stored at this size, if it was found right: an equal line needs no second look.

        Returns:
            Whether a line was met.

        """
        before = self.met
        for expected, note in self._by_size.get(size, ()):
            if expected == root and (note == stored or self._signed(note, size)):
                self.met += 1
                self._last_met = size
            elif expected != root and self._rewritten is not None:
                # More of the same, or a line that nobody signed: neither changes the verdict.
                self._unmet += 1
            elif expected != root and self._signed(note, size):
                self._rewritten = (self._last_met, size)
                self._unmet += 1
        return self.met > before

    def finish(self, size: int) -> None:
        """Report what was not met, once the chain's last row is known."""
        if self._rewritten is not None:
            first, at = self._rewritten
            known = f"the last one met is of size {first}" if first else "none before it is met"
            self._findings.add(
                "rewritten",
                first,
                f"the checkpoint log has another root at size {at}, and {known}: records from seq {first} on were "
                f"rewritten after they were acknowledged ({self._unmet} lines are not met)",
                last_seq=at - 1,
            )
        for recorded in reversed(self.stops):
            if recorded <= size:
                break
            if any(self._signed(note, recorded) for _, note in self._by_size[recorded]):
                self._cut(recorded, size)
                break

    def _cut(self, recorded: int, size: int) -> None:
        if size:
            self._findings.add(
                "truncated",
                size,
                f"the checkpoint log has a checkpoint of {recorded} records, only {size} are there",
                last_seq=recorded - 1,
            )
        else:
            self._findings.add(
                "chain_missing",
                None,
                f"the checkpoint log has a checkpoint of {recorded} records, none is there",
            )

    def _signed(self, note: str, size: int) -> bool:
        try:
            self._keys.open(note, own_only=False)
        except Untrusted as error:
            self._findings.in_streak(
                "checkpoint_log_invalid",
                error.why,
                max(size - 1, 0),
                f"a line of the checkpoint log for size {size}: {error}",
            )
            return False
        return True
