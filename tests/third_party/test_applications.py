"""Applications of others, as they come from PyPI: each request that one answers is on record once."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from werkzeug.security import generate_password_hash

from tests.cached_venv import cached_venv
from tests.instrumentation.fake_receiver import FakeReceiver, Received, receiving
from tests.instrumentation.live import GUNICORN, Server
from tests.instrumentation.test_adoption import check_streams

PASSWORD = "planted-password-83b1f0"
QUERY = "planted-query-6c09aa"


@dataclass
class Visitor:
    """A browser that remembers what it was answered."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)
    answers: list[tuple[str, str, int, str]] = field(default_factory=list)
    """Method, path, status, X-Request-Id."""
    token: str = ""
    """Against forgery, of the last page that had one."""

    def ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Ask for one page; redirects are answers of their own and are not followed."""
        answer = self.session.request(method, self.url + path, timeout=20, allow_redirects=False, **arguments)
        self.answers.append((method, path, answer.status_code, answer.headers.get("X-Request-Id", "")))
        if found := re.search(r'name="csrf_token"[^>]*value="([^"]+)"', answer.text):
            self.token = found[1]
        return answer

    def get(self, path: str, **arguments: Any) -> requests.Response:
        return self.ask("GET", path, **arguments)

    def post(self, path: str, form: Mapping[str, str], **arguments: Any) -> requests.Response:
        """Get a page and send the form that is on it."""
        self.get(path)
        return self.send(path, form, **arguments)

    def send(self, path: str, form: Mapping[str, str], **arguments: Any) -> requests.Response:
        """Send a form of the page that was seen last."""
        return self.ask("POST", path, data={"csrf_token": self.token, **form}, **arguments)


# --- An Otter Wiki: Flask-Login, forms, files ------------------------------------------------------------------


def otterwiki_env(folder: Path) -> dict[str, str]:
    pages = folder / "pages"
    subprocess.run(["git", "init", "--quiet", str(pages)], check=True, capture_output=True)
    return {
        "REPOSITORY": str(pages),
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder / 'wiki.sqlite'}",
        "SECRET_KEY": "only for this test, and long enough",
        "EMAIL_NEEDS_CONFIRMATION": "false",
        "READ_ACCESS": "REGISTERED",
        "WRITE_ACCESS": "REGISTERED",
        "ATTACHMENT_ACCESS": "REGISTERED",
    }


def otterwiki(visitor: Visitor) -> None:
    visitor.get("/")
    visitor.get("/Home/edit")
    account = {"email": "otto@example.org", "password": PASSWORD}
    visitor.post(
        "/-/register",
        {"name": "Otto", "email": account["email"], "password1": PASSWORD, "password2": PASSWORD},
    )
    visitor.get("/-/logout")
    visitor.post("/-/login", {**account, "password": "wrong"})
    visitor.post("/-/login", account)
    visitor.post("/-/create", {"pagename": "Ward"})
    visitor.get("/Ward/edit")
    visitor.send("/Ward/save", {"content": "# Ward\nbeds", "commit": "first", "revision": ""})
    visitor.get("/Ward")
    visitor.get("/Ward/history")
    visitor.get("/Ward/source")
    visitor.get("/Ward/attachments")
    visitor.send("/Ward/attachments", {}, files={"file": ("plan.txt", b"beds")})
    visitor.get("/Ward/a/plan.txt")
    visitor.send("/-/search", {"query": QUERY})
    visitor.get("/-/changelog")
    visitor.get("/-/settings")
    visitor.get("/-/user/")
    visitor.get("/-/user/1")
    visitor.get("/static/css/otterwiki.css")
    visitor.post("/Ward/rename", {"new_pagename": "Beds", "message": ""})
    visitor.post("/Beds/delete", {"message": "done"})
    visitor.get("/Nowhere")
    visitor.get("/-/healthz")
    visitor.get("/-/logout")


# --- I hate money: its own sessions, a REST API with Basic authentication ---------------------------------------


def ihatemoney_env(folder: Path) -> dict[str, str]:
    settings = folder / "ihatemoney.cfg"
    settings.write_text(
        f"SQLALCHEMY_DATABASE_URI = 'sqlite:///{folder / 'money.sqlite'}'\n"
        "SECRET_KEY = 'only for this test'\nSESSION_COOKIE_SECURE = False\nACTIVATE_ADMIN_DASHBOARD = True\n"
        f"ADMIN_PASSWORD = {generate_password_hash(PASSWORD, 'pbkdf2:sha256:1000')!r}\n"
    )
    return {"IHATEMONEY_SETTINGS_FILE_PATH": str(settings)}


def ihatemoney(visitor: Visitor) -> None:
    visitor.get("/")
    visitor.post("/admin?goto=%2Fdashboard", {"admin_password": "wrong"})
    visitor.post("/admin?goto=%2Fdashboard", {"admin_password": PASSWORD})
    visitor.get("/dashboard")
    trip = {"name": "Trip", "id": "trip", "password": PASSWORD, "contact_email": "otto@example.org"}
    visitor.post("/create", {**trip, "default_currency": "XXX"})
    visitor.get("/trip/")
    visitor.send("/exit", {})
    visitor.post("/authenticate", {"id": "trip", "password": "wrong"})
    visitor.post("/authenticate", {"id": "trip", "password": PASSWORD})
    visitor.get("/trip/")
    for name in ("Anna", "Otto"):
        visitor.post("/trip/members/add", {"name": name, "weight": "1"})
    bill = {"date": "2024-05-01", "what": "Petrol", "payer": "1", "payed_for": "1", "amount": "12"}
    visitor.post("/trip/add", {**bill, "bill_type": "Expense", "original_currency": "XXX"})
    visitor.get("/trip/edit/1")
    visitor.get("/trip/statistics")
    visitor.get("/trip/history")
    visitor.get("/trip/export/bills.json")
    api = {"auth": ("trip", PASSWORD)}
    visitor.get("/api/projects/trip", **api)
    visitor.get("/api/projects/trip", auth=("trip", "wrong"))
    visitor.get("/api/projects/trip/bills", **api)
    new = {**bill, "bill_type": "Expense", "original_currency": "XXX", "what": "Tolls"}
    visitor.ask("POST", "/api/projects/trip/bills", data=new, **api)
    visitor.ask("PUT", "/api/projects/trip/bills/1", data=bill, **api)
    visitor.ask("DELETE", "/api/projects/trip/bills/1", **api)
    visitor.ask("POST", "/api/projects/trip/members", data={"name": "Uma"}, **api)
    visitor.get("/api/projects/trip/token", **api)
    visitor.get("/trip/")
    visitor.send("/trip/members/2/delete", {})
    visitor.send("/exit", {})
    visitor.ask("DELETE", "/api/projects/trip", **api)
    visitor.get("/nowhere/")


# --- httpbin: every kind of answer ------------------------------------------------------------------------------


def httpbin(visitor: Visitor) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
        visitor.ask(method, f"/anything/{method.lower()}?token={QUERY}", data=PASSWORD.encode())
    for status in (200, 204, 302, 304, 401, 404, 418, 500, 503):
        visitor.get(f"/status/{status}")
    for path in (
        "/",
        "/bytes/2000?seed=1",
        "/stream/5",
        "/stream-bytes/5000?seed=1",
        "/range/100",
        "/drip?duration=0&numbytes=20&delay=0",
        "/gzip",
        "/redirect/2",
        "/cookies/set/flavour/mint",
        "/cookies",
        "/uuid",
        "/links/3/0",
        "/etag/abc",
        "/image/png",
        "/delay/0",
        "/static/favicon.ico",
        "/nowhere",
    ):
        visitor.get(path)
    visitor.ask("POST", "/post", data={"note": PASSWORD})
    visitor.get(f"/basic-auth/otto/{PASSWORD}", auth=("otto", PASSWORD))
    visitor.get(f"/basic-auth/otto/{PASSWORD}", auth=("otto", "wrong"))
    visitor.get("/bearer", headers={"Authorization": f"Bearer {PASSWORD}"})


@dataclass(frozen=True)
class Application:
    """How one is started and visited."""

    target: str
    ready: str
    visit: Callable[[Visitor], None]
    env: Callable[[Path], dict[str, str]] = lambda _folder: {}
    signs_in: bool = False
    """Whether it uses Flask-Login."""
    named: Mapping[str, str] = field(default_factory=dict)
    """What some requests are on record as, without any rule: action, resource, and what that belongs to."""


OTTERWIKI = {
    "GET /Ward": "page.viewed page/Ward",
    "POST /Ward/save": "page.updated page/Ward",
    "POST /Beds/delete": "page.deleted page/Beds",
    "GET /Ward/history": "history.viewed history/ page/Ward",
    "GET /Ward/a/plan.txt": "file.viewed file/plan.txt page/Ward",
    "GET /-/settings": "settings.viewed settings/",
}
IHATEMONEY = {
    "GET /trip/": "project.viewed project/trip",
    "POST /trip/add": "record.created record/ project/trip",
    "GET /trip/edit/1": "bill.viewed bill/1 project/trip",
    "POST /trip/members/add": "member.created member/ project/trip",
    "GET /trip/statistics": "statistics.viewed statistics/ project/trip",
    "GET /trip/export/bills.json": "project.exported project/trip",
    "PUT /api/projects/trip/bills/1": "bill.updated bill/1 project/trip",
    "POST /exit": "exit.submitted exit/",
}
APPLICATIONS = {
    "otterwiki": Application(
        "otterwiki.server:app", "/-/healthz", otterwiki, otterwiki_env, signs_in=True, named=OTTERWIKI
    ),
    "ihatemoney": Application(
        "ihatemoney.wsgi:application", "/", ihatemoney, ihatemoney_env, named=IHATEMONEY
    ),
    "httpbin": Application("httpbin:app", "/status/200", httpbin),
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_answer_is_on_record_once(tmp_path: Path, name: str) -> None:
    programs = cached_venv(f"app-{name}", audited=True)
    if name == "otterwiki" and shutil.which("git") is None:
        pytest.skip("git is not installed, and this wiki keeps its pages in it")
    application = APPLICATIONS[name]
    with receiving() as receiver:
        server = Server(
            tmp_path,
            (*GUNICORN, "--worker-class", "gthread", "--threads", "2", application.target),
            endpoint=receiver.url,
            bin_folder=programs,
            ready_path=application.ready,
            env=application.env(tmp_path),
        )
        visitor = Visitor(server.url)
        with server:
            application.visit(visitor)
        receiver.wait_for("producer.stopped")
        show(name, visitor, receiver)
        check(application, visitor, receiver, server)


def check(application: Application, visitor: Visitor, receiver: FakeReceiver, server: Server) -> None:
    check_streams(receiver)
    found = by_request(receiver)
    requests_of = {f"{method} {path}": key for method, path, _, key in visitor.answers}
    assert {
        request: name_of(found[requests_of[request]][0]) for request in application.named
    } == application.named
    given = [request_id for _, _, _, request_id in visitor.answers]
    assert len(set(given)) == len(given)
    for method, path, status, request_id in visitor.answers:
        (record,) = found.pop(request_id)
        attributes = record.attributes
        seen = (attributes["http.request.method"], attributes["http.response.status_code"])
        assert seen == (method, status), path
        assert re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", record.action), record.action
        # A sign-in that fails may be answered with 200 and the form again.
        assert attributes["audit.outcome"] == "failure" or status < 400, path
    # Whatever came beside these was the look whether it is ready.
    assert all(record.attributes["http.request.method"] == "GET" for (record,) in found.values())
    assert len(found) < 5
    stored = repr(receiver.taken)
    assert PASSWORD not in stored
    assert QUERY not in stored
    assert "spanseal" not in server.text().lower(), server.text()
    if application.signs_in:
        actions = {(record.action, record.attributes["audit.outcome"]) for record in receiver.taken}
        both = {("user.signed_in", "success"), ("user.signed_in", "failure")}
        assert actions >= {*both, ("user.signed_out", "success")}
        users = {
            record.attributes["audit.actor.id"]
            for record in receiver.taken
            if "save" in record.attributes.get("http.route", "")
        }
        assert users == {"1"}


def name_of(record: Received) -> str:
    """Say what a request is on record as."""
    said = record.attributes
    parts = [record.action, f"{said['audit.target.type']}/{said.get('audit.target.id', '')}"]
    if kind := said.get("audit.subject.type"):
        parts.append(f"{kind}/{said['audit.subject.id']}")
    return " ".join(parts)


def by_request(receiver: FakeReceiver) -> dict[str, list[Received]]:
    found: dict[str, list[Received]] = defaultdict(list)
    for record in receiver.taken:
        if record.attributes.get("audit.capture") == "wsgi":
            found[record.attributes["audit.request.id"]].append(record)
    return found


def show(name: str, visitor: Visitor, receiver: FakeReceiver) -> None:
    """Print what each request is on record as: pytest shows it with -s."""
    found = {key: records[0] for key, records in by_request(receiver).items()}
    lines = [f"\n{name}"]
    for method, path, status, request_id in visitor.answers:
        record = found[request_id].attributes
        who = f"{record['audit.actor.type']} {record.get('audit.actor.id', '')} {record.get('audit.actor.role', '')}".strip()
        outcome = record["audit.outcome"]
        what = f"{record.get('audit.target.type', '')}/{record.get('audit.target.id', '')}"
        lines.append(
            f"{method:7} {path[:34]:34} {status} {found[request_id].action:26} {outcome:8} {what[:24]:24} {who}"
        )
    print("\n".join(lines))  # noqa: T201
