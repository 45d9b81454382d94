"""The example app, asked as a browser and as a JSON client would ask it."""

from __future__ import annotations

import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import examples.clinic
from examples.clinic.clinic import create_app
from examples.clinic.clinic.auth import PERMISSIONS
from examples.clinic.clinic.database import UnknownSchemaError
from examples.clinic.clinic.seed import ACCOUNTS, DEMO_PASSWORD
from tests.examples.conftest import FAST, new_app

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Accept": "application/json"}
PEOPLE = {account.role: account.username for account in ACCOUNTS}
PAGES = {
    "/patients": "patients.read",
    "/patients?q=gr%C3%BCn&page=1": "patients.read",
    "/patients/3": "patients.read",
    "/patients/new": "patients.write",
    "/patients/3/edit": "patients.write",
    "/patients/3/notes": "notes",
    "/patients/export": "patients.export",
    "/invoices": "invoices.read",
    "/invoices?since=2024-05-01&page=2": "invoices.read",
    "/invoices/3": "invoices.read",
    "/invoices/report?year=2024": "invoices.read",
    "/users": "users",
    "/password": None,
}


class Forms(HTMLParser):
    """Finds the forms of a page, and what would make it hard to use."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.count: dict[str, int] = {}
        self.labelled: set[str] = set()
        self.controls: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        if identifier := given.get("id"):
            self.ids.append(identifier)
        if tag == "form":
            self.forms.append({"method": given.get("method"), "action": given.get("action"), "fields": {}})
        elif tag == "label":
            self.labelled.add(given.get("for") or "")
        elif tag in ("input", "select", "textarea"):
            self.forms[-1]["fields"][given["name"]] = given.get("value") or ""
            if given.get("type") != "hidden":
                self.controls.append(given)


def signed_in(app: Flask, username: str) -> FlaskClient:
    client = app.test_client()
    answer = client.post("/login", json={"username": username, "password": DEMO_PASSWORD}, headers=JSON)
    assert answer.status_code == 200
    return client


def sent(client: FlaskClient, page: str, action: str | None, **fields: str) -> TestResponse:
    """Fill in the form that a page has for an action, and send it as a browser does."""
    forms = Forms(client.get(page, headers=HTML).text).forms
    form = next(form for form in forms if (form["method"], form["action"]) == ("post", action))
    return client.post(action or page, data=form["fields"] | fields, headers=HTML)


@pytest.mark.parametrize("role", PERMISSIONS)
def test_a_role_sees_its_pages_and_no_others(app: Flask, role: str) -> None:
    client = signed_in(app, PEOPLE[role])
    for path, permission in PAGES.items():
        page = client.get(path, headers=HTML)
        if permission is not None and permission not in PERMISSIONS[role]:
            assert page.status_code == 403, path
            assert "Your role does not allow this." in page.text
            assert client.get(path, headers=JSON).json == {
                "error": "Forbidden",
                "message": "Your role does not allow this.",
            }
            continue
        assert page.status_code == 200, path
        if path == "/patients/export":
            assert page.mimetype == "text/csv"
            continue
        seen = Forms(page.text)
        assert (seen.count["main"], seen.count["h1"], seen.count["title"]) == (1, 1, 1), path
        assert "script" not in seen.count
        assert len(seen.ids) == len(set(seen.ids)), path
        for control in seen.controls:
            assert control.get("id") in seen.labelled or control.get("aria-label"), (path, control)
        for form in seen.forms:
            assert form["method"] in ("get", "post")
            assert ("csrf_token" in form["fields"]) == (form["method"] == "post"), (path, form)
            assert form["fields"].get("csrf_token", "-")


def test_the_session_names_the_user_and_the_role_of_this_moment(app: Flask) -> None:
    admin = signed_in(app, PEOPLE["admin"])
    with signed_in(app, "m.tanaka") as nurse:
        assert nurse.get("/patients/1", headers=JSON).status_code == 200
        assert (session["user_id"], session["username"], session["role"]) == (3, "m.tanaka", "nurse")
        assert admin.post("/users/3/roles", json={"role": "billing"}).status_code == 200
        assert nurse.get("/patients/1", headers=JSON).status_code == 403
        assert session["role"] == "billing"
        assert admin.post("/users/3/suspend", json={}).status_code == 200
        assert nurse.get("/invoices", headers=JSON).status_code == 401
        assert "user_id" not in session
        again = {"username": "m.tanaka", "password": DEMO_PASSWORD}
        assert nurse.post("/login", json=again).status_code == 401
        assert admin.post("/users/3/reinstate", json={}).status_code == 200
        assert nurse.post("/login", json=again).status_code == 200
        assert nurse.post("/logout", json={}).status_code == 200
        assert not session.keys()


def test_nobody_gets_in_without_signing_in(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/healthz").json == {"status": "ok"}
    for rule in app.url_map.iter_rules():
        if rule.endpoint in ("static", "auth.login", "healthz"):
            continue
        path = re.sub("<[^>]*>", "1", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            body: dict[str, str] | None = None if method == "GET" else {}
            answer = client.open(path, method=method, json=body, headers=JSON)
            assert answer.status_code == 401, (method, path)
            assert answer.json is not None
            assert answer.json["error"] == "Unauthorized"
    page = client.get("/patients/3", headers=HTML)
    assert (page.status_code, page.location) == (302, "/login?next=/patients/3")
    assert client.get("/login", headers=HTML).status_code == 200


def test_a_browser_signs_in_and_out(app: Flask) -> None:
    client = app.test_client()
    refused = sent(client, "/login", None, username="a.osei", password="wrong")
    assert refused.status_code == 401
    assert "Unknown user name or wrong password." in refused.text
    unknown = sent(client, "/login", None, username="nobody", password="wrong")
    assert unknown.status_code == 401
    assert [line for line in unknown.text.splitlines() if "csrf" not in line] == [
        line for line in refused.text.splitlines() if "csrf" not in line
    ]
    forms = Forms(client.get("/login?next=/patients/3", headers=HTML).text).forms
    fields = forms[0]["fields"] | {"username": "A.Osei", "password": DEMO_PASSWORD}
    welcome = client.post("/login?next=/patients/3", data=fields, headers=HTML)
    assert (welcome.status_code, welcome.location) == (303, "/patients/3")
    assert client.get("/", headers=HTML).location == "/patients"
    bye = sent(client, "/patients", "/logout")
    assert (bye.status_code, bye.location) == (303, "/login")
    assert client.get("/patients", headers=JSON).status_code == 401


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "/\t/evil.example", "/\n/evil.example", "https://evil.example"],
)
def test_signing_in_leads_nowhere_else(app: Flask, target: str) -> None:
    client = app.test_client()
    fields = {"username": "a.osei", "password": DEMO_PASSWORD}
    answer = client.post("/login", query_string={"next": target}, json=fields, headers=HTML)
    assert (answer.status_code, answer.location) == (303, "/")


def test_a_form_of_another_site_is_refused(app: Flask) -> None:
    client = signed_in(app, "a.osei")
    other = signed_in(app, "a.osei")
    page = Forms(other.get("/patients/new", headers=HTML).text)
    token = page.forms[-1]["fields"]["csrf_token"]
    fields = {"text": "forged"}
    for data in (fields, fields | {"csrf_token": ""}, fields | {"csrf_token": token}):
        assert client.post("/patients/1/notes", data=data, headers=HTML).status_code == 400
    plain = client.post("/patients/1/notes", data='{"text": "forged"}', content_type="text/plain")
    assert plain.status_code == 400
    assert client.post("/logout", data="{}", content_type="text/plain").status_code == 400
    assert "forged" not in client.get("/patients/1/notes", headers=JSON).text
    assert sent(client, "/patients/1/notes", "/patients/1/notes", text="genuine").status_code == 303
    assert "genuine" in client.get("/patients/1/notes", headers=JSON).text


def test_what_a_browser_changes_through_forms_is_there_afterwards(app: Flask) -> None:
    doctor = signed_in(app, "j.lindqvist")
    created = sent(doctor, "/patients/new", "/patients", name="<b>Zoë & Co</b>", born="1999-12-31")
    assert created.status_code == 303
    where = created.location
    for path in (where, f"{where}/edit", f"{where}/notes", "/patients?q=Zoë"):
        page = doctor.get(path, headers=HTML).text
        assert "&lt;b&gt;Zoë &amp; Co&lt;/b&gt;" in page
        assert "<b>" not in page
    assert sent(doctor, f"{where}/edit", where, phone="555-7777").location == where
    assert sent(doctor, where, f"{where}/notes", text="line one\r\n<i>two</i>").status_code == 303
    page = doctor.get(f"{where}/notes", headers=HTML).text
    assert "&lt;i&gt;two&lt;/i&gt;" in page
    assert "Dr. Jonas Lindqvist" in page
    patient = doctor.get(where, headers=JSON).json
    assert patient is not None
    assert patient["patient"]["phone"] == "555-7777"
    assert patient["patient"]["name"] == "<b>Zoë & Co</b>"
    number = str(patient["patient"]["id"])

    billing = signed_in(app, PEOPLE["billing"])
    new = {"patient_id": number, "description": "Travel advice", "amount_cents": "123456"}
    assert sent(billing, "/invoices", "/invoices", **new).location == "/invoices"
    assert "1,234.56 EUR" in billing.get("/invoices", headers=HTML).text
    newest = billing.get("/invoices", headers=JSON).json
    assert newest is not None
    bill = f"/invoices/{newest['invoices'][0]['id']}"
    assert sent(billing, bill, f"{bill}/refund", reason="Did not travel").location == bill
    page = billing.get(bill, headers=HTML).text
    assert "Did not travel" in page
    assert f"{bill}/refund" not in page
    assert billing.post(f"{bill}/refund", json={"reason": "again"}).status_code == 409

    admin = signed_in(app, PEOPLE["admin"])
    hired = {"username": "n.ewman", "full_name": "Nia Ewman", "role": "nurse", "password": "a-first-password"}
    assert sent(admin, "/users", "/users", **hired).location == "/users"
    assert admin.post("/users", json=hired | {"username": "N.EWMAN"}).status_code == 409
    assert sent(admin, "/users", "/users/7/roles", role="billing").status_code == 303
    assert sent(admin, "/users", "/users/7/suspend").status_code == 303
    assert sent(admin, "/users", "/users/7/reinstate").status_code == 303
    assert admin.post("/users/6/suspend", json={}).status_code == 409
    newcomer = app.test_client()
    entry = {"username": "n.ewman", "password": "a-first-password"}
    assert newcomer.post("/login", json=entry, headers=JSON).json == {
        "role": "billing",
        "user_id": 7,
        "username": "n.ewman",
    }
    short = sent(newcomer, "/password", "/password", current="a-first-password", new="short")
    assert (short.status_code, "12 to 200 characters" in short.text) == (400, True)
    wrong = sent(newcomer, "/password", "/password", current="wrong", new="a-second-password")
    assert (wrong.status_code, "current password is wrong" in wrong.text) == (400, True)
    right = sent(newcomer, "/password", "/password", current="a-first-password", new="a-second-password")
    assert right.status_code == 303
    assert newcomer.post("/login", json=entry).status_code == 401


def test_a_json_client_changes_and_reads(app: Flask) -> None:
    doctor = signed_in(app, "a.osei")
    new = {"name": "Ona", "born": "2001-01-01"}
    created = doctor.post("/patients", json=new)
    assert created.status_code == 201
    assert created.json is not None
    number = created.json["id"]
    changed = doctor.patch(f"/patients/{number}", json={"allergies": "dust"})
    assert changed.json == {"id": number, "address": "", "email": "", "phone": "", "allergies": "dust"} | new
    assert doctor.post(f"/patients/{number}/notes", json={"text": "x"}).status_code == 201
    found = doctor.get("/patients?q=on%61", headers=JSON).json
    assert found is not None
    assert [patient["name"] for patient in found["patients"]] == ["Ona"]
    for wildcard in ("%25", "_", "%5C"):
        none = doctor.get(f"/patients?q={wildcard}", headers=JSON).json
        assert none == {"patients": [], "page": 1, "more": False}
    exported = doctor.get("/patients/export")
    assert exported.text.splitlines()[-1] == f"{number},Ona,2001-01-01,,,,dust"


@pytest.mark.parametrize(
    ("role", "method", "path", "body", "status"),
    [
        ("doctor", "GET", "/patients/900000", None, 404),
        ("doctor", "GET", f"/patients/{2**63 - 1}", None, 404),
        ("doctor", "GET", f"/patients/{2**63}", None, 404),
        ("doctor", "GET", f"/patients/{'9' * 6000}", None, 404),
        ("doctor", "GET", "/nowhere", None, 404),
        ("doctor", "PATCH", "/patients/900000", {"name": "x"}, 404),
        ("doctor", "POST", "/patients/900000/notes", {"text": "x"}, 404),
        ("doctor", "POST", "/patients/1/notes", {"text": " \n"}, 400),
        ("doctor", "POST", "/patients/1/notes", {"text": 7}, 400),
        ("doctor", "POST", "/patients/1/notes", {"text": "x" * 4001}, 400),
        ("doctor", "POST", "/patients/1/notes", {"text": "half a pair \ud800"}, 400),
        ("doctor", "POST", "/patients/1/notes", ["no object"], 400),
        ("doctor", "POST", "/patients/1/notes", b"{", 400),
        ("doctor", "POST", "/patients/1/notes", b"[" * 100_000, 400),
        ("doctor", "POST", "/patients/1/notes", b"{" * 1_100_000, 413),
        ("doctor", "POST", "/patients", {"name": "x", "born": "31.12.1980"}, 400),
        ("doctor", "POST", "/patients", {"born": "1980-12-31"}, 400),
        ("doctor", "PATCH", "/patients/1", {"name": ""}, 400),
        ("doctor", "DELETE", "/patients/1", {}, 405),
        ("doctor", "GET", f"/patients?page={2**70}", None, 200),
        ("doctor", "POST", "/login", {"username": "a.osei", "password": "\ud800"}, 401),
        ("doctor", "POST", "/login", {"username": "\ud800", "password": "x"}, 400),
        ("doctor", "POST", "/password", {"current": DEMO_PASSWORD, "new": "\ud800" * 12}, 400),
        ("billing", "GET", "/invoices?since=last-week", None, 400),
        ("billing", "GET", "/invoices/900000", None, 404),
        ("billing", "POST", "/invoices", {"patient_id": 1, "description": "x", "amount_cents": 0}, 400),
        ("billing", "POST", "/invoices", {"patient_id": 1, "description": "x", "amount_cents": True}, 400),
        ("billing", "POST", "/invoices", {"patient_id": 1, "description": "x", "amount_cents": 1.5}, 400),
        ("billing", "POST", "/invoices", {"patient_id": 2**70, "description": "x", "amount_cents": 1}, 400),
        ("billing", "POST", "/invoices", {"patient_id": 900000, "description": "x", "amount_cents": 1}, 404),
        ("billing", "POST", "/invoices/900000/refund", {"reason": "x"}, 404),
        ("admin", "POST", "/users/900000/suspend", {}, 404),
        ("admin", "POST", "/users/1/roles", {"role": "owner"}, 400),
        ("admin", "POST", "/users", {"username": "u" * 65, "full_name": "x", "role": "nurse"}, 400),
        (
            "admin",
            "POST",
            "/users",
            {"username": "u", "full_name": "x", "role": "nurse", "password": "x"},
            400,
        ),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    app: Flask, role: str, method: str, path: str, body: object, status: int
) -> None:
    client = signed_in(app, PEOPLE[role])
    before = dump(app)
    given: dict[str, Any] = {"json": body}
    if isinstance(body, bytes):
        given = {"data": body, "content_type": "application/json"}
    answer = client.open(path, method=method, headers=JSON, **given)
    assert answer.status_code == status
    assert answer.json is not None
    if status >= 400:
        assert set(answer.json) == {"error", "message"}
    if status == 405:
        assert {"GET", "PATCH", "POST"} <= set(answer.headers["Allow"].split(", "))
    assert dump(app) == before


def dump(app: Flask) -> list[str]:
    connection = sqlite3.connect(app.config["DATABASE"])
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_an_error_of_the_app_tells_the_client_nothing_and_its_message_holds_what_was_typed(
    app: Flask,
) -> None:
    client = signed_in(app, PEOPLE["billing"])
    for headers in (HTML, JSON):
        answer = client.get("/invoices/report?year=typed-by-hand", headers=headers)
        assert answer.status_code == 500
        assert "typed-by-hand" not in answer.text
    app.testing = True
    with pytest.raises(ValueError, match="typed-by-hand"):
        client.get("/invoices/report?year=typed-by-hand", headers=JSON)


def test_answers_are_not_cached_and_run_no_scripts(app: Flask) -> None:
    client = signed_in(app, "a.osei")
    page = client.get("/patients/1", headers=HTML)
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Frame-Options"] == "DENY"
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert {"Accept", "Cookie"} <= set(page.vary)
    for asset in re.findall(r'href="(/static/[^"]+)"', page.text):
        assert client.get(asset).status_code == 200


def test_a_start_that_failed_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no-such-method"):
        create_app({"DATABASE": tmp_path / "clinic.sqlite", "PASSWORD_METHOD": "no-such-method"})
    assert signed_in(new_app(tmp_path), "a.osei").get("/patients", headers=JSON).status_code == 200


def test_workers_share_one_database_and_its_key(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_DATABASE", app.config["DATABASE"])
    monkeypatch.setenv("CLINIC_PASSWORD_METHOD", FAST)
    second = create_app()
    client = signed_in(app, "a.osei")
    cookie = client.get_cookie("clinic_session")
    assert cookie is not None
    other = second.test_client()
    other.set_cookie("clinic_session", cookie.value)
    assert other.get("/patients", headers=JSON).status_code == 200
    told = second.test_cli_runner().invoke(args=["init-db"])
    assert "p.ferreira" in told.output
    connection = sqlite3.connect(app.config["DATABASE"])
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UnknownSchemaError, match="99"):
        create_app()


def test_the_source_names_no_auditing() -> None:
    # It is audited from the outside; its README alone says so.
    root = Path(next(iter(examples.clinic.__path__)))
    files = [
        path for path in (root / "clinic").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {".py", ".html", ".css", ".sql", ".svg"} == {path.suffix for path in files}
    for path in files:
        words = path.read_text("utf-8").lower()
        for word in ("spanseal", "opentelemetry", "otel"):
            assert not re.search(rf"\b{word}", words), (path, word)
