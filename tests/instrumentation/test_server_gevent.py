"""gevent, which replaces the standard library after Spanseal was loaded: nothing of ours may stand in its way."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.instrumentation.fake_receiver import FakeReceiver, Reply, receiving
from tests.instrumentation.grpc_receiver import GrpcReceiver, GrpcReply, grpc_receiving
from tests.instrumentation.live import Server, gunicorn
from tests.instrumentation.test_adoption import check_streams
from tests.instrumentation.test_tls import Authority

ROOT = Path(__file__).resolve().parents[2]

APP = """
import contextvars
import flask
import gevent
import gevent.monkey
import spanseal

app = flask.Flask("greenlets")

@app.get("/healthz")
def health():
    assert gevent.monkey.is_module_patched("threading")
    return "ok"

@app.get("/tls")
def tls():
    from urllib3.util.ssl_ import create_urllib3_context

    return type(create_urllib3_context()).__module__

@app.post("/patients/<pid>")
def change(pid):
    def work():
        gevent.sleep(0.02)
        spanseal.record("patient.checked", resource_id=pid)
        return spanseal.request_id()

    greenlets = [gevent.spawn(contextvars.copy_context().run, work) for _ in range(3)]
    # As a thread, a greenlet without a copy of the context works for no request.
    stranger = gevent.spawn(spanseal.request_id)
    gevent.joinall([*greenlets, stranger])
    ids = [spanseal.request_id(), *(greenlet.value for greenlet in greenlets)]
    return {"ids": ids, "stranger": stranger.value}
"""


@contextmanager
def endpoint(kind: str, folder: Path) -> Iterator[tuple[FakeReceiver | GrpcReceiver, dict[str, str]]]:
    """Receive by one of the protocols; gives the variables that lead there."""
    if kind == "grpc":
        with grpc_receiving() as receiver:
            yield receiver, {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}
    elif kind == "https":
        authority = Authority(folder, "authority")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("server"))
        with receiving(context) as secured:
            yield secured, {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.path)}
    else:
        with receiving() as plain:
            yield plain, {}


def ask(port: int, method: str, path: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["X-Request-Id"], answer.read()
    finally:
        connection.close()


def all_at_once(port: int, first: int, count: int) -> dict[int, tuple[int, str, bytes]]:
    answers: dict[int, tuple[int, str, bytes]] = {}

    def visit(number: int) -> None:
        answers[number] = ask(port, "POST", f"/patients/{number}")

    threads = [threading.Thread(target=visit, args=(first + number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == count
    return answers


@pytest.mark.parametrize(("kind", "options"), [("https", ()), ("http", ("--preload",)), ("grpc", ())])
def test_greenlets(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    with endpoint(kind, tmp_path) as (receiver, variables):
        server = Server(
            tmp_path,
            gunicorn("--worker-class", "gevent", *options, workers=1),
            endpoint=receiver.url,
            env=variables,
        )
        server.source.write_text(APP)
        with server:
            # What the application does with TLS itself is as gevent wants it.
            assert ask(server.port, "GET", "/tls")[2] == b"gevent.ssl"
            answers = all_at_once(server.port, 0, 20)
            # A collector that takes its time stops nobody.
            going_on = threading.Event()
            slow: Any = GrpcReply(wait=going_on) if kind == "grpc" else Reply(wait=going_on)
            receiver.answer = lambda _records: slow
            asked = len(receiver.requests)
            answers |= all_at_once(server.port, 20, 1)
            receiver.wait(lambda seen: len(seen.requests) > asked)
            answers |= all_at_once(server.port, 21, 20)
            going_on.set()
    ids = {number: request_id for number, (_, request_id, _) in answers.items()}
    assert len(set(ids.values())) == len(answers) == 41
    for number, (status, _, content) in answers.items():
        assert status == 200
        # Greenlets of a request work for it, and for no other that runs at the same time.
        assert json.loads(content) == {"ids": [ids[number]] * 4, "stranger": ""}
    check_streams(receiver, again=True)
    records = {record.id: record.attributes for record in receiver.taken}.values()
    found = sorted(
        (int(record["audit.target.id"]), record["audit.request.id"])
        for record in records
        if "audit.target.id" in record and record.get("audit.target.type") == "patient"
    )
    assert found == sorted((number, given) for number, given in ids.items() for _ in range(4))
    assert "Warning" not in server.text()
    assert "Traceback" not in server.text()


FIRST_REQUESTS = """
import faulthandler, warnings
import spanseal.runtime
from gevent import monkey
warnings.simplefilter("ignore")
monkey.patch_all()
import gevent
faulthandler.dump_traceback_later(15, exit=True)
current = spanseal.runtime.current()
greenlets = [gevent.spawn(current.keeper.open) for _ in range(5)]
gevent.joinall(greenlets, raise_error=True)
assert len({id(greenlet.value) for greenlet in greenlets}) == 1
current.stop()
"""


def test_first_requests_at_once(tmp_path: Path, receiver: FakeReceiver) -> None:
    variables = {"SPANSEAL_SPOOL_DIR": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    subprocess.run(
        [sys.executable, "-c", FIRST_REQUESTS],
        env={**os.environ, **variables},
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    assert [record.action for record in receiver.taken] == ["producer.started", "producer.stopped"]
