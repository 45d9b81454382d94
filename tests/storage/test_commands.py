"""The reading commands, on a log that nobody holds and on one that a collector is writing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.synthetic import make_log
from examples.demo.processes import Collector
from spanseal.cli import main
from spanseal_storage.schema import COLUMN_NAMES
from tests.storage.parts import key_material

RECORDS = 300
FAILED = [number for number in range(RECORDS) if number % 50 == 7]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_log(tmp_path_factory.mktemp("commands") / "data", RECORDS, batch=100).path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("running")
    data = make_log(folder / "data", RECORDS, batch=100).path
    with Collector(data, folder / "collector.txt"):
        yield data


@pytest.fixture(params=["stopped", "running"])
def data(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def spanseal(data: Path, *words: str, code: int = 0) -> Result:
    at = 2 if words[0] in ("keys", "storage") else 1
    result = CliRunner().invoke(main, [*words[:at], "--data", str(data), *words[at:]])
    assert result.exit_code == code, result.output
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_events_by_every_filter(data: Path) -> None:
    found = lines(spanseal(data, "events", "--json", "--limit", "0", "--service", "clinic"))
    assert len(found) == RECORDS
    assert found[0]["event_time"] >= found[-1]["event_time"]
    one = found[5]
    for option, value in (
        ("--actor", one["actor_id"]),
        ("--action", "patient.*"),
        ("--resource", f"{one['resource_type']}/{one['resource_id']}"),
        ("--outcome", one["outcome"]),
        ("--request-id", one["request_id"]),
        ("--since", one["event_time"]),
        ("--since", "1h"),
        ("--tenant", "default"),
    ):
        some = lines(spanseal(data, "events", "--json", "--limit", "0", option, value))
        assert one["record_id"] in {event["record_id"] for event in some}, option
    assert len(lines(spanseal(data, "events", "--json", "--outcome", "failure", "--limit", "0"))) == len(
        FAILED
    )
    assert len(lines(spanseal(data, "events", "--json"))) == 50
    assert lines(spanseal(data, "events", "--json", "--actor", "nobody")) == []
    assert lines(spanseal(data, "events", "--json", "--until", "1h")) == []


def test_the_collectors_own_records_are_shown_when_asked_for(data: Path) -> None:
    actions = {event["action"] for event in lines(spanseal(data, "events", "--json", "--limit", "0"))}
    assert actions == {"patient.viewed"}
    every = {event["action"] for event in lines(spanseal(data, "events", "--json", "--limit", "0", "--all"))}
    assert every >= {"patient.viewed", "audit_log.started", "audit_log.stopped"}
    own = {event["action"] for event in lines(spanseal(data, "events", "--json", "--action", "audit_log.*"))}
    assert own == every - actions


def test_csv_and_tables(data: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(spanseal(data, "events", "--csv", "--limit", "3").stdout)))
    assert [row["action"] for row in rows] == ["patient.viewed"] * 3
    table = spanseal(data, "events", "--limit", "3").stdout
    assert "patient.viewed" in table
    assert "user." in table  # the actor's name beside the id


def test_records_are_exported_whole(data: Path) -> None:
    found = lines(spanseal(data, "events", "--format", "records"))
    assert len(found) >= RECORDS + 2
    assert list(found[0]) == list(COLUMN_NAMES)
    chains = [row["chain_id"] for row in found]
    first = [row for row in found if row["chain_id"] == chains[0]]
    assert [int(row["seq"]) for row in first] == list(range(RECORDS + 2))
    assert all(len(row["hash"]) == 64 for row in found)
    assert [pair[0] for pair in first[1]["metadata"]] == sorted(pair[0] for pair in first[1]["metadata"])


def test_query(data: Path) -> None:
    statement = (
        "SELECT outcome, count() AS n FROM events WHERE tenant = 'default' GROUP BY outcome ORDER BY outcome"
    )
    assert lines(spanseal(data, "query", "--json", statement)) == [
        {"outcome": "failure", "n": len(FAILED)},
        {"outcome": "success", "n": RECORDS - len(FAILED)},
    ]
    for refused in (
        "DROP TABLE records",
        "SELECT file('/etc/passwd')",
        "SELECT * FROM system.processes",
        "SELEC 1",
    ):
        result = spanseal(data, "query", refused, code=2)
        assert result.stderr.startswith("Error:")
        assert len(result.stderr.splitlines()) == 1


def test_keys_are_shown_and_the_private_one_is_not(data: Path) -> None:
    shown = spanseal(data, "keys", "show").stdout + spanseal(data, "keys", "show", "--json").stdout
    private = (data / "keys" / "signing.key").read_text().strip()
    public = next((data / "keys").glob("*.vkey")).read_text().strip()
    assert public in shown
    assert private not in shown
    assert key_material(private) not in shown


def test_verify_and_status(data: Path) -> None:
    result = json.loads(spanseal(data, "verify", "--json").stdout)
    assert (result["verdict"], result["findings"]) == ("clean", [])
    assert "not checked" in spanseal(data, "verify").output
    assert "schema version" in spanseal(data, "storage", "status").output


@pytest.mark.parametrize(
    "words",
    [
        ("events", "--since", "yesterdayish"),
        ("events", "--outcome", "perhaps"),
        ("events", "--format", "records", "--limit", "3"),
        ("verify", "--key", "not-a-key"),
    ],
)
def test_bad_values_are_told_in_one_line(stopped: Path, words: tuple[str, ...]) -> None:
    result = spanseal(stopped, *words, code=2)
    assert result.stderr.startswith("Error:")
    assert len(result.stderr.splitlines()) == 1


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    for words in (("events",), ("query", "SELECT 1"), ("verify",), ("keys", "show"), ("storage", "status")):
        result = spanseal(tmp_path / "nothing", *words, code=2)
        assert "is not a Spanseal data directory" in result.stderr


def test_a_migration_needs_the_directory_for_itself(stopped: Path, running: Path) -> None:
    assert "collector" in spanseal(running, "storage", "migrate", code=2).stderr
    assert spanseal(stopped, "storage", "migrate").exit_code == 0


def test_text_of_an_attacker_does_not_reach_the_terminal(tmp_path: Path) -> None:
    from tests.collector.wire import record, request

    with Collector(tmp_path / "data", tmp_path / "collector.txt") as collector:
        import requests

        body = request(record(audit__actor__id="\x1b[2J\x07evil\u202e")).SerializeToString()
        headers = {"Content-Type": "application/x-protobuf"}
        assert (
            requests.post(f"{collector.url}/v1/logs", data=body, headers=headers, timeout=20).status_code
            == 200
        )
        shown = spanseal(tmp_path / "data", "events").stdout
    assert "evil" in shown
    assert not set("\x1b\x07\u202e") & set(shown)
