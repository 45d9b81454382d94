"""Rows for people and for programs: tables, aligned text, JSON lines and CSV.

Everything in a record was written by somebody else, perhaps by an attacker. So nothing of it reaches a
terminal as a control sequence, and nothing of it is read as markup.
"""

from __future__ import annotations

import csv
import datetime as dt
import ipaddress
import itertools
import json
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "aligned",
    "cell_text",
    "iso_nanoseconds",
    "iso_time",
    "json_line",
    "json_value",
    "printable",
    "rich_table",
    "write_csv",
]

# Controls, invisible format characters (among them the bidirectional overrides, which show text in another
# order than it has), lone surrogates, private use, unassigned, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_WIDEST = 60
_MEASURED = 1000  # rows that give the columns their widths
_ROWS_AT_ONCE = 500  # rows of one table on a terminal; the next ones get a table of their own
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, which is written by hand: that is much faster


def printable(text: str) -> str:
    r"""Return text with every character that could act on a terminal written as an escape, such as ``\x1b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def iso_time(value: dt.datetime) -> str:
    """Return a time as ISO 8601 UTC, with microseconds where it has any; a time without zone is UTC."""
    aware = value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
    digits = "microseconds" if aware.microsecond % 1000 else "milliseconds"
    return aware.isoformat(timespec=digits).replace("+00:00", "Z")


def iso_nanoseconds(nanoseconds: int, digits: int = 9) -> str:
    """Return a time as ISO 8601 UTC.

    Args:
        nanoseconds: since the Unix epoch, as in a signed 64-bit column.
        digits: of the second's fraction, 1 to 9; what is finer is cut off.

    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{(_EPOCH + dt.timedelta(seconds=seconds)).isoformat()}.{f'{rest:09}'[:digits]}Z"


def json_value(value: Any) -> Any:  # noqa: PLR0911 - one for each type
    """Return what JSON can hold of a value that the database driver returned.

    Times become ISO 8601 UTC, bytes lower-case hex, decimals, UUIDs and addresses text,
    numbers that JSON lacks (NaN and the infinities) null.
    """
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - the test for NaN
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dt.datetime):
        return iso_time(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(json_value(key)): json_value(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(
        value, uuid.UUID | Decimal | ipaddress.IPv4Address | ipaddress.IPv6Address
    ):
        return [json_value(item) for item in value]
    return str(value)


def json_line(names: Sequence[str], row: Sequence[Any]) -> str:
    """Return a row as one line of JSON; it is ASCII, so it is safe on a terminal too."""
    return json.dumps(dict(zip(names, map(json_value, row), strict=True)), separators=(",", ":"))


def cell_text(value: Any) -> str:
    """Return a value as the text of a table's cell, safe for a terminal."""
    plain = json_value(value)
    if isinstance(plain, str):
        return printable(plain)
    if plain is None:
        return ""
    if isinstance(plain, dict) and not plain:
        return ""
    if isinstance(plain, bool | int | float):
        return str(plain)
    return printable(json.dumps(plain, ensure_ascii=False, separators=(", ", ": ")))


def write_csv(out: TextIO, names: Sequence[str], rows: Iterable[Sequence[Any]], *, safe: bool) -> int:
    """Write rows as CSV (RFC 4180) with a header.

    Args:
        out: where to.
        names: the columns' names.
        rows: the rows.
        safe: escape control characters, for a terminal; a program gets the values as they are.

    Returns:
        How many rows there were.

    """
    writer = csv.writer(out)
    writer.writerow([printable(name) for name in names] if safe else names)
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - the count is the result
        writer.writerow([_csv_cell(value, safe=safe) for value in row])
    return count


def _csv_cell(value: Any, *, safe: bool) -> str:
    plain = json_value(value)
    if isinstance(plain, str):
        # A lone surrogate, from a tampered row, has no UTF-8.
        text = plain if plain.isascii() else plain.encode("utf-8", "backslashreplace").decode("utf-8")
    elif plain is None:
        text = ""
    elif isinstance(plain, dict | list):
        text = json.dumps(plain)
    else:
        text = str(plain)
    return printable(text) if safe else text


_NEVER_FOLDED = frozenset({"time", "action"})
"""Columns that are not read any more when they are folded."""


def rich_table(
    console: Console,
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    styles: Mapping[str, str] | None = None,
) -> int:
    """Show rows as tables as wide as the terminal, 500 rows in each, and return how many rows there were."""
    left = iter(rows)
    count = 0
    while True:
        some = list(itertools.islice(left, _ROWS_AT_ONCE))
        if count and not some:
            return count
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for name in names:
            style = (styles or {}).get(name)
            table.add_column(
                Text(printable(name)), overflow="fold", style=style, no_wrap=name in _NEVER_FOLDED
            )
        for row in some:
            table.add_row(*(_styled(cell_text(value)) for value in row))
        console.print(table)
        count += len(some)
        if len(some) < _ROWS_AT_ONCE:
            return count


_OUTCOMES = {"success": "green", "failure": "red", "unknown": "yellow"}


def _styled(text: str) -> Text:
    return Text(text, style=_OUTCOMES.get(text.partition(":")[0], ""))


def aligned(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield lines of text with aligned columns, for a pipe: whole values, nothing wrapped or cut.

    The first thousand rows give the columns their widths, so that any number of rows can follow.
    """
    left = iter(rows)
    measured = [[cell_text(value) for value in row] for row in itertools.islice(left, _MEASURED)]
    header = [printable(name) for name in names]
    widths = [
        min(max(len(line[index]) for line in (header, *measured)), _WIDEST) for index in range(len(header))
    ]
    rest = ([cell_text(value) for value in row] for row in left)
    for line in itertools.chain([header], measured, rest):
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
