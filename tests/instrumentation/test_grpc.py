"""OTLP over gRPC: what each status means, what is configured, and that it bears forks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

import spanseal
from spanseal.delivery import endpoint
from spanseal.delivery.exporter import MAX_RETRY_AFTER, Answer, Verdict, open_exporter
from spanseal.delivery.grpc_exporter import GrpcExporter
from tests.instrumentation.conftest import Audit, until
from tests.instrumentation.fake_receiver import Received, rejecting
from tests.instrumentation.grpc_receiver import GrpcReceiver, GrpcReply, grpc_receiving, retry_info
from tests.instrumentation.test_adoption import check_streams
from tests.instrumentation.test_fork import PRELUDE

ROOT = Path(__file__).resolve().parents[2]
Code = grpc.StatusCode


@pytest.fixture
def server() -> Iterator[GrpcReceiver]:
    with grpc_receiving() as receiver:
        yield receiver


def use_grpc(audit: Audit, server: GrpcReceiver, **more: str) -> None:
    audit.set(OTEL_EXPORTER_OTLP_LOGS_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_ENDPOINT=server.url, **more)


def send(url: str, timeout: float = 20, **variables: str) -> Answer:
    named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
    one = open_exporter(
        endpoint.export(
            {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": url, **named}
        )
    )
    try:
        return one.send(b"", timeout)
    finally:
        one.close()


TOO_LARGE = "SERVER: Received message larger than max (9 vs. 4)"


@pytest.mark.parametrize(
    ("reply", "verdict", "retry_after"),
    [
        (GrpcReply(), Verdict.STORED, None),
        (GrpcReply(body=rejecting(0, "a warning").body), Verdict.STORED, None),
        (GrpcReply(body=rejecting(1).body), Verdict.REFUSED, None),
        (GrpcReply(body=b"<p>welcome"), Verdict.LATER, None),
        (GrpcReply(Code.INVALID_ARGUMENT), Verdict.REFUSED, None),
        (GrpcReply(Code.OUT_OF_RANGE), Verdict.REFUSED, None),
        (GrpcReply(Code.RESOURCE_EXHAUSTED, TOO_LARGE), Verdict.REFUSED, None),
        (GrpcReply(Code.RESOURCE_EXHAUSTED, TOO_LARGE, trailing=retry_info(2)), Verdict.LATER, 2.0),
        (GrpcReply(Code.RESOURCE_EXHAUSTED, "quota"), Verdict.LATER, None),
        (GrpcReply(Code.UNAVAILABLE, trailing=retry_info(1.5)), Verdict.LATER, 1.5),
        (GrpcReply(Code.UNAVAILABLE, trailing=retry_info(99999)), Verdict.LATER, MAX_RETRY_AFTER),
        (GrpcReply(Code.UNAVAILABLE, trailing=(("grpc-status-details-bin", b"\xff"),)), Verdict.LATER, None),
        *(
            (GrpcReply(code, "s3cret"), Verdict.LATER, None)
            for code in Code
            if code not in (Code.OK, Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE)
        ),
    ],
    ids=repr,
)
def test_what_a_status_means(
    server: GrpcReceiver, reply: GrpcReply, verdict: Verdict, retry_after: float | None
) -> None:
    server.answer = lambda _records: reply
    found = send(server.url)
    assert found.verdict is verdict, found.reason
    assert found.retry_after == retry_after
    assert (found.reason == "") is (verdict is Verdict.STORED)
    if verdict is not Verdict.STORED:
        assert server.url in found.reason
    assert "s3cret" not in found.reason


def test_a_server_that_hangs_is_left_after_the_timeout_and_one_that_is_away_at_once(
    server: GrpcReceiver,
) -> None:
    hanging = threading.Event()
    server.answer = lambda _records: GrpcReply(wait=hanging)
    try:
        found = send(server.url, timeout=0.1)
    finally:
        hanging.set()
    assert (found.verdict, "in time" in found.reason) == (Verdict.LATER, True)
    for away in ("http://127.0.0.1:1", "http://nobody.invalid:1", "https://127.0.0.1:1"):
        found = send(away)
        assert found.verdict is Verdict.LATER
        assert found.reason.startswith(f"{away} cannot be reached: nobody"), found.reason
    # Some other server.
    found = send(server.url.replace("http:", "https:"))
    assert (found.verdict, "speaks TLS" in found.reason) == (Verdict.LATER, True)


def test_what_is_configured_is_sent(audit: Audit, server: GrpcReceiver) -> None:
    use_grpc(
        audit,
        server,
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20abc,X-Two=2",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        # As the distribution does for everybody.
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
    )
    for number in range(3):
        spanseal.record("test.done", resource_id=number)
    server.wait_for("test.done", 3)
    audit.runtime.stop()
    streams = check_streams(server)
    assert [record.action for records in streams.values() for record in records][-1] == "producer.stopped"
    headers = server.requests[0].headers
    assert (headers["authorization"], headers["x-two"]) == ("Bearer abc", "2")
    assert headers["user-agent"].startswith("Spanseal/")
    assert audit.receiver.requests == []
    assert not list(audit.directory.glob("*.db"))


def test_a_batch_that_is_refused_is_halved_down_to_the_bad_one(audit: Audit) -> None:
    """Too large a message, and a record that the server does not take: as over HTTP."""
    with grpc_receiving(max_receive_message_length=20_000) as server:
        use_grpc(audit, server)
        bad: list[Received] = []

        def reply(records: list[Received]) -> GrpcReply:
            if not ready.is_set():
                return GrpcReply(Code.UNAVAILABLE)
            found = [record for record in records if record.attributes.get("audit.target.id") == "66"]
            bad[:] = found or bad
            return GrpcReply(Code.INVALID_ARGUMENT) if found else GrpcReply()

        ready = threading.Event()
        server.answer = reply
        for number in range(100):
            filling = {"fill": "x" * (50_000 if number == 33 else 500)}
            spanseal.record("test.done", resource_id=number, attributes=filling)
        ready.set()
        gaps = server.wait_for("producer.gap", 2)
        audit.runtime.stop()
        assert {gap.attributes["audit.producer.gap.reason"] for gap in gaps} == {"refused"}
        (record,) = bad
        named = {gap.attributes["audit.producer.gap.record_id"] for gap in gaps}
        assert record.id in named
        assert len(named) == 2
        sent = {r.attributes["audit.target.id"] for r in server.taken if r.action == "test.done"}
        assert sent == {str(number) for number in range(100)} - {"33", "66"}
        check_streams(server)
        assert len(list(audit.directory.glob("*.aside"))) == 1


def test_an_endpoint_that_was_away_for_long_is_found_again(audit: Audit) -> None:
    """Every attempt is one: gRPC by itself would wait between them, up to two minutes."""
    accepted: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as broken:
        port = broken.getsockname()[1]

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = broken.accept()
                    accepted.append(1)
                    connection.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        audit.set(
            OTEL_EXPORTER_OTLP_LOGS_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}"
        )
        spanseal.record("test.done")
        ship = audit.runtime.keeper.shipper
        assert ship is not None

        def failed_often() -> bool:
            ship._not_before = 0.0
            ship.wake()
            return ship._failures >= 12

        until(failed_often, 60)
        assert len(accepted) >= 12
        broken.shutdown(socket.SHUT_RDWR)
        thread.join()
    with grpc_receiving(port=port) as back:
        ship._not_before = 0.0
        ship.wake()
        back.wait_for("test.done")
        audit.runtime.stop()
        check_streams(back)


def test_its_own_calls_make_no_spans(
    audit: Audit, server: GrpcReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    make = grpc.insecure_channel

    def watching(*arguments: Any, **named: Any) -> Any:
        """As the instrumentation of gRPC does: it looks when a channel is made and at every call."""

        class Watch(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # has no types
            def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
                seen.append(is_instrumentation_enabled())
                return continuation(details, request)

        seen.append(is_instrumentation_enabled())
        return grpc.intercept_channel(make(*arguments, **named), Watch())

    monkeypatch.setattr(grpc, "insecure_channel", watching)
    use_grpc(audit, server)
    spanseal.record("test.done")
    server.wait_for("test.done")
    audit.runtime.stop()
    assert len(seen) >= 2
    assert not any(seen)
    assert is_instrumentation_enabled()


def test_the_shippers_thread_alone_makes_the_channel(
    audit: Audit, server: GrpcReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: list[str] = []
    connect = GrpcExporter._connect

    def watched(self: GrpcExporter) -> None:
        makers.append(threading.current_thread().name)
        connect(self)

    monkeypatch.setattr(GrpcExporter, "_connect", watched)
    use_grpc(audit, server)
    spanseal.record("test.done")
    server.wait_for("test.done")
    audit.runtime.stop()
    assert set(makers) == {"spanseal-shipper"}


def test_where_grpc_is_missing_records_wait_and_the_log_says_what_to_do(
    audit: Audit, server: GrpcReceiver, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    use_grpc(audit, server)
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "spanseal.delivery.grpc_exporter", None)
        spanseal.record("test.done")
        ship = audit.runtime.keeper.shipper
        assert ship is not None
        until(lambda: ship._failures)
    assert "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http/protobuf" in log.text
    assert [row.action for row in audit.own_rows()] == ["test.done"]
    ship._not_before = 0.0
    ship.wake()
    server.wait_for("test.done")
    audit.runtime.stop()


# --- processes ----------------------------------------------------------------------------------------------------


def run(program: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpc_is_not_even_imported_where_it_is_not_chosen(audit: Audit) -> None:
    program = PRELUDE + "runtime.current().stop(); tell('grpc' in sys.modules)"
    assert run(program).strip() == "False"
    audit.receiver.wait_for("parent.begun")


# `{when}` says what the parent's shipper does when the fork comes.
FORKS = """
ship = runtime.current().keeper.shipper
def sent():
    return not mine.file.count()
