"""Decoding of OTLP/JSON requests, one layer at a time, as `otlp` does it for protobuf.

Only the frame of a request is read as a whole: where in the text each resource, each scope and each record
begins and ends. Each record stays the bytes that were sent until it is admitted, and is parsed then, for itself:
one that is nested a thousand levels deep, has a key twice, or is no JSON at all leaves its neighbours alone, and
goes into quarantine as it was sent. What cannot be cut into records is not OTLP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spanseal_collector import json_messages
from spanseal_collector.errors import DecodeError, InadmissibleError, TooLargeError
from spanseal_collector.otlp import MAX_RECORDS

__all__ = ["JsonGroup", "decode_json_logs"]

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'[^"{}\[\]]++|' + _STRING
_LEVELS = 8
"""Brackets within brackets that one expression follows; a record without arrays has four."""


def _shallow(levels: int) -> bytes:
    inner = _FLAT if levels == 1 else _FLAT + b"|" + _shallow(levels - 1)
    return rb"[{\[](?:" + inner + rb")*+[}\]]"


_SPACE = re.compile(rb"[ \t\n\r]*+")
_SHALLOW = re.compile(_shallow(_LEVELS), re.DOTALL)
_BRACKET = re.compile(rb"(?:" + _FLAT + b"|" + _shallow(3) + rb")*+([{\[]++|[}\]]++)", re.DOTALL)
_SCALAR = re.compile(_STRING + rb"|-?[0-9][0-9.eE+-]*+|true|false|null", re.DOTALL)
_NAME = re.compile(rb"(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+", re.DOTALL)
_NULL = b"null"

# OTLP knows the first of each only. Whoever sends the second means it, and to ignore it would lose records.
_RESOURCE_LOGS = ("resourceLogs", "resource_logs")
_SCOPE_LOGS = ("scopeLogs", "scope_logs")
_LOG_RECORDS = ("logRecords", "log_records")

_PEEKED = {
    name: re.compile(
        rb'"key"\s*:\s*"' + re.escape(name) + rb'"\s*,\s*"value"\s*:\s*\{\s*"' + kind + rb'"\s*:\s*(' + value
        + rb")",
        re.DOTALL,
    )
    for name, kind, value in (
        (b"audit.stream_id", b"stringValue", _STRING),
        (b"audit.sequence.number", b"intValue", rb'"?[0-9]{1,19}"?'),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class JsonGroup:
    """The records of one scope of one resource, as JSON texts."""

    resource_members: tuple[bytes, ...]
    """What a ResourceLogs has beside its scopes, as it was sent: `"resource":{...}`, and so on."""
    scope_members: tuple[bytes, ...]
    """What a ScopeLogs has beside its records."""
    records: tuple[bytes, ...]
    """LogRecords."""

    def alone(self, raw: bytes) -> bytes:
        """Return a ResourceLogs that holds one of the records alone; each part is as it was sent."""
        scope_logs = _object(*self.scope_members, b'"logRecords":[' + raw + b"]")
        return _object(*self.resource_members, b'"scopeLogs":[' + scope_logs + b"]")

    def read_resource(self) -> Any:
        """Parse the resource."""
        return json_messages.resource(_member(self.resource_members, "resource", "the resource"))

    def read_scope(self) -> Any:
        """Parse the scope."""
        return json_messages.scope(_member(self.scope_members, "scope", "the scope"))

    def read_record(self, raw: bytes) -> Any:
        """Parse a record."""
        return json_messages.log_record(json_messages.json_object(raw, "the record"))

    def peek_stream(self, raw: bytes) -> tuple[str, int]:
        """Look for a record's stream and number."""
        stream, number = (pattern.search(raw) for pattern in _PEEKED.values())
        producer_id = ""
        if stream is not None:
            try:
                said = json.loads(stream[1].decode("utf-8", "replace"))
            except ValueError:
                said = ""
            producer_id = said.encode("utf-8", "replace").decode()[:1024]
        producer_seq = int(number[1].strip(b'"')) if number is not None else 0
        return producer_id, producer_seq if producer_seq < 1 << 63 else 0


def decode_json_logs(body: bytes, *, max_records: int = MAX_RECORDS) -> list[JsonGroup]:
    """Read the frame of an ExportLogsServiceRequest in JSON.

    Args:
        body: UTF-8, not compressed.
        max_records: how many records, resources and scopes it may have.

    Raises:
        DecodeError: the bytes are not this message, whatever its records are.
        TooLargeError: it has more records than the limit.

    """
    try:
        return _Frame(body, max_records).groups()
    except InadmissibleError as error:
        # There is no record that could be set aside with these bytes: they must be what they should.
        raise DecodeError(f"the body is not an OTLP ExportLogsServiceRequest: {error}") from error


