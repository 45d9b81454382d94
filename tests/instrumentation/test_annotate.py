"""What an application says about its request's own record, and what its views are marked with."""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from flask.views import MethodView, View

import spanseal
from spanseal import InvalidRecord
from spanseal.delivery import spool
from spanseal.meaning import marks
from tests.instrumentation.calling import BoomError
from tests.instrumentation.conftest import Audit


def test_what_is_said_goes_before_everything_else_and_adds_up(audit: Audit, app: flask.Flask) -> None:
    @app.post("/orders/<oid>/notes/<nid>")
    @spanseal.action("note.marked", resource_id="nid", attributes={"from": "mark", "kept": 1})
    def note(oid: str, nid: str) -> str:
        (begun,) = audit.own_rows()  # before the view ran, and with the mark already
        assert (begun.action, begun.attributes["audit.target.id"]) == ("note.marked", nid)
        assert oid != nid
        spanseal.annotate(
            action="order.noted",
            resource_type="order",
            resource_id=7,
            outcome="failure",
            failure_reason="limit",
            attributes={"from": "annotate", "audit.subject.id": "s", "audit.severity": "high"},
        )
        spanseal.annotate(
            resource_id=8,
            attributes={"more": [1, 2]},
            changes=spanseal.changes({"a": 1}, {"a": 2}, fields=["a"]),
        )
        return "ok"

    app.test_client().post("/orders/1/notes/2")
    record = audit.record()
    assert record.action == "order.noted"
    assert (
        record.attributes.items()
        >= {
            "audit.target.type": "order",
            "audit.target.id": "8",
            "audit.outcome": "failure",
            "audit.failure.reason": "limit",
            "audit.subject.id": "s",
            "audit.severity": "high",
            "audit.capture": "wsgi",
            "from": "annotate",
            "kept": 1,
            "change.fields": "a",
            "change.a.before": 1,
            "change.a.after": 2,
            "http.response.status_code": 200,
        }.items()
    )
    assert record.attributes["more"] == [1, 2]


def test_what_is_said_while_the_answer_is_sent_is_in_the_final_record(audit: Audit, app: flask.Flask) -> None:
    @app.get("/patients")
    def patients() -> flask.Response:
        def rows() -> Iterator[str]:
            yield "1"
            (row,) = audit.own_rows()
            assert (row.state, row.action) == ("answered", "patient.listed")
            spanseal.annotate(action="record.exported", attributes={"rows": 2})
            yield "2"

        return flask.Response(rows())

    assert app.test_client().get("/patients").text == "12"
    record = audit.record()
    assert (record.action, record.attributes["rows"]) == ("record.exported", 2)


def test_an_outcome_can_be_taken_back_but_no_exception_hidden(audit: Audit, app: flask.Flask) -> None:
    @app.get("/invoices/<kind>")
    def invoices(kind: str) -> str:
        spanseal.annotate(outcome="failure", failure_reason="limit")
        spanseal.annotate(failure_reason="other limit")
        if kind == "fine":
            spanseal.annotate(outcome="success")
        if kind == "raises":
            spanseal.annotate(outcome="success")
            raise BoomError
        return "ok"

    client = app.test_client()
    for kind in ("limited", "fine", "raises"):
        client.get(f"/invoices/{kind}")
    found = [
        (one.attributes["audit.outcome"], one.attributes.get("audit.failure.reason"))
        for one in audit.records()
    ]
    assert found == [
        ("failure", "other limit"),
        ("success", None),
        ("failure", "tests.instrumentation.calling.BoomError"),
    ]


def test_what_a_thread_says_while_the_answer_is_written_down_is_not_lost(
    audit: Audit, app: flask.Flask
) -> None:
    contexts: list[contextvars.Context] = []

    @app.get("/patients")
    def patients() -> str:
        contexts.append(contextvars.copy_context())
        return "none"

    answer = spool.Spool.answer

    def slow(self: spool.Spool, row: int | None, body: bytes) -> int:
        contexts[0].run(spanseal.annotate, attributes={"late": True})
        return answer(self, row, body)

    audit.monkeypatch.setattr(spool.Spool, "answer", slow)
    app.test_client().get("/patients")
    assert audit.record().attributes["late"] is True


