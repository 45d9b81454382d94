"""The bytes that leave the process: OTLP log records.

A record is kept in the spool as a serialised `LogRecord` without its place in a stream. The place is
appended when the record is sent: a protobuf message followed by another of its type is their union.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from .__about__ import __version__
from .actors.actor import ANONYMOUS, Actor
from .errors import InvalidRecord

SCHEMA_VERSION = "1"
SCOPE_NAME = "spanseal"

INT64 = range(-(1 << 63), 1 << 63)
MAX_DEPTH = 16
"""Levels of lists and mappings in one value: protobuf's readers stop at 100 messages, a mapping's level is three."""
MAX_TEXT = 64 << 10
"""Bytes of UTF-8 in one text; a collector admits no longer one."""

_KNOWN = 256
"""Characters of a text whose attribute is remembered."""

# Tags: a field's number, and how its bytes are to be read. They are those of OTLP 1, which is stable.
_REQUEST_LOGS, _LOGS_RESOURCE, _LOGS_SCOPE, _SCOPE, _SCOPE_RECORDS = (
    bytes([number << 3 | 2]) for number in (1, 1, 2, 1, 2)
)
_ATTRIBUTE, _TRACE_ID, _SPAN_ID, _EVENT_NAME = (bytes([number << 3 | 2]) for number in (6, 9, 10, 12))
_TIME = bytes([1 << 3 | 1])


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
            InvalidRecord: An attribute's value has no OTLP form, or a text is too long.
        """
        parts = [_TIME, self.event_time.to_bytes(8, "little")]
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
                parts.append(_text(key, text))
        if self.actor.on_behalf_of and "audit.on_behalf_of" not in self.attributes:
            parts.append(_text("audit.on_behalf_of", self.actor.on_behalf_of))
        for key, value in self.attributes.items():
            if isinstance(value, str):
                parts.append(_text(key, value))
            else:
                item = KeyValue(key=clean(key, "an attribute's key"), value=any_value(value))
                parts.append(_delimited(_ATTRIBUTE, item.SerializeToString()))
        if self.trace_id and self.span_id:
            parts.append(_delimited(_TRACE_ID, bytes.fromhex(self.trace_id)))
            parts.append(_delimited(_SPAN_ID, bytes.fromhex(self.span_id)))
        parts.append(_delimited(_EVENT_NAME, clean(self.action, "the action").encode()))
        return b"".join(parts)


def _text(key: str, text: str) -> bytes:
    """Return an attribute of a LogRecord as bytes."""
    if not isinstance(text, str):
        raise InvalidRecord(f"{key} must be text, not {type(text).__name__}")
    # Methods, routes, actors and browsers are the same again and again; long texts are not.
    return _known_text(key, text) if len(text) <= _KNOWN else _new_text(key, text)


def _new_text(key: str, text: str) -> bytes:
    item = KeyValue(key=clean(key, "an attribute's key"))
    item.value.string_value = clean(text, key)
    return _delimited(_ATTRIBUTE, item.SerializeToString())


_known_text = lru_cache(maxsize=4096)(_new_text)


def clean(text: str, name: str = "a text") -> str:
    """Make text that UTF-8 can hold: a lone surrogate becomes its escape, nothing else changes.

    Args:
        text: What came from elsewhere.
        name: What it is, for the error's message, which does not show the text itself.

    Raises:
        InvalidRecord: It is no text, or longer than `MAX_TEXT`.
    """
    if not isinstance(text, str):
        raise InvalidRecord(f"{name} must be text, not {type(text).__name__}")
    if text.isascii():
        length = len(text)
    else:
        encoded = text.encode("utf-8", "backslashreplace")
        text, length = encoded.decode("utf-8"), len(encoded)
    if length > MAX_TEXT:
        raise InvalidRecord(f"{name} has {length} bytes, a record's texts may have {MAX_TEXT}")
    return text


def any_value(value: object, depth: int = 0) -> AnyValue:  # noqa: C901, PLR0911 - one for each type
    """Give a Python value its OTLP form.

    Raises:
        InvalidRecord: It has none, is an integer of more than 64 bits, or is nested deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise InvalidRecord(f"a value is nested deeper than {MAX_DEPTH} levels, or holds itself")
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=clean(value))
        case int():
            if value not in INT64:
                raise InvalidRecord("an integer needs more than 64 bits: give it as text")
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list() | tuple():
            result = AnyValue()
            result.array_value.SetInParent()
            result.array_value.values.extend(any_value(item, depth + 1) for item in value)
            return result
        case Mapping():
            result = AnyValue()
            result.kvlist_value.SetInParent()
            result.kvlist_value.values.extend(
                KeyValue(key=clean(str(key)), value=any_value(item, depth + 1)) for key, item in value.items()
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
    """Build the body of one OTLP/HTTP request (ExportLogsServiceRequest).

    It is put together from the messages' bytes: nothing of a spooled record is read here, so that no
    record can keep the others from being sent.

    Args:
        resource: A serialised Resource.
        records: Body, stream and number of each record.
    """
    logs = [
        _delimited(_SCOPE, InstrumentationScope(name=SCOPE_NAME, version=__version__).SerializeToString())
    ]
    logs += (_delimited(_SCOPE_RECORDS, place(body, stream, number)) for body, stream, number in records)
    resource_logs = _delimited(_LOGS_RESOURCE, resource) + _delimited(_LOGS_SCOPE, b"".join(logs))
    return _delimited(_REQUEST_LOGS, resource_logs)


def _delimited(tag: bytes, message: bytes) -> bytes:
    """Return a message as a field of another one: tag, length, bytes."""
    length = len(message)
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return tag + varint + message


def attribute(body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """Read some text attributes of a spooled record back, for people to see."""
    message = LogRecord.FromString(body)
    found = {item.key: item.value.string_value for item in message.attributes if item.key in keys}
    return {"action": message.event_name, **found}
