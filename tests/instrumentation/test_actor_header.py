"""The header of an authenticating proxy, and the ones that others send."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import flask
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from spanseal.actors.proxy_header import ProxyHeader, networks, peer_of
from spanseal.errors import ConfigurationError
from spanseal.settings import load
from tests.instrumentation.calling import replace_wsgi_app
from tests.instrumentation.conftest import Audit, until

HEADER = "X-Forwarded-User"
PROXY, ELSEWHERE = "10.1.2.3", "203.0.113.9"


def believed(peers: str, peer: str | None, **environ: Any) -> bool:
    header = ProxyHeader(HEADER, "", networks(peers))
    return header.actor({"HTTP_X_FORWARDED_USER": "uma", **environ}, peer) is not None


def test_who_is_believed() -> None:
    assert believed("10.1.0.0/16", PROXY)
    assert believed("192.0.2.1, 10.1.2.3", PROXY)
    assert believed("10.1.0.0/16", f"::ffff:{PROXY}")
    assert believed("2001:db8::/32", "2001:db8::1")
    assert believed("fe80::/10", "fe80::1%eth0")
    assert believed("unix", "")
    assert believed("10.1.0.0/16,unix", "<local>")


def test_who_is_not() -> None:
    for peer in (ELSEWHERE, "10.2.0.1", "::1", "unix", "10.1.2.3, 203.0.113.9", "x" * (1 << 20), "", None):
        assert not believed("10.1.0.0/16", peer), peer
    for peer in (PROXY, "127.0.0.1", None):
        assert not believed("unix", peer), peer
    assert not believed("::/1", PROXY)
    # With the PROXY protocol the server tells the client's address as its peer's.
    assert not believed("10.1.0.0/16", PROXY, PROXY_PROTOCOL="TCP4")


def test_the_peer_is_who_the_server_says() -> None:
    assert peer_of({"REMOTE_ADDR": PROXY}) == PROXY
    assert peer_of({"REMOTE_ADDR": ELSEWHERE, "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": PROXY}}) == PROXY
    assert peer_of({"REMOTE_ADDR": PROXY, "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": None}}) is None
    assert peer_of({}) is None


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HEADER": HEADER}, "SPANSEAL_ACTOR_HEADER is set, but anybody can send a header"),
        ({"HEADER": HEADER, "HEADER_FROM": ","}, "anybody can send a header"),
        ({"ROLE_HEADER": "X-Role"}, "SPANSEAL_ACTOR_ROLE_HEADER is set without SPANSEAL_ACTOR_HEADER"),
        ({"HEADER_FROM": PROXY}, "SPANSEAL_ACTOR_HEADER_FROM is set without SPANSEAL_ACTOR_HEADER"),
        ({"HEADER": HEADER, "HEADER_FROM": "0.0.0.0/0"}, "is every address"),
        ({"HEADER": HEADER, "HEADER_FROM": "::/0"}, "is every address"),
        ({"HEADER": HEADER, "HEADER_FROM": "10.1.0.1/16"}, "has host bits set"),
        ({"HEADER": HEADER, "HEADER_FROM": "proxy.example.org"}, "write addresses, networks"),
        ({"HEADER": "X Forwarded", "HEADER_FROM": PROXY}, "write a header's name"),
        ({"HEADER": "Authorization", "HEADER_FROM": PROXY}, "holds credentials"),
        ({"HEADER": "cookie", "HEADER_FROM": PROXY}, "holds credentials"),
        (
            {"SOURCES": "flask_login,flask_jwt"},
            r"'flask_jwt' is no source .*flask_jwt_extended.*: use flask_login, .*header",
        ),
        ({"SOURCES": "g."}, "is no source"),
        ({"SOURCES": "g.a-b"}, "is no source"),
        ({"SOURCES": "session, session"}, "stands there twice"),
        ({"SOURCES": ","}, "at least one"),
    ],
)
def test_settings_that_cannot_be_meant(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load({f"SPANSEAL_ACTOR_{name}": value for name, value in variables.items()})


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(
            {
                "SPANSEAL_ACTOR_HEADER_FROM": "x",
                "SPANSEAL_ACTOR_HEADER": HEADER,
                "SPANSEAL_ACTOR_SOURCES": "y",
            }
        )
    assert "SPANSEAL_ACTOR_HEADER_FROM is 'x'" in str(caught.value)
    assert "SPANSEAL_ACTOR_SOURCES is 'y'" in str(caught.value)


@pytest.mark.parametrize("fixed", ["not", "inside", "outside"])
def test_a_forged_header_is_not_believed_behind_proxy_fix_either(
    audit: Audit, app: flask.Flask, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fixed: str
) -> None:
    monkeypatch.setattr("spanseal.actors.proxy_header._throttle._said", {})
    audit.set(
        SPANSEAL_ACTOR_HEADER=HEADER,
        SPANSEAL_ACTOR_ROLE_HEADER="X-Forwarded-Groups",
        SPANSEAL_ACTOR_HEADER_FROM="10.1.0.0/16",
    )
    app.add_url_rule("/patients", view_func=lambda: flask.request.remote_addr or "")
    if fixed == "inside":
        replace_wsgi_app(app, ProxyFix(app.wsgi_app))
    client = Client(ProxyFix(app) if fixed == "outside" else app)

    def get(peer: str, forwarded_for: str) -> str:
        headers = {
            HEADER: "zoë".encode().decode("latin-1"),
            "X-Forwarded-Groups": "nurse",
            "X-Forwarded-For": forwarded_for,
        }
        answer = client.get("/patients", headers=headers, environ_base={"REMOTE_ADDR": peer}, buffered=True)
        return answer.text

    assert get(PROXY, ELSEWHERE) == (PROXY if fixed == "not" else ELSEWHERE)
    assert get(ELSEWHERE, PROXY) == (ELSEWHERE if fixed == "not" else PROXY)
    assert get(ELSEWHERE, PROXY)
    client.get("/patients", environ_base={"REMOTE_ADDR": PROXY}, buffered=True)
    real, *others = audit.records()
    assert (real.attributes["audit.actor.id"], real.attributes["audit.actor.role"]) == ("zoë", "nurse")
    assert len(others) == 3
    for record in others:
        assert record.attributes["audit.actor.type"] == "anonymous"
        assert "audit.actor.role" not in record.attributes
    said = [line for line in log.messages if HEADER in line]
    assert len(said) == 1
    assert ELSEWHERE in said[0]
    assert "SPANSEAL_ACTOR_HEADER_FROM" in said[0]
    assert "zo" not in said[0]


def test_no_header_is_read_where_none_is_named(audit: Audit, app: flask.Flask) -> None:
    app.add_url_rule("/patients", view_func=lambda: "none")
    app.test_client().get(
        "/patients", headers={HEADER: "f0rged", "Remote-User": "f0rged", "X-Remote-User": "f0rged"}
    )
    assert audit.record().attributes["audit.actor.type"] == "anonymous"


def test_the_servers_remote_user(audit: Audit, app: flask.Flask) -> None:
    audit.set(SPANSEAL_ACTOR_SOURCES="remote_user,session")
    app.add_url_rule("/patients", view_func=lambda: "none")
    client = app.test_client()
    client.get("/patients", environ_base={"REMOTE_USER": "zoë".encode().decode("latin-1")})
    with client.session_transaction() as session:
        session["user_id"] = 5
    client.get("/patients", environ_base={"REMOTE_USER": ""})
    assert [record.attributes["audit.actor.id"] for record in audit.records()] == ["zoë", "5"]


SERVED = """
import flask, spanseal
app = flask.Flask("clinic")
spanseal.instrument_app(app)
@app.get("/patients")
def patients():
    return flask.request.environ["REMOTE_ADDR"]
"""


@pytest.mark.parametrize("peers", ["unix", "127.0.0.1,::1"])
def test_a_unix_sockets_peer_under_gunicorn(audit: Audit, tmp_path: Path, peers: str) -> None:
    (tmp_path / "served.py").write_text(SERVED)
    path = tmp_path / "s"
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--no-control-socket", "--bind", f"unix:{path}", "served:app"],
        cwd=tmp_path,
        env={
            **os.environ,
            "SPANSEAL_ACTOR_HEADER": HEADER,
            "SPANSEAL_ACTOR_HEADER_FROM": peers,
        },
    )
    try:
        with socket.socket(socket.AF_UNIX) as client:
            until(lambda: client.connect_ex(str(path)) == 0)
            client.sendall(f"GET /patients HTTP/1.0\r\nHost: x\r\n{HEADER}: uma\r\n\r\n".encode())
            assert client.recv(1 << 16).startswith(b"HTTP/1.")
        until(audit.own_rows)
        (row,) = audit.own_rows()
        assert row.attributes["audit.actor.type"] == ("user" if peers == "unix" else "anonymous")
        assert row.attributes.get("audit.actor.id") == ("uma" if peers == "unix" else None)
    finally:
        server.terminate()
        server.wait(60)
