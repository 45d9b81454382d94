"""OTLP/JSON into the same messages that protobuf gives, field by field, with nothing guessed.

`google.protobuf.json_format` gets this wrong: in OTLP/JSON trace and span ids are hex and not base64, enums are
numbers only, and unknown fields are ignored. It also repairs what it should not, and refuses a whole message for
one of its values. What a field may be is read from OpenTelemetry's own descriptors.

A lone surrogate, which JSON can say and UTF-8 cannot, becomes bytes that are not UTF-8, and so the reason why the
record cannot be admitted, as if it had come in protobuf.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from spanseal_collector.errors import InadmissibleError
from spanseal_collector.otlp import new_message

__all__ = ["json_object", "log_record", "resource", "scope"]

_MAX_DEPTH = 100
"""Messages within messages; what may be stored has fewer."""
_MAX_DIGITS = 400
"""Of an int: the largest double has 309."""
_KEY_VALUE = KeyValue.DESCRIPTOR
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NO_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_EXACT = 1 << 53
"""Up to here each integer is a double of its own."""


class _Outsized:
    """A number that is none of this machine's. It has no type that a field may have."""


def json_object(raw: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object strictly.

    Args:
        raw: UTF-8; what is not UTF-8 within a string becomes surrogates.
        what: what it is, for the reason.

    Raises:
        InadmissibleError: it is not JSON, is not an object, has a key twice, or is nested too deeply.

    """
    try:
        found = _DECODER.decode(raw.decode("utf-8", "surrogateescape"))
    except _TwiceError as error:
        raise InadmissibleError(f"{what} has the key {error} twice") from None
    except RecursionError:
        raise InadmissibleError(f"{what} cannot be decoded: it is nested too deeply") from None
    except ValueError as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InadmissibleError(f"{what} is not JSON: {said}") from None
    if not isinstance(found, dict):
        raise InadmissibleError(f"{what} is not an object")
    return found


def log_record(found: Mapping[str, Any]) -> Any:
    """Make a LogRecord, with bytes in place of strings.

    Raises:
        InadmissibleError: a field has a value that it cannot have.

    """
    return _made("logs.v1.LogRecord", LogRecord.DESCRIPTOR, found)


def resource(found: Mapping[str, Any]) -> Any:
    """Make a Resource, likewise."""
    return _made("resource.v1.Resource", Resource.DESCRIPTOR, found)


def scope(found: Mapping[str, Any]) -> Any:
    """Make an InstrumentationScope, likewise."""
    return _made("common.v1.InstrumentationScope", InstrumentationScope.DESCRIPTOR, found)


def _made(kind: str, descriptor: Descriptor, found: Mapping[str, Any]) -> Any:
    message = new_message(kind)
    _fill(message, descriptor, found, 0)
    return message


# --- fields ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    """In the message."""
    where: str
    """In JSON, for a reason."""
    oneof: str
    """Of which it is one; empty where it is of none."""
    repeated: bool
    message: Descriptor | None
    read: Callable[[object, str], object]
    """Reads a value that is no message."""


def _fill(message: Any, descriptor: Descriptor, found: object, depth: int) -> None:
    if not isinstance(found, dict):
        raise InadmissibleError(f"a {descriptor.name} must be an object")
    if depth > _MAX_DEPTH:
        raise InadmissibleError("a value is nested too deeply")
    fields = _fields(descriptor)
    seen = set()
    for key, value in found.items():
        field = fields.get(key)
        if field is None or value is None:
            # An unknown field is ignored, and null is the same as no field: so says OTLP, so says proto3.
            continue
        if (slot := field.oneof or field.name) in seen:
            raise InadmissibleError(f"a {descriptor.name} has more than one {slot}")
        seen.add(slot)
        if field.message is None:
            setattr(message, field.name, field.read(value, field.where))
        elif field.repeated:
            items = getattr(message, field.name)
            for item in _list(value, field.where):
                part = items.add()
                if field.message is not _KEY_VALUE or not _is_text_pair(part, item):
                    _fill(part, field.message, item, depth + 1)
        else:
            part = getattr(message, field.name)
            part.SetInParent()
            _fill(part, field.message, value, depth + 1)


def _is_text_pair(pair: Any, found: object) -> bool:
    """Fill a KeyValue whose value is a text, as nearly all are; the general way takes three times as long."""
    if isinstance(found, dict) and len(found) == 2:
        key, value = found.get("key"), found.get("value")
        if isinstance(key, str) and isinstance(value, dict) and len(value) == 1:
            text = value.get("stringValue")
            if isinstance(text, str):
                pair.key = key.encode("utf-8", "surrogatepass")
                pair.value.string_value = text.encode("utf-8", "surrogatepass")
                return True
    return False


@cache
def _fields(descriptor: Descriptor) -> dict[str, _Field]:
    fields = {}
    for one in descriptor.fields:
        field = _Field(
            one.name,
            f"{descriptor.name}.{one.json_name}",
            one.containing_oneof.name if one.containing_oneof else "",
            one.is_repeated,
            one.message_type,
            _reader(one),
        )
        # OTLP knows the first only. Whoever sends the second means it, and to ignore it would lose records.
        fields[one.json_name] = fields[one.name] = field
    return fields


def _reader(field: FieldDescriptor) -> Callable[[object, str], object]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _hex if field.name in ("trace_id", "span_id") else _base64
    return _READERS.get(field.type, _no_value)


def _list(value: object, where: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise InadmissibleError(f"{where} must be a list")
    return value


def _no_value(_: object, where: str) -> object:
    raise InadmissibleError(f"{where} is of no use here")


# --- values ----------------------------------------------------------------------------------------------------


def _text(value: object, where: str) -> bytes:
    if not isinstance(value, str):
        raise InadmissibleError(f"{where} must be a string")
    return value.encode("utf-8", "surrogatepass")


def _bool(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise InadmissibleError(f"{where} must be true or false")
    return value


def _integer(low: int, high: int) -> Callable[[object, str], int]:
    def read(value: object, where: str) -> int:
        match value:
            case bool():
                number = None
            case int():
                number = value
            case float() if value.is_integer() and abs(value) <= _EXACT:
                number = int(value)
            case str() if _INTEGER.fullmatch(value):
                number = int(value)
            case _:
                number = None
        if number is None:
            raise InadmissibleError(f"{where} must be an integer")
        if not low <= number <= high:
            raise InadmissibleError(f"{where} is out of range")
        return number

    return read


def _double(value: object, where: str) -> float:
    number: object = value
    if isinstance(number, str):
        if number in _NO_NUMBERS:
            return _NO_NUMBERS[number]
        if _NUMBER.fullmatch(number):
            number = float(number)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InadmissibleError(f"{where} must be a number")
    try:
        number = float(number)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise InadmissibleError(f"{where} is out of range")
    return number


def _hex(value: object, where: str) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise InadmissibleError(f"{where} must be a string of hex digits")
    return bytes.fromhex(value)


def _base64(value: object, where: str) -> bytes:
    if isinstance(value, str):
        plain = value.replace("-", "+").replace("_", "/").rstrip("=")
        try:
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    raise InadmissibleError(f"{where} must be base64")


_INT32 = _integer(-(1 << 31), (1 << 31) - 1)
_READERS: dict[int, Callable[[object, str], object]] = {
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_INT64: _integer(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_FIXED64: _integer(0, (1 << 64) - 1),
    FieldDescriptor.TYPE_UINT32: _integer(0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: _integer(0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_ENUM: _INT32,
}


# --- JSON itself -----------------------------------------------------------------------------------------------


class _TwiceError(Exception):
    """A key is given twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = min(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(ascii(twice[:64]))
    return found


def _parse_int(digits: str) -> object:
    if digits == "-0":
        return -0.0
    return int(digits) if len(digits) <= _MAX_DIGITS else _Outsized()


def _parse_float(digits: str) -> object:
    number = float(digits)
    return _Outsized() if math.isinf(number) else number


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} must be in quotes")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_no_constant
)