class _Frame:
    """One request."""

    def __init__(self, text: bytes, room: int) -> None:
        self._text = text
        self._room = room
        self._groups: list[JsonGroup] = []

    def groups(self) -> list[JsonGroup]:
        """Read all of it."""
        end = self._members(self._space(0), self._request_member)
        if self._space(end) != len(self._text):
            raise self._wrong(end, "the end")
        return self._groups

    def _request_member(self, name: str, _: int, at: int) -> int:
        return self._items(at, self._resource_logs) if name in _RESOURCE_LOGS else self._skip(at)

    def _resource_logs(self, at: int) -> int:
        self._count()
        others: list[bytes] = []
        scopes: list[tuple[tuple[bytes, ...], tuple[bytes, ...]]] = []

        def scope_logs(at: int) -> int:
            self._count()
            members: list[bytes] = []
            records: list[bytes] = []

            def log_record(at: int) -> int:
                self._count()
                end = self._skip(at)
                records.append(self._text[at:end])
                return end

            end = self._members(at, self._either(_LOG_RECORDS, log_record, members))
            scopes.append((tuple(members), tuple(records)))
            return end

        end = self._members(at, self._either(_SCOPE_LOGS, scope_logs, others))
        for members, records in scopes or [((), ())]:
            group = JsonGroup(tuple(others), members, records)
            if records:
                self._groups.append(group)
            else:
                group.read_resource()
                group.read_scope()
        return end

    def _either(
        self, names: tuple[str, ...], item: Callable[[int], int], others: list[bytes]
    ) -> Callable[[str, int, int], int]:
        """Return what reads a member: a list under one of these names, or else a text to be kept."""

        def member(name: str, start: int, at: int) -> int:
            if name in names:
                return self._items(at, item)
            end = self._skip(at)
            others.append(self._text[start:end])
            return end

        return member

    def _members(self, at: int, member: Callable[[str, int, int], int]) -> int:
        """Read an object; `member` gets a name, where it begins, where its value begins, and says where it ends."""
        at = self._opened(at, b"{")
        if self._at(at) == b"}":
            return at + 1
        while True:
            found = _NAME.match(self._text, at)
            if found is None:
                raise self._wrong(at, "a name")
            at = self._space(member(self._name(found[1]), at, found.end()))
            if self._at(at) == b"}":
                return at + 1
            at = self._opened(at, b",")

    def _items(self, at: int, item: Callable[[int], int]) -> int:
        """Read an array, or a null in its place."""
        if self._text.startswith(_NULL, at):
            return at + len(_NULL)
        at = self._opened(at, b"[")
        if self._at(at) == b"]":
            return at + 1
        while True:
            at = self._space(item(at))
            if self._at(at) == b"]":
                return at + 1
            at = self._opened(at, b",")

    def _skip(self, at: int) -> int:
        """Return where the value ends that begins here."""
        if self._at(at) not in (b"{", b"["):
            found = _SCALAR.match(self._text, at)
            if found is None:
                raise self._wrong(at, "a value")
            return found.end()
        found = _SHALLOW.match(self._text, at)
        return found.end() if found is not None else self._skip_deep(at)

    def _skip_deep(self, at: int) -> int:
        start, depth = at, 0
        while (found := _BRACKET.match(self._text, at)) is not None:
            first, end = found.span(1)
            if self._text[first] in b"{[":
                depth += end - first
            elif depth > end - first:
                depth -= end - first
            else:
                return first + depth
            at = end
        raise self._wrong(start, "a value that ends")

    def _count(self) -> None:
        self._room -= 1
        if self._room < 0:
            raise TooLargeError("the request is too large: it has too many records; send less at a time")

    def _name(self, quoted: bytes) -> str:
        try:
            name: str = json.loads(quoted.decode("utf-8", "surrogateescape"))
        except ValueError:
            raise DecodeError(
                "the body is not OTLP JSON: a name has characters that JSON does not allow"
            ) from None
        return name

    def _opened(self, at: int, what: bytes) -> int:
        if self._at(at) != what:
            raise self._wrong(at, repr(what.decode()))
        return self._space(at + 1)

    def _at(self, at: int) -> bytes:
        return self._text[at : at + 1]

    def _space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found is not None else at

    def _wrong(self, at: int, wanted: str) -> DecodeError:
        return DecodeError(f"the body is not OTLP JSON: {wanted} was expected at byte {at}")


def _object(*members: bytes) -> bytes:
    return b"{" + b",".join(members) + b"}"


def _member(members: tuple[bytes, ...], name: str, what: str) -> Any:
    found = json_messages.json_object(_object(*members), f"what is beside {what}")
    value = found.get(name)
    return {} if value is None else value
