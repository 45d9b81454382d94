"""What is stored is what was sent, in every field and of every type, by whichever way it came."""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_WARN2, LogRecord

from examples.demo.processes import Collector
from tests.collector import otlp_json
from tests.collector.grpc_client import export
from tests.collector.http import PROTOBUF, rows

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JSON = {"Content-Type": "application/json; charset=utf-8"}
HARD = "Zoë \N{GRINNING FACE} \x00\x1f\x7f\u2028\ufeff\\\"'</script>\r\n\U0010ffff e\u0301"
EVERY_BYTE = bytes(range(256))

VALUES: dict[str, tuple[AnyValue, str, str]] = {
    "text": (AnyValue(string_value=HARD), HARD, "s"),
    "text.empty": (AnyValue(string_value=""), "", "s"),
    "true": (AnyValue(bool_value=True), "true", "b"),
    "false": (AnyValue(bool_value=False), "false", "b"),
    "int.least": (AnyValue(int_value=-(1 << 63)), "-9223372036854775808", "i"),
    "int.most": (AnyValue(int_value=(1 << 63) - 1), "9223372036854775807", "i"),
    "int.odd": (AnyValue(int_value=(1 << 53) + 1), "9007199254740993", "i"),
    "int.zero": (AnyValue(int_value=0), "0", "i"),
    "double": (AnyValue(double_value=0.1), "0.1", "d"),
    "double.whole": (AnyValue(double_value=3.0), "3", "d"),
    "double.least": (AnyValue(double_value=5e-324), "5e-324", "d"),
    "double.most": (AnyValue(double_value=sys.float_info.max), "1.7976931348623157e+308", "d"),
    "double.minus_zero": (AnyValue(double_value=-0.0), "-0", "d"),
    "double.nan": (AnyValue(double_value=math.nan), "NaN", "d"),
    "double.inf": (AnyValue(double_value=math.inf), "Infinity", "d"),
    "double.minus_inf": (AnyValue(double_value=-math.inf), "-Infinity", "d"),
    "bytes": (
        AnyValue(bytes_value=EVERY_BYTE[:8] + EVERY_BYTE[248:]),
        "AAECAwQFBgf4+fr7/P3+/w==",
        "x",
    ),
    "bytes.empty": (AnyValue(bytes_value=b""), "", "x"),
    "nothing": (AnyValue(), "", "n"),
    "array": (
        AnyValue(
            array_value=ArrayValue(
                values=[AnyValue(), AnyValue(double_value=-0.0), AnyValue(string_value='"é\x01'), AnyValue()]
            )
        ),
        '[{},{"doubleValue":-0},{"stringValue":"\\"é\\u0001"},{}]',
        "a",
    ),
    "array.empty": (AnyValue(array_value=ArrayValue()), "[]", "a"),
    "kvlist": (
        AnyValue(
            kvlist_value=KeyValueList(
                values=[
                    KeyValue(key="b", value=AnyValue(int_value=1)),
                    KeyValue(key="", value=AnyValue(bytes_value=b"\xff")),
                    KeyValue(key="b", value=AnyValue(array_value=ArrayValue())),
                    KeyValue(key="none"),
                ]
            )
        ),
        (
            '[{"key":"b","value":{"intValue":"1"}},{"key":"","value":{"bytesValue":"/w=="}},'
            '{"key":"b","value":{"arrayValue":{"values":[]}}},{"key":"none","value":{}}]'
        ),
        "k",
    ),
    "kvlist.empty": (AnyValue(kvlist_value=KeyValueList()), "[]", "k"),
    HARD: (AnyValue(string_value="a key"), "a key", "s"),
}
MAPPED = {
    "audit.record.id": "0192f000-0000-7000-8000-000000000001",
    "audit.stream_id": "web-1/0192f000-0000-7000-8000-0000000000aa",
    "audit.actor.type": "user",
    "audit.actor.id": "u-17" + HARD,
    "audit.actor.role": HARD,
    "audit.outcome": "failure",
    "audit.failure.reason": HARD,
    "audit.target.type": HARD,
    "audit.target.id": HARD,
    "audit.request.id": HARD,
    "session.id": HARD,
    "user.email": HARD,
    "client.address": "::1",
    "user_agent.original": HARD,
    "audit.personal.full_name": HARD,
}


def message(tenant: str) -> ExportLogsServiceRequest:
    log = LogRecord(
        event_name="transport.tried",
        time_unix_nano=1_700_000_000_123_456_789,
        observed_time_unix_nano=(1 << 63) - 1,
        severity_number=SEVERITY_NUMBER_WARN2,
        severity_text=HARD,
        flags=(1 << 32) - 1,
        dropped_attributes_count=(1 << 32) - 1,
        trace_id=EVERY_BYTE[-16:],
        span_id=EVERY_BYTE[:8],
        body=AnyValue(string_value=HARD),
        attributes=[KeyValue(key=key, value=value) for key, (value, _, _) in VALUES.items()],
    )
    for key, text in (MAPPED | {"audit.tenant": tenant}).items():
        log.attributes.append(KeyValue(key=key, value=AnyValue(string_value=text)))
    log.attributes.append(KeyValue(key="audit.sequence.number", value=AnyValue(int_value=(1 << 63) - 1)))
    sent = ExportLogsServiceRequest()
    logs = sent.resource_logs.add()
    logs.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=HARD)))
    logs.resource.attributes.append(KeyValue(key="number", value=AnyValue(double_value=1e21)))
    scoped = logs.scope_logs.add()
    scoped.scope.name, scoped.scope.version = HARD, "1.0"
    scoped.scope.attributes.append(KeyValue(key="k", value=AnyValue(bool_value=True)))
    scoped.log_records.append(log)
    return sent


