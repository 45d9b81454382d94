"""The audit record and its canonical bytes (docs/format.md, "Record" and "Hash")."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from struct import Struct

from spanseal_ledger.errors import InvalidText, InvalidValue, LimitExceeded

__all__ = [
    "ACTOR_TYPES",
    "FIELDS",
    "FORMAT",
    "MAX_MAP_PAIRS",
    "MAX_RECORD_BYTES",
    "MAX_STRING_BYTES",
    "OUTCOMES",
    "ZERO32",
    "Record",
    "canonical",
    "check_limits",
    "encode_map",
    "encode_text",
    "record_hash",
]

FORMAT = "SSR1"
"""Name of this format: the first four canonical bytes, and the value of the column `format`."""

ZERO32 = bytes(32)
"""The commitment of a record without personal data, and the prev_hash of seq 0."""

MAX_STRING_BYTES = 64 * 1024
MAX_MAP_PAIRS = 1024
MAX_RECORD_BYTES = 1024 * 1024

OUTCOMES = frozenset({"success", "failure", "unknown"})
ACTOR_TYPES = frozenset({"user", "service", "system", "anonymous"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One audit record. Times are ns since the Unix epoch; UUIDs are 36 lower-case characters."""

    chain_id: str
    """The chain: one per collector start."""
    seq: int
    """Position in the chain, from 0 (u64)."""
    tenant_seq: int
    """Position among the tenant's records of this chain, from 0 (u64)."""
    received_at: int
    """The collector's clock (i64 ns)."""
    event_time: int
    """The source's clock (i64 ns)."""
    producer_seq: int
    """Counter of the stream `producer_id`, from 0 (u64); 0 where there is no stream."""
    record_id: str
    """Made at the source: the idempotency key within the tenant."""
    tenant: str
    producer_id: str
    service: str
    actor_type: str
    actor_id: str
    actor_role: str
    session_id: str
    action: str
    outcome: str
    failure_reason: str
    resource_type: str
    resource_id: str
    request_id: str
    trace_id: str
    span_id: str
    actor_email: str = ""
    """Personal data, not hashed itself: see `personal_commitment`."""
    actor_ip: str = ""
    """Personal data, likewise."""
    personal: Mapping[str, str] = field(default_factory=dict)
    """Further personal data, likewise."""
    metadata: Mapping[str, str]
    """Everything else; texts as `spanseal_ledger.metadata.typed_text` makes them."""
    metadata_types: str
    """One letter for each pair of metadata, in key order."""
    personal_salt: bytes = b""
    """16 random bytes; empty where there is no personal data, or no longer."""
    personal_commitment: bytes = ZERO32
    """32 bytes, `spanseal_ledger.personal.commitment`."""


_TEXT_FIELDS = (
    "record_id",
    "tenant",
    "producer_id",
    "service",
    "actor_type",
    "actor_id",
    "actor_role",
    "session_id",
    "action",
    "outcome",
    "failure_reason",
    "resource_type",
    "resource_id",
    "request_id",
    "trace_id",
    "span_id",
)

FIELDS: tuple[str, ...] = (
    "chain_id",
    "seq",
    "tenant_seq",
    "received_at",
    "event_time",
    "producer_seq",
    *_TEXT_FIELDS,
    "personal_commitment",
    "metadata",
    "metadata_types",
)
"""The hashed fields in canonical order."""

_u32 = Struct("<I").pack
_numbers = Struct("<QQqqQ").pack
_texts = attrgetter(*_TEXT_FIELDS)
_SHORT = 512
# Almost all strings are short: looking their length's bytes up is faster than packing them.
_LENGTH = tuple(_u32(n) for n in range(_SHORT))


def encode_text(text: str) -> bytes:
    """Return ``str(text)`` of the format: u32 byte length, then UTF-8.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate.

    """
    raw = text.encode()
    return _u32(len(raw)) + raw


def encode_map(pairs: Mapping[str, str]) -> bytes:
    """Return ``map(pairs)`` of the format: u32 count, then key and value by ascending UTF-8 bytes of the key.

    Raises:
        UnicodeEncodeError: a key or value holds a lone surrogate.

    """
    # The order of UTF-8 bytes is the order of code points, which is how str compares.
    parts = [_u32(len(pairs))]
    for key in sorted(pairs):
        parts.append(encode_text(key))
        parts.append(encode_text(pairs[key]))
    return b"".join(parts)


def canonical(record: Record) -> bytes:
    """Return the canonical bytes of a record, the first part of what is hashed.

    The input's limits are trusted: see `check_limits`.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
        struct.error: a number is out of its range.

    """
    chain_id = record.chain_id.encode()
    parts = [
        b"SSR1",
        _u32(len(chain_id)),
        chain_id,
        _numbers(record.seq, record.tenant_seq, record.received_at, record.event_time, record.producer_seq),
    ]
    append = parts.append
    for text in _texts(record):
        raw = text.encode()
        length = len(raw)
        append(_LENGTH[length] if length < _SHORT else _u32(length))
        append(raw)
    append(record.personal_commitment)
    metadata = record.metadata
    append(_u32(len(metadata)))
    for key in sorted(metadata):
        raw = key.encode()
        length = len(raw)
        append(_LENGTH[length] if length < _SHORT else _u32(length))
        append(raw)
        raw = metadata[key].encode()
        length = len(raw)
        append(_LENGTH[length] if length < _SHORT else _u32(length))
        append(raw)
    raw = record.metadata_types.encode()
    append(_u32(len(raw)))
    append(raw)
    return b"".join(parts)


