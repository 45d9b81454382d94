from __future__ import annotations

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from spanseal_collector.errors import DecodeError, InadmissibleError, TooLargeError
from spanseal_collector.otlp import decode_logs, parse_record, parse_resource, peek_stream
from tests.collector.wire import field, nested, record, request


def test_strings_come_as_bytes_and_records_as_they_were_sent() -> None:
    sent = request(record("a.b"), record("a.c"))
    (group,) = decode_logs(sent.SerializeToString())
    assert [parse_record(raw).event_name for raw in group.records] == [b"a.b", b"a.c"]
    assert parse_resource(group.resource).attributes[0].key == b"service.name"
    alone = ResourceLogs.FromString(group.alone(group.records[1]))
    assert alone.resource == sent.resource_logs[0].resource
    assert list(alone.scope_logs[0].log_records) == [sent.resource_logs[0].scope_logs[0].log_records[1]]


def test_a_record_that_is_broken_within_itself_leaves_its_neighbours() -> None:
    broken = LogRecord(event_name="a.x", body=AnyValue(string_value="marker")).SerializeToString()[:-2]
    body = request(record("a.b")).SerializeToString() + field(1, field(2, field(2, broken)))
    good, bad = decode_logs(body)
    assert parse_record(good.records[0]).event_name == b"a.b"
    assert bad.records == (broken,)
    with pytest.raises(InadmissibleError, match="cannot be decoded"):
        parse_record(bad.records[0])


def test_a_resource_that_is_given_in_pieces_is_one() -> None:
    pieces = [
        request(record(), resource={name: name}).resource_logs[0].resource.SerializeToString()
        for name in "ab"
    ]
    body = field(1, field(1, pieces[0]) + field(2, field(2, b"")) + field(1, pieces[1]))
    (group,) = decode_logs(body)
    assert [pair.key for pair in parse_resource(group.resource).attributes] == [b"a", b"b"]


def test_more_records_than_the_limit_are_refused_before_they_are_made() -> None:
    for body in (b"\x0a\x00", field(1, b"\x12\x00"), field(1, field(2, b"\x12\x00"))):
        assert len(decode_logs(body * 5, max_records=15)) == (0 if body == b"\x0a\x00" else 5)
        with pytest.raises(TooLargeError, match="too many records"):
            decode_logs(body * 6, max_records=5)


def test_the_stream_of_a_record_is_read_whatever_else_is_in_it() -> None:
    log = record(audit__stream_id="web-1/s", audit__sequence__number=7, text="marker")
    assert peek_stream(log.SerializeToString()) == ("web-1/s", 7)
    raw = log.SerializeToString() + nested(10_000)
    with pytest.raises(InadmissibleError):
        parse_record(raw)
    assert peek_stream(raw) == ("web-1/s", 7)
    assert peek_stream(b"\xff\xff") == ("", 0)


@pytest.mark.parametrize(
    "body", [b"garbage", b"\x0a\xff", b"{}", b"\x0a\x04\x0a\x02ab", b"\x0a\x06\x12\x04\x0a\x02ab"]
)
def test_what_is_not_otlp_is_told(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_logs(body)
