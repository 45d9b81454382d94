from __future__ import annotations

import json
import math
from typing import Any

import pytest

from spanseal_collector.admission import Admitter, Draft, Rejected
from spanseal_collector.errors import DecodeError, TooLargeError
from spanseal_collector.otlp_json import decode_json_logs
from tests.collector.otlp_json import with_record

ID = "0192f000-0000-7000-8000-000000000001"


def admit(body: bytes) -> list[Draft | Rejected]:
    return list(Admitter(bytes(32)).admit(decode_json_logs(body)))


def judged(text: str | bytes) -> Draft | Rejected:
    """Admit a record between two good ones, which must not mind."""
    first, item, last = admit(with_record(text))
    assert isinstance(first, Draft)
    assert isinstance(last, Draft)
    return item


def reason(text: str | bytes) -> str:
    item = judged(text)
    assert isinstance(item, Rejected), item
    return item.reason


def metadata(value: str) -> tuple[str, str]:
    item = judged(f'{{"eventName":"a.b","attributes":[{{"key":"k","value":{value}}}]}}')
    assert isinstance(item, Draft), item
    kinds = dict(zip(item.record.metadata, item.record.metadata_types, strict=True))
    return item.record.metadata["k"], kinds["k"]


def test_a_record_as_the_specification_writes_it() -> None:
    """The example of the OTLP specification's repository, as far as it goes."""
    body = {
        "resourceLogs": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
                "scopeLogs": [
                    {
                        "scope": {"name": "my.library", "version": "1.0.0", "attributes": []},
                        "logRecords": [
                            {
                                "timeUnixNano": "1544712660300000000",
                                "observedTimeUnixNano": "1544712660300000000",
                                "severityNumber": 10,
                                "severityText": "Information",
                                "traceId": "5B8EFFF798038103D269B633813FC60C",
                                "spanId": "EEE19B7EC3C1B174",
                                "eventName": "example.logged",
                                "body": {"stringValue": "Example log record"},
                                "attributes": [
                                    {"key": "string.attribute", "value": {"stringValue": "some string"}},
                                    {"key": "boolean.attribute", "value": {"boolValue": True}},
                                    {"key": "int.attribute", "value": {"intValue": "10"}},
                                    {"key": "double.attribute", "value": {"doubleValue": 637.704}},
                                ],
                                "aFieldOfTheFuture": {"x": [1, {"y": None}]},
                            }
                        ],
                    }
                ],
            }
        ]
    }
    (item,) = admit(json.dumps(body).encode())
    assert isinstance(item, Draft)
    found = item.record
    assert (found.service, found.action) == ("my.service", "example.logged")
    assert (found.trace_id, found.span_id) == ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174")
    assert found.event_time == 1544712660300000000
    assert found.metadata["log.body"] == "Example log record"
    assert found.metadata["log.severity_number"] == "10"
    assert found.metadata["scope.name"] == "my.library"
    assert found.metadata["double.attribute"] == "637.704"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"intValue":"-9223372036854775808"}', ("-9223372036854775808", "i")),
        ('{"intValue":9223372036854775807}', ("9223372036854775807", "i")),
        ('{"intValue":1e3}', ("1000", "i")),
        ('{"doubleValue":"NaN"}', ("NaN", "d")),
        ('{"doubleValue":"-Infinity"}', ("-Infinity", "d")),
        ('{"doubleValue":-0}', ("-0", "d")),
        ('{"doubleValue":"1e3"}', ("1000", "d")),
        ('{"doubleValue":100000000000000000000000}', ("1e+23", "d")),
        ('{"doubleValue":5}', ("5", "d")),
        ('{"bytesValue":"_-8"}', ("/+8=", "x")),
        ('{"bytesValue":"AAE="}', ("AAE=", "x")),
        ('{"stringValue":"\\u0000\\ud83d\\ude00"}', ("\x00\N{GRINNING FACE}", "s")),
        ('{"string_value":"the name in the descriptor"}', ("the name in the descriptor", "s")),
        ('{"stringValue":null}', ("", "n")),
        ('{"anotherValue":[1e999]}', ("", "n")),
        ("{}", ("", "n")),
        ("null", ("", "n")),
        ('{"arrayValue":{"values":[{"intValue":"1"}]}}', ('[{"intValue":"1"}]', "a")),
        ('{"kvlistValue":{}}', ("[]", "k")),
        ('{"arrayValue":{"values":null}}', ("[]", "a")),
    ],
)
def test_values_in_each_form_that_json_gives_them(value: str, expected: tuple[str, str]) -> None:
    assert metadata(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"intValue":"9223372036854775808"}', "out of range"),
        ('{"intValue":1.5}', "must be an integer"),
        ('{"intValue":1e17}', "must be an integer"),
        ('{"intValue":true}', "must be an integer"),
        ('{"intValue":" 1"}', "must be an integer"),
        ('{"intValue":"\u0661"}', "must be an integer"),
        ('{"intValue":' + "9" * 5000 + "}", "must be an integer"),
        ('{"doubleValue":1e400}', "must be a number"),
        ('{"doubleValue":"1e400"}', "out of range"),
        ('{"doubleValue":' + "9" * 390 + "}", "out of range"),
        ('{"doubleValue":"inf"}', "must be a number"),
        ('{"doubleValue":NaN}', "is not JSON: NaN must be in quotes"),
        ('{"doubleValue":-Infinity}', "is not JSON"),
        ('{"doubleValue":true}', "must be a number"),
        ('{"boolValue":"true"}', "must be true or false"),
        ('{"stringValue":1}', "must be a string"),
        ('{"stringValue":"\\ud800"}', "is not UTF-8"),
        ('{"stringValue":"\x01"}', "is not JSON: Invalid control character"),
        ('{"bytesValue":"*"}', "must be base64"),
        ('{"bytesValue":"\u00e9"}', "must be base64"),
        ('{"bytesValue":[1]}', "must be base64"),
        ('{"stringValue":"a","intValue":"1"}', "more than one value"),
        ('{"stringValue":"a","string_value":"b"}', "more than one value"),
        ('{"stringValue":"a","stringValue":"a"}', "has the key 'stringValue' twice"),
        ('{"stringValueStrindex":1}', "kind string_value_strindex"),
        ('{"arrayValue":[]}', "must be an object"),
        ('{"arrayValue":{"values":{}}}', "must be a list"),
        ('{"arrayValue":{"values":[null]}}', "must be an object"),
        ('"text"', "must be an object"),
        ('{"arrayValue":{"values":[' * 33 + "]}}" * 33, "nested deeper than 32"),
        ('{"arrayValue":{"values":[' * 60 + "]}}" * 60, "nested too deeply"),
        ('{"x":' + "[" * 20_000 + "]" * 20_000 + "}", "nested too deeply"),
        ('{"x":1,}', "is not JSON"),
        ('{"x":[}}', "is not JSON"),
    ],
)
def test_a_value_that_cannot_be_is_its_records_alone(value: str, expected: str) -> None:
    record = f'{{"eventName":"a.b","attributes":[{{"key":"k","value":{value}}}]}}'
    assert expected in reason(record)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("1", "not an object"),
        ("null", "not an object"),
        ('"x"', "not an object"),
        ("[]", "not an object"),
        ("{}", "no event_name"),
        ('{"eventName":"a.b","eventName":"a.b"}', "twice"),
        ('{"eventName":"a.b","event_name":"a.b"}', "more than one event_name"),
        ('{"eventName":"a.b","traceId":"xyz"}', "hex"),
        ('{"eventName":"a.b","traceId":"abc"}', "hex"),
        ('{"eventName":"a.b","traceId":"abcd"}', "2 bytes instead of 16"),
        ('{"eventName":"a.b","timeUnixNano":-1}', "out of range"),
        ('{"eventName":"a.b","timeUnixNano":"18446744073709551615"}', "2^63"),
        ('{"eventName":"a.b","severityNumber":"SEVERITY_NUMBER_INFO"}', "must be an integer"),
        ('{"eventName":"a.b","severityNumber":2147483648}', "out of range"),
        ('{"eventName":"a.b","flags":4294967296}', "out of range"),
        ('{"eventName":"a.b","attributes":{}}', "must be a list"),
        ('{"eventName":"a.b","attributes":[1]}', "must be an object"),
        ('{"eventName":"a.b","attributes":[{"key":1}]}', "must be a string"),
        ('{"eventName":"a.b","attributes":[{"key":"\\ud800"}]}', "not UTF-8"),
        ('{"eventName":"a.b","attributes":[{"key":"k"},{"key":"k"}]}', "given twice"),
        (b'{"eventName":"a.b\xff"}', "not UTF-8"),
        (b'{"\xff":1}', "no event_name"),
    ],
)
def test_a_record_that_cannot_be_leaves_its_neighbours(record: str | bytes, expected: str) -> None:
    assert expected in reason(record)


