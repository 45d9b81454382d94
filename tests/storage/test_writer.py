"""A sealed batch in the table: once, whole, and the same bytes again where the answer was lost."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.synthetic import make_log, synthetic_draft
from spanseal_collector.sealer import Sealer
from spanseal_ledger.note import SigningKey
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.errors import EngineError
from spanseal_storage.rows import query
from spanseal_storage.writer import Batch, Writer

LOG = "audit.example.org/test"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> DataDirectory:
    return make_log(tmp_path_factory.mktemp("writer") / "data", 1)


@pytest.fixture
def client(directory: DataDirectory) -> Iterator[Any]:
    with directory.hold("test"), open_engine(directory, Role.WRITER) as engine:
        client = engine.client()
        yield client
        client.close()


def new_sealer() -> Sealer:
    return Sealer(SigningKey.generate(f"{LOG}/collector-1"), LOG, "collector-1")


def seal(sealer: Sealer, count: int) -> Batch:
    return sealer.seal([synthetic_draft(number) for number in range(count)], time.time_ns())


def hashes(client: Any, chain: str) -> list[bytes]:
    rows = query(
        client, "SELECT hash FROM audit.records WHERE chain_id = {chain:UUID} ORDER BY seq", {"chain": chain}
    )
    return [bytes(row[0]) for row in rows]


class Unreliable:
    """A client whose answers to inserts get lost, though they were done."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def insert(self, *arguments: Any, **more: Any) -> None:
        self._client.insert(*arguments, **more)
        self.lost += 1
        raise ConnectionResetError("the answer is lost")


def test_a_lost_answer_is_read_back_and_a_second_insert_adds_nothing(client: Any) -> None:
    sealer = new_sealer()
    first, second = seal(sealer, 10), seal(sealer, 5)
    writer = Writer(client)
    assert not writer.stored(first)
    unreliable = Unreliable(client)
    with pytest.raises(EngineError, match="the answer is lost"):
        Writer(unreliable).write(first)
    assert unreliable.lost == 1
    assert writer.stored(first)
    for _ in range(3):
        writer.write(first)
    assert writer.stored(first)
    assert hashes(client, first.chain_id) == list(first.columns["hash"])
    writer.write(second)
    assert writer.stored(second)
    with pytest.raises(EngineError, match="holds 15 rows from seq 0 that are not the batch of 10"):
        writer.stored(first)


def test_a_batch_is_known_after_the_engine_was_opened_again(directory: DataDirectory) -> None:
    batch = seal(new_sealer(), 10)
    for _ in range(2):
        with directory.hold("test"), open_engine(directory, Role.WRITER) as engine:
            client = engine.client()
            Writer(client).write(batch)
            assert len(hashes(client, batch.chain_id)) == 10
            client.close()


def test_a_batch_is_known_by_its_token(client: Any) -> None:
    batch = seal(new_sealer(), 4)
    Writer(client).write(batch)
    # The engine drops what comes under a token that it knows: a token must never stand for two batches.
    Writer(client).write(replace(batch, columns={**batch.columns, "actor_id": ["somebody"] * 4}))
    actors = query(
        client,
        "SELECT actor_id FROM audit.records WHERE chain_id = {chain:UUID} ORDER BY seq",
        {"chain": batch.chain_id},
    )
    assert [row[0] for row in actors] == list(batch.columns["actor_id"])


def test_the_token_is_of_the_content() -> None:
    batch = seal(new_sealer(), 3)
    assert batch.token == replace(batch, note="another").token
    changed = {**batch.columns, "hash": [*batch.columns["hash"][:-1], bytes(32)]}
    assert replace(batch, columns=changed).token != batch.token


def test_other_rows_in_the_place_of_a_batch_are_told(client: Any) -> None:
    batch = seal(new_sealer(), 3)
    foreign = replace(batch, columns={**batch.columns, "hash": [bytes([n]) * 32 for n in range(3)]})
    writer = Writer(client)
    writer.write(foreign)
    with pytest.raises(EngineError, match="are not the batch"):
        writer.stored(batch)


def test_a_batch_larger_than_a_block_of_the_engine_is_one_part(client: Any) -> None:
    rows = 150_000  # a block has 65,409
    one = seal(new_sealer(), 1)
    columns: dict[str, list[Any]] = {name: list(values) * rows for name, values in one.columns.items()}
    columns["seq"] = list(range(rows))
    columns["record_id"] = [str(uuid.UUID(int=number)) for number in range(rows)]
    columns["hash"] = [number.to_bytes(32) for number in range(rows)]
    batch = replace(one, columns=columns)
    parts = "SELECT name, rows FROM system.parts WHERE active AND database = 'audit' AND table = 'records'"
    before = query(client, parts)
    Writer(client).write(batch)
    new = set(query(client, parts)) - set(before)
    assert [count for _, count in new] == [rows]
    assert Writer(client).stored(batch)


def test_what_was_quarantined_is_stored_before_the_records_that_name_it(client: Any) -> None:
    sealer = new_sealer()
    batch = seal(sealer, 2)
    raw = b"\x00\xff not a record"
    quarantined: dict[str, list[Any]] = {
        "quarantine_id": [str(uuid.uuid4())],
        "received_at": [batch.received_at],
        "reason": ["no action"],
        "producer_id": ["web-1"],
        "producer_seq": [7],
        "salt": [os.urandom(16)],
        "raw": [raw],
        "digest": [bytes(range(32))],
    }
    batch = replace(batch, quarantined=quarantined)
    with pytest.raises(EngineError, match=r"audit\.quarantine"):
        # Lost after the first insert: the records must not be there yet.
        Writer(Unreliable(client)).write(batch)
    assert hashes(client, batch.chain_id) == []
    Writer(client).write(batch)
    stored = query(
        client,
        "SELECT reason, producer_seq, hex(raw), hex(salt), hex(digest) FROM audit.quarantine "
        "WHERE quarantine_id = {id:UUID}",
        {"id": quarantined["quarantine_id"][0]},
    )
    salt, digest = quarantined["salt"][0], quarantined["digest"][0]
    assert stored == [("no action", 7, raw.hex().upper(), salt.hex().upper(), digest.hex().upper())]
    assert len(hashes(client, batch.chain_id)) == 2
