"""Decoding of OTLP requests, with text as bytes.

The protobuf runtime refuses a whole request for one string that is not UTF-8. An audit log must not lose 99
records for the sake of one, so requests are parsed with a copy of OpenTelemetry's own descriptors in which
every `string` is `bytes` (the same on the wire); each string is decoded where its record is admitted.

The runtime also refuses a request for one record that is nested too deeply or broken within itself. Such a
request is parsed again with the records left as bytes, so that only the bad ones are set aside.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from spanseal_collector.errors import DecodeError, TooLargeError

__all__ = ["Decoded", "ResourceLogs", "Undecodable", "decode_logs", "gunzip"]

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "opentelemetry.proto"


def _byte_descriptors(*, records_as_bytes: bool) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, logs_pb2, logs_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for kind in file.message_type:
            _to_bytes(kind, records_as_bytes=records_as_bytes)
        pool.Add(file)
    return pool


def _to_bytes(kind: descriptor_pb2.DescriptorProto, *, records_as_bytes: bool) -> None:
    for field in kind.field:
        if field.type == _FIELD.TYPE_STRING or (records_as_bytes and field.name == "log_records"):
            field.type = _FIELD.TYPE_BYTES
            field.ClearField("type_name")
    for nested in kind.nested_type:
        _to_bytes(nested, records_as_bytes=records_as_bytes)


def _message(pool: descriptor_pool.DescriptorPool, name: str) -> Any:
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


_STRICT = _byte_descriptors(records_as_bytes=False)
_LENIENT = _byte_descriptors(records_as_bytes=True)
_Request = _message(_STRICT, "collector.logs.v1.ExportLogsServiceRequest")
_LogRecord = _message(_STRICT, "logs.v1.LogRecord")
_LenientRequest = _message(_LENIENT, "collector.logs.v1.ExportLogsServiceRequest")
_LenientResourceLogs = _message(_LENIENT, "logs.v1.ResourceLogs")
ResourceLogs = _message(_STRICT, "logs.v1.ResourceLogs")
"""Message class of `ResourceLogs`, with bytes in place of strings."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A record whose own bytes are not a LogRecord."""

    raw: bytes
    """A serialized ResourceLogs that holds it alone."""
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """A parsed request."""

    request: Any
    """ExportLogsServiceRequest with bytes in place of strings."""
    undecodable: tuple[Undecodable, ...] = ()


def decode_logs(body: bytes) -> Decoded:
    """Parse an ExportLogsServiceRequest.

    Args:
        body: the protobuf bytes, not compressed.

    Raises:
        DecodeError: the bytes are not this message, whatever its records are.

    """
    request = _Request()
    try:
        request.ParseFromString(body)
    except message.DecodeError:
        return _decode_one_by_one(body)
    return Decoded(request)


def _decode_one_by_one(body: bytes) -> Decoded:
    lenient = _LenientRequest()
    try:
        lenient.ParseFromString(body)
        request = _Request()
        undecodable = []
        for resource_logs in lenient.resource_logs:
            kept = request.resource_logs.add()
            kept.resource.ParseFromString(resource_logs.resource.SerializeToString())
            for scope_logs in resource_logs.scope_logs:
                kept_scope = kept.scope_logs.add()
                kept_scope.scope.ParseFromString(scope_logs.scope.SerializeToString())
                for raw in scope_logs.log_records:
                    log = _LogRecord()
                    try:
                        log.ParseFromString(raw)
                    except message.DecodeError as error:
                        undecodable.append(_alone(resource_logs, scope_logs, raw, str(error)))
                    else:
                        kept_scope.log_records.append(log)
    except message.DecodeError as error:
        raise DecodeError(f"the body is not an OTLP ExportLogsServiceRequest: {error}") from error
    return Decoded(request, tuple(undecodable))


def _alone(resource_logs: Any, scope_logs: Any, raw: bytes, error: str) -> Undecodable:
    alone = _LenientResourceLogs()
    alone.resource.CopyFrom(resource_logs.resource)
    scope = alone.scope_logs.add()
    scope.scope.CopyFrom(scope_logs.scope)
    scope.log_records.append(raw)
    return Undecodable(alone.SerializeToString(), f"the record cannot be decoded: {error}")


def gunzip(body: bytes, limit: int) -> bytes:
    """Decompress a gzip body, stopping at a limit, so that a small body cannot fill the memory.

    Args:
        body: one or more gzip members.
        limit: bytes that the result may have.

    Raises:
        DecodeError: the body is not gzip, or is cut short.
        TooLargeError: the result would be larger than the limit.

    """
    parts = []
    room = limit
    rest = body
    while rest:
        inflate = zlib.decompressobj(wbits=31)
        try:
            data = inflate.decompress(rest, room + 1)
        except zlib.error as error:
            raise DecodeError(f"the body is not gzip: {error}") from error
        if len(data) > room:
            raise TooLargeError(f"the request is larger than {limit} bytes after decompression")
        if not inflate.eof:
            raise DecodeError("the gzip body is cut short")
        parts.append(data)
        room -= len(data)
        rest = inflate.unused_data
    return b"".join(parts)
