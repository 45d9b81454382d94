"""Proofs of single records and of the log's continuity, made from real rows and checked without them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.synthetic import make_log
from examples.demo.forgeries import insert_rows, owner, rows_of_chain, run_sql
from spanseal.cli import main
from spanseal_ledger.checkpoint_log import parse_log
from spanseal_ledger.proof import verify_proof
from spanseal_storage import proofs
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.errors import NoProofError
from spanseal_storage.keys import trusted_keys
from spanseal_storage.proofs import prove_consistency, prove_record
from spanseal_storage.rows import query

RECORDS, BATCH = 1300, 300
SEQS = (0, 1, 255, 256, 511, 557, 1024, 1279, 1280, 1300, 1301)
"""Ends of tiles, of subtrees and of the log, and something between."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_log(tmp_path_factory.mktemp("honest") / "data", RECORDS, batch=BATCH).path


@pytest.fixture
def data(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "data", symlinks=True))


@contextmanager
def reader(data: Path) -> Iterator[Any]:
    with DataDirectory(data).hold("test"), open_engine(DataDirectory(data), Role.READER) as engine:
        client = engine.client()
        try:
            yield client
        finally:
            client.close()


def notes(data: Path) -> list[str]:
    lines, problems = parse_log(DataDirectory(data).checkpoint_log.read_bytes())
    assert not problems
    return [line.note for line in lines]


def spanseal(*arguments: object, given: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=given)


def record_ids(client: Any) -> dict[int, str]:
    return dict(query(client, "SELECT seq, toString(record_id) FROM audit.records"))


def vkey(data: Path) -> str:
    (key,) = trusted_keys(DataDirectory(data))
    return str(key)


@pytest.mark.parametrize("at_once", [1 << 20, 256])
def test_every_record_is_proved_in_every_tree_that_holds_it(
    honest: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(proofs, "_AT_ONCE", at_once)
    keys = trusted_keys(DataDirectory(honest))
    with reader(honest) as client:
        ids = record_ids(client)
        for note in (*notes(honest), None):
            size = int(note.splitlines()[1]) if note else RECORDS + 2
            for seq in SEQS:
                if seq >= size:
                    with pytest.raises(NoProofError, match="take a later one"):
                        prove_record(client, ids[seq], keys, checkpoint=note)
                    continue
                found = verify_proof(prove_record(client, ids[seq], keys, checkpoint=note), keys)
                assert (found.record.seq, found.record.record_id) == (seq, ids[seq])
                assert found.checkpoint.size == size


def test_a_proof_goes_without_personal_data_where_that_is_asked_for(honest: Path) -> None:
    keys = trusted_keys(DataDirectory(honest))
    with reader(honest) as client:
        record = record_ids(client)[557]
        whole = verify_proof(prove_record(client, record, keys), keys).record
        bare = verify_proof(prove_record(client, record, keys, personal=False), keys).record
    assert whole.actor_ip
    assert (bare.actor_ip, bare.actor_email, bare.personal, bare.personal_salt) == ("", "", {}, b"")
    assert bare.personal_commitment == whole.personal_commitment


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE actor_id = 'somebody' WHERE seq = 557",
        "UPDATE hash = prev_hash WHERE seq = 300",
        "DELETE WHERE seq = 1290",
        "UPDATE actor_ip = '10.9.9.9' WHERE seq = 557",
    ],
)
def test_a_tampered_log_gives_no_proof(data: Path, tampering: str) -> None:
    with owner(data) as (directory, client):
        run_sql(client, f"ALTER TABLE audit.records {tampering}")
        with pytest.raises(NoProofError, match=r"spanseal verify|missing"):
            prove_record(client, record_ids(client)[557], trusted_keys(directory))


def test_what_cannot_be_proved_is_told(data: Path) -> None:
    directory = DataDirectory(data)
    keys = trusted_keys(directory)
    with owner(data) as (_, client):
        ids = record_ids(client)
        for wrong, words in (
            (("not-an-id", keys), "a UUID is expected"),
            (("00000000-0000-7000-8000-000000000000", keys), "has no record"),
            ((ids[5], []), "cannot be trusted"),
        ):
            with pytest.raises(NoProofError, match=words):
                prove_record(client, *wrong)
        with pytest.raises(NoProofError, match="of tenant 'other'"):
            prove_record(client, ids[5], keys, tenant="other")
        chain = query(client, "SELECT toString(any(chain_id)) FROM audit.records")[0][0]
        row = rows_of_chain(client, chain, 5)[0]
        run_sql(client, "ALTER TABLE audit.records UPDATE tenant = 'other' WHERE seq = 5")
        insert_rows(client, [row])
        with pytest.raises(NoProofError, match="several tenants"):
            prove_record(client, ids[5], keys)