def expected(tenant: str) -> dict[str, Any]:
    typed = {key: (text, letter) for key, (_, text, letter) in VALUES.items()} | {
        "log.body": (HARD, "s"),
        "log.severity_number": ("14", "i"),
        "log.severity_text": (HARD, "s"),
        "log.flags": ("4294967295", "i"),
        "log.dropped_attributes_count": ("4294967295", "i"),
        "log.observed_time_unix_nano": ("9223372036854775807", "i"),
        "resource.number": ("1e+21", "d"),
        "scope.name": (HARD, "s"),
        "scope.version": ("1.0", "s"),
        "scope.k": ("true", "b"),
    }
    return {
        "record_id": MAPPED["audit.record.id"],
        "tenant": tenant,
        "producer_id": MAPPED["audit.stream_id"],
        "producer_seq": (1 << 63) - 1,
        "service": HARD,
        "event_time": 1_700_000_000_123_456_789,
        "actor_type": "user",
        "actor_id": "u-17" + HARD,
        "actor_role": HARD,
        "session_id": HARD,
        "action": "transport.tried",
        "outcome": "failure",
        "failure_reason": HARD,
        "resource_type": HARD,
        "resource_id": HARD,
        "request_id": HARD,
        "trace_id": EVERY_BYTE[-16:].hex(),
        "span_id": EVERY_BYTE[:8].hex(),
        "actor_email": HARD,
        "actor_ip": "::1",
        "personal": {"user_agent.original": HARD, "full_name": HARD},
        "metadata": {key: text for key, (text, _) in typed.items()},
        "metadata_types": "".join(typed[key][1] for key in sorted(typed, key=str.encode)),
    }


def post(collector: Collector, body: Any, headers: dict[str, str]) -> requests.Response:
    answer = requests.post(f"{collector.url}/v1/logs", data=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.content
    assert answer.headers["content-type"] == headers["Content-Type"].partition(";")[0]
    return answer


def over_http(headers: dict[str, str], encode: Callable[[ExportLogsServiceRequest], bytes]) -> Any:
    def pieces(body: bytes) -> Iterator[bytes]:
        yield from (body[at : at + 100] for at in range(0, len(body), 100))

    def plain(collector: Collector, sent: ExportLogsServiceRequest) -> bytes:
        return post(collector, encode(sent), headers).content

    def chunked(collector: Collector, sent: ExportLogsServiceRequest) -> bytes:
        return post(collector, pieces(encode(sent)), headers).content

    def gzipped(collector: Collector, sent: ExportLogsServiceRequest) -> bytes:
        packed = gzip.compress(encode(sent))
        return post(collector, packed, headers | {"Content-Encoding": "gzip"}).content

    def zstandard(collector: Collector, sent: ExportLogsServiceRequest) -> bytes:
        packed = zstd.compress(encode(sent)) + zstd.compress(b"", 22)
        return post(collector, packed, headers | {"Content-Encoding": "zstd"}).content

    return plain, chunked, gzipped, zstandard


def over_grpc(*, packed: bool) -> Callable[[Collector, ExportLogsServiceRequest], bytes]:
    return lambda collector, sent: export(collector.grpc_port, sent.SerializeToString(), gzip=packed).body


WAYS: dict[str, Callable[[Collector, ExportLogsServiceRequest], bytes]] = {
    **{f"http-protobuf-{way.__name__}": way for way in over_http(PROTOBUF, lambda m: m.SerializeToString())},
    **{f"http-json-{way.__name__}": way for way in over_http(JSON, otlp_json.encoded)},
    "grpc": over_grpc(packed=False),
    "grpc-gzip": over_grpc(packed=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_field_of_every_type_is_stored_as_it_was_sent(common: Collector, way: str) -> None:
    body = WAYS[way](common, message(way))
    if "json" in way:
        assert json.loads(body) == {}
    else:
        assert not ExportLogsServiceResponse.FromString(body).HasField("partial_success")
    wanted = expected(way)
    columns = [
        {
            "record_id": "toString(record_id)",
            "event_time": "toUnixTimestamp64Nano(event_time)",
            "actor_type": "toString(actor_type)",
            "outcome": "toString(outcome)",
        }.get(name, name)
        for name in wanted
    ]
    (row,) = rows(common.data, f"SELECT {', '.join(columns)} FROM audit.records WHERE tenant = '{way}'")
    found = dict(zip(wanted, row, strict=True))
    found |= {name: dict(found[name]) for name in ("personal", "metadata")}
    assert found == wanted
