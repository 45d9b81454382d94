"""Long answers in small pages: nothing is left out, nothing given twice, whatever the rows hold."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic import make_log
from examples.demo.forgeries import insert_rows, owner, rows_of_chain
from spanseal_ledger.verifier import StoredRow
from spanseal_storage import paging
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.errors import EngineError
from spanseal_storage.event_filter import EventFilter
from spanseal_storage.event_list import full_rows
from spanseal_storage.paging import by_chain, newest_first
from spanseal_storage.rows import query
from spanseal_storage.schema import COLUMN_NAMES

RECORDS = 60
YEAR = 365 * 86_400 * 1_000_000_000
# A second chain, which began earlier than the first one, and whose identifier sorts after it.
OTHER_CHAIN = "ffffffff-ffff-7fff-bfff-ffffffffffff"
TIME = "toUnixTimestamp64Nano(event_time)"
KEYS = (TIME, "toString(chain_id)", "seq", "hash")


def forged(rows: list[StoredRow]) -> Iterator[StoredRow]:
    # Some are just outside of the window that the one before them opens.
    steps = (5 * YEAR - step * (10**9 + 1) for step in itertools.count())
    times = itertools.chain.from_iterable(
        (rows[0].record.event_time, -(10**18), 9 * 10**18, step, next(steps)) for step in steps
    )
    begun = rows[0].record.received_at - YEAR
    for row in rows:
        seq = row.record.seq
        # A third of them at one time, the others all over two centuries.
        time = 0 if seq % 3 == 0 else next(times)
        # Numbers with gaps, and one far away.
        moved = (1 << 64) - 1 if seq == RECORDS else seq * 1000
        changed = replace(
            row.record, chain_id=OTHER_CHAIN, seq=moved, event_time=time, received_at=begun + seq
        )
        yield replace(row, record=changed)
        if seq % 10 == 0:
            yield replace(row, record=changed)
            yield replace(row, record=replace(changed, actor_id="somebody"))
            yield replace(row, record=replace(changed, actor_id="else"), hash=bytes(32))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_log(tmp_path_factory.mktemp("paging") / "data", RECORDS, batch=25).path
    with owner(path) as (_, client):
        chain = str(query(client, "SELECT toString(any(chain_id)) FROM audit.records")[0][0])
        insert_rows(client, list(forged(rows_of_chain(client, chain))))
    return path


@pytest.fixture(scope="module")
def client(data: Path) -> Iterator[Any]:
    directory = DataDirectory(data)
    with directory.hold("test"), open_engine(directory, Role.OWNER) as engine:
        client = engine.client()
        client.database = "audit"
        yield client
        client.close()


@pytest.fixture(params=[1, 7, 2000])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(paging, "PAGE", request.param)
    size: int = request.param
    return size


def flat(pages: Iterator[list[Sequence[Any]]]) -> list[tuple[Any, ...]]:
    return [tuple(row) for page in pages for row in page]


@pytest.mark.parametrize("where", ["1", "outcome = 'failure'", "actor_id = 'nobody'", "seq % 5000 = 0"])
def test_all_events_come_newest_first(client: Any, page: int, where: str) -> None:
    del page
    expected = [tuple(row) for row in query(client, f"SELECT {', '.join(KEYS)} FROM events WHERE {where}")]
    found = [
        (time, chain.decode(), seq, digest.decode())
        for time, chain, seq, digest in flat(newest_first(client, KEYS, where, {}))
    ]
    assert sorted(found) == sorted(expected)
    assert [row[0] for row in found] == sorted((row[0] for row in expected), reverse=True)


@pytest.mark.parametrize("limit", [3, 51, 10_000])
def test_a_limit_takes_the_newest(client: Any, page: int, limit: int) -> None:
    del page
    everything = flat(newest_first(client, (TIME, "chain_id", "seq", "hash"), "1", {}))
    assert (
        flat(newest_first(client, (TIME, "chain_id", "seq", "hash"), "1", {}, limit=limit))
        == everything[:limit]
    )


@pytest.mark.parametrize("where", ["1", "outcome = 'failure'", "actor_id = 'nobody'"])
def test_chains_come_whole_and_in_order(client: Any, page: int, where: str) -> None:
    del page
    columns = ["toString(chain_id)", "seq", "lower(hex(hash))", "actor_id"]
    expected = [
        tuple(row) for row in query(client, f"SELECT {', '.join(columns)} FROM records WHERE {where}")
    ]
    found = [
        (chain.decode(), seq, digest.decode(), actor.decode())
        for chain, seq, digest, actor in flat(by_chain(client, columns, where, {}))
    ]
    assert sorted(found) == sorted(expected)
    # The other chain first: it began a year earlier.
    order = [(chain != OTHER_CHAIN, seq) for chain, seq, *_ in found]
    assert order == sorted(order)
    assert where != "1" or (len({row[0] for row in found}) == 2 and found[-1][1] == RECORDS + 1)


class Limited:
    """A client under limits that make the engine refuse what is larger than a few rows."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.asked: list[str] = []
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def query(self, sql: str, **more: Any) -> Any:
        self.asked.append(sql)
        try:
            return self._client.query(sql, **more)
        except Exception:
            self.refused += 1
            raise


def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(client: Any) -> None:
    expected = flat(newest_first(client, ("chain_id", "seq", "hash"), "1", {}))
    everything = flat(by_chain(client, ["chain_id", "seq", "hash"], "1", {}))
    for setting in ({"max_result_rows": 30}, {"max_result_rows": 1}):
        limited = Limited(client)
        for name, value in setting.items():
            client.set_client_setting(name, value)
        try:
            if setting["max_result_rows"] == 1:
                limited_pages = newest_first(limited, ("chain_id", "seq", "hash"), "1", {}, limit=20)
                assert flat(limited_pages) == expected[:20]
            else:
                assert flat(newest_first(limited, ("chain_id", "seq", "hash"), "1", {})) == expected
                assert flat(by_chain(limited, ["chain_id", "seq", "hash"], "1", {})) == everything
        finally:
            client.set_client_setting("max_result_rows", 0)
        assert 0 < limited.refused < 10
    with pytest.raises(EngineError, match="nosuch"):
        flat(newest_first(client, ("nosuch",), "1", {}))


def test_full_rows_have_the_views_columns(client: Any) -> None:
    from spanseal_storage.event_list import FULL_NAMES

    described = [row[0] for row in query(client, "DESCRIBE TABLE audit.events")]
    assert list(FULL_NAMES) == described
    assert set(described) < {*COLUMN_NAMES}
    row = dict(zip(FULL_NAMES, next(full_rows(client, EventFilter(action="patient.viewed"), 1)), strict=True))
    (time,) = query(
        client,
        f"SELECT {TIME} FROM events WHERE record_id = {{id:UUID}} AND chain_id = {{chain:UUID}} LIMIT 1",
        {"id": row["record_id"], "chain": row["chain_id"]},
    )[0]
    assert row["event_time"].endswith(f"{time % 10**9:09}Z")


def test_what_is_appended_meanwhile_is_not_given(client: Any) -> None:
    (count,) = query(client, "SELECT count() FROM audit.records")[0]
    pages = by_chain(client, ["seq"], "1", {})
    first = next(pages)
    last = rows_of_chain(client, OTHER_CHAIN)[0]
    insert_rows(client, [replace(last, record=replace(last.record, chain_id=str(uuid.uuid4())))])
    assert len(first) + len(flat(pages)) == count
