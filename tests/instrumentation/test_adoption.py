"""What dead processes leave is sent once, by those who live."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import spanseal
from spanseal import settings
from spanseal.delivery.adoption import Adopted, Adopter, close
from spanseal.delivery.locks import FileLock
from spanseal.delivery.spool import Spool
from spanseal.delivery.spool_file import Access
from tests.instrumentation.conftest import Audit, until
from tests.instrumentation.fake_receiver import Received, Recorder, Reply
from tests.instrumentation.test_spool import body

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(state: str) -> Iterator[subprocess.Popen[str]]:
    """A process in a state; killed in the end, if it still lives. It sends nothing: its proxy is not there."""
    environ = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    command = [sys.executable, "-m", "tests.instrumentation.dying", state]
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline().strip().isdigit()
            yield child
        finally:
            child.kill()


def die(state: str) -> None:
    with process(state) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()


def unavailable(_records: list[Received]) -> Reply:
    return Reply(503)


def adopter(audit: Audit) -> Adopter:
    found = settings.load()
    return Adopter(found, Access(), audit.directory / "own.lock")


def check_streams(receiver: Recorder, *, again: bool = False) -> dict[str, list[Received]]:
    """Every record once, and every stream's numbers from 0 without gaps, but for those that a gap names."""
    once = {record.id: record for record in receiver.taken}
    assert again or len(once) == len(receiver.taken)
    assert all(once[record.id] == record for record in receiver.taken)
    streams: dict[str, list[Received]] = defaultdict(list)
    missing: dict[str, set[int]] = defaultdict(set)
    for record in once.values():
        streams[record.stream].append(record)
        if "audit.producer.gap.first" in record.attributes:
            first = record.attributes["audit.producer.gap.first"]
            last = record.attributes["audit.producer.gap.last"]
            missing[record.attributes["audit.producer.gap.stream_id"]] |= set(range(first, last + 1))
    for name, records in streams.items():
        numbers = sorted({record.number for record in records} | missing[name])
        assert numbers == list(range(len(numbers)))
        assert len(records) + len(missing[name]) == len(numbers)
        assert min(records, key=lambda record: record.number).action == "producer.started"
    return streams


def by_target(receiver: Recorder) -> dict[str, Received]:
    return {
        record.attributes["audit.target.id"]: record
        for record in receiver.taken
        if record.action == "patient.updated"
    }


@pytest.mark.parametrize(
    ("state", "outcome", "streams"),
    [("open", "unknown", 3), ("answered", "success", 3), ("final", "success", 3), ("stopped", "success", 2)],
)
def test_what_a_killed_process_leaves_is_sent_once_under_numbers_without_gaps(
    audit: Audit, state: str, outcome: str, streams: int
) -> None:
    die(state)
    assert audit.receiver.taken == []
    spanseal.record("test.begun")
    audit.receiver.wait_for("patient.updated", 2)
    everything = audit.everything()
    found = check_streams(audit.receiver)
    assert len(found) == streams
    records = by_target(audit.receiver)
    assert records["first"].attributes["audit.outcome"] == "success"
    last = records["stop" if state == "open" else "second"]
    assert last.attributes["audit.outcome"] == outcome
    # A new stream in the dead file names the one that stays open; a later one of ours names both.
    stopped = [record.stream for record in everything if record.action == "producer.stopped"]
    assert len(stopped) == 2
    assert {path.suffix for path in audit.directory.iterdir()} <= {".flock", ".json"}


def test_an_adopter_that_dies_after_closing_out_leaves_it_to_the_next(audit: Audit) -> None:
    die("open")
    before = audit.rows()
    assert [row.state for row in before if row.action == "patient.updated"].count("open") == 1
    die("adopting")
    after = audit.rows()
    assert {row.state for row in after} == {"final"}
    die("adopting")
    assert audit.rows() == after
    spanseal.record("test.begun")
    audit.receiver.wait_for("patient.updated", 2)
    audit.everything()
    assert len(check_streams(audit.receiver)) == 3


def test_what_a_dead_process_could_not_store_is_named(audit: Audit) -> None:
    die("dropping")
    spanseal.record("test.begun")
    (gap,) = audit.receiver.wait_for("producer.gap")
    assert gap.attributes["audit.producer.gap.count"] == 3
    audit.everything()
    check_streams(audit.receiver)


def test_the_adopted_keep_their_resource_and_tenant(audit: Audit) -> None:
    audit.set(OTEL_SERVICE_NAME="pharmacy", SPANSEAL_TENANT="ward-3")
    die("open")
    audit.set(OTEL_SERVICE_NAME="clinic", SPANSEAL_TENANT="ward-4")
    spanseal.record("test.begun")
    audit.receiver.wait_for("patient.updated", 2)
    audit.everything()
    for record in audit.receiver.taken:
        dead = record.resource["service.name"] == "pharmacy"
        assert record.attributes["audit.tenant"] == ("ward-3" if dead else "ward-4")
        assert dead or record.action.startswith(("producer.", "test."))


