"""The clinic's accounts, for its administrators."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from flask import Blueprint, abort, g, url_for

from .auth import MIN_PASSWORD, PERMISSIONS, hash_password, password_problem, requires
from .database import db, transaction
from .web import done, page, payload, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from flask.typing import ResponseReturnValue

MAX_NAME = 64

blueprint = Blueprint("users", __name__, url_prefix="/users")


@blueprint.get("")
@requires("users")
def index() -> ResponseReturnValue:
    rows = db().execute("SELECT id, username, full_name, role, suspended FROM account ORDER BY id LIMIT 500")
    return page(
        "users.html",
        {"users": [dict(row) for row in rows]},
        roles=sorted(PERMISSIONS),
        minimum=MIN_PASSWORD,
    )


@blueprint.post("")
@requires("users")
def create() -> ResponseReturnValue:
    sent = payload()
    # Short enough for a session's cookie, which a browser drops when it is over 4 KiB.
    username, full_name, role = text(sent, "username", longest=MAX_NAME), text(sent, "full_name"), _role(sent)
    password = sent.get("password")
    problem = password_problem(password)
    if problem is not None:
        abort(400, problem)
    hashed = hash_password(str(password))  # before the transaction: it is slow, and others wait for the lock
    try:
        with transaction() as connection:
            uid = connection.execute(
                "INSERT INTO account (username, full_name, role, password_hash) VALUES (?, ?, ?, ?)",
                (username, full_name, role, hashed),
            ).lastrowid
    except sqlite3.IntegrityError:
        abort(409, "This user name is taken.")
    return done({"id": uid, "username": username, "role": role}, see=url_for("users.index"), status=201)


@blueprint.post("/<int:uid>/roles")
@requires("users")
def grant_role(uid: int) -> ResponseReturnValue:
    role = _role(payload())
    _change(uid, "UPDATE account SET role = ? WHERE id = ?", role)
    return done({"id": uid, "role": role}, see=url_for("users.index"))


@blueprint.post("/<int:uid>/suspend")
@requires("users")
def suspend(uid: int) -> ResponseReturnValue:
    _change(uid, "UPDATE account SET suspended = ? WHERE id = ?", 1)
    return done({"id": uid, "suspended": True}, see=url_for("users.index"))


@blueprint.post("/<int:uid>/reinstate")
@requires("users")
def reinstate(uid: int) -> ResponseReturnValue:
    _change(uid, "UPDATE account SET suspended = ? WHERE id = ?", 0)
    return done({"id": uid, "suspended": False}, see=url_for("users.index"))


def _change(uid: int, statement: str, value: object) -> None:
    if uid == g.account["id"]:
        abort(409, "You cannot change your own account.")
    with transaction() as connection:
        if connection.execute(statement, (value, uid)).rowcount == 0:
            abort(404, "There is no such user.")


def _role(sent: Mapping[str, Any]) -> str:
    role = text(sent, "role")
    if role not in PERMISSIONS:
        abort(400, f"The role must be one of {', '.join(sorted(PERMISSIONS))}.")
    return role
