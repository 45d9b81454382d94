"""Bytes that nobody thought of: every one is answered, none is an error of the collector's own.

Short by default; SPANSEAL_FUZZ_FACTOR=100 makes each test try so many times as much.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.demo.processes import Collector
from spanseal_collector.admission import Admitter, Rejected
from spanseal_collector.compression import gunzip, unzstd
from spanseal_collector.errors import DecodeError, TooLargeError
from spanseal_collector.intake import Decoder
from spanseal_collector.otlp import decode_logs
from spanseal_collector.otlp_json import decode_json_logs
from tests.collector import otlp_json
from tests.collector.grpc_client import call, channel
from tests.collector.http import head, health, raw_answers, verdict
from tests.collector.http2 import Connection, data, frame, headers
from tests.collector.test_encodings import requests
from tests.collector.wire import record, request

FACTOR = int(os.environ.get("SPANSEAL_FUZZ_FACTOR", "1"))
ADMITTER = Admitter(bytes(32))
ANSWERS = {200, 400, 404, 405, 413, 415}
OURS = "the collector failed"


def tries(count: int) -> settings:
    return settings(
        max_examples=count * FACTOR, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    folder = tmp_path_factory.mktemp("fuzz")
    with Collector(folder / "data", folder / "collector.log") as running:
        yield running
        result = verdict(running.data)
        assert (result["verdict"], result["chains"]) == ("clean", 1), running.tail()
        said = running.log.read_text()
        assert "Traceback" not in said
        assert "failed" not in said


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes], pieces: st.SearchStrategy[bytes]) -> bytes:
    """Take bytes and put others in their place, here and there."""
    body = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 8))] = draw(pieces)
    return bytes(body)


_SYNTAX = rb"""{ } [ ] , : " \ \u \ud800 null true NaN 1e999 -0 1.5 "" {} []"""
_NAMES = (
    b"resourceLogs scopeLogs logRecords resource scope attributes key value stringValue intValue doubleValue "
    b"bytesValue arrayValue kvlistValue values timeUnixNano eventName traceId severityNumber body flags x"
).split()
tokens = st.sampled_from(
    [
        *_SYNTAX.split(),
        *(b'"%s":' % name for name in _NAMES),
        b"\xff",
        b"\x00",
        b"[" * 200,
        b'{"a":' * 200,
        b"9" * 500,
    ]
)
valid_json = requests().map(otlp_json.encoded)
valid_protobuf = requests().map(lambda message: message.SerializeToString())
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([name.decode() for name in _NAMES]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def admit(decode: Decoder, body: bytes) -> int | None:
    """Decode and admit; returns how many records there were, None where it is not OTLP."""
    try:
        items = list(ADMITTER.admit(decode(body)))
    except (DecodeError, TooLargeError):
        return None
    for item in items:
        if isinstance(item, Rejected):
            assert OURS not in item.reason, body
            assert 0 <= item.producer_seq < 1 << 63
            item.producer_id.encode()
            item.reason.encode()
    return len(items)


@tries(70)
@given(st.binary(max_size=200) | damaged(valid_protobuf, st.binary(max_size=4)))
def test_protobuf_is_taken_or_not_and_nothing_else(body: bytes) -> None:
    admit(decode_logs, body)


@tries(150)
@given(
    st.one_of(
        st.lists(tokens, max_size=30).map(b"".join),
        damaged(valid_json, tokens | st.binary(max_size=4)),
        anything.map(lambda found: json.dumps(found).encode()),
        anything.map(
            lambda found: json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [found]}]}]}).encode()
        ),
    )
)
def test_json_is_taken_or_not_and_nothing_else(body: bytes) -> None:
    count = admit(decode_json_logs, body)
    try:
        whole: Any = json.loads(body)
    except (ValueError, RecursionError):
        return
    # Whatever JSON a reader of JSON reads: what it finds to be a record is one here.
    if count is not None and isinstance(whole, dict):
        found = sum(
            len(scoped.get("logRecords") or ())
            for logs in whole.get("resourceLogs") or ()
            for scoped in logs.get("scopeLogs") or ()
        )
        assert count >= found


