"""A collector that is killed, that finds its disk full, that is told to stop while nothing can be stored."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from examples.demo.processes import Collector, free_port, run_spanseal
from spanseal_storage.writer import Writer
from tests.collector.conftest import Log
from tests.collector.faults import drafts, until
from tests.collector.http import PROTOBUF, post, rows, status, verdict
from tests.collector.wire import record, request

KILLS = 10
CLIENTS = 3


class Client(threading.Thread):
    """Sends numbered records without pause, and each batch again until it is acknowledged."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__()
        self.url, self.stop = url, stop
        self.stream = f"web/{uuid.uuid4()}"
        self.acknowledged: list[str] = []
        self.set_aside: list[tuple[str, str]] = []
        """Acknowledged records that cannot be admitted, by stream and number."""
        self.resent = 0
        self.odd: set[int] = set()

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            # The last one of each batch cannot be admitted.
            count = random.randint(1, 40)  # noqa: S311
            good = [self._record(number + n, "success") for n in range(count)]
            body = request(*good, self._record(number + count, "nonsense")).SerializeToString()
            while not self._sent(body):
                self.resent += 1
                time.sleep(0.01)
            self.acknowledged += [
                pair.value.string_value
                for log in good
                for pair in log.attributes
                if pair.key == "audit.record.id"
            ]
            self.set_aside.append((self.stream, str(number + count)))
            number += count + 1

    def _record(self, number: int, outcome: str) -> LogRecord:
        return record(audit__stream_id=self.stream, audit__sequence__number=number, audit__outcome=outcome)

    def _sent(self, body: bytes) -> bool:
        with contextlib.suppress(requests.RequestException):
            code = requests.post(self.url + "/v1/logs", data=body, headers=PROTOBUF, timeout=20).status_code
            if code not in (200, 503):
                self.odd.add(code)
            return code == 200
        return False


def test_killed_at_random_moments_it_keeps_all_that_it_acknowledged(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    collector = Collector(data, tmp_path / "collector.log", port=port).start()
    stop = threading.Event()
    clients = [Client(collector.url, stop) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(KILLS):
            threading.Event().wait(random.uniform(0, 0.3))  # noqa: S311 - the moment of the kill is what is drawn
            collector.kill()
            collector.start()
    finally:
        stop.set()
        for client in clients:
            client.join()
        code = collector.stop()
    assert code == 0
    assert not any(client.odd for client in clients)
    stored = [
        str(row[0]) for row in rows(data, "SELECT record_id FROM audit.events WHERE tenant = 'default'")
    ]
    acknowledged = [name for client in clients for name in client.acknowledged]
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored)), "a record was stored twice"
    assert len(acknowledged) > KILLS
    assert sum(client.resent for client in clients) > 0
    named = rows(
        data,
        "SELECT metadata['audit.quarantine.id'], metadata['audit.quarantine.producer_id'], "
        "metadata['audit.quarantine.producer_seq'] FROM audit.events WHERE action = 'audit_log.quarantined'",
    )
    assert {place for client in clients for place in client.set_aside} <= {tuple(row[1:]) for row in named}
    kept = rows(data, "SELECT toString(quarantine_id) FROM audit.quarantine")
    assert sorted(row[0] for row in kept) == sorted(row[0] for row in named)
    result = verdict(data)
    assert result["verdict"] == "clean"
    # Clients that were killed end no stream.
    assert {found["kind"] for found in result["information"]} <= {"stream_open"}
    assert result["chains"] == KILLS + 1
    assert not list((data / "tmp").iterdir())


