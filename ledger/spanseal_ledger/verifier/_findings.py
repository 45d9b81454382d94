"""Collecting findings: those of one kind over adjacent rows become one."""

from __future__ import annotations

from dataclasses import dataclass

from spanseal_ledger.verifier._model import Finding, Severity

__all__ = ["Findings", "ranges"]


@dataclass(slots=True)
class _Open:
    kind: str
    seq: int | None
    message: str
    severity: Severity
    last: int | None
    times: int = 1


class Findings:
    """What was found of one chain so far."""

    def __init__(self, chain_id: str) -> None:
        self._chain_id = chain_id
        self._found: list[_Open] = []
        self._row_ranges: dict[tuple[str, str], _Open] = {}
        self._streaks: dict[str, tuple[str, _Open]] = {}

    def add(
        self,
        kind: str,
        seq: int | None,
        message: str,
        *,
        last_seq: int | None = None,
        severity: Severity = "finding",
    ) -> None:
        """Add a finding of its own."""
        self._found.append(_Open(kind, seq, message, severity, last_seq if last_seq != seq else None))

    def on_row(self, kind: str, seq: int, message: str, *, last_seq: int | None = None) -> None:
        """Add a finding on a row; it joins one with the same words on the row before."""
        last = seq if last_seq is None else last_seq
        known = self._row_ranges.get((kind, message))
        if known is not None and known.last == seq - 1:
            known.last = last
            return
        found = _Open(kind, seq, message, "finding", last)
        self._row_ranges[kind, message] = found
        self._found.append(found)

    def in_streak(self, kind: str, why: str, seq: int, message: str) -> None:
        """Add a finding on a row; it joins the last one of its kind for the same reason, until `end_streak`."""
        known = self._streaks.get(kind)
        if known is not None and known[0] == why:
            known[1].last = seq
            known[1].times += 1
            return
        found = _Open(kind, seq, message, "finding", seq)
        self._streaks[kind] = (why, found)
        self._found.append(found)

    def end_streak(self, kind: str) -> None:
        """Say that something right came between."""
        self._streaks.pop(kind, None)

    def split(self) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
        """Return findings and information, each by seq."""
        ordered = sorted(self._found, key=lambda f: (-1 if f.seq is None else f.seq, f.kind, f.message))
        done = [self._close(found) for found in ordered]
        return (
            tuple(f for f in done if f.severity == "finding"),
            tuple(f for f in done if f.severity == "information"),
        )

    def _close(self, found: _Open) -> Finding:
        last = found.last if found.last != found.seq else None
        message = found.message
        if found.times > 1:
            message += f"; so are the {found.times - 1} after it, up to seq {last}"
        return Finding(found.kind, self._chain_id, found.seq, message, found.severity, last)


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Turn ascending numbers into ranges (first, last)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