while not {when}():
    pass
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        spanseal.record("child.done", resource_id=number)
        {end}
    children.append(child)
for child in children:
    _, status = os.waitpid(child, 0)
    assert status == 0, status
spanseal.record("parent.done")
"""

COLLECTED = """import gc; from spanseal.delivery import grpc_exporter, keeper
        grpc_exporter._inherited.clear(); keeper._abandoned.clear(); del ship, mine; gc.collect(); sys.exit(0)"""


@pytest.mark.parametrize("support", ["unset", "1"])
@pytest.mark.parametrize(
    ("when", "end"),
    [
        # Not while a call is on its way: docs/delivery.md says what comes of that.
        ("sent", "sys.exit(0)"),
        ("sent", "runtime.current().stop(); os._exit(0)"),
        ("sent", COLLECTED),
    ],
    ids=["exit", "_exit", "collected"],
)
def test_a_child_forked_after_use_sends_by_itself_and_so_does_its_parent_on(
    audit: Audit, server: GrpcReceiver, when: str, end: str, support: str
) -> None:
    use_grpc(audit, server, SPANSEAL_SHUTDOWN_TIMEOUT="10")
    run(
        PRELUDE + FORKS.format(when=when, end=end),
        **({} if support == "unset" else {"GRPC_ENABLE_FORK_SUPPORT": support}),
    )
    server.wait_for("producer.stopped", 4)
    # What a cancelled call had brought already comes again.
    assert len(check_streams(server, again=True)) == 4
    actions = sorted(
        {(r.id, r.action) for r in server.taken if not r.action.startswith("producer.")},
        key=lambda one: one[1],
    )
    assert [action for _, action in actions] == ["child.done"] * 3 + ["parent.begun", "parent.done"]
    assert not list(audit.directory.glob("*.db"))


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, sys
import spanseal
from spanseal import runtime
spanseal.record("test.done")
from spanseal.delivery import grpc_exporter
while grpc_exporter._calls.running is None:
    gevent.sleep(0.002)
for _ in range(20):
    gevent.sleep(0.002)
print("goes on" if grpc_exporter._calls.running is not None else "stood still", flush=True)
sys.stdin.readline()
runtime.current().stop()
"""


@pytest.mark.timeout(60)  # a process that stands still would be waited for
def test_greenlets_go_on_while_a_call_waits(audit: Audit, server: GrpcReceiver) -> None:
    use_grpc(audit, server, SPANSEAL_SHUTDOWN_TIMEOUT="10", OTEL_EXPORTER_OTLP_TIMEOUT="5")
    hanging = threading.Event()
    server.answer = lambda _records: GrpcReply(wait=hanging)
    with subprocess.Popen(
        [sys.executable, "-c", GREENLETS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        said = one.stdout.readline()
        hanging.set()
        one.stdin.write("\n")
        one.stdin.close()
        assert (said, one.wait(60)) == ("goes on\n", 0)
    server.wait_for("producer.stopped")
    check_streams(server, again=True)
