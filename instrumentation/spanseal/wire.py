"""The bytes that leave the process: OTLP log records.

A record is kept in the spool as a serialised `LogRecord` without its place in a stream. The place is
appended when the record is sent: a protobuf message followed by another of its type is their union.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from .__about__ import __version__
from .actor import ANONYMOUS, Actor
from .errors import InvalidRecord

SCHEMA_VERSION = "1"
SCOPE_NAME = "spanseal"

INT64 = range(-(1 << 63), 1 << 63)


@dataclass(slots=True, kw_only=True)
class AuditRecord:
    """One record, before it is bytes. Empty strings are left out on the wire."""

    record_id: str
    event_time: int
    """Nanoseconds since the Unix epoch."""
    action: str
    outcome: str = "unknown"
    failure_reason: str = ""
    actor: Actor = ANONYMOUS
    session_id: str = ""
    resource_type: str = ""
    resource_id: str = ""
    request_id: str = ""
    tenant: str = ""
    trace_id: str = ""
    """32 hex digits or empty."""
    span_id: str = ""
    client_address: str = ""
    user_agent: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """Everything else: becomes metadata."""

    def encode(self) -> bytes:
        """Serialise as a LogRecord without stream and number.

        Raises:
            InvalidRecord: An attribute's value has no OTLP form.
        """
        message = LogRecord(time_unix_nano=self.event_time, event_name=clean(self.action))
        if self.trace_id and self.span_id:
            message.trace_id = bytes.fromhex(self.trace_id)
            message.span_id = bytes.fromhex(self.span_id)
        add = message.attributes.add
        for key, text in (
            ("audit.record.id", self.record_id),
            ("audit.schema.version", SCHEMA_VERSION),
            ("audit.outcome", self.outcome),
            ("audit.failure.reason", self.failure_reason),
            ("audit.actor.type", self.actor.type),
            ("audit.actor.id", self.actor.id),
            ("audit.actor.role", self.actor.role),
            ("user.email", self.actor.email),
            ("audit.personal.user.name", self.actor.name if self.actor.name != self.actor.id else ""),
            ("session.id", self.session_id),
            ("audit.target.type", self.resource_type),
            ("audit.target.id", self.resource_id),
            ("audit.request.id", self.request_id),
            ("audit.tenant", self.tenant),
            ("client.address", self.client_address),
            ("user_agent.original", self.user_agent),
        ):
            if text:
                add(key=key).value.string_value = clean(text)
        for key, value in self.attributes.items():
            add(key=clean(key)).value.CopyFrom(any_value(value))
        return message.SerializeToString()


def clean(text: str) -> str:
    """Make text that UTF-8 can hold: a lone surrogate becomes its escape, nothing else changes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


def any_value(value: object) -> AnyValue:  # noqa: PLR0911 - one for each type
    """Give a Python value its OTLP form.

    Raises:
        InvalidRecord: It has none, or is an integer of more than 64 bits.
    """
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=clean(value))
        case int():
            if value not in INT64:
                raise InvalidRecord(f"the integer {value} needs more than 64 bits: give it as text")
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list() | tuple():
            result = AnyValue()
            result.array_value.SetInParent()
            result.array_value.values.extend(any_value(item) for item in value)
            return result
        case Mapping():
            result = AnyValue()
            result.kvlist_value.SetInParent()
            result.kvlist_value.values.extend(
                KeyValue(key=clean(str(key)), value=any_value(item)) for key, item in value.items()
            )
            return result
        case _:
            raise InvalidRecord(
                f"a value of type {type(value).__name__} cannot be recorded: give text, a number, a bool, "
                "bytes, None, or lists and mappings of these"
            )


def encode_resource(attributes: Mapping[str, object]) -> bytes:
    """Serialise a Resource."""
    return Resource(
        attributes=[KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]
    ).SerializeToString()


def place(body: bytes, stream: str, number: int) -> bytes:
    """Put a record at its place in a stream."""
    message = LogRecord()
    message.attributes.add(key="audit.stream_id").value.string_value = stream
    message.attributes.add(key="audit.sequence.number").value.int_value = number
    return body + message.SerializeToString()


def export_request(resource: bytes, records: Iterable[tuple[bytes, str, int]]) -> bytes:
    """Build the body of one OTLP/HTTP request.

    Args:
        resource: A serialised Resource.
        records: Body, stream and number of each record.
    """
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.ParseFromString(resource)
    scope = logs.scope_logs.add()
    scope.scope.name = SCOPE_NAME
    scope.scope.version = __version__
    for body, stream, number in records:
        scope.log_records.add().ParseFromString(place(body, stream, number))
    return request.SerializeToString()


def attribute(body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """Read some text attributes of a spooled record back, for people to see."""
    message = LogRecord.FromString(body)
    found = {item.key: item.value.string_value for item in message.attributes if item.key in keys}
    return {"action": message.event_name, **found}
