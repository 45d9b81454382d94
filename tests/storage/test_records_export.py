"""The export of records: every column exactly as it is stored, also of rows that no collector wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic import make_log
from examples.demo.forgeries import owner, run_sql
from spanseal_storage import records_export
from spanseal_storage.event_filter import EventFilter
from spanseal_storage.event_list import FULL_NAMES, full_rows
from spanseal_storage.rendering import json_line
from spanseal_storage.rows import query
from spanseal_storage.schema import COLUMNS, Column

RECORDS = 20
TAMPERED = 7


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = make_log(tmp_path_factory.mktemp("export") / "data", RECORDS).path
    with owner(path) as (_, client):
        run_sql(
            client,
            "ALTER TABLE audit.records UPDATE "
            "actor_id = unhex('ff00c3'), actor_role = unhex('80'), resource_id = '\"\\\\\n\u2028\U0001f600\x00', "
            "metadata = mapFromArrays(['b', 'a', 'b', unhex('fe')], ['1', '', '2', unhex('fd')]), "
            "personal = map('hex', 'ff'), personal_salt = '', producer_seq = 18446744073709551615, "
            "event_time = fromUnixTimestamp64Nano(-1, 'UTC') "
            f"WHERE seq = {TAMPERED}",
        )
        yield client


def exported(client: Any, wanted: EventFilter | None = None) -> list[dict[str, Any]]:
    lines = list(records_export.export_records(client, wanted or EventFilter()))
    assert all(line.isascii() and "\n" not in line for line in lines)
    return [json.loads(line) for line in lines]


def test_what_a_tampered_row_holds_is_there_exactly(client: Any) -> None:
    row = exported(client)[TAMPERED]
    assert row["seq"] == str(TAMPERED)
    assert row["actor_id"] == {"hex": "ff00c3"}
    assert row["actor_role"] == {"hex": "80"}
    assert row["resource_id"] == '"\\\n\u2028\U0001f600\x00'
    assert row["metadata"] == [["b", "1"], ["a", ""], ["b", "2"], [{"hex": "fe"}, {"hex": "fd"}]]
    assert row["personal"] == [["hex", "ff"]]
    assert row["personal_salt"] == ""
    assert row["producer_seq"] == "18446744073709551615"
    assert row["event_time"] == "-1"


def as_the_engine_says(column: Column) -> str:
    if column.type.startswith("Map"):
        return f"arrayMap((k, v) -> [hex(k), hex(v)], mapKeys({column.name}), mapValues({column.name}))"
    if column.type.startswith("DateTime64"):
        return f"toString(toUnixTimestamp64Nano({column.name}))"
    if "String" in column.type:
        return f"lower(hex({column.name}))"
    return f"toString({column.name})"


def in_hex(value: Any) -> str:
    return str(value["hex"]) if isinstance(value, dict) else str(value).encode().hex()


def as_exported(column: Column, value: Any) -> Any:
    if isinstance(value, list):
        return [tuple(in_hex(part).upper() for part in pair) for pair in value]
    if column.name == "personal_salt" or "String" not in column.type.replace("FixedString", ""):
        return value
    return in_hex(value)


def test_every_column_has_the_bytes_that_the_engine_has(client: Any) -> None:
    expressions = ", ".join(map(as_the_engine_says, COLUMNS))
    expected = query(client, f"SELECT {expressions} FROM audit.records ORDER BY seq")
    found = exported(client)
    assert len(found) == RECORDS + 2
    for row, values in zip(found, expected, strict=True):
        assert list(row) == [column.name for column in COLUMNS]
        for column, stored in zip(COLUMNS, values, strict=True):
            wanted = [tuple(pair) for pair in stored] if isinstance(stored, list) else stored
            assert as_exported(column, row[column.name]) == wanted, column.name


def test_filters_hold_for_the_export_too(client: Any) -> None:
    failed = exported(client, EventFilter(outcome="failure"))
    assert [row["seq"] for row in failed] == [
        str(seq)
        for (seq,) in query(client, "SELECT seq FROM audit.records WHERE outcome = 'failure' ORDER BY seq")
    ]
    assert failed


def test_the_list_shows_such_a_row_and_stays_well_formed(client: Any) -> None:
    rows = [dict(zip(FULL_NAMES, row, strict=True)) for row in full_rows(client, EventFilter(), 0)]
    (row,) = (row for row in rows if row["seq"] == TAMPERED)
    assert row["actor_id"] == "\\xff\x00\\xc3"
    assert row["metadata"] == {"b": "1", "a": "", "b (given twice)": "2", "\\xfe": "\\xfd"}
    assert row["event_time"] == "1969-12-31T23:59:59.999999999Z"
    text = json_line(list(row), list(row.values()))
    assert json.loads(text) == row
    text.encode("ascii")


def test_the_documentation_names_every_column() -> None:
    assert records_export.__doc__ is not None
    for column in COLUMNS:
        assert f"`{column.name}`" in records_export.__doc__, column.name
    document = Path(__file__).resolve().parents[2] / "docs" / "format.md"
    assert "--format records" in document.read_text("utf-8")
