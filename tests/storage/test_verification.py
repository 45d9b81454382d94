"""Forgeries in a real table, done with every right there is; each must be named where it is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic import make_log
from examples.demo.forgeries import FORGERIES, Forgery, insert_rows, owner, reseal, rows_of_chain, run_sql
from spanseal_collector.sealer import Sealer
from spanseal_ledger.checkpoint_log import encode, parse_log
from spanseal_ledger.note import SigningKey
from spanseal_ledger.verifier import TrustedKeys, VerificationResult
from spanseal_storage.checkpoint_file import read_checkpoint_file
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.keys import load_signing_key, trusted_keys
from spanseal_storage.rows import query
from spanseal_storage.verification import verify_log

RECORDS, BATCH = 1300, 300
VICTIM = 557  # a failed request, not at the edge of a tile or a batch


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_log(tmp_path_factory.mktemp("honest") / "data", RECORDS, batch=BATCH).path


@pytest.fixture
def data(honest: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "data"
    shutil.copytree(honest, copy, symlinks=True)
    return copy


def verify(data: Path, *, with_log: bool = True) -> VerificationResult:
    directory = DataDirectory(data)
    lines = read_checkpoint_file(directory.checkpoint_log)[0] if with_log else None
    with directory.hold("test"), open_engine(directory, Role.READER) as engine:
        client = engine.client()
        try:
            return verify_log(client, keys=TrustedKeys(pinned=trusted_keys(directory)), checkpoint_log=lines)
        finally:
            client.close()


def kinds(result: VerificationResult) -> list[tuple[str, int | None]]:
    return [(finding.kind, finding.seq) for finding in result.findings]


def only_chain(client: Any) -> str:
    return str(query(client, "SELECT toString(any(chain_id)) FROM audit.records")[0][0])


def test_an_untouched_log_is_clean(honest: Path) -> None:
    result = verify(honest)
    assert kinds(result) == []
    assert result.records == RECORDS + 2
    assert result.checkpoints == 7
    assert verify(honest, with_log=False).not_checked[0][0] == 7


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
def test_the_demonstrations_forgeries_are_named(data: Path, forgery: Forgery) -> None:
    forgery.commit(data)
    assert forgery.expected in [kind for kind, _ in kinds(verify(data))]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("actor_id", "'somebody'"),
        ("action", "'patient.updated'"),
        ("outcome", "'success'"),
        ("event_time", "event_time + toIntervalSecond(1)"),
        ("metadata", "mapUpdate(metadata, map('http.route', '/other'))"),
        ("metadata_types", "'xxxxxxx'"),
        ("request_id", "'other'"),
        ("actor_role", "unhex('ff')"),
    ],
)
def test_a_changed_column_is_named_at_its_row(data: Path, column: str, value: str) -> None:
    with owner(data) as (_, client):
        run_sql(client, f"ALTER TABLE audit.records UPDATE {column} = {value} WHERE seq = {VICTIM + 1}")
    assert kinds(verify(data)) == [("record_changed", VICTIM + 1)]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("actor_ip = '10.9.9.9'", "personal_changed"),
        ("personal = map('user_agent.original', 'curl')", "personal_changed"),
        ("actor_ip = '', personal = map(), personal_salt = ''", "personal_missing"),
        ("personal_salt = ''", "personal_changed"),
    ],
)
def test_personal_data_blanked_or_changed_is_named(data: Path, change: str, kind: str) -> None:
    with owner(data) as (_, client):
        run_sql(client, f"ALTER TABLE audit.records UPDATE {change} WHERE seq = {VICTIM}")
    assert kinds(verify(data)) == [(kind, VICTIM)]


def test_a_key_put_into_the_map_twice_is_named(data: Path) -> None:
    with owner(data) as (_, client):
        run_sql(
            client,
            "ALTER TABLE audit.records UPDATE metadata = mapFromArrays("
            "arrayConcat(mapKeys(metadata), ['http.route']), arrayConcat(mapValues(metadata), ['/other'])) "
            f"WHERE seq = {VICTIM}",
        )
    assert ("record_changed", VICTIM) in kinds(verify(data))


def test_an_inserted_row_is_named_and_the_genuine_one_told(data: Path) -> None:
    with owner(data) as (_, client):
        rows = rows_of_chain(client, only_chain(client), VICTIM)
        forged = replace(rows[0], record=replace(rows[0].record, actor_id="somebody"))
        insert_rows(client, [forged])
    result = verify(data)
    assert kinds(result) == [("conflicting_row", VICTIM)]


def test_a_repeated_row_is_information(data: Path) -> None:
    with owner(data) as (_, client):
        insert_rows(client, rows_of_chain(client, only_chain(client), VICTIM)[:1])
    result = verify(data)
    assert kinds(result) == []
    assert [(i.kind, i.seq) for i in result.information if i.seq is not None] == [("repeated_row", VICTIM)]


def test_rows_that_changed_places_are_named(data: Path) -> None:
    with owner(data) as (_, client):
        chain = only_chain(client)
        rows = rows_of_chain(client, chain, VICTIM)[:2]
        run_sql(client, f"ALTER TABLE audit.records DELETE WHERE seq IN ({VICTIM}, {VICTIM + 1})")
        swapped = [
            replace(row, record=replace(row.record, seq=other.record.seq))
            for row, other in zip(rows, reversed(rows), strict=True)
        ]
        insert_rows(client, swapped)
    found = verify(data).findings
    assert {finding.seq for finding in found} & {VICTIM, VICTIM + 1}
    assert {finding.kind for finding in found} & {"record_changed", "link_broken", "hash_changed"}


def test_rows_with_valid_hashes_after_the_end_are_named(data: Path) -> None:
    with owner(data) as (directory, client):
        rows = rows_of_chain(client, only_chain(client))
        last = rows[-1]
        more = replace(
            last,
            checkpoint=last.checkpoint,
            record=replace(
                last.record,
                seq=len(rows),
                tenant_seq=last.record.tenant_seq + 1,
                action="audit_log.heartbeat",
            ),
        )
        key = load_signing_key(directory)
        forged = reseal([*rows, more], len(rows), key, directory.identity().log_name)
        insert_rows(client, forged)
    assert "after_end" in [kind for kind, _ in kinds(verify(data))]


def test_rows_past_the_last_checkpoint_are_named(data: Path) -> None:
    with owner(data) as (_, client):
        run_sql(client, f"ALTER TABLE audit.records UPDATE checkpoint = '' WHERE seq = {RECORDS + 1}")
    assert ("unsigned_tail", RECORDS + 1) in kinds(verify(data))


def test_a_swapped_checkpoint_is_named(data: Path) -> None:
    with owner(data) as (_, client):
        notes = query(client, "SELECT seq, checkpoint FROM audit.records WHERE checkpoint != '' ORDER BY seq")
        (first, _), (_, other) = notes[1], notes[2]
        run_sql(
            client,
            f"ALTER TABLE audit.records UPDATE checkpoint = {{note:String}} WHERE seq = {first}",
            note=other,
        )
    assert ("checkpoint_invalid", first) in kinds(verify(data))


def test_a_suffix_rewritten_without_the_key_is_named_without_a_checkpoint_log(data: Path) -> None:
    with owner(data) as (directory, client):
        rows = rows_of_chain(client, only_chain(client))
        rows[VICTIM] = replace(rows[VICTIM], record=replace(rows[VICTIM].record, actor_id="somebody"))
        stranger = SigningKey.generate(directory.identity().key_name)
        forged = reseal(rows, VICTIM, stranger, directory.identity().log_name)
        run_sql(client, f"ALTER TABLE audit.records DELETE WHERE seq >= {VICTIM}")
        insert_rows(client, forged)
    found = dict(kinds(verify(data, with_log=False)))
    assert "checkpoint_invalid" in found
    assert "unsigned_tail" in found


def test_a_chain_rebuilt_under_another_key_is_named(data: Path) -> None:
    with owner(data) as (directory, client):
        rows = rows_of_chain(client, only_chain(client))
        stranger = SigningKey.generate(directory.identity().key_name)
        rows[0] = replace(
            rows[0],
            record=replace(
                rows[0].record,
                metadata={**rows[0].record.metadata, "audit.chain.key": str(stranger.vkey)},
            ),
        )
        forged = reseal(rows, 0, stranger, directory.identity().log_name)
        run_sql(client, "ALTER TABLE audit.records DELETE WHERE 1")
        insert_rows(client, forged)
    assert "key_unpinned" in [kind for kind, _ in kinds(verify(data, with_log=False))]
    assert "rewritten" in [kind for kind, _ in kinds(verify(data))]


def test_a_dropped_chain_is_named(data: Path) -> None:
    with owner(data) as (_, client):
        chain = only_chain(client)
        run_sql(client, "ALTER TABLE audit.records DELETE WHERE 1")
    result = verify(data)
    assert [(finding.kind, finding.chain_id) for finding in result.findings] == [("chain_missing", chain)]


def test_a_row_far_away_is_named_and_does_not_take_for_ever(data: Path) -> None:
    with owner(data) as (_, client):
        row = rows_of_chain(client, only_chain(client), VICTIM)[0]
        insert_rows(client, [replace(row, record=replace(row.record, seq=(1 << 64) - 1))])
    assert "missing" in [kind for kind, _ in kinds(verify(data))]


def test_a_checkpoint_log_that_was_cut_or_forged(data: Path) -> None:
    path = DataDirectory(data).checkpoint_log
    lines = parse_log(path.read_bytes())[0]
    path.write_bytes(b"".join(encode(line) for line in lines[:3]))
    assert kinds(verify(data)) == []
    forged = replace(lines[-1], note=lines[-1].note.replace("\n1302\n", "\n1303\n"))
    path.write_bytes(encode(forged))
    assert [kind for kind, _ in kinds(verify(data))] != []


def test_several_tenants_in_one_tile(tmp_path: Path) -> None:
    tenants = ("acme", "globex", "initech")
    original = Sealer.seal

    def spread(sealer: Sealer, drafts: Any, *rest: Any) -> Any:
        changed = [
            draft
            if draft.record.tenant == "_collector"
            else replace(draft, record=replace(draft.record, tenant=tenants[draft.record.producer_seq % 3]))
            for draft in drafts
        ]
        return original(sealer, changed, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sealer, "seal", spread)
        directory = make_log(tmp_path / "data", 700, batch=200)
    assert kinds(verify(directory.path)) == []
    with owner(directory.path) as (_, client):
        run_sql(client, "ALTER TABLE audit.records UPDATE tenant = 'acme' WHERE seq = 300")
    found = kinds(verify(directory.path))
    assert ("record_changed", 300) in found
