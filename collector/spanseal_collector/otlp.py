"""Decoding of OTLP requests, one layer at a time, with text as bytes.

The protobuf runtime refuses a whole request for one string that is not UTF-8, for one value that is nested too
deeply, and for one record that is broken within itself. An audit log must not lose 99 records for the sake of
one. So only the frame of a request is parsed as a whole: which resources, which scopes, which records there
are, each left as its own bytes. What is in them is parsed record by record where it is admitted, with a copy of
OpenTelemetry's own descriptors in which every `string` is `bytes` (the same on the wire).

The frame also tells how many records there are before any of them is made in memory: a few bytes on the wire
can stand for a record, and a record takes some thousand bytes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from spanseal_collector.errors import DecodeError, InadmissibleError, TooLargeError

__all__ = [
    "MAX_RECORDS",
    "Group",
    "ProtobufGroup",
    "decode_logs",
    "new_message",
    "parse_record",
    "parse_resource",
    "parse_scope",
    "peek_stream",
]

MAX_RECORDS = 131_072
"""Records (and resources, and scopes) in one request."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "opentelemetry.proto"
_FRAMES = frozenset({"ExportLogsServiceRequest", "ResourceLogs", "ScopeLogs", "LogRecord"})
_PEEKED_ATTRIBUTES, _PEEKED_BYTES = 4096, 2048


def _pool(*, frames: bool) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, logs_pb2, logs_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for kind in file.message_type:
            _to_bytes(kind, frames=frames)
        pool.Add(file)
    return pool


def _to_bytes(kind: descriptor_pb2.DescriptorProto, *, frames: bool) -> None:
    for field in kind.field:
        if frames and kind.name in _FRAMES and field.type == _FIELD.TYPE_MESSAGE:
            # A message that is given twice is merged, which is what its pieces' bytes in a row parse to.
            field.label = _FIELD.LABEL_REPEATED
        elif field.type != _FIELD.TYPE_STRING:
            continue
        field.type = _FIELD.TYPE_BYTES
        field.ClearField("type_name")
    for nested in kind.nested_type:
        _to_bytes(nested, frames=frames)


def _message(pool: descriptor_pool.DescriptorPool, name: str) -> Any:
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


_FRAME_POOL, _POOL = _pool(frames=True), _pool(frames=False)
_RequestFrame = _message(_FRAME_POOL, "collector.logs.v1.ExportLogsServiceRequest")
_ResourceLogsFrame = _message(_FRAME_POOL, "logs.v1.ResourceLogs")
_ScopeLogsFrame = _message(_FRAME_POOL, "logs.v1.ScopeLogs")
_LogRecordFrame = _message(_FRAME_POOL, "logs.v1.LogRecord")
_LogRecord = _message(_POOL, "logs.v1.LogRecord")
_Resource = _message(_POOL, "resource.v1.Resource")
_Scope = _message(_POOL, "common.v1.InstrumentationScope")
_KeyValue = _message(_POOL, "common.v1.KeyValue")


def new_message(kind: str) -> Any:
    """Return an empty message whose strings are bytes.

    Args:
        kind: its name within OpenTelemetry's package, such as `logs.v1.LogRecord`.

    """
    return _message(_POOL, kind)()


class Group(Protocol):
    """The records of one scope of one resource, in whichever encoding; nobody has looked into them yet."""

    @property
    def records(self) -> tuple[bytes, ...]:
        """The records, each as it was sent."""

    def alone(self, raw: bytes) -> bytes:
        """Return a ResourceLogs, in the request's encoding, that holds one of the records alone."""

    def read_resource(self) -> Any:
        """Return the Resource, with bytes in place of strings.

        Raises:
            InadmissibleError: it cannot be decoded.

        """

    def read_scope(self) -> Any:
        """Return the InstrumentationScope, likewise."""

    def read_record(self, raw: bytes) -> Any:
        """Return one of the records as a LogRecord, likewise."""

    def peek_stream(self, raw: bytes) -> tuple[str, int]:
        """Read a record's stream and number, as far as they can be read, whatever else is in it.

        Returns:
            The stream, at most 1,024 characters; empty, and the number 0, where there is none to be read.

        """


