"""A disk without room, and a spool that has reached its bound."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import flask
import pytest
from flask.testing import FlaskClient

from tests.instrumentation.conftest import Audit, spool_rows, until
from tests.instrumentation.fake_receiver import Received, Reply
from tests.instrumentation.test_adoption import check_streams

MEBIBYTE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={16 * MEBIBYTE}", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"a small file system cannot be mounted here: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(filler: Path, left: int) -> None:
    """Take all of a disk but some bytes."""
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - left)


class Patients:
    """Makes requests, and counts what was done."""

    def __init__(self, app: flask.Flask) -> None:
        self.done = 0
        self.asked = 0
        self.client: FlaskClient = app.test_client()
        app.add_url_rule("/patients/<pid>", view_func=self.change, methods=["POST"])

    def change(self, pid: str) -> str:
        self.done += 1
        return pid

    def ask(self) -> int:
        self.asked += 1
        return self.client.post(f"/patients/{self.asked}-{'x' * 1500}").status_code

    def ask_until(self, condition: Callable[[], bool], most: int = 5000) -> None:
        for _ in range(most):
            self.ask()
            if condition():
                return
        pytest.fail(f"did not come in {most} requests")


@pytest.fixture
def patients(app: flask.Flask) -> Patients:
    return Patients(app)


def unavailable(_records: list[Received]) -> Reply:
    return Reply(503)


def take_everything(audit: Audit) -> None:
    audit.receiver.answer = lambda _records: Reply()
    shipper = audit.runtime.keeper.shipper
    assert shipper is not None
    shipper._not_before = 0.0  # the time of the next attempt has come
    shipper.wake()


def lost(audit: Audit) -> int:
    """How many records this process could not store so far."""
    spool = audit.runtime.keeper.spool
    assert spool is not None
    return spool.lock.dropped


def check_all_is_accounted_for(audit: Audit, patients: Patients) -> int:
    """Every request is either on record or in a gap; returns how many are in gaps."""
    audit.everything()
    check_streams(audit.receiver, again=True)
    recorded = {record.id for record in audit.receiver.taken if record.action == "patient.updated"}
    gaps = {record.id: record for record in audit.receiver.taken if record.action == "producer.gap"}
    lost = sum(int(gap.attributes["audit.producer.gap.count"]) for gap in gaps.values())
    assert len(recorded) + lost == patients.asked
    return lost


@pytest.mark.parametrize("left", [0, 50_000])
def test_open_goes_on_and_names_what_was_lost_when_there_is_room_again(
    audit: Audit, disk: Path, patients: Patients, log: pytest.LogCaptureFixture, left: int
) -> None:
    audit.set(SPANSEAL_SPOOL_DIR=str(disk / "spool"))
    audit.receiver.answer = unavailable
    assert patients.ask() == 200
    filler = disk / "filler"
    fill(filler, left)
    patients.ask_until(lambda: lost(audit) >= 20)
    assert patients.done == patients.asked
    assert "go on unaudited" in log.text
    assert "full" in log.text
    # Once for each thing that is wrong, not at every request.
    assert len([entry for entry in log.records if entry.levelname == "CRITICAL"]) <= 2
    (path,) = (disk / "spool").glob("*.db")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    filler.unlink()
    for _ in range(5):
        assert patients.ask() == 200
    take_everything(audit)
    audit.receiver.wait_for("producer.gap")
    assert patients.ask() == 200
    assert check_all_is_accounted_for(audit, patients) >= 20
    (last,) = [
        r
        for r in audit.receiver.taken
        if r.attributes.get("audit.target.id", "").startswith(f"{patients.asked}-")
    ]
    assert last.attributes["audit.outcome"] == "success"


@pytest.mark.parametrize("left", [0, 50_000])
def test_closed_refuses_while_there_is_no_room(
    audit: Audit, disk: Path, patients: Patients, log: pytest.LogCaptureFixture, left: int
) -> None:
    audit.set(SPANSEAL_SPOOL_DIR=str(disk / "spool"), SPANSEAL_ON_ERROR="closed")
    audit.receiver.answer = unavailable
    assert patients.ask() == 200
    filler = disk / "filler"
    fill(filler, left)
    patients.ask_until(lambda: "are refused" in log.text)
    done = patients.done
    # What one request leaves unused may do for the begin of another, but its answer is withheld then.
    answers = [patients.ask() for _ in range(20)]
    assert set(answers) == {503}
    assert patients.done - done <= 1
    filler.unlink()
    assert patients.ask() == 200
    take_everything(audit)
    check_all_is_accounted_for(audit, patients)


def test_a_spool_that_has_filled_the_disk_itself_empties_itself(
    audit: Audit, disk: Path, patients: Patients
) -> None:
    """Nobody makes room but the shipper: what it has sent must be forgotten on a disk without a free byte."""
    audit.set(SPANSEAL_SPOOL_DIR=str(disk / "spool"))
    audit.receiver.answer = unavailable
    patients.ask_until(lambda: lost(audit) >= 10)
    take_everything(audit)
    audit.receiver.wait_for("producer.gap")
    until(lambda: spool_rows(disk / "spool") == [])
    # The file is as large as before, but there is room in it.
    before = lost(audit)
    for _ in range(100):
        assert patients.ask() == 200
    assert lost(audit) == before
    assert check_all_is_accounted_for(audit, patients) == before


def test_what_a_process_left_on_a_full_disk_is_sent_by_the_next(
    audit: Audit, disk: Path, patients: Patients, log: pytest.LogCaptureFixture
) -> None:
    audit.set(SPANSEAL_SPOOL_DIR=str(disk / "spool"), SPANSEAL_SHUTDOWN_TIMEOUT="0")
    audit.receiver.answer = unavailable
    patients.ask_until(lambda: lost(audit) >= 10)
    audit.runtime.stop()
    (left,) = (disk / "spool").glob("*.db")
    log.clear()
    audit.restart()
    audit.set(SPANSEAL_SHUTDOWN_TIMEOUT="20", SPANSEAL_ADOPT_INTERVAL="0.05")
    audit.receiver.answer = lambda _records: Reply()
    assert patients.ask() == 200
    until(lambda: not left.exists())
    assert patients.ask() == 200
    assert check_all_is_accounted_for(audit, patients) >= 10
    assert "damaged" not in log.text


def test_a_spool_at_its_bound_is_full_and_empties_itself(
    audit: Audit, patients: Patients, log: pytest.LogCaptureFixture
) -> None:
    audit.set(SPANSEAL_SPOOL_MAX_BYTES=str(1 << 18))
    audit.receiver.answer = unavailable
    patients.ask_until(lambda: lost(audit) >= 10)
    assert "go on unaudited" in log.text
    size = sum(path.stat().st_size for path in audit.directory.glob("*.db"))
    assert size <= (1 << 18) * 5 // 4 + 64 * 4096
    take_everything(audit)
    audit.receiver.wait_for("producer.gap")
    until(lambda: audit.rows() == [])
    before = lost(audit)
    for _ in range(30):
        assert patients.ask() == 200
    assert check_all_is_accounted_for(audit, patients) == before