WRONG: list[dict[str, Any]] = [
    {"action": "approve"},
    {"action": "audit_log.stopped"},
    {"outcome": "ok"},
    {"outcome": "success", "failure_reason": "why"},
    {"failure_reason": "why"},
    {"failure_reason": "w" * 70_000, "outcome": "failure"},
    {"resource_id": 2**64},
    {"resource_id": object()},
    {"resource_type": "t" * 70_000},
    {"resource_type": 5},
    {"attributes": {"k": object()}},
    {"attributes": {"k": "v" * 70_000}},
    {"attributes": {"audit.record.id": "x"}},
    {"attributes": {"client.address": "::1"}},
    {"attributes": {f"k{n}": n for n in range(901)}},
    {"attributes": {f"k{n}": "v" * 60_000 for n in range(15)}},
]


def test_what_no_record_can_hold_is_refused_and_changes_nothing(audit: Audit, app: flask.Flask) -> None:
    refused = []

    @app.get("/patients")
    def patients() -> str:
        for arguments in WRONG:
            with pytest.raises(InvalidRecord) as caught:
                spanseal.annotate(**{"attributes": {"fine": 1}, **arguments})
            refused.append(str(caught.value))
        return "none"

    app.test_client().get("/patients")
    assert len(refused) == len(WRONG)
    assert all(len(message) < 300 for message in refused)
    record = audit.record()
    assert (record.action, record.attributes["audit.outcome"]) == ("patient.listed", "success")
    assert "fine" not in record.attributes


def test_there_is_nothing_to_annotate_outside_of_a_request_or_after_it(
    audit: Audit, app: flask.Flask
) -> None:
    with pytest.raises(InvalidRecord, match="outside of a request"):
        spanseal.annotate(action="invoice.approved")
    with spanseal.actor("cron"), pytest.raises(InvalidRecord, match="outside of a request"):
        spanseal.annotate(action="invoice.approved")
    contexts = []

    @app.get("/reports")
    def reports() -> str:
        contexts.append(contextvars.copy_context())
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(spanseal.annotate,),
            kwargs={"attributes": {"by": "thread"}},
        )
        thread.start()
        thread.join()
        return "made"

    answer = app.test_client().get("/reports")
    with pytest.raises(InvalidRecord, match=answer.headers["X-Request-Id"]):
        contexts[0].run(spanseal.annotate, action="invoice.approved")
    record = audit.record()
    assert (record.action, record.attributes["by"]) == ("report.listed", "thread")


# --- marks -----------------------------------------------------------------------------------------------------


def passing(view: Callable[..., Any]) -> Callable[..., Any]:
    """Stand for a decorator of an application."""

    @functools.wraps(view)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return view(*arguments, **named)

    return wrapper


