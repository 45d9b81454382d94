"""The receiver and its server in this process, with their patience cut short."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from google.rpc import error_details_pb2, status_pb2

from spanseal_collector.admission import Admitter
from spanseal_collector.errors import UnavailableError
from spanseal_collector.http_server import Server, make_server
from spanseal_collector.intake import Intake
from spanseal_collector.pipeline import Limits, Pipeline
from spanseal_collector.receiver import _refused, make_receiver
from spanseal_collector.refusals import refusal
from tests.collector.conftest import Log
from tests.collector.faults import GatedWriter, until
from tests.collector.http import head, post, status
from tests.collector.wire import record, request


@contextlib.contextmanager
def served(pipeline: Pipeline, *, head_seconds: float = 20.0) -> Iterator[tuple[Server, int]]:
    """Serve in a thread; gives the server and its port."""
    app = make_receiver(Intake(Admitter(bytes(32)), pipeline))
    server = make_server(app, drain_seconds=1, head_seconds=head_seconds)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def test_slow_clients_are_let_go(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanseal_collector.receiver._BODY_SECONDS", 0.2)
    pipeline = log.pipeline()
    pipeline.start()
    body = request(record()).SerializeToString()
    with served(pipeline, head_seconds=0.2) as (_, port), contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))

        silent, slow_head, slow_body, second = (connect() for _ in range(4))
        slow_head.sendall(head(5)[:30])
        slow_body.sendall(head(len(body)) + body[:-1])
        second.sendall(head(len(body)) + body)
        assert second.recv(1000).startswith(b"HTTP/1.1 200")
        # An old connection may be idle for long, but not with half a head.
        second.sendall(head(5)[:30])
        assert slow_body.recv(1000).startswith(b"HTTP/1.1 503")
        for connection in (silent, slow_head, second):
            assert connection.recv(1000) == b""
        assert post(f"http://127.0.0.1:{port}", body).status_code == 200
    assert pipeline.stop()
    assert len(log.rows("1", "tenant = 'default'")) == 1


def test_bodies_take_no_more_memory_than_there_is_room(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanseal_collector.intake.MAX_BUFFERED_BYTES", 10_000)
    pipeline = log.pipeline()
    pipeline.start()
    large = request(record(text="x" * 8_000)).SerializeToString()
    with served(pipeline) as (_, port), socket.create_connection(("127.0.0.1", port)) as holding:
        url = f"http://127.0.0.1:{port}"
        assert post(url, large).status_code == 200
        holding.sendall(head(len(large)) + large[:-1])
        until(lambda: post(url, large).status_code == 429)
        answer = post(url, large)
        assert (answer.status_code, answer.headers["Retry-After"], status(answer).code) == (429, "1", 8)
        assert "fits" in status(answer).message
        holding.close()
        until(lambda: post(url, large).status_code == 200)
    assert pipeline.stop()


def test_requests_that_outlast_the_stop_are_503(log: Log) -> None:
    writer = GatedWriter(log)
    pipeline = log.pipeline(records=writer)
    pipeline.start()
    with served(pipeline) as (server, port), ThreadPoolExecutor(1) as client:
        writer.gate.clear()
        waiting = client.submit(post, f"http://127.0.0.1:{port}", request(record()).SerializeToString())
        writer.reached.wait(20)
        server.should_exit = True
        answer = waiting.result(20)
        assert (answer.status_code, status(answer).code) == (503, 14)
        writer.gate.set()
    assert pipeline.stop()


def test_a_commit_that_takes_too_long_is_503_and_its_retry_a_duplicate(log: Log) -> None:
    writer = GatedWriter(log)
    pipeline = log.pipeline(records=writer, limits=Limits(answer_seconds=0.1))
    pipeline.start()
    body = request(record()).SerializeToString()
    with served(pipeline) as (_, port):
        writer.gate.clear()
        answer = post(f"http://127.0.0.1:{port}", body)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        writer.gate.set()
        until(lambda: post(f"http://127.0.0.1:{port}", body).status_code == 200)
    assert pipeline.stop()
    assert len(log.rows("1", "tenant = 'default'")) == 1


def test_a_pipeline_that_is_gone_is_503(log: Log) -> None:
    pipeline = log.pipeline()
    pipeline.start()
    assert pipeline.stop()
    with served(pipeline) as (_, port):
        answer = post(f"http://127.0.0.1:{port}", request(record()).SerializeToString())
        assert answer.status_code == 503
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=20).status_code == 200


def test_unavailable_carries_retry_info() -> None:
    answer = _refused(refusal(UnavailableError("later", 1.5)), "application/x-protobuf")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    found = status_pb2.Status.FromString(bytes(answer.body))
    info = error_details_pb2.RetryInfo()
    assert found.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 1500


def test_a_bug_is_503_and_tells_nothing() -> None:
    answer = _refused(refusal(RuntimeError("secret")), "application/x-protobuf")
    assert answer.status_code == 503
    assert b"secret" not in bytes(answer.body)
