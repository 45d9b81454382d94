from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanseal_collector.admission import Draft
from spanseal_collector.deduplication import _MAX_INTERVALS, _NEW_STREAMS, Deduplicator, _Stream
from spanseal_ledger.content import same_content
from spanseal_ledger.personal import commitment
from spanseal_ledger.record import Record
from tests.collector.faults import drafts, numbered
from tests.collector.wire import record


class Table:
    """What a table would answer, and how often it was asked."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Record] = {}
        self.streams_asked = 0
        self.ids_asked: list[str] = []

    def last_of_stream(self, tenant: str, producer_id: str) -> int | None:
        self.streams_asked += 1
        numbers = [
            r.producer_seq for r in self.rows.values() if (r.tenant, r.producer_id) == (tenant, producer_id)
        ]
        return max(numbers, default=None)

    def by_record_ids(self, ids: Iterable[str]) -> Mapping[tuple[str, str], Record]:
        wanted = set(ids)
        self.ids_asked += wanted
        return {key: row for key, row in self.rows.items() if key[1] in wanted}

    def store(self, drafts: Iterable[Draft]) -> None:
        self.rows.update({(d.record.tenant, d.record.record_id): d.record for d in drafts})


@given(st.lists(st.integers(0, 120), max_size=200))
@settings(deadline=None)
def test_a_stream_holds_what_was_added_and_nothing_else(numbers: list[int]) -> None:
    stream = _Stream(base=0)
    for number in numbers:
        stream.add(number)
    assert {n for n in range(122) if stream.holds(n)} == set(numbers)
    assert all(low <= high for low, high in zip(stream.lows, stream.highs, strict=True))
    assert all(high + 1 < low for high, low in zip(stream.highs, stream.lows[1:], strict=False))


def test_a_stream_full_of_holes_stays_small_and_forgets_nothing() -> None:
    stream = _Stream(base=0)
    numbers = range(0, 20_000, 2)
    for number in reversed(numbers):
        stream.add(number)
    assert len(stream.lows) == len(stream.highs) == _MAX_INTERVALS
    assert all(stream.holds(number) for number in numbers)
    assert not stream.holds(19_999)


def test_only_what_may_be_there_is_looked_up() -> None:
    table = Table()
    dedup = Deduplicator(table)
    first = drafts(*[numbered(n) for n in (0, 1, 2, 5)])
    assert dedup.known(first) == {}
    assert (table.streams_asked, table.ids_asked) == (1, [])
    table.store(first)
    dedup.remember(d.record for d in first)
    late = drafts(numbered(3), numbered(4), numbered(6))
    assert dedup.known([*late, *first]).keys() == {("default", d.record.record_id) for d in first}
    assert sorted(table.ids_asked) == sorted(d.record.record_id for d in first)


def test_after_a_restart_what_is_below_the_end_of_a_stream_is_looked_up() -> None:
    table = Table()
    stored = drafts(numbered(7))
    table.store(stored)
    dedup = Deduplicator(table)
    late, new = drafts(numbered(3), numbered(8))
    assert dedup.known([late, new, *stored]).keys() == {("default", stored[0].record.record_id)}
    assert set(table.ids_asked) == {late.record.record_id, stored[0].record.record_id}


def test_countless_streams_cost_few_queries_and_are_never_taken_for_known() -> None:
    table = Table()
    dedup = Deduplicator(table, streams=100)
    many = drafts(
        *[record(audit__stream_id=f"web/{n}", audit__sequence__number=0) for n in range(3 * _NEW_STREAMS)]
    )
    assert dedup.known(many) == {}
    assert table.streams_asked == _NEW_STREAMS
    assert len(table.ids_asked) == 2 * _NEW_STREAMS
    table.store(many)
    dedup.remember(d.record for d in many)
    for _ in range(10):
        assert len(dedup.known(many)) == len(many)
    assert len(dedup._streams) <= 100


@pytest.mark.parametrize(
    "change",
    [
        {"event_time": 5},
        {"actor_email": "other@example.org"},
        {"actor_ip": "192.0.2.9"},
        {"personal": {"full_name": "Other"}},
        {"metadata": {"http.route": "/b"}},
        {"outcome": "failure"},
        {"producer_seq": 9},
    ],
)
def test_another_content_is_not_the_same(change: dict[str, Any]) -> None:
    (draft,) = drafts(numbered(1, user__email="zoe@example.org", http__route="/a"))
    assert same_content(draft.record, draft.record)
    other = replace(draft, record=replace(draft.record, **change))
    assert not same_content(draft.record, other.record)


def test_erased_personal_data_is_not_compared_but_data_that_never_was_there_is() -> None:
    plain, named = drafts(numbered(1, audit__record__id=None), numbered(1, user__email="zoe@example.org"))
    salt = bytes(16)
    sealed = replace(
        named.record,
        personal_salt=salt,
        personal_commitment=commitment(salt, "zoe@example.org", "", {}),
    )
    erased = replace(sealed, actor_email="", personal_salt=b"")
    assert same_content(sealed, named.record)
    assert same_content(erased, named.record)
    never = replace(named.record, actor_email="")
    assert not same_content(never, named.record)
    assert not same_content(plain.record, named.record)
