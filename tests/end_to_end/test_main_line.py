"""From a request to a row that can be proved, and through SIGKILL of everything on the way."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.clinic.traffic import Answered, Traffic
from examples.demo.processes import run_spanseal
from tests.end_to_end.system import System

KILLS = 20
REQUESTS_PER_KILL = 40
SECRETS = tuple(f"planted-{name}-5f2c91" for name in ("query", "cookie", "token", "body", "key"))


def verified(data: Path) -> dict[str, object]:
    done = run_spanseal("verify", "--data", str(data), "--json")
    found: dict[str, object] = json.loads(done.stdout)
    assert (done.returncode, found["findings"]) == (0, []), found
    return found


def test_every_request_becomes_one_verified_record(tmp_path: Path) -> None:
    with System(tmp_path) as system:
        report = Traffic(system.clinic.url, seed=1, secrets=SECRETS).run(300)
        answered = {answer.request_id: answer for answer in report.answered}
        assert report.unanswered == 0
        assert None not in answered
        assert len(answered) == len(report.answered) == 300
        system.stop()
        found = system.request_records()
        assert {name: found[str(name)] for name in answered} == dict.fromkeys(answered, 1)

        stored = {
            row[0]: row[1:]
            for row in system.rows(
                "SELECT request_id, metadata['http.response.status_code'], outcome, actor_type, "
                "metadata['http.request.method'], trace_id != '' FROM audit.events"
            )
        }
        for request_id, answer in answered.items():
            status, outcome, actor_type, method, traced = stored[str(request_id)]
            assert (int(status), method, traced) == (answer.status, answer.method, 1)
            assert outcome == ("success" if answer.status < 400 else "failure")
            if answer.actor and answer.status < 400:
                assert actor_type == "user"
        statuses = {answer.status for answer in report.answered}
        assert statuses >= {200, 201, 401, 403, 404}
        actions = {row[0] for row in system.rows("SELECT DISTINCT action FROM audit.events")}
        assert actions >= {
            "user.signed_in",
            "user.signed_out",
            "patient.viewed",
            "patient.listed",
            "invoice.listed",
        }

        # Each stream is whole: its numbers are 0, 1, 2 and so on, and it says how it ended.
        streams = system.rows(
            "SELECT count(), max(producer_seq) + 1, uniqExact(producer_seq), countIf(action = 'producer.stopped') "
            "FROM audit.events WHERE producer_id != '' GROUP BY producer_id"
        )
        assert streams
        assert all(count == end == numbers and stopped == 1 for count, end, numbers, stopped in streams)
        assert system.rows("SELECT count() FROM audit.quarantine") == [(0,)]
        verified(system.data)
        assert_nowhere(tmp_path, system, SECRETS)


def assert_nowhere(folder: Path, system: System, secrets: tuple[str, ...]) -> None:
    """Look for planted secrets in every byte of the log and the spool, and in every stored value.

    The engine's files are compressed, so its rows are also read back as text.
    """
    needles = [secret.encode() for secret in secrets]
    files = [path for part in (folder / "spool", system.data) for path in part.rglob("*") if path.is_file()]
    assert files
    leaked = {str(path): needle for path in files for needle in needles if needle in path.read_bytes()}
    assert not leaked
    with system.reader() as client:
        for table in ("records", "quarantine"):
            for (row,) in client.query(f"SELECT toString(tuple(*)) FROM audit.{table}").result_rows:
                assert not [secret for secret in secrets if secret in row]


def test_secrets_in_the_spool_of_a_collector_that_is_away(tmp_path: Path) -> None:
    with System(tmp_path) as system:
        system.collector.stop()
        report = Traffic(system.clinic.url, seed=2, secrets=SECRETS).run(120)
        assert len(report.answered) == 120
        system.clinic.kill()
        spools = list(system.clinic.spool.glob("*.db*"))
        assert any(b"patient.viewed" in path.read_bytes() for path in spools)
        assert_nowhere(tmp_path, system, SECRETS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [11])
def test_no_answered_request_is_lost_or_doubled_through_kills(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    with System(tmp_path) as system:
        kinds: list[Callable[[random.Random], None]] = [
            system.kill_worker,
            system.kill_collector,
            system.kill_both,
            system.kill_clinic,
        ]
        moments = {
            n * REQUESTS_PER_KILL + rng.randrange(REQUESTS_PER_KILL): kinds[n % 4] for n in range(KILLS)
        }
        counting, killing = threading.Lock(), threading.Lock()
        killed = 0
        count = 0

        def answered(_: Answered) -> None:
            nonlocal count, killed
            with counting:
                act = moments.pop(count, None)
                count += 1
            if act is not None:
                with killing:
                    act(rng)
                    killed += 1

        report = Traffic(system.clinic.url, seed=seed).run(KILLS * REQUESTS_PER_KILL + 60, on_answer=answered)
        assert not moments
        assert killed == KILLS
        ids = {answer.request_id for answer in report.answered}
        assert None not in ids
        found = system.wait_for({str(name) for name in ids})
        assert not [name for name in ids if name not in found]
        assert [name for name, times in found.items() if times != 1] == []
        system.stop()

        assert (
            system.rows(
                "SELECT chain_id, record_id FROM audit.records GROUP BY chain_id, tenant, record_id HAVING count() > 1"
            )
            == []
        )
        # A killed worker's requests that nobody was answered are on record as well, as what they are.
        assert len(found) >= len(ids)
        result = verified(system.data)
        assert result["chains"] == 1 + KILLS // 2
        # What dead processes left is all shipped, and their files are gone.
        assert list(system.clinic.spool.glob("*.db")) == []
