"""OTLP/JSON from OpenTelemetry's own protobuf messages, written from the specification alone."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord


def any_value(value: AnyValue) -> dict[str, Any]:  # noqa: PLR0911 - one for each type
    match value.WhichOneof("value"):
        case "string_value":
            return {"stringValue": value.string_value}
        case "bool_value":
            return {"boolValue": value.bool_value}
        case "int_value":
            return {"intValue": str(value.int_value)}
        case "double_value":
            return {"doubleValue": double(value.double_value)}
        case "bytes_value":
            return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
        case "array_value":
            return {"arrayValue": {"values": [any_value(item) for item in value.array_value.values]}}
        case "kvlist_value":
            return {"kvlistValue": {"values": [key_value(pair) for pair in value.kvlist_value.values]}}
        case _:
            return {}


def double(number: float) -> float | str:
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def key_value(pair: KeyValue) -> dict[str, Any]:
    found: dict[str, Any] = {"key": pair.key}
    if pair.HasField("value"):
        found["value"] = any_value(pair.value)
    return found


def log_record(log: LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {
        "timeUnixNano": str(log.time_unix_nano),
        "observedTimeUnixNano": str(log.observed_time_unix_nano),
        "severityNumber": log.severity_number,
        "severityText": log.severity_text,
        "attributes": [key_value(pair) for pair in log.attributes],
        "droppedAttributesCount": log.dropped_attributes_count,
        "flags": log.flags,
        "traceId": log.trace_id.hex().upper(),
        "spanId": log.span_id.hex(),
        "eventName": log.event_name,
    }
    if log.HasField("body"):
        found["body"] = any_value(log.body)
    return found


def request(message: ExportLogsServiceRequest) -> dict[str, Any]:
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": [key_value(pair) for pair in logs.resource.attributes]},
                "scopeLogs": [
                    {
                        "scope": {
                            "name": scoped.scope.name,
                            "version": scoped.scope.version,
                            "attributes": [key_value(pair) for pair in scoped.scope.attributes],
                        },
                        "logRecords": [log_record(log) for log in scoped.log_records],
                    }
                    for scoped in logs.scope_logs
                ],
            }
            for logs in message.resource_logs
        ]
    }


def encoded(message: ExportLogsServiceRequest) -> bytes:
    return json.dumps(request(message)).encode()


def with_record(text: str | bytes) -> bytes:
    """Return a request around the text of a record, between two good ones."""
    raw = text if isinstance(text, bytes) else text.encode()
    good = b'{"eventName":"neighbour.sent"}'
    return b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s, %s\n,%s]}]}]}' % (good, raw, good)
