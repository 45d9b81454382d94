"""Reading commands as processes: pipes, formats of the engine's own, standard input, Ctrl-C, odd terminals."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.synthetic import make_log
from examples.demo.forgeries import owner, run_sql
from examples.demo.processes import Collector
from spanseal_storage.directory import DataDirectory
from spanseal_storage.rendering import aligned, cell_text, iso_nanoseconds, printable

SPANSEAL = str(Path(sys.executable).parent / "spanseal")
RECORDS = 5000
EVIL = "\x1b[2J\x9b31m\u202e[bold]\r\n=cmd()\x07"
ENDLESS = "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_log(tmp_path_factory.mktemp("output") / "data", RECORDS).path
    with owner(path) as (_, client):
        run_sql(
            client,
            "ALTER TABLE audit.records UPDATE actor_id = {evil:String}, actor_role = unhex('ff') WHERE seq = 3",
            evil=EVIL,
        )
    return path


def run(data: Path, command: str, *rest: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [SPANSEAL, command, "--data", str(data), *rest], capture_output=True, timeout=120, check=False, **more
    )


def test_a_pipe_gets_whole_values_in_every_format(data: Path) -> None:
    ours = ("--limit", "0", "--resource", "patient/2")
    (event,) = map(json.loads, run(data, "events", "--json", *ours).stdout.splitlines())
    assert (event["actor_id"], event["actor_role"]) == (EVIL, "\\xff")
    (row,) = csv.DictReader(io.StringIO(run(data, "events", "--csv", *ours).stdout.decode(), newline=""))
    assert (row["actor_id"], json.loads(row["metadata"])) == (EVIL, event["metadata"])
    table = run(data, "events", *ours).stdout.decode()
    assert "\\x1b[2J\\x9b31m\\u202e[bold]\\r\\n=cmd()\\x07" in table
    assert len(table.splitlines()) == 2
    (record,) = map(json.loads, run(data, "events", "--format", "records", *ours[2:]).stdout.splitlines())
    assert (record["actor_id"], record["actor_role"]) == (EVIL, {"hex": "ff"})


def test_no_table_lets_a_value_act_on_a_terminal(data: Path) -> None:
    for rest in (
        ["events", "--limit", "0", "--resource", "patient/2"],
        ["events", "--csv", "--limit", "0", "--resource", "patient/2"],
        ["events", "--json", "--limit", "0", "--resource", "patient/2"],
        ["query", "SELECT actor_id FROM events WHERE seq = 3"],
        ["query", "SELECT actor_id FROM events WHERE seq = 3 FORMAT TSVRaw"],
        ["query", "SELECT actor_id FROM events WHERE seq = 3 FORMAT Native"],
    ):
        leader, follower = pty.openpty()
        with subprocess.Popen(
            [SPANSEAL, rest[0], "--data", str(data), *rest[1:]],
            stdout=follower,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "400"},
        ) as process:
            os.close(follower)
            parts = []
            try:
                while part := os.read(leader, 65536):
                    parts.append(part)
            except OSError:  # nobody holds the other end any more
                pass
            os.close(leader)
            assert process.wait() == 0
        shown = b"".join(parts).decode()
        assert "[bold]" in shown, rest
        assert "\x1b[2J" not in shown, rest
        assert not set("\x9b\u202e\x07") & set(shown), rest


def test_who_stops_reading_stops_the_command(data: Path) -> None:
    for rest in (["events", "--limit", "0"], ["query", "SELECT * FROM events", "--json"]):
        with subprocess.Popen(
            [SPANSEAL, rest[0], "--data", str(data), *rest[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.wait(60) != 0
            assert b"Traceback" not in process.stderr.read()


def test_a_statement_from_standard_input_and_its_own_format(data: Path) -> None:
    statement = "SELECT seq, 'ü' AS u -- the two of them\nFROM events WHERE seq < 2 ORDER BY seq;\n"
    done = run(data, "query", "-", "--json", input=b"\xef\xbb\xbf" + statement.encode())
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"seq": 0, "u": "ü"},
        {"seq": 1, "u": "ü"},
    ]
    done = run(data, "query", "-", input=b"SELECT 1 AS a, 'x' AS b FORMAT CSVWithNames")
    assert done.stdout == b'"a","b"\n1,"x"\n'
    done = run(data, "query", "SELECT count() AS n FROM events FORMAT Parquet")
    assert done.stdout[:4] == done.stdout[-4:] == b"PAR1"
    assert run(data, "query", "SELECT 1 AS a WHERE 0", "--csv").stdout == b"a\r\n"
    assert run(data, "query", "EXPLAIN SELECT 1", "--json").stdout.startswith(b'{"explain":')
    for rest, more, message in (
        (["-"], {"input": b"\xff"}, "not UTF-8"),
        (["SELECT 1 FORMAT CSV", "--json"], {}, "leave one of them out"),
        (["SELECT 1; SELECT 2"], {}, "not one statement"),
        (["SELECT nosuch FROM events"], {}, "nosuch"),
        (["SELECT intDiv(1, seq - 2000) FROM events"], {}, "ivision by zero"),
    ):
        failed = run(data, "query", *rest, **more)
        assert failed.returncode == 2, rest
        assert len(failed.stderr.splitlines()) == 1
        assert message in failed.stderr.decode(), rest


def test_an_encoding_that_lacks_a_character_is_no_reason_to_fail(data: Path) -> None:
    done = run(data, "query", "SELECT 'ü\u20ac' AS a", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"a\n\\xfc\\u20ac\n")


def test_times_do_not_depend_on_where_one_sits(data: Path) -> None:
    statement = (
        "SELECT toDateTime('2024-07-01 12:00:00', 'UTC') AS a, toDateTime('2024-07-01 12:00:00', "
        "'Europe/Berlin') AS b, toDateTime64('2024-07-01 12:00:00.123456', 9, 'UTC') AS c, toDate('2024-07-01') AS d"
    )
    for zone in ("America/New_York", "UTC"):
        done = run(data, "query", "--json", statement, env={**os.environ, "TZ": zone})
        assert json.loads(done.stdout) == {
            "a": "2024-07-01T12:00:00.000Z",
            "b": "2024-07-01T10:00:00.000Z",
            "c": "2024-07-01T12:00:00.123456Z",
            "d": "2024-07-01",
        }


def interrupted(process: subprocess.Popen[bytes], busy: int) -> tuple[int, bytes]:
    """Wait until a process has been at work, send it what Ctrl-C sends, and see how it ends."""
    deadline = time.monotonic() + 60
    while busy_seconds(busy) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert output == b""
    return process.returncode, errors


def busy_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(data: Path, *rest: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [SPANSEAL, "query", "--data", str(data), *rest], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_ctrl_c_ends_a_statement_that_runs_in_the_command_itself(data: Path) -> None:
    process = start(data, ENDLESS)
    assert interrupted(process, process.pid) == (130, b"\nInterrupted\n")
    assert not DataDirectory(data).is_held()
    assert run(data, "query", "SELECT 1 AS a", "--json").stdout == b'{"a":1}\n'


def test_ctrl_c_ends_a_statement_that_runs_in_a_collector(tmp_path: Path) -> None:
    with Collector(tmp_path / "data", tmp_path / "collector.txt") as collector:
        process = start(collector.data, ENDLESS)
        assert interrupted(process, collector.pid) == (130, b"\nInterrupted\n")
        for _ in range(5):  # more than it answers at once
            assert run(collector.data, "query", "SELECT 1 AS a", "--json").stdout == b'{"a":1}\n'


def test_a_stale_runtime_file_does_not_lead_to_a_stranger(data: Path) -> None:
    directory = DataDirectory(data)
    from spanseal_storage.directory import Runtime

    # Left by a collector that was killed; somebody else may listen at its port by now.
    directory.publish_runtime(Runtime(os.getpid() + 1, "127.0.0.1", 9, "old token"))
    try:
        assert run(data, "query", "SELECT 1 AS a", "--json").stdout == b'{"a":1}\n'
        with directory.hold("another command"):
            directory_busy = run(data, "storage", "migrate")
            assert directory_busy.returncode == 2
    finally:
        directory.withdraw_runtime()


def test_what_people_see_of_values() -> None:
    assert printable("a\u0301é漢 \U0001f600") == "a\u0301é漢 \U0001f600"
    assert printable("\x00\x7f\u200b\u2028\ue000\udcff\t") == "\\x00\\x7f\\u200b\\u2028\\ue000\\udcff\\t"
    assert cell_text({}) == ""
    assert cell_text({"a": "\x1b"}) == '{"a": "\\u001b"}'
    assert cell_text(b"\x00\xff") == "00ff"
    assert cell_text(float("nan")) == ""
    assert iso_nanoseconds(-1) == "1969-12-31T23:59:59.999999999Z"
    assert iso_nanoseconds(1_500_000_000, 3) == "1970-01-01T00:00:01.500Z"
    lines = list(aligned(("n", "text"), ([number, "x" * number] for number in range(3000))))
    assert lines[:3] == ["n    text", "0", "1    x"]
    assert lines[3000] == f"2999  {'x' * 2999}"
