"""How a reading command gives its rows: which format, to a terminal or to a program."""

from __future__ import annotations

import contextlib
import enum
import io
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import click
from rich.console import Console

from spanseal_ledger.errors import LedgerError
from spanseal_storage.errors import StorageError
from spanseal_storage.rendering import aligned, json_line, printable, rich_table, write_csv

__all__ = ["Format", "could_not", "interruptible", "told", "write_lines", "write_raw", "write_rows"]

_INTERRUPTED = 130  # 128 and SIGINT, as shells have it


class Format(enum.Enum):
    """What a command writes to standard output."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    RECORDS = "records"


def write_rows(
    form: Format,
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    styles: Mapping[str, str] | None = None,
) -> int:
    """Write rows to standard output as they come, and return how many there were.

    Args:
        form: a table (with colours on a terminal, aligned text elsewhere), JSON lines, or CSV with a header.
        names: the columns' names.
        rows: the rows.
        styles: rich styles of columns by name, for a terminal.

    """
    out = _standard_output()
    if form is Format.CSV:
        return write_csv(out, names, rows, safe=out.isatty())
    if form is Format.JSON:
        return write_lines(json_line(names, row) for row in rows)
    if out.isatty():
        return rich_table(Console(highlight=False), names, rows, styles)
    return write_lines(aligned(names, rows)) - 1


def write_lines(lines: Iterable[str]) -> int:
    """Write lines to standard output, and return how many there were."""
    out = _standard_output()
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007 - the count is the result
        out.write(line + "\n")
    out.flush()
    return count


def write_raw(data: bytes) -> None:
    """Write bytes to standard output; on a terminal as text that cannot act on it."""
    if _standard_output().isatty():
        write_lines(printable(line) for line in data.decode("utf-8", "backslashreplace").splitlines())
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _standard_output() -> Any:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal whose encoding lacks a character is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout


def could_not(message: str) -> NoReturn:
    """Say in one line on standard error what could not be done, and exit with 2."""
    click.echo(f"Error: {printable(message)}", err=True)
    sys.exit(2)


@contextlib.contextmanager
def told(*others: type[Exception], reading: bool = True) -> Iterator[None]:
    """Tell the errors of storage and ledger in one line, with exit code 2.

    Args:
        others: further errors that are told like these.
        reading: whether the command only reads: it ends at once with Ctrl-C then.

    """
    known: tuple[type[Exception], ...] = (StorageError, LedgerError, *others)
    try:
        with interruptible() if reading else contextlib.nullcontext():
            yield
    except known as error:
        could_not(str(error))


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process with exit code 130, also while the engine works in the main thread.

    Python's own handler waits until the engine's call returns, which may be minutes. Only for commands that
    read: the process ends there and then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        for number in iter(lambda: os.read(read, 1), b""):
            if number[0] == signal.SIGINT:
                os.write(2, b"\nInterrupted\n")
                os._exit(_INTERRUPTED)

    previous_handler = signal.signal(signal.SIGINT, lambda *_: None)
    previous_wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="spanseal-interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_wakeup)
        signal.signal(signal.SIGINT, previous_handler)
        os.close(write)  # ends the watcher
        watcher.join()
        os.close(read)
