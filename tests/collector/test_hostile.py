"""Requests that nobody means well with, sent to a collector that runs as a process."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from google.protobuf import json_format
from google.rpc import status_pb2
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from examples.demo.processes import Collector
from spanseal_collector.intake import MAX_REQUEST_BYTES
from tests.collector.http import head, health, post, raw_answers, rows, status, verdict
from tests.collector.otlp_json import with_record
from tests.collector.wire import field, nested, record, request

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JSON = {"Content_Type": "application/json"}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    folder = tmp_path_factory.mktemp("hostile")
    with Collector(folder / "data", folder / "collector.log") as running:
        yield running
        result = verdict(running.data)
        assert (result["verdict"], result["chains"]) == ("clean", 1), running.tail()
        # Nothing that was sent came as far as to an error that nobody expected.
        assert "Traceback" not in running.log.read_text()


def with_records(*raws: bytes) -> bytes:
    return field(1, field(2, b"".join(field(2, raw) for raw in raws)))


def test_hostile_records_are_stored_or_quarantined_and_their_neighbours_stored(collector: Collector) -> None:
    nul = record(nul="a\x00b", audit__target__id="\x00", audit__actor__role="\x00", **{"\x00": "\x00"})
    twice = record()
    twice.attributes.append(twice.attributes[0])
    late = record()
    late.time_unix_nano = (1 << 64) - 1
    severity = record()
    severity.severity_number = -1  # type: ignore[assignment]  # an enum is any int on the wire
    surrogate = record(text="marker").SerializeToString().replace(b"marker", b"\xed\xa0\x80abc")
    admitted = [nul, severity, record(audit__actor__id="\u202e\x1b[31m<script>")]
    rejected = [
        record(big="x" * 5_000_000),
        record(**{f"k{n}": n for n in range(10_000)}),
        twice,
        late,
        record("audit_log.stopped"),
        record("audit_log.erased"),
        record("AUDIT_LOG.purged"),
        record(audit__chain__key="x"),
        record(audit__chain__next_key="x"),
        record(audit__tenant="_collector"),
        record("nonsense"),
        LogRecord(),
    ]
    raws = [log.SerializeToString() for log in (*admitted, *rejected)]
    raws += [surrogate, record().SerializeToString() + nested(10_000), b"\xff\xff"]
    before = health(collector)
    for raw in raws:
        good = record().SerializeToString()
        answer = post(collector.url, with_records(good, raw, good + field(99, b"unknown")))
        assert answer.status_code == 200
        assert answer.content == b""
    after = health(collector)
    assert after["quarantined"] - before["quarantined"] == len(rejected) + 3
    # The neighbour with the unknown field bears the same id: it is a duplicate of the first.
    assert after["duplicates"] - before["duplicates"] == len(raws)
    assert after["sealed"] - before["sealed"] == 2 * len(raws)
    actions = {action for (action,) in rows(collector.data, "SELECT DISTINCT action FROM audit.events")}
    assert actions == {"audit_log.started", "audit_log.quarantined", "patient.viewed"}


def test_an_empty_resource_and_an_empty_request_are_taken(collector: Collector) -> None:
    for body in (b"", field(1, b""), field(1, field(2, b"")), field(1, field(1, b"") + field(2, b""))):
        assert post(collector.url, body).status_code == 200
    assert post(collector.url, gzip.compress(b""), Content_Encoding="gzip").status_code == 200


def test_bytes_that_are_not_otlp_are_400_with_a_status(collector: Collector) -> None:
    for body in (b"garbage", b"{}", b"\x0a\xff", field(1, field(1, b"\xff\xff"))):
        answer = post(collector.url, body)
        assert answer.status_code == 400
        assert status(answer).code == 3
        assert "OTLP" in status(answer).message
    for name, pack in (("gzip", gzip.compress), ("zstd", zstd.compress)):
        whole = pack(request(record()).SerializeToString())
        for body in (b"not packed", whole[:-5], whole[:20], whole + b"trailing", pack(b"") * 1000):
            assert post(collector.url, body, Content_Encoding=name).status_code == 400


def test_json_is_answered_in_json(collector: Collector) -> None:
    before = health(collector)
    deep = '{"eventName":"a.b","x":' + "[" * 50_000 + "]" * 50_000 + "}"
    for record_ in (deep, "null", b'{"eventName":"\xff"}', '{"eventName":"\\ud800","eventName":1e999}'):
        answer = post(collector.url, with_record(record_), **JSON)
        assert (answer.status_code, answer.json()) == (200, {})
        assert answer.headers["content-type"] == "application/json"
    after = health(collector)
    assert after["quarantined"] - before["quarantined"] == 4
    assert after["sealed"] - before["sealed"] == 3 * 4
    for body, headers, code in (
        (b"\x0a\x00", {}, 400),
        (b"", {}, 400),
        (b'{"resourceLogs":[{}', {}, 400),
        (b"{}", {"Content_Encoding": "br"}, 415),
        (b" " * (MAX_REQUEST_BYTES + 1), {}, 413),
    ):
        answer = post(collector.url, body, **JSON, **headers)
        assert answer.status_code == code
        assert answer.headers["content-type"] == "application/json"
        found = json_format.Parse(answer.content, status_pb2.Status())
        assert found.code == {400: 3, 413: 8, 415: 12}[code]
        assert found.message
    assert post(collector.url, b"{}", **JSON, Content_Encoding="identity").status_code == 200


def test_the_quarantine_holds_json_as_it_was_sent(collector: Collector) -> None:
    odd = b'{ "eventName" : "odd one", "x":"\xff\\u0000" }'
    assert post(collector.url, with_record(odd), **JSON).status_code == 200
    ((raw, salt, digest, quarantine_id),) = rows(
        collector.data,
        "SELECT hex(raw), hex(salt), hex(digest), toString(quarantine_id) FROM audit.quarantine "
        "WHERE position(raw, 'odd one') > 0",
    )
    assert bytes.fromhex(raw) == b'{"scopeLogs":[{"logRecords":[%s]}]}' % odd
    assert hashlib.sha256(bytes.fromhex(salt + raw)).hexdigest().upper() == digest
    sealed = rows(
        collector.data,
        "SELECT metadata['audit.quarantine.digest'] FROM audit.events "
        f"WHERE metadata['audit.quarantine.id'] = '{quarantine_id}'",
    )
    assert sealed == [(digest.lower(),)]


def test_other_methods_and_paths_are_told(collector: Collector) -> None:
    for kind in ("application/json", "application/x-protobuf"):
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = requests.request(
                method, collector.url + "/v1/logs", headers={"Content-Type": kind}, timeout=30
            )
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
            assert answer.headers["content-type"] == kind
            assert bool(answer.content) == (method != "HEAD")
        answer = requests.post(collector.url + "/v1/traces", headers={"Content-Type": kind}, timeout=30)
        assert (answer.status_code, answer.headers["content-type"]) == (404, kind)
    assert requests.head(collector.url + "/health", timeout=30).status_code == 200


def test_who_asks_first_is_told_to_go_on_or_not(collector: Collector) -> None:
    body = request(record()).SerializeToString()
    with socket.create_connection(("127.0.0.1", collector.port), timeout=30) as connection:
        connection.sendall(head(len(body), "Expect: 100-continue"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        # And on the same connection: no byte of a body that is not wanted is asked for.
        connection.sendall(head(MAX_REQUEST_BYTES + 1, "Expect: 100-continue"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_too_large_and_unsupported_are_told(collector: Collector) -> None:
    bomb = gzip.compress(bytes(MAX_REQUEST_BYTES + 1))
    answer = post(collector.url, bomb, Content_Encoding="gzip")
    assert (answer.status_code, status(answer).code) == (413, 8)
    assert post(collector.url, bytes(MAX_REQUEST_BYTES + 1)).status_code == 413
    for name, pack in (("gzip", gzip.compress), ("zstd", zstd.compress)):
        huge = pack(bytes(MAX_REQUEST_BYTES)) * 2
        assert post(collector.url, huge, Content_Encoding=name).status_code == 413
    for headers in (
        {"Content_Type": "text/plain"},
        {"Content_Type": ""},
        {"Content_Encoding": "br"},
        {"Content_Encoding": "gzip, gzip"},
        {"Content_Encoding": "deflate"},
    ):
        answer = post(collector.url, b"", **headers)
        assert (answer.status_code, status(answer).code) == (415, 12)
    taken = post(collector.url, b"", Content_Type="Application/X-Protobuf; charset=x")
    assert taken.status_code == 200


def test_few_bytes_that_stand_for_much_are_413_and_not_an_outage(collector: Collector) -> None:
    resource = field(
        1, b"".join(field(1, field(1, b"k%d" % n) + field(2, field(1, b"x" * 60_000))) for n in range(10))
    )
    tiny = field(2, field(2, LogRecord(event_name="a.b").SerializeToString()))
    for body in (
        field(1, resource + tiny * 5_000),  # 600 kB of resource in each of them
        field(1, b"\x12\x00") * 1_000_000,
        field(1, field(2, b"\x12\x00" * 3_000_000)),
        b"\x0a\x00" * 10_000_000,
    ):
        packed = gzip.compress(body, 1)
        answer = post(collector.url, packed, Content_Encoding="gzip")
        assert (answer.status_code, status(answer).code) == (413, 8)


def test_a_hundred_thousand_tiny_records_in_one_request(collector: Collector) -> None:
    before = health(collector)["sealed"]
    tiny = field(2, LogRecord(event_name="tiny.sent").SerializeToString())
    assert post(collector.url, field(1, field(2, tiny * 100_000))).status_code == 200
    assert health(collector)["sealed"] - before == 100_000
    ((count, batches),) = rows(
        collector.data, "SELECT count(), uniqExact(received_at) FROM audit.events WHERE action = 'tiny.sent'"
    )
    assert (count, batches) == (100_000, 1)


def test_http_in_all_its_forms(collector: Collector) -> None:
    bodies = [request(record()).SerializeToString() for _ in range(4)]
    before = health(collector)["sealed"]
    chunked = head(None, "Transfer-Encoding: chunked")
    for piece in (bodies[0][:10], bodies[0][10:]):
        chunked += b"%x\r\n%s\r\n" % (len(piece), piece)
    assert raw_answers(collector.port, chunked + b"0\r\n\r\n") == [200]
    assert raw_answers(collector.port, head(len(bodies[1]), version="1.0") + bodies[1]) == [200]
    pipelined = b"".join(head(len(body)) + body for body in bodies[2:])
    assert raw_answers(collector.port, pipelined + head(7) + b"garbage", 3) == [200, 200, 400]
    assert health(collector)["sealed"] - before == 4
    for data, code in (
        (b"garbage\r\n\r\n", 400),
        (head(None, "Content-Length: 5", "Content-Length: 6") + b"aaaaaa", 400),
        (head(None, "Content-Length: -1"), 400),
        (head(None, f"Content-Length: {'9' * 5000}"), 400),
        (head(10**12), 413),
        (b"GET /v1/logs HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404),
        (b"GET /%00%ff/../health HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ):
        assert raw_answers(collector.port, data) == [code], data[:60]
    expecting = head(len(bodies[0]), "Expect: 100-continue")
    assert raw_answers(collector.port, expecting + bodies[0]) == [200]


def test_a_head_without_end_is_cut_off(collector: Collector) -> None:
    with socket.create_connection(("127.0.0.1", collector.port), timeout=30) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(head(0)[:-2])
            while True:
                connection.sendall(b"X-Long: " + b"x" * 10_000 + b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_clients_that_leave_or_dawdle_cost_nobody_else_anything(collector: Collector) -> None:
    body = request(record()).SerializeToString()
    dawdling = [socket.create_connection(("127.0.0.1", collector.port)) for _ in range(200)]
    try:
        for number, connection in enumerate(dawdling):
            connection.sendall((b"", b"POST /v1", head(1000), head(len(body)) + body[:-1])[number % 4])
        for _ in range(3):
            assert post(collector.url, body).status_code == 200
    finally:
        for connection in dawdling:
            connection.close()
    assert post(collector.url, body).status_code == 200


def test_many_clients_at_once_and_one_slow_request_between_them(collector: Collector) -> None:
    tiny = field(2, LogRecord(event_name="a.b").SerializeToString())
    slow = field(1, field(2, tiny * 10_000))

    def send(number: int) -> list[int]:
        if number == 0:
            return [post(collector.url, slow).status_code]
        bodies = [request(record(), record("nonsense")).SerializeToString() for _ in range(5)]
        return [post(collector.url, body).status_code for body in bodies]

    before = health(collector)["sealed"]
    with ThreadPoolExecutor(8) as clients:
        codes = [code for found in clients.map(send, range(8)) for code in found]
    assert set(codes) == {200}
    assert health(collector)["sealed"] - before == 10_000 + 7 * 5 * 2


def test_it_answers_its_health_while_it_decodes(collector: Collector) -> None:
    tiny = field(2, LogRecord(event_name="a.b").SerializeToString())
    with ThreadPoolExecutor(1) as client:
        slow = client.submit(post, collector.url, field(1, field(2, tiny * 30_000)))
        asked = 0
        while not slow.done():
            health(collector)
            asked += 1
            time.sleep(0.01)
        assert slow.result().status_code == 200
    assert asked > 1
