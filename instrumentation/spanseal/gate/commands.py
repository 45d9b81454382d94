"""`spanseal approvals`: see and decide about approvals from the machine that holds them.

It is the operator's break-glass: whoever may write the store's file may approve, and only what is recorded tells of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from spanseal.actors.actor import Actor
from spanseal.errors import ConfigurationError, InvalidRecord, NotAudited
from spanseal.runtime import current
from spanseal.settings import load, spool_dir

from .approval import SECOND, Approval, Person, State, iso
from .errors import ApprovalError, GateUnavailable
from .policy import Policy
from .records import noting
from .setup import default_store, load_policy, store_of
from .sqlite_store import SqliteStore
from .store import Store

__all__ = ["approvals"]

_SELF = Actor("spanseal", type="system")
_MOST = 1000
_COLOURS = {State.PENDING: "yellow", State.GRANTED: "green", State.DENIED: "red"}

_Command = TypeVar("_Command", bound=Callable[..., Any])

_store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file that holds them.  [default: as SPANSEAL_RULES says, or beside the spool]",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


def _deciding(command: _Command) -> _Command:
    for option in (
        _as_json,
        _store_option,
        click.option("--reason", default="", help="Why; goes on record."),
        click.option(
            "--email", default="", help="The e-mail address of whoever decides, to tell people apart."
        ),
        click.option("--as", "who", required=True, metavar="ACTOR", help="The id of whoever decides."),
        click.argument("identifier", metavar="ID"),
    ):
        command = option(command)
    return command


@click.group()
def approvals() -> None:
    """See and decide about requests for approval of privileged actions.

    Run it on the application's machine, as its user and with its variables (SPANSEAL_*,
    OTEL_EXPORTER_OTLP_*): what is decided is recorded as the application's records are. Whoever may
    write the store's file may approve: this is for emergencies, the application's page for every day.

    Exit codes: 0 done, 1 the approval does not allow it (unknown, not pending, one's own),
    2 it could not be done.
    """


@approvals.command("list")
@click.option("--all", "everything", is_flag=True, help="Those too that are denied, used or expired.")
@_store_option
@_as_json
def list_(store: Path | None, *, everything: bool, as_json: bool) -> None:
    """List what waits and what can be used, the newest first."""
    with _told():
        kept = _store(store)
        _expire(kept)
        states = tuple(State) if everything else (State.PENDING, State.GRANTED)
        found = kept.list(load().tenant, states, _MOST)
        if as_json:
            for one in found:
                click.echo(json.dumps(_described(one)))
            return
        _table(found)


@approvals.command()
@click.argument("identifier", metavar="ID")
@_store_option
@_as_json
def show(identifier: str, store: Path | None, *, as_json: bool) -> None:
    """Show one."""
    with _told():
        kept = _store(store)
        _expire(kept)
        _tell(_of_tenant(kept.find(identifier)), as_json=as_json)


@approvals.command()
@_deciding
def approve(identifier: str, who: str, email: str, reason: str, store: Path | None, *, as_json: bool) -> None:
    """Let what was asked for be done, once."""
    _decide(identifier, who, email, reason, store, grant=True, as_json=as_json)


@approvals.command()
@_deciding
def deny(identifier: str, who: str, email: str, reason: str, store: Path | None, *, as_json: bool) -> None:
    """Let it not be done."""
    _decide(identifier, who, email, reason, store, grant=False, as_json=as_json)


def _decide(
    identifier: str, who: str, email: str, reason: str, store: Path | None, *, grant: bool, as_json: bool
) -> None:
    with _told():
        if not who.strip():
            _could_not("--as is empty: name whoever decides")
        actor = Actor(who.strip(), email=email.strip())
        kept = _store(store)
        _of_tenant(kept.find(identifier))
        extra: dict[str, object] = {
            "approval.via": "cli",
            "approval.os_user": _os_user(),
            "approval.os_uid": os.getuid(),
        }
        with noting(current(), actor, None, extra) as note:
            decided = kept.decide(
                identifier, grant=grant, by=Person.of(actor), reason=reason, now=time.time_ns(), note=note
            )
        _tell(decided, as_json=as_json)


# --- the store -------------------------------------------------------------------------------------------


def _store(given: Path | None) -> Store:
    """Open what there is: an approval that can be decided was asked for by an application, which made the file."""
    if given is not None:
        store: Store = SqliteStore(given, create=False)
    else:
        # As gunicorn and flask have it: a store of the application's own stands where that does.
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - text is what sys.path holds
        directory = spool_dir()
        store = store_of(load_policy(load().rules) or Policy(store=default_store(directory)), directory)
        if isinstance(store, SqliteStore):
            store = SqliteStore(store.path, create=False)
    if isinstance(store, SqliteStore) and not store.path.is_file():
        _could_not(
            f"there is no file {store.path}: name the application's with --store, or set its variables"
        )
    return store


def _expire(store: Store) -> None:
    """Find what is over. Where that cannot be recorded, it is shown all the same, as it was."""
    try:
        with noting(current(), _SELF, None) as note:
            store.expire(load().tenant, time.time_ns(), note)
    except NotAudited as error:
        click.echo(f"Warning: what has expired stays as it was: {_printable(str(error))}", err=True)


def _of_tenant(approval: Approval) -> Approval:
    tenant = load().tenant
    if approval.tenant != tenant:
        _could_not(
            f"it is of the tenant {approval.tenant!r}, the variable SPANSEAL_TENANT says {tenant!r}: set the application's"
        )
    return approval


def _os_user() -> str:
    try:
        # By the number: $LOGNAME says what the caller likes.
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ApprovalError as error:
        click.echo(f"Error: {_printable(str(error))}", err=True)
        sys.exit(1)
    except (GateUnavailable, ConfigurationError, NotAudited, InvalidRecord) as error:
        _could_not(str(error))


def _could_not(message: str) -> NoReturn:
    click.echo(f"Error: {_printable(message)}", err=True)
    sys.exit(2)


# --- what is shown ---------------------------------------------------------------------------------------


def _described(one: Approval) -> dict[str, object]:
    times = {
        name: iso(value)
        for name in ("requested_at", "expires_at", "decided_at", "used_at")
        if (value := getattr(one, name))
    }
    named = {
        name: {"id": person.id, "email": person.email}
        for name, person in (("requester", one.requester), ("approver", one.approver))
        if person.names
    }
    return {
        "id": one.id,
        "state": str(one.state),
        "action": one.action,
        "resource": {"type": one.resource.type, "id": one.resource.id},
        "method": one.method,
        "route": one.route,
        "service": one.service,
        "tenant": one.tenant,
        **named,
        "reason": one.reason,
        "request_id": one.request_id,
        "used_by": one.used_by,
        **times,
    }


def _table(found: Sequence[Approval]) -> None:
    if not found:
        click.echo("Nothing waits.", err=True)
        return
    rows = [("ID", "STATE", "ACTION", "RESOURCE", "ASKED BY", "LEFT")]
    now = time.time_ns()
    rows += (
        (
            one.id,
            str(one.state),
            one.action,
            "/".join(filter(None, (one.resource.type, one.resource.id))),
            one.requester.id,
            _left(one.expires_at - now) if one.state in (State.PENDING, State.GRANTED) else "",
        )
        for one in found
    )
    printable = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in printable) for column in range(len(rows[0]))]
    for number, row in enumerate(printable):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number == 0:
            cells = [click.style(cell, dim=True) for cell in cells]
        else:
            cells[1] = click.style(cells[1], fg=_COLOURS.get(found[number - 1].state))
        click.echo("  ".join(cells).rstrip())


def _tell(one: Approval, *, as_json: bool) -> None:
    described = _described(one)
    if as_json:
        click.echo(json.dumps(described))
        return
    for name, value in described.items():
        shown = " ".join(filter(None, map(str, value.values()))) if isinstance(value, dict) else str(value)
        if shown:
            click.echo(f"{click.style(name.replace('_', ' ').ljust(13), dim=True)} {_printable(shown)}")


def _left(nanoseconds: int) -> str:
    seconds = max(nanoseconds, 0) // SECOND
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _printable(text: str) -> str:
    """Write what could act on a terminal as an escape; all of this was written by somebody else."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
