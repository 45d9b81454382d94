"""An audited application with a policy, its users, and a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flask

import spanseal
from spanseal.gate.setup import gate_of
from spanseal.gate.sqlite_store import SqliteStore
from tests.instrumentation.conftest import Audit
from tests.instrumentation.fake_receiver import Received
from tests.instrumentation.privileged_app import Done, add_views

MINUTE = 60 * 1_000_000_000
RULES = """\
version: 1
rules:
  - {route: /users/<uid>, method: PUT, action: user.deleted}
  - {route: /exports/<name>, action: data.bulk_exported, resource: {type: export, id: name}}
  - {route: /grants, action: admin.permission_granted}
"""
SEED = f"{RULES}privileged:\n  seed: true\n"


@dataclass
class Clinic:
    """An audited application with a policy, its users' clients, and a clock of its own."""

    audit: Audit
    app: flask.Flask
    done: Done
    rules: Path

    def policy(self, text: str = SEED) -> None:
        self.rules.write_text(text)
        self.audit.set(SPANSEAL_RULES=str(self.rules))

    def client(self, name: str, *, mfa: bool = True) -> Any:
        """A client that is signed in; a new one each time."""
        client = self.app.test_client()
        if name:
            answer = client.post(f"/login/{name}" + ("?mfa" if mfa else ""))
            assert answer.status_code == 200
        return client

    def later(self, minutes: float) -> None:
        """Let time pass for the gate."""
        gate = gate_of(self.audit.runtime)
        now = gate.clock()
        gate.clock = lambda: now + round(minutes * MINUTE)

    @property
    def store(self) -> SqliteStore:
        store = gate_of(self.audit.runtime).store
        assert isinstance(store, SqliteStore)
        return store

    def approve(self, answer: Any, name: str = "ben", *, verb: str = "approve") -> Any:
        """Let somebody decide about what an answer asked for."""
        client = self.client(name)
        url = answer.headers["Location"]
        token = client.get(url).json["token"]
        return client.post(f"{url}/{verb}", json={"approvals_token": token, "reason": "agreed"})

    def records(self) -> list[Received]:
        """What is on record, without signing in and looking."""
        return [
            record
            for record in self.audit.records()
            if record.action != "user.signed_in"
            and "/approvals" not in str(record.attributes.get("http.route"))
        ]


def make_clinic(audit: Audit, app: flask.Flask, directory: Path) -> Clinic:
    """Make one; its policy can still be set."""
    done = add_views(app)
    app.register_blueprint(spanseal.approvals_blueprint())
    return Clinic(audit, app, done, directory / "rules.yaml")


def error(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json["error"]


REQUIRED = (403, "approval_required")
