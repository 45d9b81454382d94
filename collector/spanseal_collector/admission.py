"""The processor that decides what may enter the chain, and in which form: one LogRecord in, one draft out.

A draft is a record without what only sealing can give it: chain, positions, time of receipt, salt. What cannot
be admitted becomes a `Rejected` with its raw bytes and the reason; it is data, not an error of the request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spanseal_collector import attributes
from spanseal_collector.errors import InadmissibleError
from spanseal_collector.otlp import Decoded, ResourceLogs
from spanseal_collector.uuid7 import uuid7
from spanseal_ledger.errors import LedgerError
from spanseal_ledger.metadata import Value, typed_text
from spanseal_ledger.personal import pseudonym
from spanseal_ledger.record import Record, check_limits

__all__ = ["PUBLISHED_AUDIT_KEYS", "Admitter", "Draft", "Rejected"]

_ACTION = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MAX_TIME = 1 << 63

_COLUMNS = {
    "audit.record.id": "record_id",
    "audit.stream_id": "producer_id",
    "audit.tenant": "tenant",
    "audit.actor.type": "actor_type",
    "audit.actor.id": "actor_id",
    "audit.actor.role": "actor_role",
    "audit.outcome": "outcome",
    "audit.failure.reason": "failure_reason",
    "audit.target.type": "resource_type",
    "audit.target.id": "resource_id",
    "audit.request.id": "request_id",
    "session.id": "session_id",
    "user.email": "actor_email",
    "client.address": "actor_ip",
}
_SCHEMA_VERSION = "1"

PUBLISHED_AUDIT_KEYS = frozenset(
    {
        "audit.capture",
        "audit.data_classes",
        "audit.on_behalf_of",
        "audit.retention_class",
        "audit.severity",
        "audit.subject.id",
        "audit.subject.type",
        # A producer's own events: what its streams were and what they had to drop.
        "audit.producer.previous_stream",
        "audit.producer.previous_last",
        "audit.producer.gap.first",
        "audit.producer.gap.last",
        "audit.producer.gap.reason",
        "audit.producer.last",
    }
)
"""Metadata keys under `audit.` that a client may send; all others are the collector's."""

_PERSONAL_PREFIX = "audit.personal."
_PERSONAL_KEYS = frozenset({"user_agent.original"})
_PSEUDONYMISED = (
    ("actor_id", "audit.actor.id"),
    ("resource_id", "audit.target.id"),
    ("session_id", "audit.session.id"),
)
_COLLECTOR_TENANT = "_collector"


