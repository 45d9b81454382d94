"""The traffic generator against the real app, over real connections."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from examples.clinic.clinic.seed import ACCOUNTS
from examples.clinic.people import ROLES
from examples.clinic.traffic import Answered, Traffic
from examples.demo.processes import Service, free_port
from tests.examples.conftest import FAST, new_app

CLINIC = Path(sys.modules["examples.clinic.traffic"].__file__ or "").parent
COUNT = 400


class Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class Wire:
    """Sees every request as the server does, and gives each an id."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self.requests: list[tuple[str, dict[str, str]]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request_id = str(uuid4())
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        seen = {name: str(environ.get(name, "")) for name in environ if name.isupper()}
        self.requests.append((request_id, seen | {"body": body.decode()}))

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("X-Request-Id", request_id)], *more)

        return self._app(environ, start)


@contextmanager
def served(app: Flask) -> Iterator[tuple[str, Wire]]:
    wire = Wire(app)
    server = make_server("127.0.0.1", 0, wire, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", wire
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def facts(answered: Iterable[Answered]) -> Counter[tuple[str, str, int, str]]:
    return Counter((answer.method, answer.path, answer.status, answer.actor) for answer in answered)


def test_every_request_is_counted_once_and_named_as_the_server_named_it(app: Flask) -> None:
    done: list[Answered] = []
    with served(app) as (url, wire):
        report = Traffic(url, seed=7).run(COUNT, on_answer=done.append)
    assert len(report.answered) == len(wire.requests) == len(done) == COUNT
    assert report.unanswered == 0
    assert sorted(answer.request_id or "" for answer in report.answered) == sorted(
        n for n, _ in wire.requests
    )
    assert facts(done) == facts(report.answered)
    asked = {number: (seen["REQUEST_METHOD"], seen["PATH_INFO"]) for number, seen in wire.requests}
    assert all(asked[answer.request_id or ""] == (answer.method, answer.path) for answer in report.answered)


def test_the_mixture_is_what_a_clinic_sees(app: Flask) -> None:
    with served(app) as (url, _):
        answered = Traffic(url, seed=7).run(COUNT).answered
    statuses = Counter(answer.status for answer in answered)
    assert {200, 201, 302, 400, 401, 403, 404, 500} <= statuses.keys()
    assert COUNT * 0.02 < statuses[401] < COUNT * 0.09
    assert COUNT * 0.06 < statuses[403] < COUNT * 0.15
    assert statuses[200] + statuses[201] > COUNT * 0.6
    assert statuses[500] < COUNT * 0.04
    assert {answer.status for answer in answered if not answer.actor} == {401}
    roles = {account.username: account.role for account in ACCOUNTS}
    assert {roles[answer.actor] for answer in answered if answer.actor} == set(ROLES)
    refused = {(roles[answer.actor], answer.path) for answer in answered if answer.status == 403}
    assert any(role == "billing" and re.fullmatch(r"/patients/\d+", path) for role, path in refused)
    succeeded = {
        re.sub(r"\d+", "N", f"{answer.method} {answer.path}") for answer in answered if answer.status < 300
    }
    assert succeeded >= {
        "POST /login",
        "POST /logout",
        "GET /patients",
        "GET /patients/N",
        "PATCH /patients/N",
        "GET /patients/N/notes",
        "POST /patients/N/notes",
        "GET /patients/export",
        "GET /invoices",
        "POST /invoices",
        "POST /invoices/N/refund",
        "GET /invoices/report",
        "GET /users",
        "POST /users",
        "POST /users/N/roles",
    }


def test_the_seed_decides_what_is_asked(tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((11, 11, 12)):
        with served(new_app(tmp_path / str(number))) as (url, _):
            runs.append(facts(Traffic(url, seed=seed).run(120).answered))
    assert runs[0] == runs[1] != runs[2]


def test_secrets_are_planted_wherever_one_can_stand(app: Flask) -> None:
    secrets = ("planted-alpha", "planted-beta")
    with served(app) as (url, wire):
        answered = Traffic(url, seed=7, secrets=secrets).run(COUNT).answered
    paths = {answer.request_id: (answer.path, answer.status) for answer in answered}
    places: set[tuple[str, str]] = set()
    for number, seen in wire.requests:
        path, status = paths[number]
        carriers = {
            "token": "&".join(re.findall("token=[^&]*", seen["QUERY_STRING"])),
            "q": "&".join(re.findall("q=[^&]*", seen["QUERY_STRING"])),
            "cookie": seen.get("HTTP_COOKIE", ""),
            "authorization": seen.get("HTTP_AUTHORIZATION", ""),
            "x-api-key": seen.get("HTTP_X_API_KEY", ""),
            "password": seen["body"] if path == "/login" and status == 401 else "",
            "new user": seen["body"] if path == "/users" else "",
            "note": seen["body"] if path.endswith("/notes") else "",
            "exception": "".join(re.findall("year=[^&]*", seen["QUERY_STRING"])) if status == 500 else "",
        }
        places |= {
            (place, secret) for place, text in carriers.items() for secret in secrets if secret in text
        }
        # A path is recorded, and so may be who signs in: these have to be free of secrets.
        assert "planted" not in path
        assert "planted" not in "".join(re.findall(r'"username": "[^"]*"', seen["body"]))
    assert places == {
        (place, secret)
        for place in (
            "token",
            "q",
            "cookie",
            "authorization",
            "x-api-key",
            "password",
            "new user",
            "note",
            "exception",
        )
        for secret in secrets
    }


@pytest.mark.parametrize("secret", ["", "2024", "with space", "ümlaut", "a;b", "a\r\nb", "a" * 129])
def test_a_secret_that_would_not_arrive_as_it_is_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="secret number 1"):
        Traffic("http://127.0.0.1:1", seed=1, secrets=("fine", secret))


def test_nobody_is_there() -> None:
    done: list[Answered] = []
    traffic = Traffic(f"http://127.0.0.1:{free_port()}", seed=1)
    report = traffic.run(7, on_answer=done.append)
    assert (report.answered, report.unanswered) == ([], 7)
    assert [(answer.path, answer.status, answer.request_id) for answer in done] == [("/login", 0, None)] * 7


def test_a_run_ends_at_its_limit_and_at_an_error_of_its_caller(app: Flask) -> None:
    with served(app) as (url, wire):
        assert Traffic(url, seed=1, limit=-1.0).run(COUNT).answered == []
        assert wire.requests == []

        given_up = threading.Event()

        def give_up(answer: Answered) -> None:
            if answer.actor != "p.ferreira":
                given_up.wait()
                return
            given_up.set()
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            Traffic(url, seed=1).run(COUNT, on_answer=give_up)
        # The others' next requests may have been on their way, but no more than these.
        assert len(wire.requests) < COUNT / 2


def test_the_server_is_killed_and_comes_back(tmp_path: Path) -> None:
    bin_folder = Path(sys.executable).parent
    port = free_port()
    command = [
        str(bin_folder / "gunicorn"),
        "--no-control-socket",
        "--workers",
        "2",
        "--bind",
        f"127.0.0.1:{port}",
        "clinic.wsgi:app",
    ]
    clinic = Service(
        "clinic", command, port=port, ready_path="/healthz", log=tmp_path / "log.txt", cwd=CLINIC
    )
    clinic.env = {"CLINIC_DATABASE": str(tmp_path / "clinic.sqlite"), "CLINIC_PASSWORD_METHOD": FAST}
    done: list[Answered] = []
    lock = threading.Lock()
    back_at: list[int] = []

    def kill_once(answer: Answered) -> None:
        with lock:
            done.append(answer)
            kill = len(done) == 60
        if kill:
            clinic.kill()
            clinic.start()
            back_at.append(len(done))

    with clinic:
        report = Traffic(clinic.url, seed=3).run(COUNT, on_answer=kill_once)
        printed = subprocess.run(
            [sys.executable, "-m", "examples.clinic.traffic", clinic.url, "--count", "20"],
            cwd=CLINIC.parents[1],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    assert len(report.answered) + report.unanswered == len(done) == COUNT
    assert report.unanswered == sum(answer.status == 0 for answer in done) > 0
    assert len(back_at) == 1
    after = [answer for answer in done[back_at[0] :] if answer.status]
    # Cookies outlive the server: its key is in the database.
    assert {200, 401} <= {answer.status for answer in after}
    assert {answer.actor for answer in after if answer.status == 401} == {""}
    assert {answer.request_id for answer in report.answered} == {None}
    counts = [int(line.split()[1]) for line in printed.splitlines()]
    assert sum(counts) == 20
    assert printed.splitlines()[-1] == "unanswered  0"
