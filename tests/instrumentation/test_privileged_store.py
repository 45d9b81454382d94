"""The store of approvals by itself: several threads and processes, forks, and what a file may not be."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal.gate import sqlite_store
from spanseal.gate.approval import SECOND, Approval, Attempt, Person, Resource, State, same_person
from spanseal.gate.errors import NotPending, OwnApproval, StoreUnavailable, TooManyRequests, UnknownApproval
from spanseal.gate.sqlite_store import SqliteStore
from spanseal.gate.store import Verdict
from spanseal.identifiers import uuid7

NOW = 1_800_000_000 * SECOND
ANN, BEN = Person("ann", "ann@example.org"), Person("ben")


def wanted(binding: str = "b", *, now: int = NOW, requester: Person = ANN) -> Approval:
    return Approval(
        id=uuid7(),
        binding=binding,
        tenant="t",
        service="clinic",
        action="user.deleted",
        resource=Resource("user", "7"),
        method="DELETE",
        route="/users/<uid>",
        requester=requester,
        request_id="r",
        confirm=900,
        use_within=600,
        requested_at=now,
        expires_at=now + 3600 * SECOND,
    )


class Notes(list[tuple[State, Approval]]):
    def __call__(self, state: State, approval: Approval) -> None:
        self.append((state, approval))

    @property
    def states(self) -> list[State]:
        return [state for state, _ in self]


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "deep" / "approvals.db")


def granted(store: SqliteStore, binding: str = "b") -> Approval:
    asked = store.claim(wanted(binding), NOW, "r", Notes()).approval
    return store.decide(asked.id, grant=True, by=BEN, reason="", now=NOW + 1, note=Notes())


def test_the_life_of_an_approval(store: SqliteStore) -> None:
    notes = Notes()
    first = wanted()
    assert store.claim(first, NOW, "r1", notes).verdict is Verdict.REQUESTED
    assert store.find(first.id) == first
    again = store.claim(wanted(), NOW + 1, "r2", notes)
    assert (again.verdict, again.approval) == (Verdict.WAITING, first)
    with pytest.raises(OwnApproval):
        store.decide(first.id, grant=True, by=Person("x", "ANN@EXAMPLE.ORG"), reason="", now=NOW, note=notes)
    decided = store.decide(first.id, grant=True, by=BEN, reason="why", now=NOW + 2, note=notes)
    assert (decided.state, decided.approver, decided.reason) == (State.GRANTED, BEN, "why")
    assert decided.expires_at == NOW + 2 + 600 * SECOND
    with pytest.raises(NotPending, match="granted already"):
        store.decide(first.id, grant=False, by=BEN, reason="", now=NOW + 3, note=notes)
    claim = store.claim(wanted(), NOW + 3, "r3", notes)
    assert (claim.verdict, claim.approval.used_by, claim.approval.used_at) == (Verdict.USED, "r3", NOW + 3)
    assert store.find(first.id) == claim.approval
    assert store.claim(wanted(), NOW + 4, "r4", notes).verdict is Verdict.REQUESTED
    assert notes.states == [State.PENDING, State.GRANTED, State.USED, State.PENDING]
    with pytest.raises(UnknownApproval):
        store.find("nothing")
    with pytest.raises(UnknownApproval):
        store.decide("nothing", grant=True, by=BEN, reason="", now=NOW, note=notes)


def test_times_end_exactly(store: SqliteStore) -> None:
    notes = Notes()
    asked = store.claim(wanted(), NOW, "r", notes).approval
    assert store.expire("t", asked.expires_at - 1, notes) == []
    assert store.expire("another", asked.expires_at, notes) == []
    (expired,) = store.expire("t", asked.expires_at, notes)
    assert (expired.state, store.find(asked.id).state) == (State.EXPIRED, State.EXPIRED)
    assert store.expire("t", asked.expires_at, notes) == []
    late = granted(store)
    at_the_end = store.claim(wanted(), late.expires_at - 1, "r", notes)
    assert at_the_end.verdict is Verdict.USED
    too_late = granted(store)
    assert store.claim(wanted(), too_late.expires_at, "r", notes).verdict is Verdict.RENEWED


def test_a_note_that_fails_leaves_everything_as_it_was(store: SqliteStore) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.claim(wanted(), NOW, "r", fail)
    assert store.list("t", tuple(State), 10) == []
    asked = store.claim(wanted(), NOW, "r", Notes()).approval
    for act in (
        lambda: store.decide(asked.id, grant=True, by=BEN, reason="", now=NOW + 1, note=fail),
        lambda: store.expire("t", asked.expires_at, fail),
        lambda: store.claim(wanted(), asked.expires_at, "r", fail),
    ):
        with pytest.raises(ZeroDivisionError):
            act()
        assert store.find(asked.id) == asked
    late = granted(store, "other")
    with pytest.raises(ZeroDivisionError):
        store.claim(wanted("other"), NOW + 2, "r", fail)
    assert store.find(late.id) == late


def test_what_is_over_is_forgotten_after_a_while_and_nothing_else(store: SqliteStore) -> None:
    used = granted(store)
    store.claim(wanted(), NOW + 2, "r", Notes())
    waiting = store.claim(wanted("waits"), NOW + sqlite_store.KEPT, "r", Notes()).approval
    assert store.find(used.id).state is State.USED
    later = NOW + sqlite_store.KEPT + 7200 * SECOND
    store.claim(wanted("new", now=later), later, "r", Notes())
    with pytest.raises(UnknownApproval):
        store.find(used.id)
    assert store.find(waiting.id) == waiting


def test_requests_of_one_person_are_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "MOST_WAITING", 2)
    for name in ("1", "2"):
        store.claim(wanted(name), NOW, "r", Notes())
    with pytest.raises(TooManyRequests):
        store.claim(wanted("3"), NOW, "r", Notes())
    store.claim(wanted("3", requester=BEN), NOW, "r", Notes())
    later = NOW + 3600 * SECOND
    store.claim(wanted("3", now=later), later, "r", Notes())


def test_text_that_sqlite_cannot_hold_is_kept_as_its_escape(store: SqliteStore) -> None:
    odd = replace(wanted(), resource=Resource("user", "\udc80\x00"))
    store.claim(odd, NOW, "r", Notes())
    assert store.find(odd.id).resource.id == "\\udc80\x00"


# --- the file ----------------------------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone(store: SqliteStore) -> None:
    granted(store)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    for mode in (0o620, 0o602):
        store.path.chmod(mode)
        with pytest.raises(StoreUnavailable, match="chmod 600"):
            store.list("t", tuple(State), 10)


def test_a_file_that_is_not_to_be_made(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "approvals.db", create=False)
    with pytest.raises(StoreUnavailable):
        store.list("t", tuple(State), 10)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_held_is_not_waited_for_for_ever(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted(store)
    monkeypatch.setattr(sqlite_store, "_WAIT", 0.05)
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.claim(wanted(), NOW + 2, "r", Notes())
    assert store.claim(wanted(), NOW + 2, "r", Notes()).verdict is Verdict.USED


# --- several at once -----------------------------------------------------------------------------------------------


def claim_all(path: Path, bindings: list[str], ready: Any, results: Any) -> None:
    store = SqliteStore(path)
    ready.wait(60)
    results.put(
        [
            name
            for name in bindings
            if store.claim(wanted(name), NOW + 2, str(os.getpid()), Notes()).verdict is Verdict.USED
        ]
    )


def test_of_several_processes_one_uses_an_approval(store: SqliteStore) -> None:
    bindings = [str(number) for number in range(30)]
    for name in bindings:
        granted(store, name)
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=claim_all, args=(store.path, bindings, ready, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    used = [name for _ in processes for name in results.get(timeout=120)]
    for process in processes:
        process.join()
    assert sorted(used, key=int) == bindings


def test_a_child_can_use_the_store_whatever_its_parent_was_doing(store: SqliteStore) -> None:
    """A fork while another thread is inside SQLite, in a note, waits for it."""
    asked = granted(store)
    inside, go_on = threading.Event(), threading.Event()

    def note(*_: object) -> None:
        inside.set()
        assert go_on.wait(20)

    thread = threading.Thread(target=lambda: store.claim(wanted("other"), NOW, "r", note))
    thread.start()
    assert inside.wait(20)
    threading.Timer(0.05, go_on.set).start()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        code = 1
        try:
            code = 0 if store.find(asked.id) == asked else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(store.list("t", tuple(State), 10)) == 2


# --- what is bound -------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=6)
ATTEMPTS = st.builds(
    Attempt,
    action=TEXT,
    resource=st.builds(Resource, TEXT, TEXT),
    method=TEXT,
    route=TEXT,
    host=TEXT,
    path=TEXT,
    values=st.dictionaries(TEXT, TEXT, max_size=2).map(lambda found: tuple(sorted(found.items()))),
    query=st.binary(max_size=4),
    body=st.none() | st.binary(max_size=4),
    tenant=TEXT,
    service=TEXT,
)


@given(ATTEMPTS, ATTEMPTS, TEXT, TEXT)
def test_two_attempts_have_one_binding_only_if_they_are_the_same(
    one: Attempt, other: Attempt, name: str, other_name: str
) -> None:
    same = (one, name) == (other, other_name)
    assert (one.binding(Person(name)) == other.binding(Person(other_name))) is same
    assert one.binding(Person(name)) == replace(one).binding(Person(name, "a@example.org"))


def test_each_part_of_an_attempt_is_bound() -> None:
    one = Attempt(action="a", resource=Resource("t", "i"), method="m", route="r")
    changes: list[dict[str, Any]] = [
        {"action": "b"},
        {"resource": Resource("t", "j")},
        {"resource": Resource("ti", "")},
        {"method": "n"},
        {"route": "s"},
        {"host": "h"},
        {"path": "p"},
        {"values": (("k", "v"),)},
        {"query": b"q"},
        {"body": b""},
        {"body": b"b"},
        {"tenant": "x"},
        {"service": "x"},
    ]
    bindings = {replace(one, **change).binding(ANN) for change in [{}, *changes]}
    assert len(bindings) == len(changes) + 1
    assert len({one.binding(ANN), one.binding(BEN)}) == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Person("ann"), Person("ANN"), True),
        (Person("ann", "a@x.org"), Person("other", "A@X.ORG "), True),
        (Person("a@x.org"), Person("7", "A@x.org"), True),
        (Person("ﬁona"), Person("FIONA"), True),
        (Person("ann", behalf="ben"), Person("ben"), True),
        (Person("ann"), Person("ben"), False),
        (Person("ann", ""), Person("ben", ""), False),
        (Person(), Person(), False),
    ],
)
def test_who_may_be_the_same_person(one: Person, other: Person, *, same: bool) -> None:
    assert same_person(one, other) is same_person(other, one) is same
