"""A million records: clean where nobody touched them, and one changed row among them is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.synthetic import make_log
from examples.demo.forgeries import insert_rows, owner, rows_of_chain, run_sql
from spanseal_ledger.record import canonical, record_hash
from spanseal_ledger.verifier import TrustedKeys, VerificationResult
from spanseal_storage.checkpoint_file import read_checkpoint_file
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.keys import trusted_keys
from spanseal_storage.rows import query
from spanseal_storage.tiles import TILE
from spanseal_storage.verification import verify_log

RECORDS = 1_000_000
VICTIM = 654_321


def verify(directory: DataDirectory) -> VerificationResult:
    lines, problems = read_checkpoint_file(directory.checkpoint_log)
    assert problems == []
    with directory.hold("test"), open_engine(directory, Role.READER) as engine:
        client = engine.client()
        try:
            return verify_log(client, keys=TrustedKeys(pinned=trusted_keys(directory)), checkpoint_log=lines)
        finally:
            client.close()


def test_a_break_between_two_whole_tiles(tmp_path: Path) -> None:
    """What the engine hands over as one run of many tiles is linked from tile to tile all the same."""
    directory = make_log(tmp_path / "data", 6000, batch=6000)
    assert verify(directory).findings == ()
    boundary = 8 * TILE
    with owner(directory.path) as (_, client):
        chain_id = str(query(client, "SELECT toString(any(chain_id)) FROM audit.records")[0][0])
        previous = bytes(range(32))
        forged = []
        for row in rows_of_chain(client, chain_id, boundary):
            digest = record_hash(canonical(row.record), previous)
            forged.append(replace(row, prev_hash=previous, hash=digest))
            previous = digest
        run_sql(client, "ALTER TABLE audit.records DELETE WHERE seq >= {seq:UInt64}", seq=boundary)
        insert_rows(client, forged)
    found = {finding.kind: finding.seq for finding in verify(directory).findings}
    assert found["hash_changed"] == boundary - 1
    assert "rewritten" in found


@pytest.mark.slow
def test_a_million_records(tmp_path: Path) -> None:
    directory = make_log(tmp_path / "data", RECORDS, batch=10_000)
    result = verify(directory)
    assert (result.records, result.findings) == (RECORDS + 2, ())
    # Its one stream of requests says nowhere that it ended.
    assert [finding.kind for finding in result.information] == ["stream_open"]
    assert result.checkpoints == result.log_lines == RECORDS // 10_000 + 2

    with owner(directory.path) as (_, client):
        run_sql(
            client,
            "ALTER TABLE audit.records UPDATE actor_id = 'somebody else' WHERE seq = {seq:UInt64}",
            seq=VICTIM,
        )
    found = verify(directory).findings
    assert [(finding.kind, finding.seq) for finding in found] == [("record_changed", VICTIM)]
