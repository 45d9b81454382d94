"""`spanseal spool`: what waits, and sending it without the application."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import spanseal
from spanseal.commands import spool_report
from spanseal.commands.spool_command import spool
from spanseal.commands.spool_drain import drain
from spanseal.commands.spool_reader import reading
from spanseal.delivery.locks import FileLock
from tests.instrumentation.conftest import Audit, until
from tests.instrumentation.fake_receiver import Received, Reply
from tests.instrumentation.grpc_receiver import grpc_receiving
from tests.instrumentation.test_adoption import (
    by_target,
    check_streams,
    die,
    die_here,
    overwrite,
    process,
    unavailable,
)

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(spool, arguments, catch_exceptions=False)


def status(*arguments: str, code: int) -> dict[str, Any]:
    result = call("status", "--json", *arguments)
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def drained(*arguments: str, code: int) -> dict[str, Any]:
    result = call("drain", "--json", *arguments)
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def contents(directory: Path) -> dict[str, bytes]:
    """All files; of SQLite's index, in which a living process marks what it reads, that it is there."""
    return {
        path.name: b"" if path.name.endswith("-shm") else path.read_bytes() for path in directory.iterdir()
    }


def copy(audit: Audit, to: Path, suffixes: tuple[str, ...] = (".db", ".db-wal")) -> Path:
    """Copy the spool's files as an operator would: without what only the machine knows."""
    to.mkdir(mode=0o700)
    for path in audit.directory.iterdir():
        if path.name.endswith(suffixes):
            shutil.copy(path, to)
    return to


# --- status -------------------------------------------------------------------------------------------------------


def test_of_a_living_process_it_shows_everything_and_changes_nothing(audit: Audit) -> None:
    with process("open") as child:
        until(lambda: status(code=0)["files"][0]["final"] == 2)  # its own background has numbered the first
        before = contents(audit.directory)
        found = status(code=0)
        assert contents(audit.directory) == before
        (file,) = found["files"]
        assert (file["owner"], file["pid"]) == ("alive", child.pid)
        # producer.started and the first request are final, the second runs.
        assert (file["final"], file["answered"], file["open"], file["aside"]) == (2, 0, 1, 0)
        assert file["destination"] == f"{audit.receiver.url}/v1/logs"
        assert (file["service"], file["instance"]) == ("clinic", "desk-1")
        (stream,) = file["streams"]
        assert stream["stream_id"].startswith("desk-1/")
        assert (stream["last"], stream["ended"]) == (1, False)
        assert 0 <= file["age_seconds"] < 600
        assert file["bytes"] >= len(before[file["name"]])
        assert (found["waiting"], found["problems"]) == (3, [])
        text = call("status").stdout
        assert f"alive, {child.pid}" in text
        assert "3 records wait" in text
        # Nor is the process disturbed: it goes on writing, and its lock was not taken.
        child.send_signal(signal.SIGKILL)
        child.wait()
    found = status(code=1)
    (file,) = found["files"]
    assert (file["owner"], found["waiting"]) == ("dead", 3)
    (problem,) = found["problems"]
    assert "spanseal spool drain" in problem
    assert file["name"] in problem
    # Where a living process sends to the same destination, it is on its way.
    audit.receiver.answer = unavailable
    audit.set(SPANSEAL_ADOPT_INTERVAL="3000")
    with process("final") as other:
        assert status(code=0)["problems"] == []
        # It takes the dead one's over, and is named as who holds it.
        until(lambda: {file["pid"] for file in status(code=0)["files"]} == {other.pid})


@pytest.mark.usefixtures("audit")
def test_what_could_not_be_stored_is_counted_until_it_is_named() -> None:
    die("dropping")
    (file,) = status(code=1)["files"]
    assert file["dropped"] == 3
    assert "3 records could not be stored" in call("status").stdout


