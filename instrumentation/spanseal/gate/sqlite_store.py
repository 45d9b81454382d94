"""Approvals in an SQLite file: of one machine, for all processes on it.

Each step is one transaction that takes the write lock before it reads (BEGIN IMMEDIATE): of two that want the same
approval, the second sees it used. What is recorded is recorded inside of the transaction: a process that is killed
between the record and the commit leaves a record of a change that did not come to be, and never a change without a
record.

A connection is made for each step and closed after it. Steps are rare, and so nothing of SQLite is inherited by a
child: `fork` only has to wait until no thread is inside.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from spanseal import runtime
from spanseal.errors import SpansealError

from .approval import SECOND, Approval, Note, Person, Resource, State
from .errors import NotPending, OwnApproval, StoreUnavailable, TooManyRequests, UnknownApproval
from .store import Claim, Store, Verdict

__all__ = ["SqliteStore"]

FORMAT = 1
MOST_WAITING = 100
"""Pending requests of one person in one tenant."""
KEPT = 90 * 86400 * SECOND
"""How long what is over stays in the file; the audit log keeps its records."""
_WAIT = 5.0
_PAUSE = 0.005

_SCHEMA = """
CREATE TABLE approval (
  id TEXT PRIMARY KEY, binding TEXT NOT NULL, tenant TEXT NOT NULL, service TEXT NOT NULL, action TEXT NOT NULL,
  resource_type TEXT NOT NULL, resource_id TEXT NOT NULL, method TEXT NOT NULL, route TEXT NOT NULL,
  requester_id TEXT NOT NULL, requester_email TEXT NOT NULL, requester_behalf TEXT NOT NULL,
  request_id TEXT NOT NULL, confirm INTEGER NOT NULL, use_within INTEGER NOT NULL,
  requested_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, state TEXT NOT NULL,
  approver_id TEXT NOT NULL, approver_email TEXT NOT NULL, approver_behalf TEXT NOT NULL,
  decided_at INTEGER NOT NULL, reason TEXT NOT NULL, used_at INTEGER NOT NULL, used_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX approval_binding ON approval (binding, state);
CREATE INDEX approval_state ON approval (tenant, state, requested_at);
"""
_PEOPLE = ("requester", "approver")

_inside = threading.Lock()
"""Held by whoever is inside SQLite, so that `fork` can wait."""


class SqliteStore(Store):
    """The default store.

    Args:
        path: The file; it is made, with its directory, when it is first written. Nobody but its owner may write it.
        create: Whether it may be made.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        self._create = create

    def claim(self, wanted: Approval, now: int, used_by: str, note: Note) -> Claim:
        """Use an approval, or ask for one: see `Store`."""
        # A step of its own: what is over stays so, whatever comes of the claim.
        with self._step() as execute:
            lapsed = _expire(execute, now, note, "binding = ?", wanted.binding)
        with self._step() as execute:
            rows = _select(
                execute,
                "binding = ? AND state IN ('granted', 'pending', 'denied') ORDER BY requested_at DESC, id DESC",
                wanted.binding,
            )
            for found in (one for one in rows if one.state is State.GRANTED):
                if found.decided_at > now or found.requested_at > now:
                    return Claim(Verdict.FROM_THE_FUTURE, found)
                used = replace(found, state=State.USED, used_at=now, used_by=used_by)
                note(State.USED, used)
                _update(execute, used)
                return Claim(Verdict.USED, used)
            for found in rows:
                if found.state is State.PENDING:
                    return Claim(Verdict.WAITING, found)
                if found.expires_at > now:
                    return Claim(Verdict.DENIED, found)
            waiting = execute(
                "SELECT count(*) FROM approval WHERE tenant = ? AND state = 'pending' AND requester_id = ? AND expires_at > ?",
                (wanted.tenant, wanted.requester.id, now),
            ).fetchone()[0]
            if waiting >= MOST_WAITING:
                raise TooManyRequests(f"{waiting} requests of this person wait already, which is the most")
            note(State.PENDING, wanted)
            _insert(execute, wanted)
            execute(
                "DELETE FROM approval WHERE state NOT IN ('pending', 'granted') AND max(expires_at, used_at) < ?",
                (now - KEPT,),
            )
            return Claim(Verdict.RENEWED if lapsed else Verdict.REQUESTED, wanted)

    def decide(
        self, identifier: str, *, grant: bool, by: Person, reason: str, now: int, note: Note
    ) -> Approval:
        """Grant or deny a pending request: see `Store`."""
        with self._step() as execute:
            _expire(execute, now, note, "id = ?", identifier)
        with self._step() as execute:
            found = _one(execute, identifier)
            if found.state is not State.PENDING:
                raise NotPending(f"the approval {identifier} is {found.state} already")
            if found.requester.names & by.names:
                raise OwnApproval("nobody decides about what he asked for himself")
            state = State.GRANTED if grant else State.DENIED
            decided = replace(found, state=state, approver=by, decided_at=now, reason=reason)
            if grant:
                decided = replace(decided, expires_at=now + found.use_within * SECOND)
            note(state, decided)
            _update(execute, decided)
            return decided

    def expire(self, tenant: str, now: int, note: Note) -> list[Approval]:
        """Find a tenant's approvals whose time is over: see `Store`."""
        with self._step() as execute:
            return _expire(execute, now, note, "tenant = ?", tenant)

    def find(self, identifier: str) -> Approval:
        """Return one: see `Store`."""
        with self._step() as execute:
            return _one(execute, identifier)

    def list(self, tenant: str, states: Collection[State], limit: int) -> Sequence[Approval]:
        """Return a tenant's approvals: see `Store`."""
        marks = ", ".join("?" * len(states))
        with self._step() as execute:
            return _select(
                execute,
                f"tenant = ? AND state IN ({marks}) ORDER BY requested_at DESC, id DESC LIMIT ?",
                tenant,
                *states,
                limit,
            )

    # --- the file --------------------------------------------------------------------------------------

    @contextmanager
    def _step(self) -> Iterator[Any]:
        """Run one transaction; gives `Connection.execute`."""
        with _inside:
            try:
                connection = self._begin()
                try:
                    try:
                        yield connection.execute
                        connection.execute("COMMIT")
                    except BaseException:
                        with suppress(sqlite3.Error):
                            connection.execute("ROLLBACK")
                        raise
                finally:
                    connection.close()
            except SpansealError:
                raise
            except (OSError, sqlite3.Error, ValueError) as error:
                raise StoreUnavailable(
                    f"the approvals in {self.path} cannot be read or written ({error}): "
                    "see that this process may write the file and its directory, and that it is an approvals store"
                ) from error

    def _begin(self) -> sqlite3.Connection:
        """Open the file and take its write lock."""
        deadline = time.monotonic() + _WAIT
        while True:
            connection: sqlite3.Connection | None = None
            try:
                connection = self._open()
                connection.execute("BEGIN IMMEDIATE")
            except BaseException as error:
                if connection is not None:
                    connection.close()
                # While another process cleans up after its last connection, or recovers the file of a killed one,
                # SQLite does not always wait by itself.
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                return connection

    def _open(self) -> sqlite3.Connection:
        self._look_at_file()
        connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # What is used up must not come back after a power cut.
            connection.execute("PRAGMA synchronous=FULL")
            if self._format(connection) == 0:
                self._make(connection)
            if (found := self._format(connection)) != FORMAT:
                raise StoreUnavailable(
                    f"the approvals in {self.path} have format {found}, this program knows {FORMAT}"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _look_at_file(self) -> None:
        if self._create:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                # SQLite gives its side files the permissions of the database.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mode = self.path.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StoreUnavailable(
                f"the approvals in {self.path} can be written by others than their owner, who could approve anything: "
                f"chmod 600 {self.path}"
            )

    @staticmethod
    def _format(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self._format(connection) == 0:  # another process was not faster
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={FORMAT}")
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


# --- rows ------------------------------------------------------------------------------------------------

_COLUMNS = tuple(
    column
    for name in (item.name for item in fields(Approval))
    for column in (
        ("resource_type", "resource_id")
        if name == "resource"
        else tuple(f"{name}_{part}" for part in ("id", "email", "behalf"))
        if name in _PEOPLE
        else (name,)
    )
)


def _row(approval: Approval) -> dict[str, object]:
    row: dict[str, object] = {}
    for item in fields(Approval):
        value = getattr(approval, item.name)
        if isinstance(value, Resource):
            row |= {"resource_type": value.type, "resource_id": value.id}
        elif isinstance(value, Person):
            row |= {f"{item.name}_{part}": getattr(value, part) for part in ("id", "email", "behalf")}
        else:
            row[item.name] = str(value) if isinstance(value, State) else value
    # What SQLite cannot hold as text: a lone surrogate of a hostile path.
    return {
        key: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for key, value in row.items()
    }


def _approval(values: Sequence[Any]) -> Approval:
    row = dict(zip(_COLUMNS, values, strict=True))
    people = {
        name: Person(*(row.pop(f"{name}_{part}") for part in ("id", "email", "behalf"))) for name in _PEOPLE
    }
    resource = Resource(row.pop("resource_type"), row.pop("resource_id"))
    return Approval(**{**row, **people, "resource": resource, "state": State(row["state"])})


def _select(execute: Any, where: str, *values: object) -> list[Approval]:
    statement = f"SELECT {', '.join(_COLUMNS)} FROM approval WHERE {where}"  # noqa: S608 - own words only
    return [_approval(row) for row in execute(statement, values).fetchall()]


def _one(execute: Any, identifier: str) -> Approval:
    found = _select(execute, "id = ?", identifier)
    if not found:
        raise UnknownApproval(f"there is no approval {identifier!r}")
    return found[0]


def _insert(execute: Any, approval: Approval) -> None:
    marks = ", ".join(f":{column}" for column in _COLUMNS)
    execute(f"INSERT INTO approval ({', '.join(_COLUMNS)}) VALUES ({marks})", _row(approval))  # noqa: S608 - as above


def _update(execute: Any, approval: Approval) -> None:
    changes = ", ".join(f"{column} = :{column}" for column in _COLUMNS if column != "id")
    execute(f"UPDATE approval SET {changes} WHERE id = :id", _row(approval))  # noqa: S608 - as above


def _expire(execute: Any, now: int, note: Note, where: str, value: str) -> list[Approval]:
    lapsed = _select(
        execute,
        f"{where} AND state IN ('pending', 'granted') AND expires_at <= ? ORDER BY expires_at, id",
        value,
        now,
    )
    for number, one in enumerate(lapsed):
        lapsed[number] = expired = replace(one, state=State.EXPIRED)
        note(State.EXPIRED, expired)
        _update(execute, expired)
    return lapsed


# --- fork ------------------------------------------------------------------------------------------------

# What is registered later runs earlier before a fork: so this waits for `_inside` before the runtime's own handler waits
# for the spool, in the order in which a note takes both.
_ = runtime


def _before_fork() -> None:
    _held.append(_inside.acquire(timeout=_WAIT))


def _in_parent() -> None:
    if _held.pop():
        _inside.release()


def _in_child() -> None:
    global _inside  # noqa: PLW0603 - one for each process
    _held.clear()
    _inside = threading.Lock()


_held: list[bool] = []
os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
