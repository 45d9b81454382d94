"""Where people decide: the pages, the JSON, and the command."""

from __future__ import annotations

import json
import os
import pwd
import re
import sys
import zipfile
from pathlib import Path
from subprocess import run
from typing import Any

import flask
import pytest
from click.testing import CliRunner, Result
from flask_httpauth import HTTPBasicAuth

import spanseal
from spanseal.cli import main
from spanseal.gate.approval import State
from tests.instrumentation.conftest import Audit
from tests.instrumentation.privileged_clinic import RULES, SEED, Clinic, error, make_clinic

ROOT = Path(__file__).resolve().parents[2]
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ROLES = f"{SEED}  approvers: {{roles: [security]}}\n"


@pytest.fixture
def clinic(audit: Audit, app: flask.Flask, tmp_path: Path) -> Clinic:
    return make_clinic(audit, app, tmp_path)


def state(clinic: Clinic, url: str) -> State:
    return clinic.store.find(url.rpartition("/")[2]).state


def asked_by(clinic: Clinic, name: str = "ann", path: str = "/users/7") -> str:
    location = clinic.client(name).delete(path).headers["Location"]
    assert isinstance(location, str)
    return location


def test_only_who_may_decide_or_has_asked_sees_it(clinic: Clinic) -> None:
    clinic.policy(ROLES)
    url = asked_by(clinic)
    assert error(clinic.client("").get("/approvals/")) == (403, "actor_unknown")
    assert clinic.client("eve").get("/approvals/").json["approvals"] == []
    assert error(clinic.client("eve").get(url)) == (404, "approval_unknown")
    assert error(clinic.client("ben").get(url[:-4] + "0000")) == (404, "approval_unknown")
    own = clinic.client("ann").get(url).json["approval"]
    assert (own["may_decide"], own["state"]) == (False, "pending")
    (listed,) = clinic.client("ben").get("/approvals/").json["approvals"]
    assert (listed["may_decide"], listed["requester"]["id"]) == (True, "ann")
    eve = clinic.client("eve")
    token = eve.get("/approvals/").json["token"]
    assert error(eve.post(f"{url}/approve", json={"approvals_token": token})) == (404, "approval_unknown")
    assert state(clinic, url) is State.PENDING
    assert clinic.client("ben", mfa=False).get(url).status_code == 200


def test_deciding_takes_a_confirmation_of_its_own(clinic: Clinic) -> None:
    clinic.policy(ROLES)
    url = asked_by(clinic)
    ben = clinic.client("ben", mfa=False)
    token = ben.get(url).json["token"]
    for verb in ("approve", "deny"):
        assert error(ben.post(f"{url}/{verb}", json={"approvals_token": token})) == (
            403,
            "confirmation_required",
        )
    assert state(clinic, url) is State.PENDING


def test_the_page_and_its_form(clinic: Clinic) -> None:
    clinic.policy(ROLES)
    url = asked_by(clinic, path="/users/<script>")
    ben = clinic.client("ben")
    listed = ben.get("/approvals/", headers=HTML)
    assert (listed.status_code, listed.mimetype) == (200, "text/html")
    assert url in listed.text
    clinic.app.jinja_env.globals["csrf_token"] = lambda: "of Flask-WTF"
    page = ben.get(url, headers=HTML)
    assert 'name="csrf_token" value="of Flask-WTF"' in page.text
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    (nonce,) = re.findall(r"'nonce-([^']+)'", policy)
    assert f'<style nonce="{nonce}">' in page.text
    (token,) = re.findall(r'name="approvals_token" value="([^"]+)"', page.text)
    own = clinic.client("ann").get(url, headers=HTML).text
    assert "<form" not in own
    browser = {**HTML, "Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    answer = ben.post(f"{url}/deny", data={"approvals_token": token, "reason": "<why>"}, headers=browser)
    assert (answer.status_code, answer.headers["Location"]) == (303, url)
    assert "&lt;why&gt;" in ben.get(url, headers=HTML).text
    denied = [record for record in clinic.audit.records() if record.action == "approval.denied"]
    assert denied[0].attributes["audit.personal.approval.reason"] == "<why>"


@pytest.mark.parametrize(
    ("headers", "keep_token", "expected"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, True, "cross-site_request"),
        ({"Sec-Fetch-Site": "same-site"}, True, "cross-site_request"),
        ({"Sec-Fetch-Site": "none"}, True, "cross-site_request"),
        ({"Origin": "https://evil.example.org"}, True, "cross-site_request"),
        ({"Origin": "http://localhost.evil.example.org"}, True, "cross-site_request"),
        ({"Origin": "null"}, True, "cross-site_request"),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, False, "form_token_missing"),
        ({}, False, "form_token_missing"),
    ],
)
def test_forged_requests_decide_nothing(
    clinic: Clinic, headers: dict[str, str], *, keep_token: bool, expected: str
) -> None:
    clinic.policy()
    url = asked_by(clinic)
    ben = clinic.client("ben")
    token = ben.get(url).json["token"] if keep_token else clinic.client("ben").get(url).json["token"]
    answer = ben.post(f"{url}/approve", data={"approvals_token": token}, headers=headers)
    assert error(answer) == (403, expected)
    assert state(clinic, url) is State.PENDING
    (failed,) = [
        record
        for record in clinic.audit.records()
        if record.attributes.get("audit.failure.reason") == expected.replace("_", " ")
    ]
    assert failed.attributes["audit.actor.id"] == "ben"


