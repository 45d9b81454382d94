"""A small clinic: patients, their notes, invoices, and the people who work with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import Flask, current_app, redirect, url_for
from flask.cli import with_appcontext

from . import auth, database, invoices, patients, seed, users, web
from .auth import may, requires
from .database import db

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

__all__ = ["create_app"]


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the app, and at first start its database with demo data.

    Args:
        config: settings that go before the environment's: `DATABASE` (`CLINIC_DATABASE`, a path, default
            `clinic.sqlite` in the working directory), `SECRET_KEY` (`CLINIC_SECRET_KEY`, default: one made
            with the database), `PASSWORD_METHOD` (`CLINIC_PASSWORD_METHOD`, a werkzeug hashing method).
    """
    app = Flask(__name__)
    app.config.update(
        DATABASE=os.environ.get("CLINIC_DATABASE") or "clinic.sqlite",
        PASSWORD_METHOD=os.environ.get("CLINIC_PASSWORD_METHOD") or "scrypt",
        SECRET_KEY=os.environ.get("CLINIC_SECRET_KEY"),
        SESSION_COOKIE_NAME="clinic_session",
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=1024 * 1024,
    )
    app.config.update(config or {})
    path = Path(app.config["DATABASE"]).absolute()  # also for a server that changes its directory
    app.config["DATABASE"] = str(path)
    database.ensure(path, password_method=app.config["PASSWORD_METHOD"])
    app.config["SECRET_KEY"] = app.config["SECRET_KEY"] or database.secret_key(path)

    database.init_app(app)
    auth.init_app(app)
    web.init_app(app)
    for module in (patients, invoices, users):
        app.register_blueprint(module.blueprint)
    app.add_url_rule("/", "home", home)
    app.add_url_rule("/healthz", "healthz", healthz)
    app.cli.add_command(init_db)
    return app


@requires()
def home() -> ResponseReturnValue:
    return redirect(url_for("patients.index" if may("patients.read") else "invoices.index"))


def healthz() -> ResponseReturnValue:
    db().execute("SELECT 1 FROM setting")
    return {"status": "ok"}


@click.command("init-db")
@with_appcontext
def init_db() -> None:
    """Make the database, if it is not there yet, and name its demo accounts."""
    # The app that this command runs in has made it already.
    click.echo(
        f"{current_app.config['DATABASE']} is ready. Sign in with the password {seed.DEMO_PASSWORD} as:"
    )
    for account in seed.ACCOUNTS:
        click.echo(f"  {account.username:<14} {account.role:<8} {account.full_name}")
