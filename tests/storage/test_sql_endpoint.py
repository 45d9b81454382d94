"""ClickHouse's HTTP interface of a running collector, asked by real clients."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
import requests
from clickhouse_connect.driver.exceptions import DatabaseError

from benchmarks.synthetic import make_log
from examples.demo.processes import Collector
from spanseal_storage.directory import DataDirectory, Runtime
from spanseal_storage.sql_endpoint import MAX_BODY_BYTES

RECORDS = 200


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("endpoint")
    directory = make_log(folder / "data", RECORDS)
    with Collector(directory.path, folder / "collector.txt"):
        found = DataDirectory(directory.path).runtime()
        assert found is not None
        yield found
    assert directory.runtime() is None


def ask(runtime: Runtime, statement: str, **more: object) -> requests.Response:
    headers = {"Authorization": f"Bearer {runtime.token}"}
    url = f"http://{runtime.host}:{runtime.port}/"
    return requests.post(url, data=statement, timeout=20, **{"headers": headers, **more})  # type: ignore[arg-type]


def test_nobody_is_answered_without_the_token(runtime: Runtime) -> None:
    wrong = base64.b64encode(b"default:wrong").decode()
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {wrong}"},
        {"X-ClickHouse-Key": ""},
    ):
        answer = ask(runtime, "SELECT 1", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["X-ClickHouse-Exception-Code"] == "516"
    # Not in an address, which ends up in logs.
    assert ask(runtime, "SELECT 1", headers={}, params={"password": runtime.token}).status_code in (401, 403)


def test_it_listens_on_the_loopback_interface_and_its_file_is_the_owners(runtime: Runtime) -> None:
    assert runtime.host == "127.0.0.1"


def test_answers_and_formats(runtime: Runtime) -> None:
    right = base64.b64encode(f"default:{runtime.token}".encode()).decode()
    for headers in (
        {"Authorization": f"Bearer {runtime.token}"},
        {"Authorization": f"Basic {right}"},
        {"X-ClickHouse-Key": runtime.token},
    ):
        assert (
            ask(runtime, "SELECT count() FROM events WHERE tenant = 'default'", headers=headers).text
            == f"{RECORDS}\n"
        )
    answer = ask(runtime, "SELECT 1 AS one FORMAT JSONEachRow")
    assert (answer.text, answer.headers["X-ClickHouse-Format"]) == ('{"one":1}\n', "JSONEachRow")
    assert ask(runtime, "", params={"query": "SELECT 2"}).text == "2\n"
    assert ask(runtime, "SELECT {x:UInt8}", params={"param_x": "7"}).text == "7\n"


@pytest.mark.parametrize(
    ("statement", "status", "code"),
    [
        ("SELEC 1", 400, "62"),
        ("SELECT nothing FROM events", 404, "47"),
        ("DROP TABLE records", 403, "497"),
        ("SELECT file('/etc/passwd')", 403, "497"),
        ("SELECT 1 FORMAT Template", 403, "497"),
    ],
)
def test_errors_have_clickhouses_codes(runtime: Runtime, statement: str, status: int, code: str) -> None:
    answer = ask(runtime, statement)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code), answer.text
    assert answer.text.startswith(f"Code: {code}. DB::Exception:")


def test_settings_and_databases_are_not_the_clients(runtime: Runtime) -> None:
    assert ask(runtime, "SELECT 1", params={"allow_ddl": "1"}).status_code == 403
    assert ask(runtime, "SELECT 1", params={"database": "system"}).status_code == 404
    assert ask(runtime, "SELECT 1", params={"default_format": "Template"}).status_code == 404


def test_a_body_that_is_too_large_is_refused(runtime: Runtime) -> None:
    assert ask(runtime, "SELECT 1 --" + "x" * MAX_BODY_BYTES).status_code == 413


def test_the_real_client(runtime: Runtime) -> None:
    client = clickhouse_connect.get_client(
        host=runtime.host,
        port=runtime.port,
        username="default",
        password=runtime.token,
        database="audit",
        autogenerate_session_id=False,
    )
    try:
        rows = client.query(
            "SELECT action, count() FROM events WHERE actor_id = {actor:String} GROUP BY ALL",
            parameters={"actor": "u-3"},
        ).result_rows
        assert rows == [("patient.viewed", 1)]
        with pytest.raises(DatabaseError):
            client.command("TRUNCATE TABLE audit.records")
    finally:
        client.close()


def test_runtime_file_is_private(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    directory.publish_runtime(Runtime(1, "127.0.0.1", 1, "token"))
    assert (directory.path / "runtime.json").stat().st_mode & 0o777 == 0o600
