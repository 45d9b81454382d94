"""The processor that decides what may enter the chain, and in which form: one LogRecord in, one draft out.

A draft is a record without what only sealing can give it: chain, positions, time of receipt, salt. What cannot
be admitted becomes a `Rejected` with its raw bytes and the reason; it is data, not an error of the request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from spanseal_collector import attributes
from spanseal_collector.context import Context, read_context
from spanseal_collector.errors import InadmissibleError
from spanseal_collector.otlp import Group
from spanseal_collector.uuid7 import uuid7
from spanseal_ledger.errors import LedgerError
from spanseal_ledger.metadata import Value, typed_text
from spanseal_ledger.personal import pseudonym
from spanseal_ledger.record import Record, check_limits

__all__ = ["PRODUCER_KEYS", "PUBLISHED_AUDIT_KEYS", "Admitter", "Draft", "Rejected"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

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

PRODUCER_KEYS = frozenset(
    {
        "audit.producer.previous",
        "audit.producer.last",
        "audit.producer.gap.stream_id",
        "audit.producer.gap.first",
        "audit.producer.gap.last",
        "audit.producer.gap.count",
        "audit.producer.gap.reason",
        "audit.producer.gap.record_id",
        "audit.producer.gap.sha256",
    }
)
"""What a producer says of its own streams, in its own events and nowhere else."""

PUBLISHED_AUDIT_KEYS = PRODUCER_KEYS | {
    "audit.capture",
    "audit.data_classes",
    "audit.on_behalf_of",
    "audit.retention_class",
    "audit.severity",
    "audit.subject.id",
    "audit.subject.type",
}
"""Metadata keys under `audit.` that a client may send; all others are the collector's."""

_PRODUCER_ACTIONS = frozenset({"producer.started", "producer.stopped", "producer.gap"})
_PERSONAL_PREFIX = "audit.personal."
_PERSONAL_KEYS = frozenset({"user_agent.original"})
_PSEUDONYMISED = (
    ("actor_id", "audit.actor.id"),
    ("resource_id", "audit.target.id"),
    ("session_id", "audit.session.id"),
)
_PSEUDONYMISED_METADATA = ("audit.subject.id", "audit.on_behalf_of")
_COLLECTOR_TENANT = "_collector"

_MAX_RAW_BYTES = 4 << 20
"""Of a record as sent. Parsed, it takes many times as much; what is stored of it is 1 MiB at the most."""
_OBJECT_BYTES = 1536
"""About what a draft costs in memory beside its texts."""


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
    """A ResourceLogs in the encoding of its request that holds this record alone."""
    reason: str
    producer_id: str
    producer_seq: int

    @property
    def size(self) -> int:
        """About how many bytes it holds in memory, with the record that is sealed for it."""
        return len(self.raw) + _OBJECT_BYTES


