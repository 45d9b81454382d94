"""The commands `spanseal events`, `spanseal query`, `spanseal keys` and `spanseal storage`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from spanseal_storage import event_list, migrations
from spanseal_storage.access import open_reader
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.errors import BadFilterError
from spanseal_storage.event_filter import EventFilter
from spanseal_storage.key_report import KeyReport, report_keys
from spanseal_storage.options import data_option
from spanseal_storage.output import Format, told, write_lines, write_raw, write_rows
from spanseal_storage.records_export import export_records
from spanseal_storage.rendering import iso_nanoseconds, printable
from spanseal_storage.sql_query import answer, prepare, raw_answer
from spanseal_storage.status import read_status

__all__ = ["events", "keys", "query", "storage"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_LIMIT = 50

_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


def _formats(*names: str) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in (
            click.option(
                "--csv", "form", flag_value="csv", help="CSV with a header, the same as --format csv."
            ),
            click.option("--json", "form", flag_value="json", help="JSON lines, the same as --format json."),
            click.option("--format", "form", type=click.Choice(names), help="  [default: table]"),
        ):
            command = option(command)
        return command

    return decorate


@click.command()
@data_option
@click.option("--actor", metavar="ID", help="Who: the actor's id, or an e-mail address.")
@click.option(
    "--action", metavar="GLOB", help="What: an action such as user.signed_in; 'user.*' for several."
)
@click.option("--resource", metavar="TYPE[/ID]", help="To what, such as patient or patient/17.")
@click.option("--outcome", metavar="OUTCOME", help="success, failure or unknown.")
@click.option("--request-id", metavar="ID", help="The records of one request.")
@click.option("--service", metavar="NAME", help="The service that recorded it.")
@click.option("--tenant", metavar="NAME", help="The tenant.")
@click.option("--since", metavar="TIME", help="Not before: ISO 8601 (UTC without zone), or 15m, 2h, 7d ago.")
@click.option("--until", metavar="TIME", help="Before: likewise.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"How many, the newest; 0 for all.  [default: {_LIMIT}; records are always all]",
)
@click.option("--all", "everything", is_flag=True, help="Show the collector's own records too.")
@_formats("table", "json", "csv", "records")
def events(
    data: Path,
    limit: int | None,
    form: str | None,
    *,
    everything: bool,
    **filters: str | None,
) -> None:
    """Show who did what, the newest first.

    Times are the source's. The collector's own records (audit_log.*) are hidden unless --all is given or
    they are asked for by name: --action 'audit_log.*', --resource audit_log or --tenant _collector.

    --format records exports every column exactly as it is stored, as JSON lines by chain and position, all
    records and the collector's own: what an independent program needs to verify. Works while a collector
    is running.

    Exit codes: 0 done, also where nothing matched, 2 could not be done, 130 interrupted.
    """
    with told():
        chosen = Format(form or "table")
        if chosen is Format.RECORDS and limit is not None:
            raise BadFilterError("--limit does not go with --format records, which is always all")
        wanted = EventFilter.read(
            now=time.time_ns(), everything=everything or chosen is Format.RECORDS, **filters
        )
        most = _LIMIT if limit is None else limit
        with open_reader(DataDirectory(data), "spanseal events") as client:
            if chosen is Format.RECORDS:
                write_lines(export_records(client, wanted))
            elif chosen is Format.TABLE:
                rows = event_list.short_rows(client, wanted, most)
                count = write_rows(chosen, event_list.SHORT_NAMES, rows, {"time": "cyan", "request": "dim"})
                _remark(count, most, limit)
            else:
                write_rows(chosen, event_list.FULL_NAMES, event_list.full_rows(client, wanted, most))


def _remark(count: int, most: int, limit: int | None) -> None:
    if count == 0:
        click.echo("No events match.", err=True)
    elif limit is None and count == most:
        click.echo(f"The newest {most}; --limit 0 shows all.", err=True)


@click.command()
@data_option
@click.argument("sql")
@_formats("table", "json", "csv")
def query(data: Path, sql: str, form: str | None) -> None:
    """Ask the log in ClickHouse's SQL; - reads the statement from standard input.

    One statement that reads: SELECT, SHOW TABLES, DESCRIBE or EXPLAIN, over events, records, checkpoints and
    quarantine of the database audit. Where it names a FORMAT, the answer comes as ClickHouse writes it. Works
    while a collector is running.

    Exit codes: 0 done, 2 could not be done, 130 interrupted.
    """
    with told():
        statement = _standard_input() if sql == "-" else sql
        with open_reader(DataDirectory(data), "spanseal query") as client:
            question = prepare(client, statement)
            if question.output_format is not None:
                if form is not None:
                    raise BadFilterError(
                        f"the statement names FORMAT {question.output_format} and the command --format {form}: "
                        "leave one of them out"
                    )
                write_raw(raw_answer(client, question))
                return
            with answer(client, question) as found:
                write_rows(Format(form or "table"), found.names, found.rows)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFilterError(f"the statement on standard input is not UTF-8: {error.reason}") from error


@click.group()
def keys() -> None:
    """Show the log's public keys."""