def test_each_kept_checkpoint_is_the_beginning_of_each_later_one(honest: Path) -> None:
    keys = trusted_keys(DataDirectory(honest))
    kept = notes(honest)
    with reader(honest) as client:
        for at, old in enumerate(kept):
            for new in (*kept[at:], None):
                prove_consistency(client, old, new, keys)
        with pytest.raises(NoProofError, match="covers"):
            prove_consistency(client, kept[-1], kept[0], keys)


def test_a_log_that_was_rewritten_does_not_continue_a_kept_checkpoint(data: Path) -> None:
    kept = notes(data)[2]
    with owner(data) as (directory, client):
        run_sql(client, "ALTER TABLE audit.records UPDATE hash = prev_hash WHERE seq = 20")
        with pytest.raises(NoProofError, match="does not"):
            prove_consistency(client, kept, None, trusted_keys(directory))


def test_the_commands_write_a_proof_that_is_checked_without_the_log(honest: Path, tmp_path: Path) -> None:
    with reader(honest) as client:
        record = record_ids(client)[557]
    proof = tmp_path / "record.tlog-proof"
    assert spanseal("prove", record, "--data", honest, "-o", proof).exit_code == 0
    assert spanseal("prove", record, "--data", honest, "-o", proof).exit_code == 2  # nothing is overwritten
    checked = spanseal("check", proof, "--key", vkey(honest), "--json")
    found = json.loads(checked.output)
    assert (checked.exit_code, found["verdict"], found["record_id"]) == (0, "proved", record)
    shown = spanseal("check", "-", "--key", vkey(honest), given=proof.read_text())
    assert (shown.exit_code, "PROVED" in shown.output, record in shown.output) == (0, True, True)
    assert spanseal("check", proof).exit_code == 2  # no key
    wrong = proof.read_text().replace("index 557", "index 558")
    refused = spanseal("check", "-", "--key", vkey(honest), given=wrong)
    assert (refused.exit_code, "NOT PROVED" in refused.output) == (1, True)
    other = "audit.example.org/bench/x+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    assert spanseal("check", proof, "--key", other).exit_code in (1, 2)


def test_a_proof_is_checked_with_the_engine_out_of_reach(honest: Path, tmp_path: Path) -> None:
    with reader(honest) as client:
        record = record_ids(client)[3]
    proof = tmp_path / "proof"
    spanseal("prove", record, "--data", honest, "-o", proof)
    program = (
        "import sys; sys.modules['chdb'] = None; from spanseal.cli import main; "
        f"main(['check', {str(proof)!r}, '--key', {vkey(honest)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, "PROVED" in done.stdout) == (0, True), done.stderr


def test_checkpoints_are_followed_listed_and_held_against_each_other(data: Path, tmp_path: Path) -> None:
    log = DataDirectory(data).checkpoint_log
    followed = spanseal("checkpoints", "follow", "--once", "--data", data)
    assert (followed.exit_code, followed.output) == (0, log.read_text())
    (item,) = [
        json.loads(line)
        for line in spanseal("checkpoints", "list", "--json", "--data", data).output.splitlines()
    ]
    assert item["size"] == RECORDS + 2
    kept = tmp_path / "kept"
    kept.write_text(notes(data)[1])
    assert spanseal("checkpoints", "consistency", kept, "--data", data).exit_code == 0
    kept.write_text(notes(data)[1].replace("\n", "\n0", 1))
    assert spanseal("checkpoints", "consistency", kept, "--data", data).exit_code == 1
    log.write_text(log.read_text() + "{}\n")
    damaged = spanseal("checkpoints", "follow", "--once", "--data", data)
    assert (damaged.exit_code, "damaged" in damaged.output) == (1, True)


def test_a_follower_sees_what_is_appended_and_what_is_cut(data: Path) -> None:
    log = DataDirectory(data).checkpoint_log
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]))
    command = [
        str(Path(sys.executable).with_name("spanseal")),
        "checkpoints",
        "follow",
        "--from-start",
        "--data",
        str(data),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert [follower.stdout.readline() for _ in range(2)] == lines[:2]
        with log.open("ab") as file:
            file.write(lines[2][:20])
            file.flush()
            file.write(lines[2][20:])
        assert follower.stdout.readline() == lines[2]
        log.write_bytes(lines[0])
        _, errors = follower.communicate(timeout=30)
    assert follower.returncode == 2
    assert b"has become shorter" in errors