class Admitter:
    """Turns decoded requests into drafts. Stateless but for the pseudonym keys; safe to use from any thread."""

    def __init__(self, pseudonym_key: bytes) -> None:
        """Make an admitter.

        Args:
            pseudonym_key: 32 bytes from which each tenant's pseudonym key is derived.

        """
        self._pseudonym_key = pseudonym_key

    def admit(self, groups: Iterable[Group], tenant: str = "") -> Iterator[Draft | Rejected]:
        """Admit or reject every record of a decoded request, in order.

        Args:
            groups: the records.
            tenant: into which all of them go; empty where each may name its own.

        """
        for group in groups:
            if group.records:
                context = _context(group)
                for raw in group.records:
                    yield self._judge(group, context, raw, tenant)

    def _judge(self, group: Group, context: Context | str, raw: bytes, tenant: str) -> Draft | Rejected:
        try:
            if isinstance(context, str):
                raise InadmissibleError(context)
            return self._admitted(context, group, raw, tenant)
        except (InadmissibleError, LedgerError) as error:
            reason = str(error)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is one record's
            # Refusing the request would bring the same record again and again, and hold up all behind it.
            _log.exception("a record could not be read; it is quarantined")
            reason = f"the collector failed on it ({type(error).__name__})"
        return Rejected(group.alone(raw), reason, *group.peek_stream(raw))

    def _admitted(self, context: Context, group: Group, raw: bytes, tenant: str) -> Draft:
        if len(raw) > _MAX_RAW_BYTES:
            raise InadmissibleError(f"the record is {len(raw)} bytes long, more than {_MAX_RAW_BYTES}")
        log = group.read_record(raw)
        found = attributes.read_attributes(log.attributes, "attributes")
        columns = _take_columns(found)
        columns["service"] = context.service
        _check_schema_version(found)
        producer_seq = _producer_seq(found, columns["producer_id"])
        columns["action"] = action = attributes.text(log.event_name, "event_name")
        _check_action(action)
        own: dict[str, Value] = {}
        if not columns["record_id"]:
            columns["record_id"] = uuid7()
            own["audit.record_id"] = "collector"
        elif not _UUID.fullmatch(columns["record_id"]):
            raise InadmissibleError("audit.record.id is not a lower-case UUID of 36 characters")
        if tenant:
            _bind(columns, tenant)
        _check_and_default(columns)
        event_time, untimed = _event_time(log, own)
        columns["trace_id"] = _hex_id(log.trace_id, 16, "trace_id")
        columns["span_id"] = _hex_id(log.span_id, 8, "span_id")
        personal = _take_personal(found)
        _check_reserved(found, action)
        self._pseudonymise(columns, found, personal)
        _add(found, own)
        _add(found, _log_fields(log))

        typed = {key: typed_text(value) for key, value in found.items()}
        _add(typed, context.metadata)
        # The order of str is the order of the UTF-8 bytes.
        metadata = {key: typed[key][0] for key in sorted(typed)}
        record = Record(
            chain_id="",
            seq=0,
            tenant_seq=0,
            received_at=0,
            event_time=event_time,
            producer_seq=producer_seq,
            personal={key: personal[key] for key in sorted(personal)},
            metadata=metadata,
            metadata_types="".join([typed[key][1] for key in metadata]),
            **columns,  # type: ignore[arg-type]  # these are the texts; the bytes come when it is sealed
        )
        check_limits(record)
        size = len(raw) + sum(map(len, metadata)) + sum(map(len, metadata.values())) + _OBJECT_BYTES
        return Draft(record, untimed, size)

    def _pseudonymise(
        self, columns: dict[str, str], metadata: dict[str, Value], personal: dict[str, str]
    ) -> None:
        for column, key in _PSEUDONYMISED:
            if "@" in columns[column]:
                personal[key] = columns[column]
                columns[column] = self._pseudonym(columns["tenant"], columns[column])
        for key in _PSEUDONYMISED_METADATA:
            value = metadata.get(key)
            if isinstance(value, str) and "@" in value:
                personal[key] = value
                metadata[key] = self._pseudonym(columns["tenant"], value)

    def _pseudonym(self, tenant: str, value: str) -> str:
        key = hmac.new(self._pseudonym_key, b"spanseal/pseudonym/" + tenant.encode(), hashlib.sha256).digest()
        return pseudonym(key, value)


def _context(group: Group) -> Context | str:
    """Read what a group's records have in common; or why that cannot be, which is then true for all of them."""
    try:
        return read_context(group)
    except (InadmissibleError, LedgerError) as error:
        return str(error)


def _take_columns(found: dict[str, Value]) -> dict[str, str]:
    columns = {}
    for key, column in _COLUMNS.items():
        value = found.pop(key, "")
        if not isinstance(value, str):
            raise InadmissibleError(f"attribute {key} must be a string")
        columns[column] = value
    return columns


def _check_schema_version(found: dict[str, Value]) -> None:
    version = found.pop("audit.schema.version", _SCHEMA_VERSION)
    if type(version) not in (str, int) or str(version) != _SCHEMA_VERSION:
        raise InadmissibleError("audit.schema.version is one this collector does not know")


