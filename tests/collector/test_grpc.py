"""OTLP/gRPC against a collector that runs as a process: what is stored, and what nobody means well with."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from examples.demo.processes import Collector, ServiceError
from spanseal_collector.intake import MAX_REQUEST_BYTES
from tests.collector.grpc_client import call, channel, export
from tests.collector.http import health, rows, verdict
from tests.collector.http2 import Connection, data, frame, headers
from tests.collector.wire import field, nested, record, request

OK, INVALID = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED, UNIMPLEMENTED = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    folder = tmp_path_factory.mktemp("grpc")
    with Collector(folder / "data", folder / "collector.log") as running:
        yield running
        result = verdict(running.data)
        assert (result["verdict"], result["chains"]) == ("clean", 1), running.tail()
        # Nothing that was sent came as far as to an error that nobody expected.
        assert "Traceback" not in running.log.read_text()


def test_a_call_is_answered_when_its_records_are_stored(collector: Collector) -> None:
    before = health(collector)
    with channel(collector.grpc_port) as opened:
        for packed in (False, True):
            body = request(record("call.answered", text="x" * 1000), record("nonsense")).SerializeToString()
            answer = call(opened, body, gzip=packed)
            assert answer.code == OK
            assert not ExportLogsServiceResponse.FromString(answer.body).HasField("partial_success")
            assert call(opened, b"", gzip=packed).code == OK
    after = health(collector)
    assert after["quarantined"] - before["quarantined"] == 2
    assert rows(collector.data, "SELECT count() FROM audit.events WHERE action = 'call.answered'") == [(2,)]


def test_one_bad_record_leaves_its_neighbours(collector: Collector) -> None:
    before = health(collector)
    good, bad = record().SerializeToString(), record().SerializeToString() + nested(10_000)
    body = field(1, field(2, b"".join(field(2, raw) for raw in (good, bad, b"\xff\xff"))))
    assert export(collector.grpc_port, body).code == OK
    after = health(collector)
    assert after["quarantined"] - before["quarantined"] == 2


def test_bytes_that_are_not_otlp_are_invalid(collector: Collector) -> None:
    whole = gzip.compress(request(record()).SerializeToString())
    with channel(collector.grpc_port) as opened:
        for body in (
            b"garbage",
            b"{}",
            b"\x0a\xff",
            field(1, field(1, b"\xff\xff")),
            whole[:-5],
            whole[:4],
            whole + b"trailing",
            b"\x1f\x8b" * 9,
            gzip.compress(b"") * 1000,
        ):
            answer = call(opened, body)
            assert answer.code == INVALID
            assert answer.status is not None
            assert answer.status.code == 3
            assert answer.retry_seconds() is None
    # Said to be compressed, and broken: gRPC by itself would answer INTERNAL.
    for body in (b"not gzip", whole[:-5], whole[:2], b""):
        with Connection(collector.grpc_port) as connection:
            call_ = headers(1, encoding="gzip") + data(1, body, compressed=1)
            assert connection.status(call_) == (3 if body else 0)
    with Connection(collector.grpc_port) as connection:
        assert connection.status(headers(1, encoding="gzip") + data(1, whole, compressed=1)) == 0


def test_what_is_too_large_is_exhausted_for_good(collector: Collector) -> None:
    with channel(collector.grpc_port) as opened:
        for body, packed in (
            (bytes(MAX_REQUEST_BYTES + 1), False),
            (bytes(MAX_REQUEST_BYTES + 1), True),
            (bytes(100 << 20), True),
            (b"\x0a\x00" * 10_000_000, True),
            (gzip.compress(bytes(MAX_REQUEST_BYTES)) * 2, False),
        ):
            answer = call(opened, body, gzip=packed)
            assert answer.code == EXHAUSTED
            # Nothing says that it would fit later.
            assert answer.retry_seconds() is None
        assert call(opened, request(record()).SerializeToString()).code == OK
    peak = Path(f"/proc/{collector.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
    assert int(peak) < 1_500_000, "kB"


def test_what_is_not_served_is_unimplemented(collector: Collector) -> None:
    with channel(collector.grpc_port) as opened:
        body = request(record()).SerializeToString()
        for method in (
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            "/opentelemetry.proto.collector.logs.v1.LogsService/Import",
            "/x/y",
        ):
            assert call(opened, body, method=method).code == UNIMPLEMENTED
        assert call(opened, body * 100, compression=grpc.Compression.Deflate).code == UNIMPLEMENTED


def test_many_calls_on_one_connection(collector: Collector) -> None:
    before = health(collector)["sealed"]
    with channel(collector.grpc_port) as opened, ThreadPoolExecutor(16) as clients:
        bodies = [request(record()).SerializeToString() for _ in range(200)]
        answers = list(clients.map(lambda body: call(opened, body), bodies))
    assert {answer.code for answer in answers} == {OK}
    assert health(collector)["sealed"] - before == 200


def test_large_metadata_is_refused_and_ordinary_is_taken(collector: Collector) -> None:
    body = request(record()).SerializeToString()
    with channel(collector.grpc_port) as opened:
        assert call(opened, body, metadata=(("authorization", "x" * 20_000), ("a-bin", b"\xff"))).code == OK
        answer = call(opened, body, metadata=(("x", "y" * 100_000),))
        assert answer.code in (EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        assert call(opened, body).code == OK


def test_connections_that_speak_something_else_are_cut_off(collector: Collector) -> None:
    body = request(record()).SerializeToString()
    for rubbish in (
        b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(100_000),
    ):
        with socket.create_connection(("127.0.0.1", collector.grpc_port), timeout=30) as connection:
            connection.sendall(rubbish)
            while connection.recv(10_000):
                pass
    for frames in (
        frame(0xFF, 0, 0, b"unknown type") + headers(1) + data(1, body),
        headers(1) + data(1, body)[:-1],  # ends within a frame
        headers(1) + data(1, body, compressed=1),  # says that it is compressed, not with what
        headers(1) + data(1, body, length=len(body) + 1),
        headers(1) + data(1, body, length=(1 << 32) - 1),
        headers(1, encoding="gzip") + data(1, b"\x1f\x8b broken", compressed=1),
        headers(1, encoding="zstd") + data(1, body, compressed=1),
        headers(1, method="GET") + data(1, body),
        headers(1, content_type="text/plain") + data(1, body),
        headers(1, path="") + data(1, body),
        headers(2) + data(2, body),
        data(1, body),
        frame(1, 4, 1, b"\xff\xff\xff\xff\xff"),
        frame(4, 0, 0, b"\x00\x04\xff\xff\xff\xff"),
        frame(8, 0, 0, bytes(4)),
        frame(0, 0, 0, b"x"),
        frame(7, 0, 0, bytes(7) + b"\x01s3cret\xff\x1b[31m"),
        headers(1, more=((b"authorization", b"s3cret\xff"), (b"\xffs3cret", b"x"))) + data(1, body),
        b"".join(headers(2 * n + 1) + frame(3, 0, 2 * n + 1, bytes(4)) for n in range(500)),
    ):
        with Connection(collector.grpc_port) as connection:
            connection.send_and_leave(frames)
    with Connection(collector.grpc_port) as connection:
        assert b"too_many_pings" in connection.send_and_leave(frame(6, 0, 0, bytes(8)) * 1000)
    assert export(collector.grpc_port, body).code == OK
    assert b"s3cret" not in collector.log.read_bytes()


def test_it_stops_beside_open_connections_and_calls_that_never_end(tmp_path: Path) -> None:
    body = request(record()).SerializeToString()
    with Collector(tmp_path / "data", tmp_path / "collector.log") as stopping:
        with channel(stopping.grpc_port) as opened, Connection(stopping.grpc_port) as half:
            assert call(opened, body).code == OK
            assert half.status(headers(1) + data(1, body) + headers(3)) == 0
            assert stopping.stop() == 0
            assert call(opened, body).code == grpc.StatusCode.UNAVAILABLE
        assert verdict(stopping.data)["verdict"] == "clean"
        assert "Traceback" not in stopping.log.read_text()


def test_two_collectors_do_not_share_a_port_and_gRPC_can_be_left_out(  # noqa: N802
    collector: Collector, tmp_path: Path
) -> None:
    other = Collector(
        tmp_path / "other", tmp_path / "other.log", options=("--grpc-port", str(collector.grpc_port))
    )
    with pytest.raises(ServiceError, match="another --grpc-port"):
        other.start()
    with Collector(tmp_path / "off", tmp_path / "off.log", options=("--grpc-port", "off")) as without:
        answer = export(without.grpc_port, b"")
        assert answer.code == grpc.StatusCode.UNAVAILABLE
        assert "no OTLP/gRPC" in without.log.read_text()
