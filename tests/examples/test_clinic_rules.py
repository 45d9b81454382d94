"""The clinic's rules file: every rule is about something, no route is left with a gap, and it says what it says."""

from __future__ import annotations

from pathlib import Path

import flask
import pytest

from examples.clinic.clinic.seed import DEMO_PASSWORD
from spanseal.commands.routes_report import report
from spanseal.meaning.rules import load_rules
from spanseal.testing import capture_audit

PATH = Path(__file__).parents[2] / "examples" / "clinic" / "rules.yaml"


def test_the_rules_leave_no_gap(app: flask.Flask) -> None:
    rules = load_rules(PATH)
    found = report(app, rules, {})
    assert found.kinds() == set()
    assert found.kinds() != report(app, load_rules(None), {}).kinds()
    lines = {f"{line.method} {line.route}": line for line in found.routes}
    skipped = [key for key, line in lines.items() if line.skip]
    assert skipped == ["GET /healthz"]
    viewed = lines["GET /patients/<int:pid>"].resolved
    assert viewed.action == "patient_record.viewed"
    assert viewed.attributes == {"audit.data_classes": "phi,pii", "audit.retention_class": "hipaa"}
    unclassed = {line.route for line in found.routes if "audit.data_classes" not in line.resolved.attributes}
    assert unclassed == {"/", "/healthz", "/login", "/logout", "/password", "/static/<path:filename>"}


def test_what_becomes_of_requests(app: flask.Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANSEAL_RULES", str(PATH))
    client = app.test_client()
    json = {"headers": {"Accept": "application/json"}, "buffered": True}
    with capture_audit(app) as records:
        client.get("/healthz", **json)
        client.post("/login", json={"username": "a.osei", "password": "wrong"}, **json)
        client.post("/login", json={"username": "a.osei", "password": DEMO_PASSWORD}, **json)
        note = client.post("/patients/3/notes", json={"text": "well"}, **json).get_json()
        client.get("/patients/3", **json)
    wrong, signed_in, written, viewed = records
    assert (wrong.action, wrong.outcome) == ("user.signed_in", "failure")
    assert wrong.failure_reason == "unknown user name, wrong password or suspended"
    assert (signed_in.action, signed_in.outcome) == ("user.signed_in", "success")
    assert (written.action, written.resource_id) == ("note.created", str(note["id"]))
    assert (written.attributes["audit.subject.type"], written.attributes["audit.subject.id"]) == (
        "patient",
        "3",
    )
    assert (viewed.action, viewed.resource_id) == ("patient_record.viewed", "3")
    assert viewed.attributes["audit.data_classes"] == "phi,pii"
