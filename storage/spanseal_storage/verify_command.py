"""The command `spanseal verify`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.errors import LedgerError
from spanseal_ledger.note import VerificationKey
from spanseal_ledger.verifier import Finding, TrustedKeys, VerificationResult
from spanseal_storage.access import open_reader
from spanseal_storage.checkpoint_file import read_checkpoint_file
from spanseal_storage.directory import DataDirectory
from spanseal_storage.errors import StorageError
from spanseal_storage.options import data_option, key_options, pinned_keys
from spanseal_storage.rendering import printable
from spanseal_storage.verification import verify_log

__all__ = ["verify"]

_SHOWN = 100


@click.command()
@data_option
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Checkpoint log, best a copy kept elsewhere.  [default: DATA/checkpoints.jsonl]",
)
@key_options("DATA/keys/*.vkey")
@click.option("--no-checkpoint-log", is_flag=True, help="There is none: say what cannot be known without it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def verify(
    data: Path,
    checkpoints: Path | None,
    key_texts: tuple[str, ...],
    key_file: Path | None,
    *,
    no_checkpoint_log: bool,
    as_json: bool,
) -> None:
    """Verify the whole log, and name what was tampered with.

    Recomputes every hash, link, commitment and tree root, checks every signature, and holds the log against the
    checkpoint log, which stands outside the database. Works while a collector is running.

    Exit codes: 0 nothing was found, 1 findings, 2 could not verify.
    """
    console = Console(stderr=as_json, highlight=False)
    try:
        directory = DataDirectory(data)
        directory.require()
        pinned = pinned_keys(directory, key_texts, key_file)
        keys_given = bool(key_texts or key_file)
        lines, problems, source = _checkpoint_log(directory, checkpoints, none=no_checkpoint_log)
        with open_reader(directory, "spanseal verify") as client, _progress(console) as progress:
            result = verify_log(
                client, keys=TrustedKeys(pinned=pinned), checkpoint_log=lines, progress=progress
            )
    except (StorageError, LedgerError) as error:
        _could_not(str(error), as_json=as_json)
    if as_json:
        click.echo(json.dumps(_as_data(result, problems, source, pinned), ensure_ascii=True))
    else:
        _show(console, result, problems, source, keys_given=keys_given)
    sys.exit(1 if result.findings or problems else 0)


def _checkpoint_log(
    directory: DataDirectory, given: Path | None, *, none: bool
) -> tuple[list[Line] | None, list[str], Path | None]:
    if none:
        return None, [], None
    path = given or directory.checkpoint_log
    if not path.exists():
        # Whoever cuts the tail of the table can remove this file too: its absence must not pass for a clean log.
        problem = f"there is no {path}; name a copy with --checkpoints, or say --no-checkpoint-log"
        return None, [problem], None
    lines, problems = read_checkpoint_file(path)
    return lines, problems, path


@contextmanager
def _progress(console: Console) -> Iterator[Any]:
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _could_not(message: str, *, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"verdict": "could_not_verify", "error": message}))
    click.echo(f"Error: could not verify: {printable(message)}", err=True)
    sys.exit(2)


def _as_data(
    result: VerificationResult, problems: list[str], source: Path | None, pinned: Sequence[VerificationKey]
) -> dict[str, Any]:
    return {
        "verdict": "findings" if result.findings or problems else "clean",
        "chains": result.chains,
        "records": result.records,
        "checkpoints": result.checkpoints,
        "checkpoint_log_lines": result.log_lines,
        "checkpoint_log": str(source) if source else None,
        "trusted_keys": [str(key) for key in pinned],
        "findings": [asdict(finding) for finding in result.findings]
        + [{"kind": "checkpoint_log_damaged", "message": problem} for problem in problems],
        "information": [asdict(finding) for finding in result.information],
        "not_checked": [{"rule": rule, "why": why} for rule, why in result.not_checked],
    }


def _show(
    console: Console,
    result: VerificationResult,
    problems: list[str],
    source: Path | None,
    *,
    keys_given: bool,
) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("records", f"{result.records:,}")
    table.add_row("chains", f"{result.chains:,}")
    table.add_row("checkpoints", f"{result.checkpoints:,}")
    table.add_row(
        "checkpoint log",
        Text(_short(source)) if source else "none: a cut tail cannot be known without it",
    )
    table.add_row(
        "trusted keys",
        "as given" if keys_given else "those beside the data; give --keys with a copy kept elsewhere",
    )
    console.print(table)
    _table(console, "information", result.information, "cyan")
    _table(console, "findings", result.findings, "red")
    for problem in problems:
        console.print(Text(f"checkpoint log: {printable(problem)}", style="red"))
    if result.not_checked:
        for rule, why in result.not_checked:
            console.print(Text(f"not checked: rule {rule}: {why}", style="dim"), soft_wrap=True)
    count = len(result.findings) + len(problems)
    if count:
        console.print(Text(f"TAMPERED: {count} finding{'s' if count > 1 else ''}", style="bold red"))
    else:
        console.print(Text("CLEAN: nothing was found", style="bold green"))


def _short(path: Path) -> str:
    """Show a path below the working directory without the way to it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _table(console: Console, title: str, findings: Sequence[Finding], style: str) -> None:
    if not findings:
        return
    table = Table(title=title, title_justify="left", title_style=f"bold {style}")
    table.add_column("kind", style=style, no_wrap=True)
    table.add_column("chain", overflow="fold")
    table.add_column("seq", justify="right")
    table.add_column("what", overflow="fold", ratio=1)
    for finding in findings[:_SHOWN]:
        seq = "" if finding.seq is None else str(finding.seq)
        if finding.last_seq is not None and finding.last_seq != finding.seq:
            seq += f"-{finding.last_seq}"
        table.add_row(
            finding.kind,
            Text(printable(finding.chain_id)),
            seq,
            Text(printable(finding.message)),
        )
    console.print(table)
    if len(findings) > _SHOWN:
        console.print(f"… and {len(findings) - _SHOWN} more; --json has them all")
