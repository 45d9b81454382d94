"""Under a real server, with the audit broken: the answers are as without it and the log says so, or they are 503."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.instrumentation.conftest import until
from tests.instrumentation.fake_receiver import FakeReceiver, receiving
from tests.instrumentation.live import Server, gunicorn
from tests.instrumentation.test_full_disk import disk, fill  # noqa: F401 - a fixture, asked for by its name
from tests.instrumentation.test_server_spans import without_spanseal
from tests.instrumentation.test_servers import ask

APP = """
import flask

app = flask.Flask("faulty")
app.secret_key = "only for this test"

@app.get("/healthz")
def health():
    return "ok"

@app.get("/patients")
def listed():
    return {"patients": [1, 2]}, 200, {"X-Own": "1", "Set-Cookie": "a=b"}

@app.post("/patients/<int:pid>")
def change(pid):
    with open("changed.txt", "a") as file:
        file.write(f"{pid}\\n")
    flask.session["seen"] = pid
    return flask.redirect("/patients")

@app.get("/export")
def export():
    def rows():
        for number in range(50):
            yield f"row {number}\\n" * 50
    return flask.Response(rows(), content_type="text/csv")

@app.get("/file")
def file():
    return flask.send_file(__file__, conditional=True)

@app.get("/error")
def error():
    raise LookupError("secret")

def resolve(request):
    raise LookupError("a resolver of the user's own")
"""

REQUESTS = [
    ("GET", "/patients"),
    ("HEAD", "/patients"),
    ("POST", "/patients/5"),
    ("GET", "/export"),
    ("GET", "/file"),
    ("GET", "/error"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/patients"),
    ("POST", "/patients"),
]

Answers = list[tuple[int, bytes, list[tuple[str, str]]]]


def ask_all(port: int) -> Answers:
    """Send every request; return status, body and headers, but for X-Request-Id and what a clock changes."""
    answers = []
    for method, path in REQUESTS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, headers={"Host": "served.example"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        unlike = ("Date", "X-Request-Id", "ETag", "Last-Modified")
        headers = [(name, value) for name, value in answer.getheaders() if name not in unlike]
        # A signed session bears the second of its signature.
        headers = [
            (name, value.partition(".")[0] if value.startswith("session=") else value)
            for name, value in headers
        ]
        answers.append((answer.status, content, headers))
    return answers


@dataclass(frozen=True)
class Fault:
    """A way to break the audit."""

    said: str
    """What the log says of it."""
    env: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[Server], None] = lambda _server: None
    """Done before the server starts."""
    after: Callable[[Server], None] = lambda _server: None
    """Done once it has answered."""
    own_disk: bool = False
    lost: bool = True
    """Whether requests cannot be recorded: they are refused in closed mode."""


def no_directory(server: Server) -> None:
    server.spool.write_text("a file stands where the directory should be")


def read_only(server: Server) -> None:
    # As after an error of the disk. Permissions alone would not stop the superuser.
    subprocess.run(["mount", "-o", "remount,ro", str(server.spool.parent)], check=True)


def full(server: Server) -> None:
    fill(server.spool.parent / "filler", 0)


def removed(server: Server) -> None:
    shutil.rmtree(server.spool)


def broken_rules(server: Server) -> None:
    (server.source.parent / "rules.yaml").write_text("rules:\n  - nowhere: 1\n")


FAULTS = {
    "no directory": Fault("cannot be made", before=no_directory),
    "read-only": Fault("cannot be made", before=read_only, own_disk=True),
    "full": Fault("is nearly full", after=full, own_disk=True),
    "removed": Fault("could not be looked through", after=removed),
    "resolver raises": Fault("resolver", {"SPANSEAL_ACTOR_RESOLVER": "served:resolve"}, lost=False),
    "no such resolver": Fault("SPANSEAL_ACTOR_RESOLVER", {"SPANSEAL_ACTOR_RESOLVER": "nowhere:none"}),
    "wrong setting": Fault("SPANSEAL_DURABILITY is 'full'", {"SPANSEAL_DURABILITY": "full"}),
    "unreachable": Fault(
        "cannot be reached", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, lost=False
    ),
    "broken rules": Fault("rules.yaml", {"SPANSEAL_RULES": "rules.yaml"}, before=broken_rules),
}


def serve(folder: Path, receiver: FakeReceiver, fault: Fault, *, status: int = 200, **env: str) -> Server:
    server = Server(
        folder,
        gunicorn("--worker-class", "gthread", "--threads", "2", workers=1),
        endpoint=receiver.url,
        env={"PYTHONHASHSEED": "0", **fault.env, **env},
        ready_status=status,
    )
    server.source.write_text(APP)
    return server


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What the application answers without Spanseal."""
    folder = tmp_path_factory.mktemp("plain")
    path = os.pathsep.join([str(without_spanseal(folder)), os.environ.get("PYTHONPATH", "")])
    with receiving() as receiver:
        server = serve(folder / "app", receiver, Fault(""), PYTHONPATH=path)
        with server:
            return ask_all(server.port)


def place(request: pytest.FixtureRequest, fault: Fault, server: Server) -> None:
    if fault.own_disk:
        server.spool = Path(request.getfixturevalue("disk")) / "spool"
        server.env["SPANSEAL_SPOOL_DIR"] = str(server.spool)


@pytest.mark.parametrize("name", FAULTS)
def test_open_answers_as_without_it_and_says_so(
    request: pytest.FixtureRequest, tmp_path: Path, receiver: FakeReceiver, plain: Answers, name: str
) -> None:
    fault = FAULTS[name]
    server = serve(tmp_path / "app", receiver, fault)
    place(request, fault, server)
    fault.before(server)
    with server:
        fault.after(server)
        answers = ask_all(server.port)
        until(lambda: fault.said in server.text())
    assert answers == plain
    assert (server.source.parent / "changed.txt").read_text() == "5\n"
    assert "secret" not in server.text().replace('raise LookupError("secret")', "").replace(
        "LookupError: secret", ""
    )


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.lost])
def test_closed_refuses_everything(
    request: pytest.FixtureRequest, tmp_path: Path, receiver: FakeReceiver, name: str
) -> None:
    fault = FAULTS[name]
    later = name in ("full", "removed")
    server = serve(
        tmp_path / "app", receiver, fault, status=200 if later else 503, SPANSEAL_ON_ERROR="closed"
    )
    place(request, fault, server)
    fault.before(server)
    with server:
        fault.after(server)
        if later:  # the disk is looked at now and then
            until(lambda: ask(server.port, "GET", "/patients")[0].status == 503)
        answers = ask_all(server.port)
    assert {status for status, _, _ in answers} == {503}
    assert not (server.source.parent / "changed.txt").exists()
    assert all(b"row" not in content and b"patients" not in content for _, content, _ in answers)