def test_what_is_set_aside_is_what_was_sent_to_the_byte() -> None:
    record = b'{ "eventName" : "nonsense" ,\t"x":"\xff\\ud800" , "x":[[[[[[[[[[[]]]]]]]]]]] }'
    resource = b'"resource" : {"attributes":[ ]}'
    scope = b'"scope":{"name":"s"}, "schemaUrl":"u"'
    body = b'{"resourceLogs":[{%s,"other":[1, 2] , "scopeLogs":[{"logRecords" :[1,%s], %s}]}]}'
    _, item = admit(body % (resource, record, scope))
    assert isinstance(item, Rejected)
    expected = b'{%s,"other":[1, 2],"scopeLogs":[{"scope":{"name":"s"},"schemaUrl":"u","logRecords":[%s]}]}'
    assert item.raw == expected % (resource, record)


def test_the_stream_of_a_record_is_read_whatever_else_is_in_it() -> None:
    attributes = (
        '[{"key":"audit.stream_id","value":{"stringValue":"web-1/\\u0073"}},'
        ' {"key" : "audit.sequence.number", "value" : {"intValue" : %s}}]'
    )
    deep = "[" * 20_000 + "]" * 20_000
    for number, expected in (('"7"', 7), ("7", 7), ("99999999999999999999", 0)):
        record = f'{{"attributes":{attributes % number},"x":{deep}}}'
        item = judged(record)
        assert isinstance(item, Rejected)
        assert (item.producer_id, item.producer_seq) == ("web-1/s", expected)
    surrogate = judged('{"attributes":[{"key":"audit.stream_id","value":{"stringValue":"\\ud800"}}]}')
    assert isinstance(surrogate, Rejected)
    assert surrogate.producer_id == "?"


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        ('"resource":5', "must be an object"),
        ('"resource":""', "must be an object"),
        ('"resource":{"attributes":[{"key":"\\ud800"}]}', "not UTF-8"),
        ('"resource":{},"resource":{}', "twice"),
        ('"resource":{"attributes":[{"key":"service.name","value":{"intValue":"1"}}]}', "must be a string"),
    ],
)
def test_a_resource_that_cannot_be_read_is_the_reason_of_all_its_records(shared: str, expected: str) -> None:
    for order in ('{%s,"scopeLogs":%s}', '{%s,"scopeLogs":[],"scope_logs":%s}'):
        lists = '[{"logRecords":[{"eventName":"a.b"},{"eventName":"a.c"}]}]'
        items = admit(('{"resourceLogs":[' + order % (shared, lists) + "]}").encode())
        assert [isinstance(item, Rejected) and expected in item.reason for item in items] == [True, True]


