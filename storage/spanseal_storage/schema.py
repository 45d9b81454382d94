"""The tables and views of the database `audit`, written once.

`COLUMNS` is the single list of the columns of `records`: the DDL, the writer, the SQL of the hash and the
reader of rows are all made from it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "COLUMNS",
    "COLUMN_NAMES",
    "DATABASE",
    "DURABILITY_SETTINGS",
    "Column",
    "checkpoints_view",
    "events_view",
    "quarantine_table",
    "records_table",
]

DATABASE = "audit"

_TEXT = "String"
_WORD = "LowCardinality(String)"
_TIME = "DateTime64(9, 'UTC')"
_COUNTER = "CODEC(Delta, ZSTD(1))"
_PACKED = "CODEC(ZSTD(1))"
# What says the same in row after row packs as well this way, and verification, which reads every column, unpacks it
# several times as fast.
_REPEATING = "CODEC(LZ4)"
_RANDOM = "CODEC(NONE)"  # hashes do not compress: trying costs time on every merge


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `records`."""

    name: str
    type: str
    """The ClickHouse type."""
    codec: str
    comment: str


COLUMNS: tuple[Column, ...] = (
    Column("chain_id", "UUID", _PACKED, "the chain: one per collector start"),
    Column("seq", "UInt64", _COUNTER, "position in the chain, from 0"),
    Column("tenant_seq", "UInt64", _COUNTER, "position among the tenant's records of the chain, from 0"),
    Column("received_at", _TIME, _COUNTER, "the collector's clock, one value per insert"),
    Column("event_time", _TIME, _COUNTER, "the source's clock"),
    Column("producer_seq", "UInt64", _COUNTER, "counter of the stream producer_id"),
    Column("record_id", "UUID", _RANDOM, "made at the source; idempotency key within the tenant"),
    Column("tenant", _WORD, _REPEATING, "isolation unit"),
    Column("producer_id", _TEXT, _REPEATING, "the stream, empty where there is no counter"),
    Column("service", _WORD, _REPEATING, "service.name"),
    Column("actor_type", _WORD, _REPEATING, "user, service, system or anonymous"),
    Column("actor_id", _TEXT, _PACKED, "who"),
    Column("actor_role", _WORD, _REPEATING, "the role at the time of the action"),
    Column("session_id", _TEXT, _REPEATING, "session"),
    Column("action", _WORD, _REPEATING, "<resource>.<verb>"),
    Column("outcome", _WORD, _REPEATING, "success, failure or unknown"),
    Column("failure_reason", _WORD, _REPEATING, "empty unless the outcome is not success"),
    Column("resource_type", _WORD, _REPEATING, "to what kind of thing"),
    Column("resource_id", _TEXT, _PACKED, "to which one"),
    Column("request_id", _TEXT, _PACKED, "one for all records of a request"),
    Column("trace_id", _TEXT, _PACKED, "lower-case hex or empty"),
    Column("span_id", _TEXT, _PACKED, "lower-case hex or empty"),
    Column("actor_email", _TEXT, _REPEATING, "personal data"),
    Column("actor_ip", _TEXT, _REPEATING, "personal data"),
    Column("personal", "Map(LowCardinality(String), String)", _REPEATING, "further personal data"),
    Column("metadata", "Map(LowCardinality(String), String)", _REPEATING, "everything else"),
    Column("metadata_types", _TEXT, _REPEATING, "one letter per pair of metadata, in key order"),
    Column("personal_salt", _TEXT, _PACKED, "16 random bytes, empty where there is no personal data"),
    Column(
        "personal_commitment", "FixedString(32)", _PACKED, "SHA-256 over salt and personal data, or zeros"
    ),
    Column("format", _WORD, _REPEATING, "how the record is hashed"),
    Column("prev_hash", "FixedString(32)", _RANDOM, "hash of the record before it in its chain"),
    Column("hash", "FixedString(32)", _RANDOM, "SHA-256(canonical record, prev_hash)"),
    Column("checkpoint", _TEXT, _PACKED, "signed note, on the last record of each insert"),
)
COLUMN_NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)

DURABILITY_SETTINGS = (
    # Without the two *_to_fsync_after_merge a merge syncs nothing and its synced source parts are soon
    # removed: a power cut a minute later would lose acknowledged records.
    "fsync_after_insert = 1, fsync_part_directory = 1, "
    "min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1, "
    "old_parts_lifetime = 480, non_replicated_deduplication_window = 1000"
)

_INDEXES = (
    "INDEX by_tenant tenant TYPE set(64) GRANULARITY 1",
    "INDEX by_actor actor_id TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX by_resource_type resource_type TYPE set(64) GRANULARITY 1",
    "INDEX by_resource_id resource_id TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX by_action action TYPE set(64) GRANULARITY 1",
    "INDEX by_request request_id TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX by_record record_id TYPE bloom_filter(0.001) GRANULARITY 1",
    "INDEX by_producer producer_id TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX by_event_time event_time TYPE minmax GRANULARITY 1",
)


def records_table() -> str:
    """DDL of `records`, the append-only table of all records."""
    columns = [
        f"`{c.name}` {c.type} {c.codec} COMMENT '{c.comment.replace(chr(39), chr(39) * 2)}'" for c in COLUMNS
    ]
    body = ",\n    ".join((*columns, *_INDEXES))
    return (
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.records (\n    {body}\n) "
        "ENGINE = MergeTree PARTITION BY toYYYYMM(received_at) ORDER BY (chain_id, seq) "
        f"SETTINGS index_granularity = 1024, {DURABILITY_SETTINGS}"
    )


def quarantine_table() -> str:
    """DDL of `quarantine`: what was sent but could not be admitted, raw, with its reason."""
    return f"""CREATE TABLE IF NOT EXISTS {DATABASE}.quarantine (
    `quarantine_id` UUID,
    `received_at` {_TIME} {_COUNTER},
    `reason` {_TEXT} {_PACKED},
    `producer_id` {_TEXT} {_PACKED},
    `producer_seq` UInt64 {_PACKED},
    `salt` FixedString(16),
    `raw` {_TEXT} {_PACKED},
    `digest` FixedString(32)
) ENGINE = MergeTree PARTITION BY toYYYYMM(received_at) ORDER BY (received_at, quarantine_id)
SETTINGS {DURABILITY_SETTINGS}"""


_HIDDEN_IN_EVENTS = {
    "metadata_types",
    "personal_salt",
    "personal_commitment",
    "format",
    "prev_hash",
    "hash",
    "checkpoint",
}


def events_view() -> str:
    """DDL of `events`, the view people query: hashes in hex, no salts."""
    shown = ", ".join(name for name in COLUMN_NAMES if name not in _HIDDEN_IN_EVENTS)
    return (
        f"CREATE OR REPLACE VIEW {DATABASE}.events AS SELECT {shown}, lower(hex(hash)) AS hash "  # noqa: S608
        f"FROM {DATABASE}.records"
    )


def checkpoints_view() -> str:
    """DDL of `checkpoints`: every signed checkpoint, which is a column of the last record it covers."""
    return (
        f"CREATE OR REPLACE VIEW {DATABASE}.checkpoints AS "  # noqa: S608 - constants
        f"SELECT chain_id, seq + 1 AS size, received_at, checkpoint AS note "
        f"FROM {DATABASE}.records WHERE checkpoint != ''"
    )
