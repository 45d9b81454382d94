from __future__ import annotations

import gzip

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from spanseal_collector.errors import DecodeError, TooLargeError
from spanseal_collector.otlp import decode_logs, gunzip
from tests.collector.wire import record, request


def test_strings_come_as_bytes() -> None:
    message = decode_logs(request(record("a.b")).SerializeToString())
    assert not message.undecodable
    assert message.request.resource_logs[0].scope_logs[0].log_records[0].event_name == b"a.b"


def test_a_record_that_is_broken_within_itself_leaves_its_neighbours() -> None:
    good = [record("a.b"), record("a.c")]
    broken = LogRecord(event_name="a.x", body=AnyValue(string_value="marker")).SerializeToString()
    message = request(*good).SerializeToString()
    bad = broken.replace(b"marker", b"\xff" * 6)[:-2]
    nested = varint_field(2, varint_field(2, bad))
    decoded = decode_logs(message + varint_field(1, nested))
    kept = [
        log.event_name
        for part in decoded.request.resource_logs
        for s in part.scope_logs
        for log in s.log_records
    ]
    assert kept == [b"a.b", b"a.c"]
    (undecodable,) = decoded.undecodable
    assert bad in undecodable.raw


def varint_field(number: int, payload: bytes) -> bytes:
    """Wrap bytes as a length-delimited protobuf field."""
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


@pytest.mark.parametrize("body", [b"garbage", b"\x0a\xff", b"{}"])
def test_what_is_not_otlp_is_told(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_logs(body)


def test_gunzip_of_several_members() -> None:
    assert gunzip(gzip.compress(b"one") + gzip.compress(b"two"), 100) == b"onetwo"


def test_a_gzip_bomb_stops_at_the_limit() -> None:
    with pytest.raises(TooLargeError):
        gunzip(gzip.compress(bytes(10_000_000)), 1_000_000)


@pytest.mark.parametrize("body", [gzip.compress(b"x" * 100)[:-5], b"not gzip"])
def test_damaged_gzip_is_told(body: bytes) -> None:
    with pytest.raises(DecodeError):
        gunzip(body, 1000)
