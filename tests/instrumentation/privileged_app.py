"""An application with privileged actions, signed in to through Flask-Login. Served by real servers too."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flask
import flask_login

import spanseal
from spanseal.gate import sqlite_store

SECRET = "a made-up key"


@dataclass
class User(flask_login.UserMixin):  # type: ignore[misc]  # it has no types
    id: str
    email: str
    role: str = ""


USERS = {
    user.id: user
    for user in (
        User("ann", "ann@example.org", "admin"),
        User("ben", "ben@example.org", "admin,security"),
        User("eve", "eve@example.org", "clerk"),
        User("ann-2", "ANN@Example.ORG", "security"),
        User("gone", "gone@example.org", "admin"),
    )
}


@dataclass
class Done:
    """What views have really done; in a file where several processes do it."""

    said: list[str] = field(default_factory=list)
    path: Path | None = None

    def add(self, what: str) -> None:
        self.said.append(what)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(f"{what}\n")


def add_views(app: flask.Flask) -> Done:
    """Add sign-in and views that do something."""
    done = Done()
    app.secret_key = SECRET
    manager = flask_login.LoginManager(app)

    @manager.user_loader  # type: ignore[untyped-decorator]  # as above
    def load(identifier: str) -> User | None:
        return USERS.get(identifier) if identifier != "gone" else None

    @app.post("/login/<name>")
    def login(name: str) -> str:
        flask_login.login_user(USERS[name])
        if "mfa" in flask.request.args:
            flask.session["mfa_at"] = time.time()
        return name

    @app.route("/users/<uid>", methods=["DELETE", "PUT", "OPTIONS"])
    @flask_login.login_required  # type: ignore[untyped-decorator]  # as above
    def user(uid: str) -> str:
        if uid == "die":
            done.add("died")
            os.kill(os.getpid(), signal.SIGKILL)
        done.add(f"{flask.request.method} {uid}")
        return uid

    @app.get("/exports/<name>")
    def export(name: str) -> str:
        done.add(f"{flask.request.method} {name}")
        return name

    @app.post("/grants")
    def grant() -> Any:
        done.add(f"grant {flask.request.form.get('role')}")
        return "granted"

    @app.get("/healthz")
    def health() -> str:
        return "ok"

    return done


def make() -> flask.Flask:
    app = flask.Flask("privileged")
    done = add_views(app)
    done.path = Path(os.environ["DONE_FILE"])
    app.register_blueprint(spanseal.approvals_blueprint())

    @app.after_request
    def tell_worker(response: flask.Response) -> flask.Response:
        response.headers["X-Worker"] = str(os.getpid())
        return response

    die_between_record_and_store(Path(os.environ["DONE_FILE"]).with_name("die"))
    return app


def die_between_record_and_store(flag: Path) -> None:
    """Kill this process, once, where a change is recorded and not yet stored, as soon as a file is there."""
    update = sqlite_store._update

    def dying(*arguments: Any) -> None:
        update(*arguments)
        if flag.exists():
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    sqlite_store._update = dying  # type: ignore[assignment]  # for as long as this process lives


if "DONE_FILE" in os.environ:
    app = make()
