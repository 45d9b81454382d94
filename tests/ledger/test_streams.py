"""Rules 10 and 12: what was lost before it reached a collector, and collectors that kept silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal_ledger.verifier import (
    GRACE_NS,
    Absent,
    Finding,
    LogVerifier,
    Stream,
    StreamFacts,
    TrustedKeys,
    Twin,
    VerificationResult,
    gap_of,
    previous_of,
)
from tests.ledger.log_simulator import LogSimulator, verify

NOW = 1_800_000_000 * 10**9
OLD, YOUNG = NOW - GRACE_NS, NOW - GRACE_NS + 1
CHAIN = "0192f000-0000-7000-8000-000000000000"


def stream(
    name: str = "desk/1", last: int = 9, *, ended: bool = True, absent: tuple[Absent, ...] = ()
) -> Stream:
    return Stream(
        tenant="t",
        stream_id=name,
        last=last,
        chain_id=CHAIN,
        seq=50,
        received_at=OLD,
        ended=ended,
        absent=absent,
    )


def hole(first: int, last: int, received_at: int = OLD) -> Absent:
    return Absent(first, last, CHAIN, 40, received_at)


def judged(**facts: object) -> VerificationResult:
    given_facts = StreamFacts(**{"now": NOW, **facts})  # type: ignore[arg-type]  # a test's own
    return LogVerifier(keys=TrustedKeys([]), checkpoint_log=[]).finish(given_facts)


def told(findings: tuple[Finding, ...]) -> list[tuple[str, int | None]]:
    return [(finding.kind, finding.seq) for finding in findings]


def test_whole_streams_are_no_finding() -> None:
    result = judged(streams=[stream(), stream("desk/2", 0)])
    assert (told(result.findings), told(result.information)) == ([], [])
    assert [rule for rule, _ in result.not_checked] == [11]


def test_absent_numbers_are_lost_at_the_record_behind_them() -> None:
    result = judged(streams=[stream(absent=(hole(3, 4), hole(7, 7)))])
    assert told(result.findings) == [("lost_before_collector", 40)] * 2
    assert "numbers 3 to 4 (2)" in result.findings[0].message
    assert "number 7:" in result.findings[1].message
    assert {finding.chain_id for finding in result.findings} == {CHAIN}


def test_what_may_still_be_on_its_way_is_pending() -> None:
    result = judged(streams=[stream(absent=(hole(3, 4, YOUNG),))])
    assert (told(result.findings), told(result.information)) == ([], [("pending", 40)])


@pytest.mark.parametrize(
    ("gaps", "quarantined", "lost"),
    [
        ([("desk/1", 3, 6)], [], []),
        ([("desk/1", 0, 99)], [], []),
        ([("desk/2", 3, 6)], [], ["numbers 3 to 6 (4)"]),
        ([("desk/1", 4, 5)], [], ["number 3", "number 6"]),
        ([("desk/1", 3, 3)], [("desk/1", 6)], ["numbers 4 to 5 (2)"]),
        ([], [("desk/1", number) for number in (3, 4, 5, 6)], []),
        ([("desk/1", 5, 4)], [], ["numbers 3 to 6 (4)"]),
    ],
)
def test_what_is_named_is_not_lost(
    gaps: list[tuple[str, int, int]], quarantined: list[tuple[str, int]], lost: list[str]
) -> None:
    gaps = [gap for gap in gaps if gap[1] <= gap[2]]
    result = judged(streams=[stream(absent=(hole(3, 6),))], gaps=gaps, quarantined=quarantined)
    assert len(result.findings) == len(lost)
    for finding, words in zip(result.findings, lost, strict=True):
        assert f"lacks {words}:" in finding.message


@given(
    absent=st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted),
    gaps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted), max_size=6),
)
def test_ranges_are_taken_off_exactly(absent: list[int], gaps: list[list[int]]) -> None:
    first, last = absent
    result = judged(
        streams=[stream(last=40, absent=(hole(first, last),))], gaps=[("desk/1", *gap) for gap in gaps]
    )
    left = set(range(first, last + 1)).difference(*(range(a, b + 1) for a, b in gaps))
    said: set[int] = set()
    for finding in result.findings:
        words = finding.message.partition("lacks ")[2].replace(":", "").split()
        said |= set(range(int(words[1]), int(words[3]) + 1)) if words[0] == "numbers" else {int(words[1])}
    assert said == left


def test_a_lost_end_is_noticed_by_the_stream_that_follows() -> None:
    result = judged(streams=[stream(last=9, ended=False)], previous=[("desk/1", 12), ("desk/1", 5)])
    assert [finding.message.partition(" lacks ")[2][:16] for finding in result.findings] == [
        "numbers 10 to 12"
    ]
    assert told(result.information) == []


def test_rows_that_are_missing_are_not_taken_for_lost_before_the_collector() -> None:
    log = LogSimulator()
    chain = log.chain(5, 3)
    verifier = LogVerifier(keys=TrustedKeys([log.key.vkey]), checkpoint_log=log.lines)
    rows = verifier.chain(chain.id)
    for row in chain.rows[:3] + chain.rows[4:]:
        rows.row(row)
    verifier.add(rows.finish())
    result = verifier.finish(StreamFacts(streams=[stream(absent=(hole(3, 3),))], now=NOW))
    assert [finding.kind for finding in result.findings] == ["missing"]
    assert [rule for rule, _ in result.not_checked] == [10, 11]


def test_a_stream_of_which_nothing_came_is_noticed_by_the_one_that_names_it() -> None:
    result = judged(streams=[], previous=[("desk/0", 3), ("desk/x", -1)])
    assert told(result.findings) == [("lost_before_collector", None)]
    assert "desk/0" in result.findings[0].message


def test_streams_without_an_end_are_information_once() -> None:
    result = judged(streams=[stream(f"desk/{n}", ended=False) for n in range(8)], previous=[("desk/3", 9)])
    assert told(result.information) == [("stream_open", None)]
    assert "7 streams" in result.information[0].message
    assert "desk/3" not in result.information[0].message


def test_records_in_two_chains() -> None:
    twins = [Twin("t", f"id-{n}", CHAIN, n, n != 2) for n in range(4)]
    result = judged(streams=[], twins=twins)
    assert told(result.findings) == [("conflict", 2)]
    assert told(result.information) == [("delivered_twice", None)]
    assert "3 records" in result.information[0].message


def test_findings_of_one_kind_are_bounded_and_counted() -> None:
    result = judged(streams=[stream(last=9999, absent=tuple(hole(n, n) for n in range(0, 4000, 2)))])
    assert len(result.findings) == 1001
    assert result.findings[-1].message == "and 1000 more that are not listed"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"stream_id": "a/1", "first": "3", "last": "4"}, ("a/1", 3, 4)),
        ({"stream_id": "a/1", "first": "4", "last": "3"}, None),
        ({"stream_id": "a/1", "first": "-4", "last": "3"}, None),
        ({"stream_id": "a/1", "first": "x", "last": "3"}, None),
        ({"stream_id": "", "first": "1", "last": "3"}, None),
        ({"reason": "spool_damaged"}, None),
    ],
)
def test_gaps_are_read(metadata: dict[str, str], expected: object) -> None:
    assert gap_of({f"audit.producer.gap.{key}": value for key, value in metadata.items()}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"stream_id":"a","last":3},{"stream_id":"b","last":-1}]', [("a", 3), ("b", -1)]),
        ('[{"stream_id":"a","last":"3"},{"last":3},4,null,{"stream_id":5,"last":3}]', []),
        ("{}", []),
        ("nothing", []),
        ("[" * 100_000, []),
    ],
)
def test_named_streams_are_read(text: str, expected: object) -> None:
    assert previous_of({"audit.producer.previous": text}) == expected


@pytest.mark.parametrize(("hours", "kinds"), [(3.9, []), (4.1, ["silent"])])
def test_a_silent_collector_is_told(hours: float, kinds: list[str]) -> None:
    log = LogSimulator()
    chain = log.chain(5, 3)
    log.now += int(hours * 3600 * 10**9)
    chain.seal([chain.own("audit_log.heartbeat")])
    log.now += 3600 * 10**9
    chain.seal([chain.own("audit_log.stopped")])
    result = verify(log)
    assert not result.findings
    assert [finding.kind for finding in result.information] == kinds
