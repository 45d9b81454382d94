"""Rows of `records` read back exactly: the bytes that were hashed, not what a driver makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from spanseal_ledger.record import Record
from spanseal_ledger.verifier import StoredRow
from spanseal_storage.errors import EngineError, first_line
from spanseal_storage.raw_query import forget_failure
from spanseal_storage.schema import COLUMNS, DATABASE

__all__ = ["RecordTable", "query", "read_rows"]

_LOOK_UP = 500  # ids per statement: keeps it far below the limit on a query's size


def query(client: Any, sql: str, parameters: Mapping[str, Any] | None = None, **settings: Any) -> list[Any]:
    """Run a query; text comes as str, FixedString as bytes.

    Raises:
        EngineError: the engine refused it or did not answer.

    """
    try:
        result = client.query(
            sql,
            parameters=dict(parameters or {}),
            settings=settings or None,
            query_formats={"FixedString": "bytes"},
        )
    except (ClickHouseError, OSError) as error:
        # Or the next answer, perhaps on whether a record is stored, would begin with rows of this one.
        with suppress(ClickHouseError, OSError):
            forget_failure(client)
        raise EngineError(f"a query failed: {first_line(error)}") from error
    return list(result.result_rows)


def _expression(name: str, kind: str) -> str:
    if kind == "UUID":
        return f"toString({name})"
    if kind.startswith("DateTime64"):
        return f"toUnixTimestamp64Nano({name})"
    if kind.startswith("Map"):
        # As pairs: a dict would hide a key that somebody put in twice.
        return f"arrayZip(mapKeys({name}), mapValues({name}))"
    if kind == "String":
        # As bytes: text that is not UTF-8 can be in a tampered row.
        return f"hex({name})"
    if kind.startswith("LowCardinality"):
        return f"hex(toString({name}))"
    return name


_TEXT = frozenset(c.name for c in COLUMNS if c.type in ("String", "LowCardinality(String)"))
_MAPS = frozenset(c.name for c in COLUMNS if c.type.startswith("Map"))
_NAMES = tuple(c.name for c in COLUMNS)
_BYTES = frozenset({"personal_salt"})
_SELECT = ", ".join(_expression(c.name, c.type) for c in COLUMNS)


def read_rows(
    client: Any, where: str, parameters: Mapping[str, Any], order: str = "seq, hash"
) -> Iterator[StoredRow]:
    """Read rows of `records`.

    Args:
        client: a clickhouse-connect client.
        where: a condition with bound parameters.
        parameters: the parameters' values.
        order: columns to order by.

    Yields:
        Rows. Text that is not UTF-8 holds surrogates (PEP 383), which no admitted record does; a map with a
        key given twice has that key's copies marked, so neither can pass for what was hashed.

    Raises:
        EngineError: the engine refused the query or did not answer.

    """
    sql = f"SELECT {_SELECT} FROM {DATABASE}.records WHERE {where} ORDER BY {order}"  # noqa: S608 - own text
    for values in query(client, sql, parameters):
        yield _row(dict(zip(_NAMES, values, strict=True)))


def _row(row: dict[str, Any]) -> StoredRow:
    for name in _TEXT:
        raw = bytes.fromhex(row[name])
        row[name] = raw if name in _BYTES else raw.decode("utf-8", "surrogateescape")
    for name in _MAPS:
        row[name] = _pairs(row[name])
    own = {"hash": row.pop("hash"), "prev_hash": row.pop("prev_hash")}
    checkpoint, form = row.pop("checkpoint"), row.pop("format")
    return StoredRow(
        record=Record(**row),
        hash=bytes(own["hash"]),
        prev_hash=bytes(own["prev_hash"]),
        checkpoint=checkpoint,
        format=form,
    )


def _pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in pairs:
        name = key
        while name in found:
            name += "\x00(given twice)"
        found[name] = value
    return found


class RecordTable:
    """Look-ups in `records` by what identifies a record at its source."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def last_of_stream(self, tenant: str, producer_id: str) -> int | None:
        """Return the highest number of a stream in the table; None where the table has none of it.

        Raises:
            EngineError: the engine did not answer.

        """
        rows = query(
            self._client,
            f"SELECT count(), max(producer_seq) FROM {DATABASE}.records "  # noqa: S608 - a constant
            "WHERE producer_id = {producer:String} AND tenant = {tenant:String}",
            {"producer": producer_id, "tenant": tenant},
        )
        count, last = rows[0]
        return int(last) if count else None

    def by_record_ids(self, ids: Iterable[str]) -> dict[tuple[str, str], Record]:
        """Return the earliest stored record for each (tenant, record_id) with one of these ids.

        Raises:
            EngineError: the engine did not answer.

        """
        wanted = list(dict.fromkeys(ids))
        found: dict[tuple[str, str], Record] = {}
        for start in range(0, len(wanted), _LOOK_UP):
            for row in read_rows(
                self._client,
                "record_id IN {ids:Array(UUID)}",
                {"ids": wanted[start : start + _LOOK_UP]},
                order="received_at, seq",
            ):
                found.setdefault((row.record.tenant, row.record.record_id), row.record)
        return found
