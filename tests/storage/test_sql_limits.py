"""What the SQL endpoint does with those who ask for too much, or go away: uvicorn over the real application."""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn

from benchmarks.synthetic import make_log
from spanseal_storage import sql_readers
from spanseal_storage.engine import Engine, Role, open_engine
from spanseal_storage.sql_endpoint import MAX_BODY_BYTES, make_app
from spanseal_storage.sql_formats import FORMATS

TOKEN = "right"
RECORDS = 50
# Longer than any test lasts; only its being stopped ends it.
ENDLESS = "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))"


@dataclass
class Endpoint:
    engine: Engine
    port: int
    close: Callable[[], None]

    def ask(self, statement: str, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return requests.post(
            f"http://127.0.0.1:{self.port}/", data=statement, headers=headers, timeout=60, **more
        )

    def connect(self, head: str) -> socket.socket:
        """Open a connection and send a request's head, or the beginning of one."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(head.replace("\n", "\r\n").encode())
        return connection

    def running(self) -> int:
        """How many endless statements the engine is at."""
        client = self.engine.client()
        try:
            return int(
                client.query(
                    "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64%' AND query NOT LIKE '%processes%'"
                ).result_rows[0][0]
            )
        finally:
            client.close()


@contextlib.contextmanager
def serving(engine: Engine) -> Iterator[Endpoint]:
    app = make_app(engine, authorize=lambda token: token is not None and hmac.compare_digest(token, TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Endpoint(engine, listener.getsockname()[1], app.state.close)
    finally:
        app.state.close()
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    directory = make_log(tmp_path_factory.mktemp("limits") / "data", RECORDS)
    with directory.hold("test"), open_engine(directory, Role.WRITER) as engine:
        yield engine


@pytest.fixture
def endpoint(engine: Engine) -> Iterator[Endpoint]:
    with serving(engine) as endpoint:
        yield endpoint


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def head(length: int, token: str = TOKEN) -> str:
    return f"POST / HTTP/1.1\nHost: x\nAuthorization: Bearer {token}\nContent-Length: {length}\n\n"


def test_who_has_no_token_is_told_before_a_byte_of_the_body_is_read(endpoint: Endpoint) -> None:
    with endpoint.connect(head(1 << 40, token="wrong")) as connection:
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_a_body_without_end_is_cut_off_at_the_limit(endpoint: Endpoint) -> None:
    chunked = head(0).replace("Content-Length: 0", "Transfer-Encoding: chunked")
    with endpoint.connect(chunked) as connection:
        sent = 0
        while sent <= MAX_BODY_BYTES:
            connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            sent += 0x10000
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_client_that_goes_away_takes_its_statement_with_it(endpoint: Endpoint) -> None:
    connections = [endpoint.connect(head(len(ENDLESS)) + ENDLESS) for _ in range(sql_readers._THREADS + 1)]
    until(lambda: endpoint.running() == sql_readers._THREADS)
    for connection in connections:
        connection.close()
    until(lambda: endpoint.running() == 0)
    assert endpoint.ask("SELECT 1").text == "1\n"


def test_closing_stops_what_runs_and_what_waits(engine: Engine) -> None:
    with serving(engine) as endpoint:
        answers: list[requests.Response] = []
        asking = [
            threading.Thread(target=lambda: answers.append(endpoint.ask(ENDLESS)))
            for _ in range(sql_readers._THREADS + 2)
        ]
        for one in asking:
            one.start()
        until(lambda: endpoint.running() == sql_readers._THREADS)
        endpoint.close()
        for one in asking:
            one.join()
        answers.append(endpoint.ask("SELECT 1"))
    codes = Counter(answer.headers["X-ClickHouse-Exception-Code"] for answer in answers)
    # QUERY_WAS_CANCELLED, and UNKNOWN_EXCEPTION
    assert codes.pop("394") >= sql_readers._THREADS
    assert codes.keys() == {"1002"}


def test_who_comes_when_too_many_wait_is_told_to_come_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_readers, "_MAX_WAITING", 1)
    with endpoint.connect(head(len(ENDLESS)) + ENDLESS):
        until(lambda: endpoint.running() == 1)
        refused = endpoint.ask("SELECT 1")
        assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (503, "202")
        assert refused.headers["Retry-After"] == "1"
    until(lambda: endpoint.ask("SELECT 1").status_code == 200)


def test_a_statement_that_takes_too_long_is_ended(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_readers, "LIMITS", {"max_execution_time": 1, "readonly": 1})
    with serving(engine) as endpoint:
        answer = endpoint.ask(ENDLESS)
        assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (408, "159")


def test_an_answer_that_is_too_large_is_an_error_and_not_cut(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for statement in (
        f"SELECT 1 FROM numbers({sql_readers.MAX_RESULT_ROWS + 1_000_000})",
        f"SELECT repeat(toString(number), 9) FROM numbers({sql_readers.MAX_RESULT_ROWS - 1})",
    ):
        answer = endpoint.ask(statement)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "396", answer.text[:200]
    answer = endpoint.ask("SELECT groupArray(number) FROM numbers(10000000000)")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "241", answer.text[:200]
    # The engine counts a constant once, however many rows it stands in.
    monkeypatch.setattr(sql_readers, "MAX_RESULT_BYTES", 1_000_000)
    answer = endpoint.ask("SELECT repeat('x', 100) FROM numbers(10000)")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "396", answer.text[:200]
    assert endpoint.ask("SELECT repeat('x', 100) FROM numbers(9000)").status_code == 200


def test_what_a_failed_statement_wrote_is_in_nobody_elses_answer(endpoint: Endpoint) -> None:
    for form in ("TabSeparated", "Native", "JSON"):
        failing = f"SELECT 1 FROM numbers({sql_readers.MAX_RESULT_ROWS + 1_000_000}) FORMAT {form}"
        for _ in range(sql_readers._THREADS):
            assert endpoint.ask(failing).headers["X-ClickHouse-Exception-Code"] == "396"
        for _ in range(2 * sql_readers._THREADS):
            assert endpoint.ask("SELECT 42").text == "42\n"


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_is_the_engines(endpoint: Endpoint, form: str) -> None:
    statement = "SELECT seq, action FROM events ORDER BY seq LIMIT 2"
    named = endpoint.ask(f"{statement} FORMAT {form}")
    by_default = endpoint.ask(statement, params={"default_format": form})
    assert named.status_code == by_default.status_code == 200
    assert named.headers["X-ClickHouse-Format"] == by_default.headers["X-ClickHouse-Format"] == form
    if form in ("JSON", "JSONCompact", "JSONStrings", "XML"):  # they tell how long it took
        assert len(named.content) > 200
    else:
        assert named.content == by_default.content
    assert bool(named.content) == (form != "Null")


def test_a_statement_and_its_parameters_come_in_every_way(endpoint: Endpoint) -> None:
    url = f"http://127.0.0.1:{endpoint.port}/"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    evil = "'; DROP TABLE records -- \\ \n\t\u202e"
    escaped = evil.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    statement = "SELECT {x:String} AS x FORMAT JSONEachRow"
    ways: list[Callable[[], requests.Response]] = [
        lambda: requests.get(
            url, params={"query": statement, "param_x": escaped}, headers=headers, timeout=60
        ),
        lambda: requests.post(url, params={"param_x": escaped}, data=statement, headers=headers, timeout=60),
        lambda: requests.post(
            url,
            files={"query": (None, statement), "param_x": (None, escaped)},
            headers=headers,
            timeout=60,
        ),
    ]
    for way in ways:
        answer = way()
        assert answer.status_code == 200, answer.text
        assert json.loads(answer.text) == {"x": evil}
    form = "multipart/form-data"
    for body, more in (
        (b"\xff", {}),
        (b"", {}),
        (b"SELECT 1", {"Content-Encoding": "gzip"}),
        (b"SELECT {x:String}", {}),
        (b"x", {"Content-Type": form}),
        (b"x", {"Content-Type": f"{form}; boundary=y"}),
    ):
        answer = requests.post(url, data=body, headers=headers | more, timeout=60)
        assert answer.status_code == 400, (body, more, answer.text)
    assert requests.put(url, data=b"SELECT 1", headers=headers, timeout=60).status_code == 405
    assert requests.get(url + "ping", timeout=60).text == "Ok.\n"
    assert requests.get(url + "play", headers=headers, timeout=60).status_code == 404


def test_it_writes_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    target = tmp_path / "stolen"
    for statement in (
        f"SELECT 1 INTO OUTFILE '{target}'",
        f"SELECT 1 INTO OUTFILE '{target}' FORMAT CSV",
        f"INSERT INTO FUNCTION file('{target}') SELECT 1",
    ):
        assert endpoint.ask(statement).status_code == 403
    assert not target.exists()
