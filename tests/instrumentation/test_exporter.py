"""One request of OTLP/HTTP, and what its answer means for the records in it."""

from __future__ import annotations

import email.utils
import socket
import threading
import time
from typing import Any

import pytest
import requests
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

import spanseal
from spanseal.delivery import endpoint
from spanseal.delivery.exporter import MAX_RETRY_AFTER, HttpExporter, Verdict
from tests.instrumentation.conftest import Audit
from tests.instrumentation.fake_receiver import PROTOBUF, Reply, rejecting

BODY = b""


def exporter(audit: Audit, **variables: str) -> HttpExporter:
    return HttpExporter(endpoint.export({"OTEL_EXPORTER_OTLP_ENDPOINT": audit.receiver.url, **variables}))


def answer(audit: Audit, reply: Reply, timeout: float = 20, **variables: str) -> Any:
    audit.receiver.answer = lambda _records: reply
    one = exporter(audit, **variables)
    try:
        return one.send(BODY, timeout)
    finally:
        one.close()


EMPTY = ExportLogsServiceResponse().SerializeToString()
WARNING = rejecting(0, "a warning").body


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (Reply(), Verdict.STORED),
        (Reply(headers={"content-type": "Application/X-Protobuf; charset=binary"}), Verdict.STORED),
        (Reply(body=WARNING), Verdict.STORED),
        (rejecting(1), Verdict.REFUSED),
        (Reply(400), Verdict.REFUSED),
        (Reply(413), Verdict.REFUSED),
        # Some server, but no OTLP receiver.
        (Reply(headers={}), Verdict.LATER),
        (Reply(headers={"Content-Type": "text/html"}), Verdict.LATER),
        (Reply(headers={"Content-Type": "text/html"}, body=b"<p>welcome"), Verdict.LATER),
        (Reply(headers={"Content-Type": "application/json"}, body=b"{}"), Verdict.LATER),
        (Reply(body=b"<p>welcome"), Verdict.LATER),
        (Reply(body=bytes(100_000)), Verdict.LATER),
        (Reply(202), Verdict.LATER),
        (Reply(204), Verdict.LATER),
        *((Reply(status), Verdict.LATER) for status in (401, 403, 404, 405, 408, 415, 429, 500, 501, 503)),
        # Cut off.
        (Reply(body=EMPTY, length=5), Verdict.LATER),
        (Reply(body=rejecting(1).body[:2], length=4), Verdict.LATER),
        (Reply(body=WARNING[:-3], length=len(WARNING)), Verdict.LATER),
        (Reply(silent=True), Verdict.LATER),
        (Reply(200, {"Content-Type": PROTOBUF, "Content-Encoding": "gzip"}, b"not gzip"), Verdict.LATER),
    ],
    ids=repr,
)
def test_what_an_answer_means(audit: Audit, reply: Reply, verdict: Verdict) -> None:
    found = answer(audit, reply)
    assert found.verdict is verdict, found.reason
    assert (found.reason == "") is (verdict is Verdict.STORED)
    assert str(reply.status) in found.reason or reply.status == 200


def test_a_redirect_is_not_followed(audit: Audit) -> None:
    """What is behind it was not configured; a POST would become a GET, whose 200 says nothing."""
    for status in (301, 302, 307, 308):
        found = answer(audit, Reply(status, {"Location": audit.receiver.url + "/elsewhere"}))
        assert found.verdict is Verdict.LATER
    assert {request.path for request in audit.receiver.requests} == {"/v1/logs"}


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("99999", MAX_RETRY_AFTER, MAX_RETRY_AFTER),
        # A date so many seconds from when the test runs, which may be long after this list was made.
        ("date 60", 1, 61),
        ("date -60", 0, 0),
        ("Wed, 31 Dec 2098 23:59:59 GMT", MAX_RETRY_AFTER, MAX_RETRY_AFTER),
        ("soon", None, None),
        ("-1", None, None),
        ("9" * 5000, None, None),
        ("", None, None),
    ],
)
def test_retry_after(audit: Audit, text: str, least: float | None, most: float | None) -> None:
    if text.startswith("date "):
        text = email.utils.formatdate(time.time() + int(text.removeprefix("date ")), usegmt=True)
    found = answer(audit, Reply(503, {"Retry-After": text})).retry_after
    if least is None or most is None:
        assert found is None
    else:
        assert least <= found <= most


def test_a_server_that_hangs_is_left_after_the_timeout(audit: Audit) -> None:
    hanging = threading.Event()
    try:
        assert answer(audit, Reply(wait=hanging), timeout=0.05).verdict is Verdict.LATER
    finally:
        hanging.set()


def test_a_server_that_drips_is_left_after_the_timeout() -> None:
    """Each byte comes in time; the answer as a whole does not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 60000\r\n\r\n"
                )
                try:
                    while not ended.wait(0.02):
                        connection.sendall(bytes(4096))
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        one = HttpExporter(
            endpoint.export({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"})
        )
        found = one.send(BODY, 0.1)
        one.close()
        ended.set()
        thread.join()
    assert found.verdict is Verdict.LATER
    assert "TimeoutError" in found.reason


def test_nobody_listens_and_names_that_nobody_has() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{taken.getsockname()[1]}", "http://nobody.invalid"):
            one = HttpExporter(endpoint.export({"OTEL_EXPORTER_OTLP_ENDPOINT": url}))
            found = one.send(BODY, 5)
            assert found.verdict is Verdict.LATER
            assert url in found.reason


def test_a_credential_is_sent_and_never_shown(audit: Audit) -> None:
    found = answer(
        audit,
        Reply(401),
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20s3cret",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{audit.receiver.url}/v1/logs?token=s3cret",
    )
    assert "s3cret" not in found.reason
    assert "OTEL_EXPORTER_OTLP_HEADERS" in found.reason
    (request,) = audit.receiver.requests
    assert request.headers["authorization"] == "Bearer s3cret"
    assert request.path == "/v1/logs?token=s3cret"


def test_headers_and_compression(audit: Audit, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    # A password file of the user's must not replace what is configured.
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    audit.set(
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20abc,X-Two=2",
    )
    spanseal.record("test.done")
    audit.receiver.wait_for("test.done")
    headers = audit.receiver.requests[0].headers
    assert headers["content-encoding"] == "gzip"
    assert headers["content-type"] == PROTOBUF
    assert headers["authorization"] == "Bearer abc"
    assert headers["x-two"] == "2"
    assert headers["user-agent"].startswith("Spanseal/")


def test_its_own_requests_make_no_spans(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    send = requests.Session.send

    def watching(self: requests.Session, *arguments: Any, **named: Any) -> requests.Response:
        seen.append(is_http_instrumentation_enabled())
        return send(self, *arguments, **named)

    monkeypatch.setattr(requests.Session, "send", watching)
    spanseal.record("test.done")
    audit.receiver.wait_for("test.done")
    assert seen
    assert not any(seen)
    assert is_http_instrumentation_enabled()
