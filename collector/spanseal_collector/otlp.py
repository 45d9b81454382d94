"""Decoding of OTLP requests, with text as bytes.

The protobuf runtime refuses a whole request for one string that is not UTF-8. An audit log must not lose 99
records for the sake of one, so requests are parsed with a copy of OpenTelemetry's own descriptors in which
every `string` is `bytes` (the same on the wire); each string is decoded where its record is admitted.
"""

from __future__ import annotations

import zlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from spanseal_collector.errors import DecodeError, TooLargeError

__all__ = ["ResourceLogs", "decode_logs", "gunzip"]


def _byte_descriptors() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, logs_pb2, logs_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for kind in file.message_type:
            _to_bytes(kind)
        pool.Add(file)
    return pool


def _to_bytes(kind: descriptor_pb2.DescriptorProto) -> None:
    for field in kind.field:
        if field.type == descriptor_pb2.FieldDescriptorProto.TYPE_STRING:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    for nested in kind.nested_type:
        _to_bytes(nested)


_POOL = _byte_descriptors()
_Request: Any = message_factory.GetMessageClass(
    _POOL.FindMessageTypeByName("opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest")
)
ResourceLogs: Any = message_factory.GetMessageClass(
    _POOL.FindMessageTypeByName("opentelemetry.proto.logs.v1.ResourceLogs")
)
"""Message class of `ResourceLogs`, with bytes in place of strings."""


def decode_logs(body: bytes) -> Any:
    """Parse an ExportLogsServiceRequest.

    Args:
        body: the protobuf bytes, not compressed.

    Returns:
        The message; its strings are bytes.

    Raises:
        DecodeError: the bytes are not this message.

    """
    request = _Request()
    try:
        request.ParseFromString(body)
    except message.DecodeError as error:
        raise DecodeError(f"the body is not an OTLP ExportLogsServiceRequest: {error}") from error
    return request


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
