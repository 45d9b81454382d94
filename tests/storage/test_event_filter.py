"""Filters: what they mean, and what they refuse."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.synthetic import make_log
from examples.demo.forgeries import insert_rows, owner, rows_of_chain
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.errors import BadFilterError
from spanseal_storage.event_filter import EventFilter, parse_time
from spanseal_storage.event_list import FULL_NAMES, full_rows
from spanseal_storage.rows import query

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", NOW - 30 * SECOND),
        ("15m", NOW - 900 * SECOND),
        ("2h", NOW - 7200 * SECOND),
        ("7d", NOW - 7 * 86_400 * SECOND),
        ("2w", NOW - 14 * 86_400 * SECOND),
        (" 0s ", NOW),
        ("1970-01-01", 0),
        ("1970-01-01T00:00Z", 0),
        ("1970-01-01 01:00:00+01:00", 0),
        ("1970-01-01T01:00+0100", 0),
        ("1970-01-01T00:00:01.5", 1_500_000_000),
        ("1970-01-01T00:00:00,000000001z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        (
            "2000-02-29T12:00:00-00:30",
            int(dt.datetime(2000, 2, 29, 12, 30, tzinfo=dt.UTC).timestamp()) * SECOND,
        ),
        ("2261-12-31T23:59:59.999999999", 9_214_646_399_999_999_999),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert parse_time(text, "--since", NOW) == expected


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "15", "15x", "-15m", "1.5h", "2026-13-01", "2026-02-30", "2026-01-01T25:00", "20260101",
     "2026-01-01T", "2026-01-01T12", "2026-01-01T12:00:00.", "2026-01-01T12:00:00.0000000001",
     "2026-01-01T12:00+99:99", "1899-12-31", "2262-01-01", "999999999w", "\u0661\u0665m", "\u0662026-01-01", "2026-01-01; DROP"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadFilterError, match=r"--since .*"):
        parse_time(text, "--since", NOW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actor": ""}, "--actor is empty"),
        ({"request_id": ""}, "--request-id is empty"),
        ({"resource": ""}, "--resource is empty"),
        ({"resource": "/7"}, "TYPE or TYPE/ID"),
        ({"resource": "patient/"}, "TYPE or TYPE/ID"),
        ({"outcome": "SUCCESS"}, "--outcome 'SUCCESS' is not one of success, failure, unknown"),
        ({"since": "1h", "until": "2h"}, "nothing can lie between"),
        ({"since": "2026-01-01", "until": "2026-01-01"}, "nothing can lie between"),
        ({"until": "tomorrow"}, "--until 'tomorrow' is not a time"),
        ({"tenant": "a\x00b"}, "NUL"),
        ({"service": "\udcff"}, "UTF-8"),
    ],
)
def test_bad_values_are_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(BadFilterError, match=message):
        EventFilter.read(now=NOW, everything=False, **options)


# Values that mean something to LIKE, to SQL or to the driver's own formatting, and must mean nothing here.
EVIL = (
    "a%b",
    "a_b",
    "a\\b",
    "a'b",
    "a\nb",
    "a\tb",
    "{x:String}",
    "%s",
    "\\N",
    "NULL",
    "é\u202e",
    "' OR 1 --",
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = make_log(tmp_path_factory.mktemp("filter") / "data", len(EVIL) + 2).path
    with owner(path) as (_, client):
        rows = rows_of_chain(
            client, str(query(client, "SELECT toString(any(chain_id)) FROM audit.records")[0][0])
        )
        changed = [
            replace(
                row,
                record=replace(
                    row.record,
                    chain_id="ffffffff-ffff-7fff-bfff-ffffffffffff",
                    actor_id=text,
                    action=text,
                    resource_id=text,
                    request_id=text,
                    service=text,
                    tenant=text,
                    resource_type="thing",
                    event_time=number,
                ),
            )
            for number, (row, text) in enumerate(
                zip(rows, (*EVIL, "p:pseudonym", "user.created"), strict=False), 1
            )
        ]
        pseudonym = changed[len(EVIL)]
        changed[len(EVIL)] = replace(
            pseudonym,
            record=replace(
                pseudonym.record,
                actor_email="alice@example.org",
                personal={"audit.actor.id": "al@example.org", "audit.target.id": "bob@example.org"},
            ),
        )
        insert_rows(client, changed)
    directory = DataDirectory(path)
    with directory.hold("test"), open_engine(directory, Role.READER) as engine:
        client = engine.client(readonly=1)
        yield client
        client.close()


def found(client: Any, **options: str) -> list[dict[str, Any]]:
    wanted = EventFilter.read(now=NOW, everything=False, **options)
    return [dict(zip(FULL_NAMES, row, strict=True)) for row in full_rows(client, wanted, 0)]


def test_a_value_is_a_value_and_nothing_else(client: Any) -> None:
    for text, option in itertools.product(EVIL, ("actor", "action", "request_id", "service", "tenant")):
        assert [event["actor_id"] for event in found(client, **{option: text})] == [text], (option, text)
    for text in EVIL:
        assert [event["actor_id"] for event in found(client, resource=f"thing/{text}")] == [text]


def test_a_glob_takes_only_its_own_wildcards(client: Any) -> None:
    for pattern, expected in (
        ("a%*", ["a%b"]),
        ("a_*", ["a_b"]),
        ("a\\*", ["a\\b"]),
        ("a?b", [text for text in EVIL if len(text) == 3 and text[0] == "a"]),
        ("user.*", ["user.created"]),
        ("*.created", ["user.created"]),
        ("USER.*", []),
        ("user", []),
    ):
        actions = [event["action"] for event in found(client, action=pattern, resource="thing")]
        assert sorted(actions) == sorted(expected), pattern


def test_an_address_is_found_where_it_stands(client: Any) -> None:
    for options in (
        {"actor": "alice@example.org"},
        {"actor": "al@example.org"},
        {"actor": "p:pseudonym"},
        {"resource": "thing/bob@example.org"},
    ):
        assert [event["actor_id"] for event in found(client, **options)] == ["p:pseudonym"], options
    assert found(client, actor="bob@example.org") == []


def test_since_is_included_and_until_is_not(client: Any) -> None:
    at = "1970-01-01T00:00:00.{:09}Z"
    times = [
        event["event_time"]
        for event in found(client, since=at.format(2), until=at.format(5), resource="thing")
    ]
    assert times == [at.format(4), at.format(3), at.format(2)]


def test_the_collectors_own_records_must_be_asked_for(client: Any) -> None:
    def own(**options: str) -> bool:
        return any(event["action"].startswith("audit_log.") for event in found(client, **options))

    assert not own()
    assert not own(action="*")
    assert not own(outcome="success")
    for options in ({"action": "audit_log.started"}, {"action": "audit_log.*"}, {"tenant": "_collector"}):
        assert own(**options), options
    assert own(resource="audit_log")
    wanted = EventFilter.read(now=NOW, everything=True)
    assert len(list(full_rows(client, wanted, 0))) == 2 * (len(EVIL) + 2) + 2


def test_a_combination_must_hold_altogether(client: Any) -> None:
    assert found(client, actor="a%b", action="a%b", tenant="a%b", resource="thing/a%b")
    assert not found(client, actor="a%b", action="a_b")


def test_no_text_stands_in_the_condition_itself() -> None:
    wanted = EventFilter.read(
        now=NOW, everything=False, actor="INJECTED@x", action="INJECTED*", resource="INJECTED/INJECTED@x",
        outcome="success", request_id="INJECTED", service="INJECTED", tenant="INJECTED", since="1h", until="1m",
    )  # fmt: skip
    condition, values = wanted.condition()
    assert "INJECTED" not in condition
    assert sum("INJECTED" in str(value) for value in values.values()) == 7

    assert EventFilter().condition() == ("1", {})