def test_a_program_without_a_session_needs_no_token(audit: Audit, tmp_path: Path) -> None:
    app = flask.Flask("api")
    spanseal.instrument_app(app)
    blueprint = spanseal.approvals_blueprint("/admin/approvals")

    @app.before_request
    def user() -> None:
        flask.g.user = flask.request.headers.get("X-User")

    @app.delete("/users/<uid>")
    def delete(uid: str) -> str:
        return uid

    app.register_blueprint(blueprint)
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nprivileged: {actions: {user.deleted: {approval: 1h}}}\n")
    audit.set(SPANSEAL_RULES=str(rules))
    client: Any = app.test_client()
    asked = client.delete("/users/1", headers={"X-User": "ann"})
    url = asked.headers["Location"]
    assert url.startswith("/admin/approvals/")
    evil = {"X-User": "ben", "Origin": "https://evil.example.org"}
    assert client.post(f"{url}/approve", headers=evil).status_code == 403
    assert client.post(f"{url}/approve", headers={"X-User": "ben"}).status_code == 200
    assert client.delete("/users/1", headers={"X-User": "ann"}).text == "1"


def test_approvers_whom_a_decorator_finds(clinic: Clinic) -> None:
    clinic.policy(f"{RULES}privileged: {{actions: {{user.deleted: {{approval: 1h}}}}}}\n")
    auth = HTTPBasicAuth()
    auth.verify_password(lambda name, password: name if password == "secret" else None)
    other = flask.Flask("other")
    spanseal.instrument_app(other)
    approvals = spanseal.approvals_blueprint()
    approvals.before_request(auth.login_required(lambda: None))
    other.register_blueprint(approvals)
    url = asked_by(clinic)
    client: Any = other.test_client()
    assert client.get(url).status_code == 401
    assert client.post(f"{url}/approve", auth=("ben", "wrong")).status_code == 401
    assert client.post(f"{url}/approve", auth=("ann", "secret")).status_code == 403
    assert client.post(f"{url}/approve", auth=("ben", "secret")).json["approval"]["state"] == "granted"
    assert clinic.client("ann").delete("/users/7").text == "7"


def test_another_tenants_approvals_are_not_seen(clinic: Clinic) -> None:
    clinic.audit.set(SPANSEAL_TENANT="ward-1")
    clinic.policy()
    url = asked_by(clinic)
    clinic.audit.runtime.stop()
    clinic.audit.restart()
    clinic.audit.set(SPANSEAL_TENANT="ward-2")
    ben = clinic.client("ben")
    assert ben.get(url).status_code == 404
    assert ben.get("/approvals/?state=all").json["approvals"] == []
    token = ben.get("/approvals/").json["token"]
    assert ben.post(f"{url}/approve", json={"approvals_token": token}).status_code == 404
    assert state(clinic, url) is State.PENDING


# --- the command -------------------------------------------------------------------------------------------------


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["approvals", *arguments])


