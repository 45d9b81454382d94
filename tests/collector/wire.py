"""Requests for the collector's tests, made with OpenTelemetry's own protobuf classes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord


def value(plain: object) -> AnyValue:
    match plain:
        case bool():
            return AnyValue(bool_value=plain)
        case str():
            return AnyValue(string_value=plain)
        case int():
            return AnyValue(int_value=plain)
        case float():
            return AnyValue(double_value=plain)
        case bytes():
            return AnyValue(bytes_value=plain)
        case _:
            return AnyValue()


def record(action: str = "patient.viewed", /, **attributes: Any) -> LogRecord:
    """A record; `__` in a keyword stands for the dot of an attribute's key, None leaves a default out."""
    named: dict[str, object] = {
        "audit.record.id": str(uuid.uuid4()),
        "audit.actor.type": "user",
        "audit.actor.id": "u-17",
        "audit.outcome": "success",
    }
    named |= {key.replace("__", "."): plain for key, plain in attributes.items()}
    log = LogRecord(event_name=action, time_unix_nano=time.time_ns())
    for key, plain in named.items():
        if plain is not None:
            log.attributes.append(KeyValue(key=key, value=value(plain)))
    return log


def request(*records: LogRecord, resource: Mapping[str, object] | None = None) -> ExportLogsServiceRequest:
    message = ExportLogsServiceRequest()
    logs = message.resource_logs.add()
    for key, plain in (resource or {"service.name": "clinic"}).items():
        logs.resource.attributes.append(KeyValue(key=key, value=value(plain)))
    logs.scope_logs.add().log_records.extend(records)
    return message


def varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, payload: bytes) -> bytes:
    """Wrap bytes as a length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def nested(depth: int, number: int = 6) -> bytes:
    """Return an attribute as bytes, an array in an array and so on; 6 is a LogRecord's field, 1 a Resource's."""
    value = b""
    for _ in range(depth):
        value = field(5, field(1, value))
    return field(number, field(1, b"deep") + field(2, value))