def anonymous(view: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but without functools.wraps."""

    def wrapper(*arguments: Any, **named: Any) -> Any:
        return view(*arguments, **named)

    wrapper.__wrapped__ = view  # type: ignore[attr-defined]
    return wrapper


@pytest.mark.parametrize("inside", [[], [passing], [passing, anonymous]])
@pytest.mark.parametrize("around", [[], [passing], [anonymous, passing]])
def test_the_mark_of_a_view_is_found_among_other_decorators(
    audit: Audit, app: flask.Flask, inside: list[Any], around: list[Any]
) -> None:
    def approve(iid: str) -> str:
        return iid

    view: Any = approve
    for decorator in (*inside, spanseal.action("invoice.approved", resource_id="iid"), *around):
        view = decorator(view)
    app.add_url_rule("/x/<iid>", "approve", view, methods=["GET", "POST"])
    client = app.test_client()
    client.post("/x/8")
    client.head("/x/9")
    found = [
        (one.action, one.attributes["audit.target.type"], one.attributes["audit.target.id"])
        for one in audit.records()
    ]
    assert found == [("invoice.approved", "invoice", "8"), ("invoice.approved", "invoice", "9")]


def test_view_classes_are_marked_as_a_whole_or_by_method(audit: Audit, app: flask.Flask) -> None:
    @spanseal.action("invoice.touched", resource_type="bill")
    class Invoices(MethodView):
        init_every_request = False

        @spanseal.action("invoice.read", resource_id="{iid}/{line}")
        def get(self, iid: str, line: str) -> str:
            return iid + line

        def post(self, iid: str, line: str) -> str:
            return iid + line

    class Pages(View):
        methods = ("GET", "POST")

        @passing
        @spanseal.action("page.printed", methods=["post"])
        @spanseal.action("page.opened", methods=["GET"])
        def dispatch_request(self) -> str:
            return "page"

    class Derived(Invoices):
        decorators = [passing, anonymous]  # noqa: RUF012 - as Flask declares it

    app.add_url_rule("/i/<iid>/<line>", view_func=Invoices.as_view("invoices"))
    app.add_url_rule("/d/<iid>/<line>", view_func=Derived.as_view("derived"))
    app.add_url_rule("/p", view_func=Pages.as_view("pages"))
    client = app.test_client()
    for method, path in (
        ("GET", "/i/8/1"),
        ("HEAD", "/i/8/2"),
        ("POST", "/i/8/3"),
        ("OPTIONS", "/i/8/4"),
        ("GET", "/d/8/5"),
        ("POST", "/p"),
        ("GET", "/p"),
    ):
        assert client.open(path, method=method).status_code == 200
    found = [
        (one.action, one.attributes["audit.target.type"], one.attributes.get("audit.target.id"))
        for one in audit.records()
    ]
    assert found[:3] == [
        ("invoice.read", "invoice", "8/1"),
        ("invoice.read", "invoice", "8/2"),
        ("invoice.touched", "bill", found[2][2]),
    ]
    assert found[3][0] not in ("invoice.read", "invoice.touched")  # nothing of the view ran
    assert found[4] == ("invoice.read", "invoice", "8/5")
    assert [action for action, _, _ in found[5:]] == ["page.printed", "page.opened"]


def test_a_mark_makes_no_record_and_leaves_the_function_as_it_is(audit: Audit) -> None:
    def approve(iid: int) -> int:
        return iid + 1

    marked = spanseal.action("invoice.approved")(approve)
    assert marked is approve
    assert marked(1) == 2
    mark = marks.of(functools.partial(marked, 1))
    assert mark is not None
    assert mark.action == "invoice.approved"
    assert marks.of(marked, "OPTIONS") is None
    assert marks.of(len) is None
    assert marks.of(None) is None
    assert audit.records() == []


def test_an_id_with_a_missing_variable_is_left_to_the_defaults_of_nothing(
    audit: Audit, app: flask.Flask
) -> None:
    @app.get("/invoices/<iid>")
    @spanseal.action("invoice.opened", resource_id="number")
    def opened(iid: str) -> str:
        return iid

    app.test_client().get("/invoices/5")
    assert "audit.target.id" not in audit.record().attributes


@pytest.mark.parametrize(
    "arguments",
    [
        {"action": "approve"},
        {"resource_id": "not a name"},
        {"resource_id": "{}"},
        {"resource_id": "{a.b}"},
        {"resource_id": "{a} }"},
        {"methods": "POST"},
        {"attributes": {"audit.capture": "x"}},
        {"attributes": {"k": object()}},
    ],
)
def test_a_wrong_mark_is_refused_where_it_stands(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord):
        spanseal.action(**{"action": "invoice.approved"} | arguments)


def test_what_cannot_bear_a_mark_is_named() -> None:
    with pytest.raises(InvalidRecord, match="builtin_function_or_method"):
        spanseal.action("list.measured")(len)