def test_killed_between_insert_and_checkpoint_log_it_catches_up(log: Log) -> None:
    sealer, first = log.new_chain(())
    sealed = sealer.seal([*first, *drafts(record(), record())], time.time_ns())
    Writer(log.client).write(sealed)
    assert not log.directory.checkpoint_log.read_bytes()
    log.close()
    (log.directory.path / "tmp").mkdir()
    (log.directory.path / "tmp" / "left.native").write_bytes(b"rows of a killed collector")
    with Collector(log.directory.path, log.directory.path.with_suffix(".log")) as collector:
        assert not (log.directory.path / "tmp" / "left.native").exists()
        again = request(record(audit__record__id=sealed.columns["record_id"][1])).SerializeToString()
        assert post(collector.url, again).status_code == 200
    lines = [json.loads(line) for line in log.directory.checkpoint_log.read_bytes().splitlines()]
    assert lines[0] == {"t": sealed.received_at, "note": sealed.note}
    sql = "SELECT metadata['audit.chain.predecessors'] FROM audit.events WHERE seq = 0 ORDER BY received_at"
    named = [json.loads(row[0]) for row in rows(log.directory.path, sql)]
    assert [[chain["chain_id"] for chain in chains] for chains in named] == [[], [sealed.chain_id]]
    assert verdict(log.directory.path)["verdict"] == "clean"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        refused = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        refused = str(error)
    if refused:
        if os.environ.get("CI"):
            pytest.fail(f"a tmpfs cannot be mounted here, and CI must test a full disk: {refused}")
        pytest.skip(f"a tmpfs cannot be mounted here: {refused}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Disk:
    """A small disk with a ballast file on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ballast = folder, folder / "ballast"

    def fill(self, leave: int) -> None:
        found = os.statvfs(self.folder)
        with self.ballast.open("wb") as file:
            file.write(bytes(max(0, found.f_bavail * found.f_frsize - leave)))

    def free(self) -> None:
        self.ballast.unlink()


def send_until_refused(collector: Collector) -> tuple[list[str], bytes, requests.Response]:
    """Send until a request is refused; returns the acknowledged ids, the refused body and its answer."""
    acknowledged: list[str] = []
    while True:
        pad = "".join(str(uuid.uuid4()) for _ in range(30))
        batch = [record(pad=pad + str(uuid.uuid4())) for _ in range(100)]
        body = request(*batch).SerializeToString()
        try:
            answer = requests.post(collector.url + "/v1/logs", data=body, headers=PROTOBUF, timeout=2.2)
        except requests.Timeout:
            # It waits for the disk; whoever comes after it is refused at once.
            answer = post(collector.url, body)
        if answer.status_code != 200:
            return acknowledged, body, answer
        acknowledged += [log.attributes[0].value.string_value for log in batch]


def test_a_full_disk_is_an_outage_that_ends_with_nothing_lost(small_disk: Path, tmp_path: Path) -> None:
    disk = Disk(small_disk)
    data = small_disk / "data"
    collector = Collector(data, tmp_path / "collector.log").start()
    try:
        disk.fill(leave=3 << 20)
        acknowledged, body, answer = send_until_refused(collector)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert status(answer).code == 14
        disk.free()
        until(lambda: post(collector.url, body).status_code == 200)

        disk.fill(leave=0)
        more, body, answer = send_until_refused(collector)
        acknowledged += more
        assert answer.status_code == 503
        assert collector.stop() == 1
        started = run_spanseal("collector", "--data", str(data), "--port", "0", "--grpc-port", "0")
        assert started.returncode == 2, started.stderr
        assert "Traceback" not in started.stderr
        disk.free()
        collector.start()
        assert post(collector.url, body).status_code == 200
        assert collector.stop() == 0
    finally:
        collector.kill()
    stored = [
        str(row[0]) for row in rows(data, "SELECT record_id FROM audit.events WHERE tenant = 'default'")
    ]
    assert set(acknowledged) <= set(stored)
    assert len(acknowledged) >= 100
    assert len(stored) == len(set(stored))
    result = verdict(data)
    assert (result["verdict"], result["chains"]) == ("clean", 2)


def test_a_process_that_cannot_end_is_ended() -> None:
    code = "from spanseal_collector.commands import end_anyway; end_anyway(0.1); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        assert process.wait(20) == 1
    finally:
        process.kill()
        process.communicate()