def _take_personal(found: dict[str, Value]) -> dict[str, str]:
    personal: dict[str, str] = {}
    for key in [k for k in found if k.startswith(_PERSONAL_PREFIX) or k in _PERSONAL_KEYS]:
        value = found.pop(key)
        if not isinstance(value, str):
            raise InadmissibleError(f"attribute {attributes.short(key)} must be a string")
        name = key.removeprefix(_PERSONAL_PREFIX)
        if name.startswith("audit."):
            # What a pseudonym stands for is kept there.
            raise InadmissibleError(f"the key {attributes.short(key)} is reserved")
        if name in personal:
            raise InadmissibleError(f"the personal key {attributes.short(name)} is given twice")
        personal[name] = value
    return personal


def _check_reserved(found: Iterable[str], action: str) -> None:
    for key in found:
        if not key.startswith("audit."):
            continue
        if key not in PUBLISHED_AUDIT_KEYS:
            raise InadmissibleError(
                f"the key {attributes.short(key)} is reserved and not on the published list"
            )
        if key in PRODUCER_KEYS and action not in _PRODUCER_ACTIONS:
            raise InadmissibleError(f"the key {attributes.short(key)} belongs to a producer's own events")


def _add(pairs: dict[str, _T], more: Mapping[str, _T]) -> None:
    """Add pairs whose keys must be new."""
    if twice := pairs.keys() & more.keys():
        raise InadmissibleError(f"the key {attributes.short(min(twice))} is given twice")
    pairs.update(more)


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


def _bind(columns: dict[str, str], tenant: str) -> None:
    if columns["tenant"] not in ("", tenant):
        raise InadmissibleError(
            f"the record names another tenant than {tenant!r}, to which its token is bound"
        )
    columns["tenant"] = tenant


def _check_and_default(columns: dict[str, str]) -> None:
    columns["tenant"] = columns["tenant"] or "default"
    if columns["tenant"] == _COLLECTOR_TENANT:
        raise InadmissibleError("the tenant _collector is the collector's own")
    columns["actor_type"] = columns["actor_type"] or ("user" if columns["actor_id"] else "anonymous")
    # A source that says nothing of the outcome leaves it unknown; anything else would be a guess.
    columns["outcome"] = columns["outcome"] or "unknown"
    if columns["failure_reason"] and columns["outcome"] == "success":
        raise InadmissibleError("audit.failure.reason with the outcome success")


def _event_time(log: Any, own: dict[str, Value]) -> tuple[int, bool]:
    if max(log.time_unix_nano, log.observed_time_unix_nano) >= _MAX_TIME:
        raise InadmissibleError("a time of 2^63 ns or more")
    if log.time_unix_nano:
        return int(log.time_unix_nano), False
    if log.observed_time_unix_nano:
        own["audit.event_time"] = "observed"
        return int(log.observed_time_unix_nano), False
    own["audit.event_time"] = "collector"
    return 0, True


def _hex_id(raw: bytes, width: int, what: str) -> str:
    if not raw or not any(raw):
        return ""
    if len(raw) != width:
        raise InadmissibleError(f"{what} has {len(raw)} bytes instead of {width}")
    return raw.hex()


def _log_fields(log: Any) -> dict[str, Value]:
    """Return what else a LogRecord says, where it says it."""
    fields: dict[str, Value] = {}
    if log.HasField("body") and log.body.WhichOneof("value"):
        fields["log.body"] = attributes.any_value(log.body, "body")
    for key, number in (
        ("log.severity_number", log.severity_number),
        ("log.flags", log.flags),
        ("log.dropped_attributes_count", log.dropped_attributes_count),
        ("log.observed_time_unix_nano", log.observed_time_unix_nano if log.time_unix_nano else 0),
    ):
        if number:
            fields[key] = int(number)
    if log.severity_text:
        fields["log.severity_text"] = attributes.text(log.severity_text, "severity_text")
    return fields