@tries(100)
@given(st.binary(max_size=60), st.integers(0, 60), st.binary(max_size=3))
def test_damaged_compression_is_told(content: bytes, at: int, piece: bytes) -> None:
    for unpack in (gunzip, unzstd):
        body = bytearray(gzip.compress(content))
        body[at : at + len(piece)] = piece
        try:
            unpack(bytes(body), 1000)
        except (DecodeError, TooLargeError):
            continue


names = st.sampled_from(
    (
        "Content-Type",
        "Content-Encoding",
        "Content-Length",
        "Transfer-Encoding",
        "Expect",
        "Connection",
        "Host",
    )
) | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=10)
contents = st.sampled_from(
    (
        "application/json",
        "application/x-protobuf; x=y",
        "gzip",
        "zstd",
        "identity, gzip",
        "chunked",
        "0",
        "-1",
        "close",
        "100-continue",
    )
) | st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=30)


@tries(40)
@given(
    st.lists(st.tuples(names, contents), max_size=5),
    st.sampled_from(("POST", "GET", "PUT", "x", "")),
    st.sampled_from(("/v1/logs", "/health", "/v1/%ff", "*", "")),
    st.binary(max_size=100) | valid_json | valid_protobuf,
)
def test_each_request_is_answered(
    collector: Collector, given_headers: list[tuple[str, str]], method: str, path: str, body: bytes
) -> None:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {content}" for name, content in given_headers]
    sent = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    with socket.create_connection(("127.0.0.1", collector.port), timeout=30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := connection.recv(10_000):
                answer += part
        except ConnectionResetError:
            return
    for line in answer.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 ") and not line.startswith(b"HTTP/1.1 100"):
            assert int(line.split()[1]) in ANSWERS, (sent, line)


@tries(40)
@given(
    st.binary(max_size=200) | damaged(valid_protobuf, st.binary(max_size=4)) | valid_json,
    st.sampled_from(("application/json", "application/x-protobuf")),
)
def test_each_body_is_answered(collector: Collector, body: bytes, kind: str) -> None:
    whole = head(len(body)).replace(b"application/x-protobuf", kind.encode()) + body
    assert raw_answers(collector.port, whole)[0] in (200, 400)


@pytest.fixture(scope="module")
def opened(collector: Collector) -> Iterator[grpc.Channel]:
    with channel(collector.grpc_port) as made:
        yield made


@tries(40)
@given(st.binary(max_size=200) | damaged(valid_protobuf, st.binary(max_size=4)), st.booleans())
def test_each_message_is_answered(opened: grpc.Channel, body: bytes, packed: bool) -> None:  # noqa: FBT001
    if packed:
        body = gzip.compress(body)[: len(body)]
    assert call(opened, body).code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)


frames = st.one_of(
    st.builds(
        frame, st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40)
    ),
    st.builds(
        lambda more: headers(1, more=more),
        st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=3).map(tuple),
    ),
    st.builds(
        lambda body, packed, length: data(1, body, compressed=packed, length=length),
        st.binary(max_size=40) | valid_protobuf.filter(lambda body: len(body) < 16_000),
        st.integers(0, 255),
        st.none() | st.integers(0, (1 << 32) - 1),
    ),
    st.binary(max_size=20),
)  # fmt: skip


@tries(40)
@given(st.lists(frames, max_size=6).map(b"".join))
def test_no_frames_do_any_harm(collector: Collector, sent: bytes) -> None:
    with Connection(collector.grpc_port) as connection:
        connection.send_and_leave(sent)


def test_after_all_that_it_takes_records(collector: Collector, opened: grpc.Channel) -> None:
    before = health(collector)["sealed"]
    assert call(opened, request(record()).SerializeToString()).code == grpc.StatusCode.OK
    body = request(record()).SerializeToString()
    assert raw_answers(collector.port, head(len(body)) + body) == [200]
    assert health(collector)["sealed"] - before == 2
