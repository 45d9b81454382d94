"""Who is signed in, and what each role may do."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, ParamSpec

from flask import Blueprint, abort, current_app, g, redirect, render_template, request, session, url_for
from werkzeug.security import check_password_hash, generate_password_hash

from .database import db, transaction
from .web import SAFE_METHODS, done, payload, text, wants_html, well_formed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from flask import Flask
    from flask.typing import ResponseReturnValue

P = ParamSpec("P")

PERMISSIONS: dict[str, frozenset[str]] = {
    "doctor": frozenset({"patients.read", "patients.write", "patients.export", "notes"}),
    "nurse": frozenset({"patients.read", "notes"}),
    "billing": frozenset({"invoices.read", "invoices.write"}),
    "admin": frozenset({"patients.read", "patients.export", "invoices.read", "users"}),
}
MIN_PASSWORD = 12
MAX_PASSWORD = 200

blueprint = Blueprint("auth", __name__)


def may(permission: str) -> bool:
    """Tell whether the signed-in account has a permission (also for the templates)."""
    return permission in PERMISSIONS.get(session.get("role", ""), frozenset())


def requires(
    permission: str | None = None,
) -> Callable[[Callable[P, ResponseReturnValue]], Callable[P, ResponseReturnValue]]:
    """Let only signed-in accounts pass, and of them only those with `permission`.

    A browser without a session is sent to the sign-in page, a JSON client gets 401; who is signed in but
    lacks the permission gets 403.
    """

    def decorate(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
        @functools.wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
            if g.account is None:
                if wants_html() and request.method in SAFE_METHODS:
                    return redirect(url_for("auth.login", next=request.path))
                abort(401, "Sign in first.")
            if permission is not None and not may(permission):
                abort(403, "Your role does not allow this.")
            return view(*args, **kwargs)

        return checked

    return decorate


def load_account() -> None:
    """Look the session's account up anew, so that a suspension or a new role counts at once."""
    g.account = None
    if "user_id" not in session:
        return
    account = db().execute("SELECT * FROM account WHERE id = ?", (session["user_id"],)).fetchone()
    if account is None or account["suspended"]:
        session.clear()
        return
    if session["role"] != account["role"]:
        session["role"] = account["role"]
    g.account = account


@blueprint.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    if request.method == "GET":
        return render_template("login.html", error=None)
    fields = payload()
    username = text(fields, "username")
    password = fields.get("password")
    account = db().execute("SELECT * FROM account WHERE username = ?", (username,)).fetchone()
    if not _password_fits(account, password) or account["suspended"]:
        message = "Unknown user name or wrong password."
        if wants_html():
            return render_template("login.html", error=message), 401
        abort(401, message)
    session.clear()
    session["user_id"] = account["id"]
    session["username"] = account["username"]
    session["role"] = account["role"]
    return done(
        {"user_id": account["id"], "username": account["username"], "role": account["role"]},
        see=_local(request.args.get("next", "")) or url_for("home"),
    )


@blueprint.post("/logout")
@requires()
def logout() -> ResponseReturnValue:
    session.clear()
    return done({"signed_out": True}, see=url_for("auth.login"))


@blueprint.route("/password", methods=["GET", "POST"])
@requires()
def password() -> ResponseReturnValue:
    if request.method == "GET":
        return render_template("password.html", error=None, minimum=MIN_PASSWORD)
    fields = payload()
    new = fields.get("new")
    problem = password_problem(new)
    if not _password_fits(g.account, fields.get("current")):
        problem = "The current password is wrong."
    if problem is not None:
        if wants_html():
            return render_template("password.html", error=problem, minimum=MIN_PASSWORD), 400
        abort(400, problem)
    with transaction() as connection:
        connection.execute(
            "UPDATE account SET password_hash = ? WHERE id = ?", (hash_password(str(new)), g.account["id"])
        )
    return done({"changed": True}, see=url_for("home"))


def password_problem(sent: object) -> str | None:
    """Say why a new password cannot be taken, or nothing where it can."""
    if not isinstance(sent, str) or not MIN_PASSWORD <= len(sent) <= MAX_PASSWORD:
        return f"The new password needs {MIN_PASSWORD} to {MAX_PASSWORD} characters."
    return None if well_formed(sent) else "The new password is not well-formed text."


def hash_password(plain: str) -> str:
    """Hash a password by the configured werkzeug method."""
    return generate_password_hash(plain, current_app.config["PASSWORD_METHOD"])


def _password_fits(account: sqlite3.Row | None, sent: object) -> bool:
    # An unknown user costs the same hashing as a known one, or the answer's time would tell them apart.
    stored = account["password_hash"] if account is not None else current_app.config["NO_PASSWORD_HASH"]
    plain = sent if isinstance(sent, str) and well_formed(sent) else ""
    return check_password_hash(stored, plain) and account is not None


def _local(target: str) -> str:
    """Return `target` if it is a path of this site, else nothing: no redirects to elsewhere.

    Browsers take a backslash for a slash and leave tabs and line ends out, so neither may be there at all.
    """
    return target if re.fullmatch(r"/(?!/)[^\\\x00-\x20\x7f]*", target) else ""


def init_app(app: Flask) -> None:
    app.config["NO_PASSWORD_HASH"] = generate_password_hash("nobody's", app.config["PASSWORD_METHOD"])
    app.before_request(load_account)
    app.register_blueprint(blueprint)
    app.jinja_env.globals["may"] = may