def test_the_living_are_left_alone(audit: Audit) -> None:
    with process("open") as child:
        assert adopter(audit).look() == []
        assert [row.state for row in audit.own_rows()].count("open") == 1
        child.kill()
        child.wait()
        (found,) = adopter(audit).look()
        assert adopter(audit).look() == []  # it is held now
        adopter(audit).leave(found)


def die_here(audit: Audit, **variables: str) -> Spool:
    """Make a spool with a record, and let it go as the kernel does when a process dies."""
    one = Spool(
        settings.load({"SPANSEAL_SPOOL_DIR": str(audit.directory), **_export(audit), **variables}),
        b"",
        Access(),
    )
    one.begin(body(str(uuid.uuid4())))
    one.file.close()
    one.lock.release()
    return one


def _export(audit: Audit) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": audit.receiver.url}


def test_two_adopters_at_once_take_each_file_once(audit: Audit) -> None:
    dead = [die_here(audit) for _ in range(12)]
    found: list[Adopted] = []
    both = threading.Barrier(2)

    def look() -> None:
        one = adopter(audit)
        both.wait(20)
        for _ in range(3):
            found.extend(one.look(5))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(adopted.file.path for adopted in found) == sorted(one.file.path for one in dead)
    for adopted in found:
        assert adopted.file.count() == 4
        adopter(audit).leave(adopted)


def test_no_more_files_are_held_than_can_be_sent(audit: Audit) -> None:
    for _ in range(20):
        die_here(audit)
    audit.receiver.answer = unavailable
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.01")
    spanseal.record("test.begun")
    audit.receiver.wait(lambda receiver: len(receiver.requests) >= 2)
    shipper = audit.runtime.keeper.shipper
    assert shipper is not None
    assert len(shipper._adopted) == 16
    audit.receiver.answer = lambda _records: Reply()
    shipper._not_before = 0.0
    audit.receiver.wait_for("test.done", 20)
    audit.everything()
    check_streams(audit.receiver)


