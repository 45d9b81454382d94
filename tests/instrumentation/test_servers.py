"""The same over sockets: what only a real server does."""

from __future__ import annotations

import http.client
import io
import socket
import threading
from collections.abc import Iterator
from typing import Any

import flask
import pytest

from tests.instrumentation.conftest import Audit
from tests.instrumentation.serving import werkzeug_server, wsgiref_server


def ask(port: int, method: str, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


@pytest.mark.parametrize("server", [wsgiref_server, werkzeug_server])
def test_plain_answers_files_and_errors(audit: Audit, app: flask.Flask, server: Any) -> None:
    app.add_url_rule("/patients", view_func=lambda: "none", methods=["GET", "POST"])
    app.add_url_rule(
        "/file", view_func=lambda: flask.send_file(io.BytesIO(b"content"), "text/plain"), endpoint="file"
    )
    with server(app) as port:
        for method, path, status, content in (
            ("GET", "/patients", 200, b"none"),
            ("POST", "/patients", 200, b"none"),
            ("HEAD", "/patients", 200, b""),
            ("GET", "/file", 200, b"content"),
            ("GET", "/nowhere", 404, None),
        ):
            answer, read = ask(port, method, path)
            assert answer.status == status
            assert answer.getheader("X-Request-Id")
            assert content is None or read == content
    actions = [record.action for record in audit.records()]
    assert actions == [
        "patient.listed",
        "patient.created",
        "patient.listed",
        "file.viewed",
        "request.unmatched",
    ]
    for record in audit.receiver.taken:
        assert "spanseal.response.incomplete" not in record.attributes


def test_a_client_that_hangs_up_in_the_middle(audit: Audit, app: flask.Flask) -> None:
    left = threading.Event()

    @app.get("/export")
    def export() -> flask.Response:
        def rows() -> Iterator[bytes]:
            yield b"first"
            left.wait(20)
            for _ in range(1000):  # until the kernel's buffers tell of it
                yield bytes(100_000)

        return flask.Response(rows())

    with werkzeug_server(app) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"GET /export HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while b"first" not in received:
                received += client.recv(1000)
            (row,) = audit.own_rows()
            assert row.state == "answered"
        left.set()
        audit.receiver.wait_for("record.exported")
    found = audit.record().attributes
    assert (found["audit.outcome"], found["spanseal.response.incomplete"]) == ("success", True)


def test_many_requests_at_once_are_each_on_record_under_numbers_without_gaps(
    audit: Audit, app: flask.Flask
) -> None:
    app.add_url_rule("/patients/<int:pid>", view_func=str, methods=["GET", "POST"])
    with werkzeug_server(app) as port:

        def visit(start: int) -> None:
            for number in range(start, start + 20):
                ask(port, "POST" if number % 2 else "GET", f"/patients/{number}")

        threads = [threading.Thread(target=visit, args=(start,)) for start in range(0, 160, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    everything = audit.everything()
    assert [record.number for record in everything] == list(range(162))
    assert everything[0].action == "producer.started"
    assert everything[-1].action == "producer.stopped"
    visited = [record.attributes["audit.target.id"] for record in everything[1:-1]]
    assert sorted(visited, key=int) == [str(number) for number in range(160)]
    assert len({record.id for record in everything}) == 162