@keys.command("show")
@data_option
@_as_json
def show_keys(data: Path, *, as_json: bool) -> None:
    """Show the log's name, its public keys, and where the signing key comes from.

    The private key is never shown. Give the public keys to whoever verifies, by a way that does not go through
    this machine alone: spanseal verify --key VKEY.

    Exit codes: 0 done, 2 could not be done.
    """
    with told():
        report = report_keys(DataDirectory(data))
        if as_json:
            write_lines([json.dumps(_keys_as_data(report))])
            return
        if report.source == "none":
            origin = f"none yet; a collector's first start makes {report.where}"
        else:
            origin = f"{report.source} {report.where}"
        write_lines(
            _fields(
                ("log", report.log_name),
                ("collector", report.collector_name),
                ("signing key", origin),
                *((("warning", report.warning),) if report.warning else ()),
                *(
                    ("public key", f"{key}  (current)" if key == report.current else str(key))
                    for key in report.keys
                ),
            )
        )


def _keys_as_data(report: KeyReport) -> dict[str, Any]:
    return {
        "log_name": report.log_name,
        "collector_name": report.collector_name,
        "signing_key": {
            "source": report.source,
            "where": report.where,
            "warning": report.warning or None,
        },
        "verification_keys": [
            {"vkey": str(key), "key_id": key.key_id.hex(), "current": key == report.current}
            for key in report.keys
        ],
    }


@click.group()
def storage() -> None:
    """Look after the database."""


@storage.command()
@data_option
def migrate(data: Path) -> None:
    """Bring the database up to this version's schema; done twice it does nothing.

    A collector does this at its start. Not while one is running.

    Exit codes: 0 done, 2 could not be done.
    """
    with told(reading=False):
        directory = DataDirectory(data)
        directory.require()
        with (
            directory.hold("spanseal storage migrate"),
            open_engine(directory, Role.OWNER) as engine,
            contextlib.closing(engine.client()) as client,
        ):
            applied = migrations.migrate(client)
        lines = [f"applied schema version {step.version}: {step.name}" for step in applied]
        write_lines(lines or [f"schema version {migrations.MIGRATIONS[-1].version}; nothing to do"])


@storage.command()
@data_option
@_as_json
def status(data: Path, *, as_json: bool) -> None:
    """Show the schema's version, how many records and chains there are, and what they take on disk.

    Works while a collector is running.

    Exit codes: 0 done, 2 could not be done, 130 interrupted.
    """
    with told():
        directory = DataDirectory(data)
        with open_reader(directory, "spanseal storage status") as client:
            found = read_status(client, directory)
        first, last = (
            None if moment is None else iso_nanoseconds(moment)
            for moment in (found.first_received_at, found.last_received_at)
        )
        if as_json:
            shown = asdict(found) | {"first_received_at": first, "last_received_at": last}
            write_lines([json.dumps(shown)])
            return
        write_lines(
            _fields(
                ("data", str(directory)),
                ("schema version", str(found.schema_version)),
                ("records", f"{found.records:,} in {found.chains:,} chains"),
                ("quarantined", f"{found.quarantined:,}"),
                ("first received", first or "-"),
                ("last received", last or "-"),
                ("tables", f"{found.table_bytes:,} bytes compressed"),
                ("on disk", f"{found.directory_bytes:,} bytes in all files of the directory"),
            )
        )


def _fields(*fields: Sequence[str]) -> Iterator[str]:
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        yield f"{name:<{width}}  {printable(value)}"