def test_a_file_of_another_destination_waits_for_its_own(audit: Audit, log: pytest.LogCaptureFixture) -> None:
    one = die_here(audit, OTEL_EXPORTER_OTLP_ENDPOINT="http://elsewhere:4318")
    looking = adopter(audit)
    for _ in range(3):
        assert looking.look() == []
    assert log.text.count("waits for a process that sends where it did") == 1
    assert [row.state for row in audit.own_rows()] == ["open"]
    found = settings.load(
        {"SPANSEAL_SPOOL_DIR": str(audit.directory), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere:4318"}
    )
    (adopted,) = Adopter(found, Access(), audit.directory / "own.lock").look()
    assert adopted.file.path == one.file.path
    looking.leave(adopted)


# --- damage -----------------------------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    path.write_bytes(b"\x55" * path.stat().st_size)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def break_pages(path: Path) -> None:
    """Leave the header and the schema, and damage everything else."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\x55" * (len(content) - 4096))


def other_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE something (else_)")


def without(key: str) -> Callable[[Path], None]:
    def remove(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
            connection.commit()

    return remove


def wrong_number(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE stream SET next = 'many'")
        connection.commit()


@pytest.mark.parametrize(
    "damage",
    [overwrite, empty, break_pages, other_database, Path.unlink, without("resource"), wrong_number],
    ids=["overwritten", "emptied", "pages", "another", "gone", "resource", "number"],
)
def test_a_damaged_file_is_put_aside_and_named_and_the_others_go_on(
    audit: Audit, log: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    one, other = die_here(audit), die_here(audit)
    damage(one.file.path)
    left = one.file.path.read_bytes() if one.file.path.exists() else None
    spanseal.record("test.begun")
    (gap,) = audit.receiver.wait_for("producer.gap")
    assert gap.attributes["audit.producer.gap.reason"] == f"spool_damaged: {one.file.path.stem}"
    audit.receiver.wait_for("test.done")
    audit.everything()
    aside = one.file.path.with_suffix(".damaged")
    assert left is None or aside.stat().st_size == len(left)
    assert not one.lock.path.exists()
    assert not other.file.path.exists()
    assert log.text.count("is damaged and kept as it is") == 1


def test_damage_that_is_found_late_does_not_hold_up_the_rest(audit: Audit) -> None:
    """In the pages that only long bodies use: the file can be opened and closed out, but not read to its end."""
    one = die_here(audit)
    taken = FileLock.take(one.lock.path)
    assert taken is not None
    with closing(sqlite3.connect(one.file.path)) as connection:
        for number in range(1, 21):
            connection.execute(
                "INSERT INTO record (state, stream_id, seq, body) VALUES (2, ?, ?, ?)",
                (one.stream, number, body(str(number), 20_000)),
            )
        connection.execute("UPDATE stream SET next = 21")
        connection.commit()
    taken.release()
    content = one.file.path.read_bytes()
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    whole = b"".join(b"\x55" * 4 + page[4:] if page[4:] == b"x" * 4092 else page for page in pages)
    assert whole != content
    one.file.path.write_bytes(whole)
    (adopted,) = adopter(audit).look()  # nothing is seen of it yet
    adopter(audit).leave(adopted)
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.02")
    spanseal.record("test.begun")
    (gap,) = audit.receiver.wait_for("producer.gap")
    assert one.file.path.stem in gap.attributes["audit.producer.gap.reason"]
    audit.receiver.wait_for("test.begun")
    assert one.file.path.with_suffix(".damaged").exists()
    assert not one.lock.path.exists()


def test_a_file_that_its_process_had_no_time_to_use_is_removed_in_silence(
    audit: Audit, log: pytest.LogCaptureFixture
) -> None:
    audit.directory.mkdir()
    for name in ("lock alone", "empty"):
        lock = FileLock.create(audit.directory / f"{name}.lock")
        lock.release()
    (audit.directory / "empty.db").touch()
    # What SQLite writes before it has changed to its WAL.
    (audit.directory / "empty.db-journal").write_bytes(bytes(512))
    assert adopter(audit).look() == []
    assert list(audit.directory.iterdir()) == []
    assert log.text == ""


def test_a_file_of_another_format_is_left_and_told(audit: Audit, log: pytest.LogCaptureFixture) -> None:
    one = die_here(audit)
    with closing(sqlite3.connect(one.file.path)) as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
        connection.commit()
    looking = adopter(audit)
    for _ in range(3):
        assert looking.look() == []
    assert log.text.count("has format '2', this program knows '1'") == 1
    assert one.file.path.exists()
    assert one.lock.path.exists()


@pytest.mark.parametrize("error", ["unable to open database file", "disk I/O error", "database is locked"])
def test_trouble_that_may_pass_is_no_damage(
    audit: Audit, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """Too many open files, a full disk, a lock: the file is good, and is looked at again."""
    one = die_here(audit)
    looking = adopter(audit)
    with monkeypatch.context() as broken:

        def fail(*_arguments: object, **_named: object) -> Any:
            raise sqlite3.OperationalError(error)

        broken.setattr(sqlite3, "connect", fail)
        for _ in range(3):
            assert looking.look() == []
    assert log.text.count(error) == 1
    assert looking.damaged == []
    (adopted,) = looking.look()
    assert adopted.file.path == one.file.path
    looking.leave(adopted)


def test_a_file_that_is_sent_but_cannot_be_put_away_is_put_away_later(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = die_here(audit)
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.02")
    failed = threading.Event()
    done = Adopter.done

    def fail_once(self: Adopter, adopted: Adopted) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError("no space left")
        done(self, adopted)

    monkeypatch.setattr(Adopter, "done", fail_once)
    spanseal.record("test.begun")
    audit.receiver.wait_for("test.done")
    audit.receiver.wait_for("test.begun")
    until(lambda: not one.file.path.exists())
    audit.everything()
    check_streams(audit.receiver)


def test_a_death_while_a_file_is_removed_is_no_loss(
    audit: Audit, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = die_here(audit)
    (adopted,) = adopter(audit).look()
    adopted.file.delete([row.id for row in adopted.file.final(10, 1 << 20)])
    with monkeypatch.context() as dying:

        def die_now(path: Path) -> None:
            path.unlink()
            raise KeyboardInterrupt

        dying.setattr("spanseal.delivery.adoption.remove", die_now)
        with pytest.raises(KeyboardInterrupt):
            close(adopted.file, adopted.lock)
    adopted.lock.release()
    looking = adopter(audit)
    assert looking.look() == []
    assert looking.damaged == []
    assert log.text == ""
    assert not one.lock.path.exists()


def test_records_set_aside_outlive_their_file(audit: Audit) -> None:
    one = die_here(audit)
    (adopted,) = adopter(audit).look()
    rows = adopted.file.final(10, 1 << 20)
    adopted.file.set_aside(rows[1], "refused")
    adopted.file.delete([row.id for row in rows])
    close(adopted.file, adopted.lock)
    aside = one.file.path.with_suffix(".aside")
    with closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("SELECT seq, reason FROM aside").fetchall() == [(rows[1].seq, "refused")]
    assert {path.suffix for path in audit.directory.iterdir()} <= {".aside", ".flock", ".json"}
    shutil.rmtree(audit.directory)