@dataclass(frozen=True, slots=True)
class Draft:
    """An admitted record that is not sealed yet."""

    record: Record
    """chain_id empty; seq, tenant_seq, received_at 0; no salt. event_time 0 where the source gave none."""
    untimed: bool
    """True where event_time is to be the time of receipt."""
    size: int
    """About how many bytes it holds in memory."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """What could not be admitted."""

    raw: bytes
    """A serialized ResourceLogs that holds this record alone."""
    reason: str
    producer_id: str
    producer_seq: int


class Admitter:
    """Turns decoded requests into drafts. Stateless but for the pseudonym keys; safe to use from any thread."""

    def __init__(self, pseudonym_key: bytes) -> None:
        """Make an admitter.

        Args:
            pseudonym_key: 32 bytes from which each tenant's pseudonym key is derived.

        """
        self._pseudonym_key = pseudonym_key

    def admit(self, decoded: Decoded) -> Iterator[Draft | Rejected]:
        """Admit or reject every record of a decoded request, in order; last those that could not be decoded."""
        for resource_logs in decoded.request.resource_logs:
            for scope_logs in resource_logs.scope_logs:
                for log in scope_logs.log_records:
                    try:
                        yield self._one(resource_logs, scope_logs, log)
                    except (InadmissibleError, LedgerError) as error:
                        yield _rejected(resource_logs, scope_logs, log, str(error))
        for record in decoded.undecodable:
            yield Rejected(record.raw, record.reason, "", 0)

    def _one(self, resource_logs: Any, scope_logs: Any, log: Any) -> Draft:
        found = attributes.read_attributes(log.attributes, "attributes")
        columns = _take_columns(found)
        metadata: dict[str, Value] = {}
        metadata_text: dict[str, str] = {}
        types: dict[str, str] = {}
        personal: dict[str, str] = {}

        if found.pop("audit.schema.version", _SCHEMA_VERSION) not in (_SCHEMA_VERSION, int(_SCHEMA_VERSION)):
            raise InadmissibleError("audit.schema.version is one this collector does not know")
        producer_seq = _producer_seq(found, columns["producer_id"])
        columns["action"] = action = attributes.text(log.event_name, "event_name")
        _check_action(action)
        if not columns["record_id"]:
            columns["record_id"] = uuid7()
            metadata["audit.record_id"] = "collector"
        elif not _UUID.fullmatch(columns["record_id"]):
            raise InadmissibleError("audit.record.id is not a lower-case UUID of 36 characters")
        _check_and_default(columns)

        event_time, untimed = _event_time(log, metadata)
        columns["trace_id"] = _hex_id(log.trace_id, 16, "trace_id")
        columns["span_id"] = _hex_id(log.span_id, 8, "span_id")

        for key, value in found.items():
            if key.startswith(_PERSONAL_PREFIX) or key in _PERSONAL_KEYS:
                if not isinstance(value, str):
                    raise InadmissibleError(f"attribute {key[:64]} must be a string")
                personal[key.removeprefix(_PERSONAL_PREFIX)] = value
            else:
                if key.startswith("audit.") and key not in PUBLISHED_AUDIT_KEYS:
                    raise InadmissibleError(f"the key {key[:64]!a} is reserved and not on the published list")
                _put(metadata, key, value)
        _add_context(metadata, columns, resource_logs, scope_logs, log)
        self._pseudonymise(columns, metadata, personal)

        for key in sorted(metadata, key=lambda k: k.encode("utf-8", "surrogatepass")):
            metadata_text[key], types[key] = typed_text(metadata[key])
        record = Record(
            chain_id="",
            seq=0,
            tenant_seq=0,
            received_at=0,
            event_time=event_time,
            producer_seq=producer_seq,
            personal=dict(sorted(personal.items(), key=lambda kv: kv[0].encode())),
            metadata=metadata_text,
            metadata_types="".join(types.values()),
            **columns,  # type: ignore[arg-type]  # these are the texts; the bytes come when it is sealed
        )
        check_limits(record)
        size = sum(map(len, metadata_text)) + sum(map(len, metadata_text.values())) + 2048
        return Draft(record, untimed, size)

    def _pseudonymise(
        self, columns: dict[str, str], metadata: dict[str, Value], personal: dict[str, str]
    ) -> None:
        for column, key in _PSEUDONYMISED:
            if "@" in columns[column]:
                personal[key] = columns[column]
                columns[column] = self._pseudonym(columns["tenant"], columns[column])
        subject = metadata.get("audit.subject.id")
        if isinstance(subject, str) and "@" in subject:
            personal["audit.subject.id"] = subject
            metadata["audit.subject.id"] = self._pseudonym(columns["tenant"], subject)

    def _pseudonym(self, tenant: str, value: str) -> str:
        key = hmac.new(self._pseudonym_key, b"spanseal/pseudonym/" + tenant.encode(), hashlib.sha256).digest()
        return pseudonym(key, value)


def _take_columns(found: dict[str, Value]) -> dict[str, str]:
    columns = {}
    for key, column in _COLUMNS.items():
        value = found.pop(key, "")
        if not isinstance(value, str):
            raise InadmissibleError(f"attribute {key} must be a string")
        columns[column] = value
    return columns


def _producer_seq(found: dict[str, Value], producer_id: str) -> int:
    value = found.pop("audit.sequence.number", None)
    if not producer_id:
        if value is not None:
            raise InadmissibleError("audit.sequence.number without audit.stream_id")
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InadmissibleError("audit.stream_id needs audit.sequence.number, an int from 0")
    return value


def _check_action(action: str) -> None:
    if not action:
        raise InadmissibleError("the record has no event_name, so no action")
    if not _ACTION.fullmatch(action):
        raise InadmissibleError("event_name is not of the form <resource>.<verb>")
    if action.startswith("audit_log."):
        raise InadmissibleError("actions audit_log.* are the collector's own")


def _check_and_default(columns: dict[str, str]) -> None:
    columns["tenant"] = columns["tenant"] or "default"
    if columns["tenant"] == _COLLECTOR_TENANT:
        raise InadmissibleError("the tenant _collector is the collector's own")
    columns["actor_type"] = columns["actor_type"] or ("user" if columns["actor_id"] else "anonymous")
    # A source that says nothing of the outcome leaves it unknown; anything else would be a guess.
    columns["outcome"] = columns["outcome"] or "unknown"
    if columns["failure_reason"] and columns["outcome"] == "success":
        raise InadmissibleError("audit.failure.reason with the outcome success")


def _event_time(log: Any, metadata: dict[str, Value]) -> tuple[int, bool]:
    if max(log.time_unix_nano, log.observed_time_unix_nano) >= _MAX_TIME:
        raise InadmissibleError("a time of 2^63 ns or more")
    if log.time_unix_nano:
        return int(log.time_unix_nano), False
    if log.observed_time_unix_nano:
        metadata["audit.event_time"] = "observed"
        return int(log.observed_time_unix_nano), False
    metadata["audit.event_time"] = "collector"
    return 0, True


def _hex_id(raw: bytes, width: int, what: str) -> str:
    if not raw or not any(raw):
        return ""
    if len(raw) != width:
        raise InadmissibleError(f"{what} has {len(raw)} bytes instead of {width}")
    return raw.hex()


def _put(metadata: dict[str, Value], key: str, value: Value) -> None:
    if key in metadata:
        raise InadmissibleError(f"the key {key[:64]!a} is given twice")
    metadata[key] = value


def _add_context(
    metadata: dict[str, Value], columns: dict[str, str], resource_logs: Any, scope_logs: Any, log: Any
) -> None:
    resource = attributes.read_attributes(resource_logs.resource.attributes, "resource attributes")
    service = resource.pop("service.name", "")
    if not isinstance(service, str):
        raise InadmissibleError("resource attribute service.name must be a string")
    columns["service"] = service
    for key, value in resource.items():
        _put(metadata, f"resource.{key}", value)
    scope = scope_logs.scope
    for key, value in attributes.read_attributes(scope.attributes, "scope attributes").items():
        _put(metadata, f"scope.{key}", value)
    for key, raw in (("scope.name", scope.name), ("scope.version", scope.version)):
        if raw:
            _put(metadata, key, attributes.text(raw, key))
    if log.HasField("body") and log.body.WhichOneof("value"):
        _put(metadata, "log.body", attributes.any_value(log.body, "body"))
    for key, number in (
        ("log.severity_number", log.severity_number),
        ("log.flags", log.flags),
        ("log.dropped_attributes_count", log.dropped_attributes_count),
        ("log.observed_time_unix_nano", log.observed_time_unix_nano if log.time_unix_nano else 0),
    ):
        if number:
            _put(metadata, key, int(number))
    if log.severity_text:
        _put(metadata, "log.severity_text", attributes.text(log.severity_text, "severity_text"))


def _rejected(resource_logs: Any, scope_logs: Any, log: Any, reason: str) -> Rejected:
    alone = ResourceLogs()
    alone.resource.CopyFrom(resource_logs.resource)
    alone.schema_url = resource_logs.schema_url
    scope = alone.scope_logs.add()
    scope.scope.CopyFrom(scope_logs.scope)
    scope.schema_url = scope_logs.schema_url
    scope.log_records.add().CopyFrom(log)
    producer_id, producer_seq = "", 0
    for pair in log.attributes:
        # Best effort: what the record says of its place in a stream, where that much can be read.
        if pair.key == b"audit.stream_id":
            producer_id = pair.value.string_value.decode("utf-8", "replace")[:1024]
        elif pair.key == b"audit.sequence.number":
            producer_seq = max(0, pair.value.int_value)
    return Rejected(alone.SerializeToString(), reason, producer_id, producer_seq)
