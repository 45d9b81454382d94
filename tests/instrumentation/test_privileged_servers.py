"""Approvals between the workers of real servers: used once, and used up where a worker is killed."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from tests.instrumentation.conftest import spool_rows
from tests.instrumentation.fake_receiver import FakeReceiver, Received, receiving
from tests.instrumentation.live import Server, gunicorn
from tests.instrumentation.privileged_clinic import SEED

SOURCE = Path(__file__).with_name("privileged_app.py")


class Visitor:
    """A signed-in client over sockets."""

    def __init__(self, server: Server, name: str) -> None:
        self._port = server.port
        self._cookie = ""
        status, _, _ = self.ask("POST", f"/login/{name}?mfa")
        assert status == 200

    def ask(self, method: str, path: str, data: object = None) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        headers = {"Cookie": self._cookie, "Accept": "application/json"}
        body = None
        if data is not None:
            headers["Content-Type"], body = "application/json", json.dumps(data)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        for name, morsel in SimpleCookie(answer.getheader("Set-Cookie", "")).items():
            self._cookie = f"{name}={morsel.value}"
        content = json.loads(text) if answer.getheader("Content-Type") == "application/json" else text
        return answer.status, dict(answer.getheaders()), content

    def approve(self, url: str) -> None:
        status, _, content = self.ask("GET", url)
        assert status == 200, content
        status, _, content = self.ask("POST", f"{url}/approve", {"approvals_token": content["token"]})
        assert status == 200, content
        assert content["approval"]["state"] == "granted"

    def state(self, url: str) -> object:
        status, _, content = self.ask("GET", url)
        assert status == 200, content
        return content["approval"]["state"]

    def request(self, path: str) -> str:
        """Ask for an approval; returns where it is."""
        status, headers, content = self.ask("DELETE", path)
        assert (status, content["error"]) == (403, "approval_required")
        return headers["Location"]


@pytest.fixture
def receiver() -> Iterator[FakeReceiver]:
    with receiving() as fake:
        yield fake


@pytest.fixture
def server(tmp_path: Path, receiver: FakeReceiver) -> Iterator[Server]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(SEED)
    server = Server(
        tmp_path / "served",
        gunicorn("--threads", "4"),
        endpoint=receiver.url,
        source=SOURCE,
        env={
            "SPANSEAL_RULES": str(rules),
            "DONE_FILE": str(tmp_path / "done"),
            "PYTHONPATH": str(SOURCE.parents[2]),
        },
    )
    with server:
        yield server


def done(server: Server) -> list[str]:
    path = server.source.parent.with_name("done")
    return path.read_text().splitlines() if path.exists() else []


def of_request(records: list[Received], request_id: str) -> list[Received]:
    # What a killed worker has sent may be sent again by who takes its spool over.
    once = {record.id: record for record in records}
    return [one for one in once.values() if one.attributes.get("audit.request.id") == request_id]


def test_one_approval_is_used_by_exactly_one_of_many(server: Server, receiver: FakeReceiver) -> None:
    ann, ben = Visitor(server, "ann"), Visitor(server, "ben")
    workers: set[str] = set()
    used: list[str] = []
    for number in range(4):
        ben.approve(ann.request(f"/users/{number}"))
        answers: list[tuple[int, dict[str, str], Any]] = []
        ready = threading.Barrier(8)

        def visit(path: str, answers: list[Any], ready: threading.Barrier) -> None:
            ready.wait(20)
            answers.append(ann.ask("DELETE", path))

        threads = [
            threading.Thread(target=visit, args=(f"/users/{number}", answers, ready)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(status for status, _, _ in answers) == [200, *[403] * 7]
        assert len({content["approval"]["id"] for status, _, content in answers if status == 403}) == 1
        workers |= {headers["X-Worker"] for _, headers, _ in answers}
        used += [headers["X-Request-Id"] for status, headers, _ in answers if status == 200]
    assert len(workers) == 2
    assert done(server) == [f"DELETE {number}" for number in range(4)]
    server.stop()
    # Sent, or in the spools for the next start.
    known = [
        *((record.action, record.attributes) for record in receiver.taken),
        *((row.action, row.attributes) for row in spool_rows(server.spool)),
    ]
    uses = {found["audit.record.id"]: found for action, found in known if action == "approval.used"}.values()
    assert sorted(found["audit.request.id"] for found in uses) == sorted(used)
    assert len({found["audit.target.id"] for found in uses}) == 4


def test_a_worker_that_is_killed_in_the_view_leaves_the_approval_used_and_a_record_of_it(
    server: Server, receiver: FakeReceiver
) -> None:
    ann, ben = Visitor(server, "ann"), Visitor(server, "ben")
    url = ann.request("/users/die")
    ben.approve(url)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ann.ask("DELETE", "/users/die")
    assert done(server) == ["died"]
    assert ben.state(url) == "used"
    ann.request("/users/die")
    assert done(server) == ["died"]
    use, *_ = receiver.wait_for("approval.used")
    request_id = use.attributes["audit.request.id"]
    receiver.wait(lambda one: len(of_request(one.taken, request_id)) == 2)
    (attempt,) = [
        record for record in of_request(receiver.taken, request_id) if record.action != "approval.used"
    ]
    assert (attempt.action, attempt.attributes["audit.outcome"]) == ("user.deleted", "unknown")
    assert attempt.attributes["audit.actor.id"] == "ann"


def test_a_worker_that_is_killed_between_record_and_store_has_changed_nothing(
    server: Server, receiver: FakeReceiver
) -> None:
    ann, ben = Visitor(server, "ann"), Visitor(server, "ben")
    url = ann.request("/users/7")
    flag = server.source.parent.with_name("die")
    flag.touch()
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ben.approve(url)
    assert not flag.exists()
    assert ben.state(url) == "pending"
    ben.approve(url)
    flag.touch()
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ann.ask("DELETE", "/users/7")
    assert done(server) == []
    assert ann.ask("DELETE", "/users/7")[0] == 200
    assert done(server) == ["DELETE 7"]
    receiver.wait_for("approval.used", 2)
    receiver.wait_for("approval.granted", 2)