def test_the_command_lists_shows_and_decides(clinic: Clinic) -> None:
    clinic.policy()
    first, second = (
        asked_by(clinic, path=path).rpartition("/")[2] for path in ("/users/1", "/users/\x1b[2J")
    )
    listed = command("list")
    assert listed.exit_code == 0
    assert first in listed.output
    assert "\x1b[2J" not in listed.output
    rows = [json.loads(line) for line in command("list", "--json").output.splitlines()]
    assert [row["id"] for row in rows] == [second, first]
    assert rows[1]["resource"] == {"type": "user", "id": "1"}
    assert json.loads(command("show", first, "--json").output)["requester"]["email"] == "ann@example.org"
    own = command("approve", first, "--as", "ANN")
    assert (own.exit_code, "nobody decides" in own.output) == (1, True)
    assert command("approve", first, "--as", "x", "--email", "Ann@Example.org").exit_code == 1
    assert command("approve", first, "--as", " ").exit_code == 2
    assert command("approve", first).exit_code == 2
    done = command("approve", first, "--as", "oncall", "--reason", "nobody else is here", "--json")
    assert (done.exit_code, json.loads(done.output)["state"]) == (0, "granted")
    assert command("approve", first, "--as", "oncall").exit_code == 1
    assert command("deny", second, "--as", "oncall").exit_code == 0
    assert "Nothing" not in command("list", "--all").output
    assert command("show", "nothing").exit_code == 1
    assert clinic.client("ann").delete("/users/1").text == "1"
    (granted,) = [record for record in clinic.audit.records() if record.action == "approval.granted"]
    assert (
        granted.attributes.items()
        >= {
            "audit.actor.type": "user",
            "audit.actor.id": "oncall",
            "audit.target.id": first,
            "approval.via": "cli",
            "approval.os_user": pwd.getpwuid(os.getuid()).pw_name,
            "approval.os_uid": os.getuid(),
            "audit.personal.approval.reason": "nobody else is here",
        }.items()
    )


def test_what_the_command_cannot_do(clinic: Clinic, tmp_path: Path) -> None:
    clinic.policy(SEED)
    nothing = command("list")
    assert (nothing.exit_code, "there is no file" in nothing.output) == (2, True)
    assert not (clinic.audit.directory / "approvals").exists()
    identifier = asked_by(clinic).rpartition("/")[2]
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database" * 1000)
    assert command("list", "--store", str(damaged)).exit_code == 2
    clinic.audit.set(SPANSEAL_TENANT="ward-2")
    wrong = command("approve", identifier, "--as", "oncall")
    assert (wrong.exit_code, "ward-2" in wrong.output) == (2, True)
    clinic.audit.set(SPANSEAL_TENANT="")
    # What cannot be recorded is not done.
    clinic.audit.runtime.stop()
    clinic.audit.restart()
    clinic.audit.set(SPANSEAL_SPOOL_MAX_BYTES="many")
    assert (
        command("approve", identifier, "--as", "oncall", "--store", str(clinic_store(clinic))).exit_code == 2
    )
    clinic.audit.set(SPANSEAL_SPOOL_MAX_BYTES="1000000")
    clinic.audit.restart()
    assert json.loads(command("show", identifier, "--json").output)["state"] == "pending"


def clinic_store(clinic: Clinic) -> Path:
    return clinic.audit.directory / "approvals" / "approvals.db"


def test_the_command_finds_what_has_expired(clinic: Clinic) -> None:
    clinic.policy(f"{RULES}privileged: {{actions: {{user.deleted: {{approval: 1s}}}}}}\n")
    ann = clinic.client("ann")
    clinic.later(-60)
    identifier = ann.delete("/users/1").headers["Location"].rpartition("/")[2]
    assert command("approve", identifier, "--as", "oncall").exit_code == 1
    assert command("list").stderr == "Nothing waits.\n"
    assert json.loads(command("show", identifier, "--json").output)["state"] == "expired"
    (expired,) = [record for record in clinic.audit.records() if record.action == "approval.expired"]
    assert expired.attributes["audit.actor.id"] == "spanseal"


def test_the_wheel_holds_the_pages(tmp_path: Path) -> None:
    made = run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", str(tmp_path), str(ROOT)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    folder = ROOT / "instrumentation"
    pages = {str(path.relative_to(folder)) for path in folder.rglob("spanseal/gate/templates/**/*.html")}
    assert len(pages) == 4
    assert pages <= names
