"""`spanseal prove`, `spanseal check` and `spanseal checkpoints`: what outsiders can hold, and check without the log."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.checkpoint_log import Line, encode, parse_log
from spanseal_ledger.errors import LedgerError
from spanseal_ledger.note import VerificationKey, open_note
from spanseal_ledger.proof import ProvedRecord, verify_proof
from spanseal_storage.access import open_reader
from spanseal_storage.directory import DataDirectory
from spanseal_storage.errors import NoProofError
from spanseal_storage.options import data_option, key_options, pinned_keys
from spanseal_storage.output import told, write_lines
from spanseal_storage.proofs import prove_consistency, prove_record
from spanseal_storage.rendering import iso_nanoseconds, printable

__all__ = ["check", "checkpoints", "prove"]

_POLL_SECONDS = 0.5
_MOST_BYTES = 512 << 20


@click.command()
@click.argument("record_id")
@data_option
@key_options("DATA/keys/*.vkey")
@click.option("--tenant", metavar="NAME", help="Whose record; needed where several tenants have the id.")
@click.option(
    "--checkpoint",
    "checkpoint_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Signed checkpoint to prove it by, such as one kept elsewhere.  [default: the chain's latest]",
)
@click.option("--without-personal", is_flag=True, help="Leave e-mail address, IP address and browser out.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File.  [default: standard output]",
)
def prove(
    data: Path,
    record_id: str,
    key_texts: tuple[str, ...],
    key_file: Path | None,
    tenant: str | None,
    checkpoint_file: Path | None,
    output: Path | None,
    *,
    without_personal: bool,
) -> None:
    """Write the proof that one record is in the log.

    It is a C2SP tlog-proof: the record, its place in the chain, the way to the tree's root, and the signed
    checkpoint. spanseal check verifies it without the log, and so can any program written from docs/format.md.
    Works while a collector is running.

    Exit codes: 0 done, 2 could not be done, 130 interrupted.
    """
    with told(OSError):
        directory = DataDirectory(data)
        directory.require()
        keys = pinned_keys(directory, key_texts, key_file)
        note = _read(checkpoint_file) if checkpoint_file is not None else None
        with open_reader(directory, "spanseal prove") as client:
            proof = prove_record(
                client, record_id, keys, tenant=tenant, checkpoint=note, personal=not without_personal
            )
        if output is None:
            sys.stdout.write(proof)
        else:
            with output.open("x", encoding="utf-8") as file:
                file.write(proof)
            click.echo(f"{output} written; spanseal check {output} --key VKEY verifies it", err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True))
@key_options("")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def check(file: Path, key_texts: tuple[str, ...], key_file: Path | None, *, as_json: bool) -> None:
    """Verify the proof of one record, without database or network.

    Recomputes the record's hash and the way to the tree's root, and checks the signature over it. The key must
    come from where the log's operator cannot change it.

    Exit codes: 0 it is proved, 1 it is not, 2 could not be checked.
    """
    with told(OSError):
        keys = pinned_keys(None, key_texts, key_file)
        text = sys.stdin.read() if str(file) == "-" else _read(file)
    try:
        proved = verify_proof(text, keys)
    except LedgerError as error:
        if as_json:
            click.echo(json.dumps({"verdict": "not_proved", "error": str(error)}))
        else:
            click.secho(f"NOT PROVED: {printable(str(error))}", fg="red", bold=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({"verdict": "proved", **_as_data(proved)}))
        return
    for name, value in _as_data(proved).items():
        if value:
            click.echo(f"{name:<16} {printable(value if isinstance(value, str) else json.dumps(value))}")
    click.secho("PROVED: the record is in the signed tree", fg="green", bold=True)


def _as_data(proved: ProvedRecord) -> dict[str, Any]:
    record, tree = proved.record, proved.checkpoint
    return {
        "record_id": record.record_id,
        "event_time": iso_nanoseconds(record.event_time),
        "received_at": iso_nanoseconds(record.received_at),
        "tenant": record.tenant,
        "service": record.service,
        "action": record.action,
        "outcome": record.outcome,
        "failure_reason": record.failure_reason,
        "actor_type": record.actor_type,
        "actor_id": record.actor_id,
        "actor_role": record.actor_role,
        "actor_email": record.actor_email,
        "actor_ip": record.actor_ip,
        "resource_type": record.resource_type,
        "resource_id": record.resource_id,
        "request_id": record.request_id,
        "metadata": dict(record.metadata),
        "chain": record.chain_id,
        "seq": str(record.seq),
        "log": tree.log_name,
        "tree_size": str(tree.size),
        "tree_root": tree.root.hex(),
        "signed_by": ", ".join(str(key) for key in proved.signers),
    }


@click.group()
def checkpoints() -> None:
    """Keep the log's signed checkpoints, and hold them against each other."""