def test_a_copy_is_read_where_nothing_can_be_written(audit: Audit, tmp_path: Path) -> None:
    die("answered")
    place = copy(audit, tmp_path / "copy")
    place.chmod(0o500)
    before = contents(place)
    (file,) = status("--dir", str(place), code=1)["files"]
    assert (file["owner"], file["final"] + file["answered"], file["open"]) == ("unlocked", 3, 0)
    assert file["answered"] >= 1
    assert contents(place) == before
    # One file, by its name.
    (path,) = place.glob("*.db")
    assert status("--dir", str(path), code=1)["files"][0]["name"] == path.name
    assert contents(place) == before
    place.chmod(0o700)


def test_it_names_what_is_damaged_or_set_aside_and_what_cannot_be_read(audit: Audit) -> None:
    one, other, third = (die_here(audit) for _ in range(3))
    overwrite(one.file.path)
    other.file.path.with_suffix(".damaged").write_bytes(b"x")
    with closing(sqlite3.connect(third.file.path)) as connection:
        connection.execute(
            "INSERT INTO aside (stream_id, seq, body, reason, at) VALUES ('s', 1, 'b', 'r', 1)"
        )
        connection.commit()
    third.file.path.rename(third.file.path.with_suffix(".aside"))
    third.lock.path.unlink()
    found = status(code=1)
    problems = "\n".join(found["problems"])
    for name, word in (
        (f"{one.file.path.stem}.db", "not a database"),
        (f"{other.file.path.stem}.damaged", "is damaged"),
        (f"{third.file.path.stem}.aside", "1 records that the collector refused"),
        (f"{other.file.path.stem}.db", "spool drain"),
    ):
        (line,) = [line for line in found["problems"] if name in line]
        assert word in line, problems
    # A file of a later version may be good: that it cannot be read is no finding.
    with closing(sqlite3.connect(other.file.path)) as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
        connection.commit()
    found = status(code=2)
    assert "has format '2'" in next(
        file["unreadable"] for file in found["files"] if file["name"] == other.file.path.name
    )


def test_without_anything_nothing_waits_and_a_wrong_name_is_told(audit: Audit, tmp_path: Path) -> None:
    assert not audit.directory.exists()
    assert status(code=0)["files"] == []
    assert "nothing waits" in call("status").stdout
    for command in ("status", "drain"):
        result = call(command, "--dir", str(tmp_path / "nowhere"))
        assert (result.exit_code, "nowhere" in result.stderr) == (2, True)
    assert not (tmp_path / "nowhere").exists()
    assert drained(code=0)["sent"] == 0
    assert not audit.directory.exists()


def test_no_secret_and_nothing_that_acts_on_a_terminal_is_shown(audit: Audit) -> None:
    audit.set(
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://127.0.0.1:1/v1/logs?token=s3cret",
        OTEL_SERVICE_NAME="a\x1b[2Jb",
    )
    die("final")
    for arguments in (("status",), ("status", "--json"), ("drain", "--timeout", "0.1")):
        result = call(*arguments)
        assert result.exit_code == 1
        assert "s3cret" not in result.output
        assert "\x1b[2J" not in result.output
    assert "a\\x1b[2Jb" in call("status").stdout


SHOW = """
import sys
if sys.argv[1] == "without":
    sys.modules["rich"] = None
from spanseal.commands.spool_command import spool
spool(["status"])
"""


