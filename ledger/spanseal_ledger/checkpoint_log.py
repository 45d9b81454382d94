"""The checkpoint log: the text of the file outside the database, one JSON object a line. No I/O here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from spanseal_ledger.note import MAX_NOTE_CHARACTERS

__all__ = ["MAX_LINE_BYTES", "Line", "Problem", "encode", "parse_log"]

MAX_LINE_BYTES = 8 * MAX_NOTE_CHARACTERS
"""A longer line is not read."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a checkpoint, and when the records it covers were received."""

    received_at: int
    """ns since the Unix epoch. Nothing signs it."""
    note: str
    """The signed checkpoint."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that could not be read."""

    number: int
    """Its number in the file, from 1."""
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


def encode(line: Line) -> bytes:
    """Return a line's bytes, with its newline."""
    text = json.dumps({"t": line.received_at, "note": line.note}, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def parse_log(data: bytes) -> tuple[list[Line], list[Problem]]:
    """Read a checkpoint log.

    A last line without newline was never whole, and is passed over.

    Returns:
        The lines in file order, and what was wrong with lines that could not be read. The notes are not
        verified.

    """
    lines: list[Line] = []
    problems: list[Problem] = []
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        try:
            lines.append(_line(raw))
        except (ValueError, RecursionError) as error:
            problems.append(Problem(number, str(error)))
    return lines, problems


def _line(raw: bytes) -> Line:
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"{len(raw)} bytes long, the limit is {MAX_LINE_BYTES}")
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON object with the keys t and note") from None
    if not isinstance(value, dict) or value.keys() != {"t", "note"}:
        raise ValueError("not a JSON object with the keys t and note")
    received_at, note = value["t"], value["note"]
    if type(received_at) is not int or not -(1 << 63) <= received_at < 1 << 63:
        raise ValueError("t is not a number of nanoseconds")
    if not isinstance(note, str):
        raise ValueError("note is not a text")  # noqa: TRY004 - a line's problem, not a caller's mistake
    return Line(received_at, note)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found