@checkpoints.command()
@data_option
@key_options("DATA/keys/*.vkey")
@click.option("--from-start", is_flag=True, help="Those that are there already, too.")
@click.option("--once", is_flag=True, help="Do not wait for new ones.")
def follow(
    data: Path, key_texts: tuple[str, ...], key_file: Path | None, *, from_start: bool, once: bool
) -> None:
    """Print new checkpoints as they are made, one JSON object a line, for outsiders to keep.

    The lines are those of the checkpoint log; what is printed can be given to spanseal verify --checkpoints.
    Each signature is checked first. Send it to where nobody of this machine can change it:

    \b
      spanseal checkpoints follow --from-start | ssh witness 'cat >> checkpoints.jsonl'

    Exit codes: 0 done (--once), 1 a line is damaged or not signed by a trusted key, 2 could not be done,
    130 interrupted.
    """  # noqa: D301 - \b is click's mark for a paragraph that is not to be wrapped
    with told(OSError):
        directory = DataDirectory(data)
        directory.require()
        keys = pinned_keys(directory, key_texts, key_file)
        path = directory.checkpoint_log
        position = 0 if from_start or once else path.stat().st_size
        while True:
            data_read, position = _new_lines(path, position)
            _print(data_read, keys)
            if once:
                return
            time.sleep(_POLL_SECONDS)


def _new_lines(path: Path, position: int) -> tuple[bytes, int]:
    """Read the whole lines after a position; a last one without newline is still being written."""
    with path.open("rb") as file:
        if file.seek(0, 2) < position:
            raise NoProofError(f"{path} has become shorter: checkpoints were removed; run spanseal verify")
        file.seek(position)
        found = file.read()
    whole = found[: found.rfind(b"\n") + 1]
    return whole, position + len(whole)


def _print(data: bytes, keys: list[VerificationKey]) -> None:
    lines, problems = parse_log(data)
    out = sys.stdout.buffer
    for line in lines:
        try:
            open_note(line.note, keys)
        except LedgerError as error:
            click.echo(f"Error: a checkpoint cannot be trusted: {printable(str(error))}", err=True)
            sys.exit(1)
        out.write(encode(line))
    out.flush()
    if problems:
        click.echo(f"Error: the checkpoint log is damaged: {problems[0]}", err=True)
        sys.exit(1)


@checkpoints.command("list")
@data_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each, on standard output.")
def list_checkpoints(data: Path, *, as_json: bool) -> None:
    """Show the latest checkpoint of each chain in the checkpoint log.

    Exit codes: 0 done, 2 could not be done.
    """
    with told(OSError):
        directory = DataDirectory(data)
        directory.require()
        lines, _ = parse_log(directory.checkpoint_log.read_bytes())
        latest: dict[str, tuple[Line, Checkpoint]] = {}
        for line in lines:
            tree = _tree(line.note)
            latest[tree.origin] = (line, tree)
        shown = [
            {
                "received_at": dt.datetime.fromtimestamp(line.received_at / 1e9, tz=dt.UTC).isoformat(
                    timespec="seconds"
                ),
                "chain": tree.chain_id,
                "size": tree.size,
                "root": tree.root.hex(),
            }
            for line, tree in latest.values()
        ]
        if as_json:
            write_lines(json.dumps(item) for item in shown)
            return
        write_lines(
            f"{item['received_at']}  {item['chain']}  {item['size']:>12,}  {item['root']}" for item in shown
        )


def _tree(note: str) -> Checkpoint:
    return Checkpoint.parse(note.partition("\n\n")[0] + "\n")


@checkpoints.command()
@click.argument("old", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.argument("new", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=False)
@data_option
@key_options("DATA/keys/*.vkey")
def consistency(
    old: Path, new: Path | None, data: Path, key_texts: tuple[str, ...], key_file: Path | None
) -> None:
    """Check that the tree of a kept checkpoint is the beginning of a later one.

    OLD and NEW are files with a signed checkpoint each, as a proof's end or a checkpoint log's "note" has it; NEW
    is the chain's latest where it is not given.

    Exit codes: 0 it is, 1 it is not, 2 could not be checked.
    """
    with told(OSError):
        directory = DataDirectory(data)
        directory.require()
        keys = pinned_keys(directory, key_texts, key_file)
        notes = _read(old), _read(new) if new is not None else None
        with open_reader(directory, "spanseal checkpoints") as client:
            try:
                tree = prove_consistency(client, *notes, keys)
            except NoProofError as error:
                click.secho(f"NOT CONSISTENT: {printable(str(error))}", fg="red", bold=True)
                sys.exit(1)
        click.secho(f"CONSISTENT: the tree of {tree.size:,} records continues it", fg="green", bold=True)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise NoProofError(f"{path} is too large to be what is expected")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise NoProofError(f"{path} is not text") from None