@pytest.mark.parametrize(
    ("rich", "columns", "styled"), [("with", 300, True), ("with", 60, False), ("without", 300, False)]
)
def test_a_terminal_that_is_wide_enough_gets_a_table_of_rich(
    audit: Audit, rich: str, columns: int, *, styled: bool
) -> None:
    one = die_here(audit)
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execve(  # noqa: S606
            sys.executable,
            [sys.executable, "-c", SHOW, rich],
            {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
        )
    output = b""
    with suppress(OSError):  # so ends a terminal
        while data := os.read(descriptor, 4096):
            output += data
    os.close(descriptor)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1, output
    assert one.file.path.name.encode() in output
    assert (b"\x1b[1m" in output.split(b"records wait")[0]) is styled, output


def test_a_lock_file_that_is_just_being_made_is_left_to_its_process(tmp_path: Path) -> None:
    path = tmp_path / "new.lock"
    path.touch()
    assert spool_report.look(tmp_path).files == ()
    (tmp_path / "new.db").touch()
    assert [file.owner for file in spool_report.look(tmp_path).files] == ["alive"]
    path.unlink()
    lock = FileLock.create(path)
    assert [file.owner for file in spool_report.look(tmp_path).files] == ["alive"]
    lock.release()
    assert [file.owner for file in spool_report.look(tmp_path).files] == ["dead"]


def test_what_is_read_is_of_one_moment(audit: Audit) -> None:
    spanseal.record("test.done")
    one = audit.runtime.keeper.spool
    assert one is not None
    until(lambda: one.file.count() == 0)
    audit.receiver.answer = unavailable
    with reading(one.file.path) as connection:
        assert connection is not None
        before = connection.execute("SELECT count(*) FROM record").fetchall()
        spanseal.record("test.done")
        one.file.checkpoint(force=True)
        assert connection.execute("SELECT count(*) FROM record").fetchall() == before
    with reading(one.file.path) as connection:
        assert connection is not None
        assert connection.execute("SELECT count(*) FROM record").fetchall() != before


# --- drain --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["open", "answered", "final", "dropping", "stopped"])
def test_what_a_dead_process_left_is_sent_where_it_would_have_sent_it(audit: Audit, state: str) -> None:
    die(state)
    waiting = status(code=1)["waiting"]
    found = drained(code=0)
    assert found["sent"] >= waiting
    assert found["complete"]
    check_streams(audit.receiver)
    assert len(by_target(audit.receiver)) == 2
    assert {path.suffix for path in audit.directory.iterdir()} <= {".flock", ".json"}
    assert status(code=0)["files"] == []
    # Again: there is nothing, and nothing is sent.
    requests = len(audit.receiver.requests)
    assert drained(code=0)["sent"] == 0
    assert len(audit.receiver.requests) == requests


def test_a_living_process_is_never_touched(audit: Audit, tmp_path: Path) -> None:
    with process("open") as child:
        until(lambda: status(code=0)["files"][0]["final"] == 2)
        before = contents(audit.directory)
        assert drained(code=0)["sent"] == 0
        assert contents(audit.directory) == before
        # Not even if somebody has deleted its lock file.
        (lock,) = audit.directory.glob("*.lock")
        lock.rename(tmp_path / "lock")
        found = drained("--timeout", "2", code=1)
        assert (found["sent"], found["left"]) == (0, 3)
        (path,) = audit.directory.glob("*.db")
        assert path.read_bytes() == before[path.name]
        child.kill()
        child.wait()
    assert drained(code=0)["sent"] >= 3
    check_streams(audit.receiver)


def test_copies_are_sent_a_directory_and_a_single_file(audit: Audit, tmp_path: Path) -> None:
    die("answered")
    place = copy(audit, tmp_path / "copy")
    single = tmp_path / "single"
    single.mkdir(mode=0o700)
    (path,) = place.glob("*.db")
    for name in place.iterdir():
        shutil.copy(name, single)
    other = single / "another.db"
    shutil.copy(path, other)  # beside it, and not meant
    assert drained("--dir", str(single / path.name), code=0)["sent"] >= 3
    assert other.exists()
    assert not (single / path.name).exists()
    streams = check_streams(audit.receiver)
    assert len(by_target(audit.receiver)) == 2
    # The copy's records are the same ones: a collector stores them once. Their stream's end is named again.
    ids = {record.id for record in audit.receiver.taken}
    assert drained("--dir", str(place), code=0)["complete"]
    again = {record.id for record in audit.receiver.taken} - ids
    assert {record.action for record in audit.receiver.taken if record.id in again} <= {
        "producer.started",
        "producer.stopped",
    }
    assert streams
    assert {name.suffix for name in place.iterdir()} <= {".flock", ".json"}


def test_an_endpoint_that_has_moved(audit: Audit, log: pytest.LogCaptureFixture) -> None:
    """What was for the old one stays until somebody says where it goes; HTTP or gRPC."""
    audit.set(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_HEADERS="authorization=s3cret"
    )
    die("answered")
    die("final")
    audit.set(OTEL_EXPORTER_OTLP_ENDPOINT=audit.receiver.url)
    spanseal.record("test.begun")
    audit.receiver.wait_for("test.begun")
    assert "waits for a process that sends where it did" in log.text
    assert "spanseal spool drain --to" in log.text
    assert len([line for line in status(code=1)["problems"] if "--to" in line]) == 2
    found = drained("--timeout", "0.5", code=1)
    assert (found["sent"], len(found["files_left"])) == (0, 2)
    # A drain that brought nothing leaves nothing of its own.
    assert len(list(audit.directory.glob("*.db"))) == 3
    with grpc_receiving() as moved:
        found = drained("--to", f"grpc+{moved.url}", code=0)
        assert found["complete"]
        check_streams(moved)
        assert len(by_target(moved)) == 2
        # What was said of --to is for it: its credentials as well.
        assert all(request.headers["authorization"] == "s3cret" for request in moved.requests)
    audit.everything()
    assert {path.suffix for path in audit.directory.iterdir()} <= {".flock", ".json"}


def test_a_drain_that_brings_nothing_takes_no_streams_end_with_it(audit: Audit) -> None:
    """The next stream of this instance is to name the one before, not one that is taken back."""
    spanseal.record("test.done")
    audit.runtime.stop()
    ended = audit.directory / "ended-streams.json"
    before = json.loads(ended.read_text("utf-8"))
    assert before
    audit.set(OTEL_RESOURCE_ATTRIBUTES="service.instance.id=desk-2")  # whose stream names none of these
    die_here(audit)
    audit.set(OTEL_RESOURCE_ATTRIBUTES="service.instance.id=desk-1")
    audit.receiver.answer = unavailable
    assert drained("--timeout", "0.2", code=1)["sent"] == 0
    assert json.loads(ended.read_text("utf-8")) == before
    assert len(list(audit.directory.glob("*.db"))) == 1


def test_credentials_do_not_go_where_a_file_says(audit: Audit, tmp_path: Path) -> None:
    die("final")
    copied = copy(audit, tmp_path / "copy")
    audit.receiver.answer = lambda _records: Reply(401)
    audit.set(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_HEADERS="authorization=s3cret"
    )
    found = drained("--dir", str(copied), "--timeout", "0.2", code=1)
    assert any("--to" in reason for reason in found["reasons"])
    assert audit.receiver.requests
    assert not [request for request in audit.receiver.requests if "authorization" in request.headers]
    audit.receiver.answer = lambda _records: Reply()
    assert drained("--dir", str(copied), "--to", audit.receiver.url, code=0)["complete"]
    assert audit.receiver.requests[-1].headers["authorization"] == "s3cret"


def test_what_is_refused_is_set_aside_and_named(audit: Audit) -> None:
    die("answered")

    def reply(records: list[Received]) -> Reply:
        return Reply(400 if any(r.attributes["audit.target.id"] == "first" for r in records) else 200)

    audit.receiver.answer = reply
    found = drained(code=1)
    assert (found["refused"], found["left"], found["files_left"]) == (1, 0, [])
    (gap,) = audit.receiver.wait_for("producer.gap")
    assert gap.attributes["audit.producer.gap.reason"] == "refused"
    check_streams(audit.receiver)
    (aside,) = audit.directory.glob("*.aside")
    assert aside.name in "".join(status(code=1)["problems"])


def test_a_damaged_file_is_kept_and_named_and_the_others_are_sent(audit: Audit) -> None:
    one, _ = die_here(audit), die_here(audit)
    overwrite(one.file.path)
    found = drained(code=1)
    assert found["damaged"] == [f"{one.file.path.stem}.damaged"]
    audit.receiver.wait_for("test.done")
    (gap,) = audit.receiver.wait_for("producer.gap")
    assert one.file.path.stem in gap.attributes["audit.producer.gap.reason"]
    check_streams(audit.receiver)


def test_it_does_not_begin_where_everybody_can_write_nor_with_what_is_no_url(
    audit: Audit, tmp_path: Path
) -> None:
    die("final")
    place = copy(audit, tmp_path / "copy")
    place.chmod(0o777)
    result = call("drain", "--dir", str(place))
    assert (result.exit_code, "everybody can write" in result.stderr) == (2, True)
    result = call("drain", "--to", "collector:4318")
    assert (result.exit_code, "write a URL" in result.stderr) == (2, True)
    result = call("drain", "--dir", str(ROOT / "README.md"))
    assert (result.exit_code, ".db" in result.stderr) == (2, True)
    assert audit.receiver.requests == []
    assert len(status(code=1)["files"]) == 1


def test_it_waits_for_an_endpoint_that_is_away_for_a_while(audit: Audit) -> None:
    die("final")
    failures = iter([Reply(503, {"Retry-After": "0"}), Reply(429), Reply(silent=True)])
    audit.receiver.answer = lambda _records: next(failures, Reply())
    assert drained(code=0)["complete"]
    check_streams(audit.receiver)


# --- several, and killed ------------------------------------------------------------------------------------------

DRAIN = [sys.executable, "-m", "tests.instrumentation.draining"]


def test_two_drains_at_once_send_everything_once(audit: Audit) -> None:
    for _ in range(24):
        die_here(audit)
    running = [
        subprocess.Popen(DRAIN, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=60) for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    check_streams(audit.receiver)
    assert len(audit.receiver.wait_for("test.done", 24)) == 24
    assert {path.suffix for path in audit.directory.iterdir()} <= {".flock", ".json"}


def hang_at(
    audit: Audit, number: int, asked: threading.Event, forever: threading.Event
) -> Callable[[list[Received]], Reply]:
    """Take requests up to one, which is stored and not answered."""
    begun = len(audit.receiver.requests)

    def reply(_records: list[Received]) -> Reply:
        if len(audit.receiver.requests) - begun < number:
            return Reply()
        asked.set()
        return Reply(wait=forever)

    return reply


def test_killed_in_the_middle_and_run_again_nothing_is_lost(audit: Audit) -> None:
    for _ in range(12):
        die_here(audit)
    ids = {row.attributes["audit.record.id"] for row in audit.own_rows()}
    for killed_at in (0, 1, 3):
        asked, forever = threading.Event(), threading.Event()
        audit.receiver.answer = hang_at(audit, killed_at, asked, forever)
        with subprocess.Popen(DRAIN, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
            assert asked.wait(60)
            one.kill()
        forever.set()
    audit.receiver.answer = lambda _records: Reply()
    assert drained(code=0)["complete"]
    check_streams(audit.receiver, again=True)
    assert {record.id for record in audit.receiver.taken if record.action == "test.done"} == ids
    assert {path.suffix for path in audit.directory.iterdir()} <= {".flock", ".json"}


def test_interrupted_it_lets_go_and_says_what_is_left(audit: Audit) -> None:
    die("final")
    asked, forever = threading.Event(), threading.Event()

    def reply(_records: list[Received]) -> Reply:
        asked.set()
        return Reply(503, wait=forever)

    audit.receiver.answer = reply
    with subprocess.Popen(DRAIN, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        assert asked.wait(60)
        one.send_signal(signal.SIGINT)
        out, err = one.communicate(timeout=60)
    forever.set()
    assert one.returncode == 1, err
    assert "interrupted" in out
    assert re.search(r"left +\d+ records in 1 files", out)
    assert "Traceback" not in err
    audit.receiver.answer = lambda _records: Reply()
    assert drained(code=0)["complete"]
    check_streams(audit.receiver)


def test_the_drain_beside_a_living_process(audit: Audit) -> None:
    """Each file is taken by one of them."""
    for _ in range(10):
        die_here(audit)
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.01")
    spanseal.record("test.begun")
    drain(audit.directory)
    audit.receiver.wait_for("test.done", 10)
    audit.everything()
    check_streams(audit.receiver)