@dataclass(frozen=True, slots=True)
class ProtobufGroup:
    """Such a group in protobuf."""

    resource: bytes
    """A serialized Resource, or empty."""
    scope: bytes
    """A serialized InstrumentationScope, or empty."""
    records: tuple[bytes, ...]
    """Serialized LogRecords."""
    schema_urls: tuple[bytes, bytes] = (b"", b"")
    """Of the resource and of the scope."""

    def alone(self, raw: bytes) -> bytes:
        """Return a serialized ResourceLogs that holds one of the records alone."""
        resource_url, scope_url = self.schema_urls
        scope_logs = _ScopeLogsFrame(scope=[self.scope], log_records=[raw], schema_url=scope_url)
        alone: bytes = _ResourceLogsFrame(
            resource=[self.resource], scope_logs=[scope_logs.SerializeToString()], schema_url=resource_url
        ).SerializeToString()
        return alone

    def read_resource(self) -> Any:
        """Parse the resource."""
        return parse_resource(self.resource)

    def read_scope(self) -> Any:
        """Parse the scope."""
        return parse_scope(self.scope)

    def read_record(self, raw: bytes) -> Any:
        """Parse a record."""
        return parse_record(raw)

    def peek_stream(self, raw: bytes) -> tuple[str, int]:
        """Look for a record's stream and number."""
        return peek_stream(raw)


def decode_logs(body: bytes, *, max_records: int = MAX_RECORDS) -> list[ProtobufGroup]:
    """Parse the frame of an ExportLogsServiceRequest.

    Args:
        body: the protobuf bytes, not compressed.
        max_records: how many records, resources and scopes it may have.

    Raises:
        DecodeError: the bytes are not this message, whatever its records are.
        TooLargeError: it has more records than the limit.

    """
    try:
        return list(_groups(body, max_records))
    except TooLargeError as error:
        # Its traceback would keep the whole frame in memory for as long as somebody holds the error.
        raise error.with_traceback(None)  # noqa: B904 - the same error
    except message.DecodeError as error:
        raise DecodeError(f"the body is not an OTLP ExportLogsServiceRequest: {error}") from error


def _groups(body: bytes, room: int) -> Iterator[ProtobufGroup]:
    request = _RequestFrame.FromString(body)
    room = _less(room, len(request.resource_logs))
    for raw_resource_logs in request.resource_logs:
        resource_logs = _ResourceLogsFrame.FromString(raw_resource_logs)
        resource = b"".join(resource_logs.resource)
        room = _less(room, len(resource_logs.scope_logs))
        if not resource_logs.scope_logs:
            _Resource.FromString(resource)
        for raw_scope_logs in resource_logs.scope_logs:
            scope_logs = _ScopeLogsFrame.FromString(raw_scope_logs)
            scope = b"".join(scope_logs.scope)
            room = _less(room, len(scope_logs.log_records))
            if not scope_logs.log_records:
                # There is no record that could be set aside with these bytes: they must be what they should.
                _Resource.FromString(resource)
                _Scope.FromString(scope)
            urls = (resource_logs.schema_url, scope_logs.schema_url)
            yield ProtobufGroup(resource, scope, tuple(scope_logs.log_records), urls)


def _less(room: int, count: int) -> int:
    if count > room:
        raise TooLargeError("the request is too large: it has too many records; send less at a time")
    return room - count


def parse_record(raw: bytes) -> Any:
    """Parse a LogRecord, with bytes in place of strings.

    Raises:
        InadmissibleError: the bytes are not a LogRecord, or are nested too deeply.

    """
    return _parse(_LogRecord, raw, "the record")


def parse_resource(raw: bytes) -> Any:
    """Parse a Resource, likewise.

    Raises:
        InadmissibleError: the bytes are not a Resource, or are nested too deeply.

    """
    return _parse(_Resource, raw, "the resource")


def parse_scope(raw: bytes) -> Any:
    """Parse an InstrumentationScope, likewise.

    Raises:
        InadmissibleError: the bytes are not an InstrumentationScope, or are nested too deeply.

    """
    return _parse(_Scope, raw, "the scope")


def peek_stream(raw: bytes) -> tuple[str, int]:
    """Read a record's stream and number, as far as they can be read, whatever else is in it.

    Args:
        raw: bytes that may be a LogRecord.

    Returns:
        The stream, at most 1,024 characters; empty, and the number 0, where there is none to be read.

    """
    producer_id, producer_seq = "", 0
    try:
        attributes = _LogRecordFrame.FromString(raw).attributes[:_PEEKED_ATTRIBUTES]
    except message.DecodeError:
        return "", 0
    for piece in attributes:
        if len(piece) > _PEEKED_BYTES or not (b"audit.stream_id" in piece or b"audit.sequence" in piece):
            continue
        try:
            pair = _KeyValue.FromString(piece)
        except message.DecodeError:
            continue
        if pair.key == b"audit.stream_id":
            producer_id = pair.value.string_value.decode("utf-8", "replace")[:1024]
        elif pair.key == b"audit.sequence.number":
            producer_seq = max(0, pair.value.int_value)
    return producer_id, producer_seq


def _parse(kind: Any, raw: bytes, what: str) -> Any:
    try:
        return kind.FromString(raw)
    except message.DecodeError:
        raise InadmissibleError(f"{what} cannot be decoded: it is malformed, or nested too deeply") from None