def test_lists_may_come_in_any_order_twice_or_as_null() -> None:
    record = '{"eventName":"a.b"}'
    scoped = f'{{"logRecords":[{record}],"scope":{{"name":"s"}},"log_records":[{record}],"logRecords":null}}'
    body = f'{{"x":1,"resourceLogs":[{{"scopeLogs":[{scoped}],"resource":null}}],"resource_logs":null}}'
    items = admit(body.encode())
    assert [isinstance(item, Draft) and item.record.metadata["scope.name"] for item in items] == ["s", "s"]
    for empty in ("{}", ' {\r\n\t"resourceLogs" : [ ] } ', '{"resourceLogs":null}', '{"resourceLogs":[{}]}'):
        assert admit(empty.encode()) == []
    assert admit(b'{"\xff":1}') == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"garbage",
        b"{",
        b"{}{}",
        b"{} x",
        b'{"resourceLogs":5}',
        b'{"resourceLogs":[5]}',
        b'{"resourceLogs":[{}',
        b'{"resourceLogs":[{"scopeLogs":{}}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":{}}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},]}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":["}]}]}]}',
        b'{"resourceLogs":[{"resource":5}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"scope":5}]}]}',
        b'{"x":}',
        b'{"x":1,}',
        b'{"x" 1}',
        b'{"\x01":1}',
        b"{x:1}",
        '{"resourceLogs":[]}'.encode("utf-16"),
        b"\x0a\x00",
        b"[" * 1_000_000,
        b'{"x":' * 1_000_000,
    ],
)
def test_what_is_not_otlp_json_is_told(body: bytes) -> None:
    with pytest.raises(DecodeError, match="OTLP"):
        decode_json_logs(body)


def test_more_records_than_the_limit_are_refused() -> None:
    for body in (
        b'{"resourceLogs":[{},{},{}]}',
        b'{"resourceLogs":[{"scopeLogs":[{},{}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}',
    ):
        decode_json_logs(body, max_records=3)
        with pytest.raises(TooLargeError, match="too many records"):
            decode_json_logs(body, max_records=2)


def test_a_record_that_is_too_large_is_set_aside_unparsed() -> None:
    assert "bytes long" in reason('{"x":[' + "[]," * 1_500_000 + "[]]}")


def test_doubles_are_read_exactly() -> None:
    for number in (0.1, 1e-320, 1.7976931348623157e308, 2**53 + 2.0, math.pi):
        text: Any = json.dumps(number)
        assert float(metadata(f'{{"doubleValue":{text}}}')[0]) == number
        assert float(metadata(f'{{"doubleValue":"{text}"}}')[0]) == number
