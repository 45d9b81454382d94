"""`spanseal spool`: what waits to be sent, and sending it without the application."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from spanseal.errors import ConfigurationError
from spanseal.settings import spool_dir

from .spool_drain import CannotBegin, Drained, drain, to_drain
from .spool_report import FileReport, Report, look
from .spool_table import print_table, printable

__all__ = ["spool"]


def _directory(given: Path | None) -> Path:
    try:
        return given if given is not None else spool_dir()
    except ConfigurationError as error:
        raise _stop(str(error)) from error


def _stop(message: str) -> click.exceptions.Exit:
    click.echo(f"Error: {printable(message)}", err=True)
    return click.exceptions.Exit(2)


_dir_option = click.option(
    "--dir",
    "path",
    type=click.Path(path_type=Path),
    help="The spool's directory, or one .db file of it.  [default: $SPANSEAL_SPOOL_DIR, or the user's]",
)


@click.group()
def spool() -> None:
    """See and send what waits on the application's side."""


@spool.command("status")
@_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def show_status(ctx: click.Context, path: Path | None, *, as_json: bool) -> None:
    """Show what waits, file by file, and what of it needs somebody.

    It only looks: the application does not notice. Copies are read as well.

    \b
    Exit codes:
      0  nothing is wrong: nothing waits, or a living process sends it
      1  something needs somebody: a damaged file, records that were refused and set aside, or
         records of dead processes for a destination where no living process sends
      2  it could not be read
    """  # noqa: D301 - \b is click's mark for a paragraph that is not to be wrapped
    path = _directory(path)
    try:
        report = look(path)
    except FileNotFoundError:
        if path != _directory(None) or path.suffix == ".db":
            raise _stop(f"{path} is not there") from None
        report = Report(path, (), time.time())  # nothing was ever recorded here
    except OSError as error:
        raise _stop(f"{path} cannot be read: {error.strerror or error}") from error
    if as_json:
        click.echo(json.dumps(_as_data(report)))
    else:
        _show(report)
    ctx.exit(2 if report.unreadable else 1 if report.problems else 0)


def _show(report: Report) -> None:
    if report.files:
        print_table(report)
    waiting = sum(file.waiting for file in report.files)
    click.echo(
        f"{waiting} records wait in {printable(str(report.directory))}"
        if waiting
        else f"nothing waits in {printable(str(report.directory))}"
    )
    for file in report.files:
        if file.dropped:
            click.echo(
                f"{file.name}: {file.dropped} records could not be stored; no producer.gap names them yet"
            )
    for problem in report.problems:
        click.echo(click.style("-> ", fg="red") + printable(problem))
    for reason in report.unreadable:
        click.echo(f"Error: {printable(reason)}", err=True)


def _as_data(report: Report) -> dict[str, Any]:
    return {
        "directory": str(report.directory),
        "waiting": sum(file.waiting for file in report.files),
        "files": [_file_as_data(file, report.at) for file in report.files],
        "problems": report.problems,
    }


def _file_as_data(file: FileReport, now: float) -> dict[str, Any]:
    found = asdict(file)
    del found["route"], found["spoiled"]
    found["age_seconds"] = None if file.oldest is None else round(max(now - file.oldest, 0.0), 3)
    return found


@spool.command("drain")
@_dir_option
@click.option(
    "--to",
    metavar="URL",
    default="",
    help="Send everything there, with the headers and certificates of the environment: http(s)://host:port[/path], "
    "or grpc+http(s)://host:port.  [default: where each file's process sent]",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds for all of it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def send_all(ctx: click.Context, path: Path | None, to: str, timeout: float, *, as_json: bool) -> None:
    """Send what dead processes left, also from a copy of a spool.

    The file of a living process is never touched. It may be interrupted or killed, and run again: what
    comes twice is stored once. The OTEL_EXPORTER_OTLP_ variables are those of the application; its
    headers and client certificate go to the endpoint they are set for, or to that of --to.

    \b
    Exit codes:
      0  all of it is in the log
      1  something is left, damaged, or was refused and set aside
      2  could not begin
    """  # noqa: D301 - as above
    path = _directory(path)
    try:
        if not path.exists() and path == _directory(None):
            result = Drained()
        else:
            with _progress(path, quiet=as_json) as update:
                result = drain(path, to, timeout, update)
    except (CannotBegin, ConfigurationError) as error:
        raise _stop(str(error)) from error
    if as_json:
        click.echo(json.dumps({**asdict(result), "complete": result.complete}))
    else:
        _tell(result)
    ctx.exit(0 if result.complete else 1)


@contextmanager
def _progress(path: Path, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show how far it is, where somebody watches; gives what is to be told of every step."""
    if quiet or not sys.stderr.isatty():
        yield lambda _count: None
        return
    total = sum(file.waiting for file in to_drain(path))
    with click.progressbar(length=total, label="sending", file=sys.stderr) as bar:
        yield bar.update


def _tell(result: Drained) -> None:
    if result.interrupted:
        click.echo("interrupted; run it again for the rest")
    if not (result.sent or result.refused or result.files_left or result.damaged):
        click.echo("nothing of dead processes waits")
        return
    click.echo(f"sent          {result.sent} records, with the beginnings and ends of their streams")
    if result.refused:
        click.echo(
            f"refused       {result.refused} records, set aside in *.aside; a producer.gap names each in the log"
        )
    for name in result.damaged:
        click.echo(f"damaged       {name}, kept; a producer.gap names it in the log")
    if result.files_left:
        click.echo(f"left          {result.left} records in {len(result.files_left)} files")
    for reason in dict.fromkeys(result.reasons):
        click.echo(click.style("-> ", fg="red") + printable(reason))
