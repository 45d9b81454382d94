r"""Export of records with every column exactly as it is stored: `spanseal events --format records`.

An independent program can recompute every hash, link, commitment, tree and signature from it. One JSON object
(RFC 8259) a line, in ASCII: every other character is a JSON escape, and a character outside of the Basic
Multilingual Plane is two of them. Chains come in the order of their first records' `received_at`, then of
`chain_id` as text; records of a chain come by `seq`. Rows that share a `seq`, which only a tampered log has,
are all there, one after the other.

Every object has these keys, always all of them, in this order:

- `chain_id`, `record_id`: JSON string, the UUID with hyphens in lower case.
- `seq`, `tenant_seq`, `producer_seq`: JSON string, the unsigned 64-bit number in decimal. (Many programs read a
  JSON number as a double, which is not exact beyond 2^53.)
- `received_at`, `event_time`: JSON string, nanoseconds since the Unix epoch as a signed 64-bit number in decimal.
- `tenant`, `producer_id`, `service`, `actor_type`, `actor_id`, `actor_role`, `session_id`, `action`, `outcome`,
  `failure_reason`, `resource_type`, `resource_id`, `request_id`, `trace_id`, `span_id`, `actor_email`,
  `actor_ip`, `metadata_types`, `format`, `checkpoint`: *text*.
- `personal`, `metadata`: JSON array of `[key, value]` pairs, both *text*, in the order in which they are stored;
  a key that somebody put in twice is there twice. (A record that a collector wrote has its keys in the order of
  their bytes, each once.)
- `personal_salt`, `personal_commitment`, `prev_hash`, `hash`: JSON string, the bytes in lower-case hexadecimal;
  empty where there is no salt.

*Text* is a JSON string with exactly the characters stored. Where the stored bytes are no well-formed UTF-8, which
no admitted record has, it is the JSON object `{"hex": "…"}` with the bytes in lower-case hexadecimal instead.

`checkpoint` is the signed note of the last record of each insert, with its line feeds as `\n`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from spanseal_storage.event_filter import EventFilter
from spanseal_storage.paging import by_chain
from spanseal_storage.schema import COLUMNS, Column

__all__ = ["export_records"]


def export_records(client: Any, wanted: EventFilter) -> Iterator[str]:
    """Yield one line of JSON for each record, without newline; one page of them is in memory at a time.

    Args:
        client: a clickhouse-connect client.
        wanted: which records.

    Raises:
        EngineError: the engine did not answer.

    """
    where, parameters = wanted.condition()
    encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
    fields = [(column.name, _encoder(column)) for column in COLUMNS]
    for page in by_chain(client, [_expression(column) for column in COLUMNS], where, parameters):
        for row in page:
            yield encode({name: make(value) for (name, make), value in zip(fields, row, strict=True)})


def _expression(column: Column) -> str:
    if column.type.startswith("DateTime64"):
        return f"toUnixTimestamp64Nano({column.name})"
    if column.type.startswith("Map"):
        # As pairs: the driver's dict would hide a key that somebody put in twice.
        return f"arrayZip(mapKeys({column.name}), mapValues({column.name}))"
    return column.name


def _encoder(column: Column) -> Callable[[Any], Any]:
    if column.name == "personal_salt" or column.type.startswith("FixedString"):
        return _hex
    if column.type.startswith("Map"):
        return _pairs
    if column.type in ("String", "LowCardinality(String)"):
        return _text
    return str  # numbers in decimal, UUIDs in lower case


def _hex(value: bytes) -> str:
    return bytes(value).hex()


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _pairs(value: list[tuple[bytes, bytes]]) -> list[list[str | dict[str, str]]]:
    return [[_text(key), _text(item)] for key, item in value]
