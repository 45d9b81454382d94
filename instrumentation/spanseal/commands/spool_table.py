"""The spool's files as a table: with rich where that is installed and a terminal shows it, plainly elsewhere."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .spool_report import FileReport, Report

__all__ = ["age", "print_table", "printable", "size"]

_HEAD = ("file", "process", "service", "final", "answered", "open", "aside", "oldest", "size", "destination")
_NUMBERS = (3, 4, 5, 6, 7, 8)
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def printable(text: str) -> str:
    r"""Return text with every character that could act on a terminal written as an escape, such as `\x1b`.

    Names of services and destinations come out of files that may be from anywhere.
    """
    return "".join(
        character
        if unicodedata.category(character)[0] != "C" and character not in "\u2028\u2029"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def age(seconds: float) -> str:
    """Write a duration in its two largest units: `3 d 4 h`."""
    left = int(max(seconds, 0))
    for position, (length, unit) in enumerate(_UNITS):
        if left >= length:
            rest = (left % length) // _UNITS[position + 1][0] if position + 1 < len(_UNITS) else 0
            return f"{left // length} {unit}" + (f" {rest} {_UNITS[position + 1][1]}" if rest else "")
    return "0 s"


def size(count: int) -> str:
    """Write a number of bytes in KiB or MiB."""
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / (1 << 10):.0f} KiB"


def print_table(report: Report) -> None:
    """Print one line for each file."""
    rows = [_cells(file, report.at) for file in report.files]
    if sys.stdout.isatty() and _with_rich(rows):
        return
    lines = [_HEAD, *rows]
    widths = [max(len(line[position]) for line in lines) for position in range(len(_HEAD))]
    for line in lines:
        cells = [
            text.rjust(width) if position in _NUMBERS else text.ljust(width)
            for position, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _with_rich(rows: list[tuple[str, ...]]) -> bool:
    """Print the rows with rich; not where it is missing or the terminal is too narrow for whole names."""
    try:
        from rich.console import Console  # noqa: PLC0415 - the application's side does without it
        from rich.measure import Measurement  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        return False
    table = Table(box=None, pad_edge=False)
    for position, name in enumerate(_HEAD):
        table.add_column(name, justify="right" if position in _NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)  # names are no markup
    if Measurement.get(console, console.options.update(max_width=1000), table).maximum > console.width:
        return False
    console.print(table)
    return True


def _cells(file: FileReport, now: float) -> tuple[str, ...]:
    owner = f"alive, {file.pid}" if file.owner == "alive" and file.pid else file.owner
    known = not file.unreadable and file.owner != "damaged"
    counts = [str(count) if known else "?" for count in (file.final, file.answered, file.open, file.aside)]
    return tuple(
        printable(text)
        for text in (
            file.name,
            owner,
            file.service,
            *counts,
            age(now - file.oldest) if file.oldest is not None else "",
            size(file.bytes),
            file.destination,
        )
    )