def record_hash(canonical: bytes, prev_hash: bytes) -> bytes:
    """Return the hash of a record, 32 bytes: SHA-256 over its canonical bytes and the hash before it.

    Args:
        canonical: `canonical(record)`.
        prev_hash: 32 bytes, `ZERO32` for seq 0.

    """
    return hashlib.sha256(canonical + prev_hash).digest()


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII).fullmatch
_TRACE_ID = re.compile(r"(?:[0-9a-f]{32})?", re.ASCII).fullmatch
_SPAN_ID = re.compile(r"(?:[0-9a-f]{16})?", re.ASCII).fullmatch
_TYPES = re.compile(r"[sidbxakn]*", re.ASCII).fullmatch
_limit_texts = attrgetter(*_TEXT_FIELDS, "actor_email", "actor_ip")
_LIMIT_TEXT_FIELDS = (*_TEXT_FIELDS, "actor_email", "actor_ip")
_FIXED_BYTES = 4 + 40 + 40 + 4 * len(_TEXT_FIELDS) + 32 + 4


def check_limits(record: Record) -> None:
    """Check a record against the limits and the value sets of the format.

    A record that has no place in a chain yet has an empty chain_id, which is let pass.

    Raises:
        LimitExceeded: a string is over 64 KiB, a map over 1,024 pairs, the canonical record over 1 MiB.
        InvalidText: a text holds a lone surrogate.
        InvalidValue: an id, an enumerated value, a number or the types of the metadata are malformed.

    """
    _check_values(record)
    size = _FIXED_BYTES + len(record.metadata_types)
    size += _texts_length(_LIMIT_TEXT_FIELDS, _limit_texts(record))
    # The two personal texts are not part of the canonical bytes.
    size -= len(record.actor_email.encode()) + len(record.actor_ip.encode())
    size += _map_length("metadata", record.metadata)
    if record.personal:
        _map_length("personal", record.personal)
    if size > MAX_RECORD_BYTES:
        raise LimitExceeded("the canonical record", MAX_RECORD_BYTES, size)


def _check_values(record: Record) -> None:
    _check_ids(record)
    _check_numbers(record)
    if record.outcome not in OUTCOMES:
        raise InvalidValue("outcome", "must be success, failure or unknown")
    if record.actor_type not in ACTOR_TYPES:
        raise InvalidValue("actor_type", "must be user, service, system or anonymous")
    if record.failure_reason and record.outcome == "success":
        raise InvalidValue("failure_reason", "must be empty where the outcome is success")
    if not (record.tenant and record.action):
        raise InvalidValue("action" if record.tenant else "tenant", "must not be empty")
    if record.producer_seq and not record.producer_id:
        raise InvalidValue("producer_seq", "must be 0 where producer_id is empty")
    if len(record.metadata_types) != len(record.metadata) or not _TYPES(record.metadata_types):
        raise InvalidValue(
            "metadata_types", "must have one of the letters sidbxakn for each pair of metadata"
        )
    if len(record.personal_commitment) != 32:
        raise InvalidValue("personal_commitment", "must be 32 bytes")


def _check_numbers(record: Record) -> None:
    for name in ("seq", "tenant_seq", "producer_seq"):
        if not 0 <= getattr(record, name) < 1 << 64:
            raise InvalidValue(name, "is not an unsigned 64-bit number")
    for name in ("received_at", "event_time"):
        if not -(1 << 63) <= getattr(record, name) < 1 << 63:
            raise InvalidValue(name, "is not a signed 64-bit number of nanoseconds")


def _check_ids(record: Record) -> None:
    if record.chain_id and not _UUID(record.chain_id):
        raise InvalidValue("chain_id", "is not a UUID of 36 lower-case characters")
    if not _UUID(record.record_id):
        raise InvalidValue("record_id", "is not a UUID of 36 lower-case characters")
    if not _TRACE_ID(record.trace_id):
        raise InvalidValue("trace_id", "is neither empty nor 32 lower-case hex characters")
    if not _SPAN_ID(record.span_id):
        raise InvalidValue("span_id", "is neither empty nor 16 lower-case hex characters")


def _map_length(name: str, pairs: Mapping[str, str]) -> int:
    if len(pairs) > MAX_MAP_PAIRS:
        raise LimitExceeded(name, MAX_MAP_PAIRS, len(pairs))
    size = 4 + 8 * len(pairs)
    size += _texts_length([name] * len(pairs), pairs)
    return size + _texts_length([name] * len(pairs), pairs.values())


def _texts_length(names: Sequence[str], texts: Collection[str]) -> int:
    # Nearly always all of them together are within one string's limit, which one look tells.
    try:
        length = len("".join(texts).encode())
    except UnicodeEncodeError:
        length = MAX_STRING_BYTES + 1
    if length <= MAX_STRING_BYTES:
        return length
    return sum(_utf8_length(name, text) for name, text in zip(names, texts, strict=True))


def _utf8_length(name: str, text: str) -> int:
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidText(name, error.start) from None
    if length > MAX_STRING_BYTES:
        raise LimitExceeded(name, MAX_STRING_BYTES, length)
    return length
