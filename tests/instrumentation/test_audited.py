"""One record for each call of a decorated function, written down before it runs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import flask
import pytest

import spanseal
from spanseal import InvalidRecord, NotAudited
from spanseal.delivery import spool
from spanseal.errors import SpoolUnavailable
from tests.instrumentation.calling import BoomError
from tests.instrumentation.conftest import Audit, until
from tests.instrumentation.fake_receiver import Received

SECRET = "what nobody named"


@dataclass
class Invoice:
    number: int
    status: str = "open"
    password: str = "old"
    lines: list[str] = field(default_factory=list)


def outcomes(records: list[Received]) -> list[tuple[str, str]]:
    return [
        (one.attributes["audit.outcome"], one.attributes.get("audit.failure.reason", "")) for one in records
    ]


# --- what is recorded --------------------------------------------------------------------------------------------


def test_a_call_is_written_down_before_it_runs_and_completed_when_it_ends(audit: Audit) -> None:
    @spanseal.audited("invoice.approved", resource_id="iid", attributes=["amount"])
    def approve(iid: int, note: str, *, amount: float = 2.5) -> str:  # noqa: ARG001 - named above
        (row,) = audit.own_rows()
        assert (row.state, row.action, row.number) == ("open", "invoice.approved", None)
        assert row.attributes["audit.outcome"] == "unknown"
        assert row.attributes["audit.target.id"] == "8"
        return note

    assert approve(8, SECRET) == SECRET
    # Durable when it returns: on disk, or if it is gone from there already, received.
    durable = [
        *(row.attributes for row in audit.own_rows()),
        *(one.attributes for one in audit.receiver.taken),
    ]
    assert "success" in [one["audit.outcome"] for one in durable if one["audit.target.id"] == "8"]
    record = audit.record()
    assert (
        record.attributes.items()
        >= {
            "audit.outcome": "success",
            "audit.target.type": "invoice",
            "audit.target.id": "8",
            "audit.capture": "call",
            "amount": 2.5,
            "audit.actor.type": "anonymous",
        }.items()
    )
    assert record.attributes["code.function.name"] == f"{__name__}.{approve.__qualname__}"
    assert SECRET.encode() not in audit.bytes()
    assert SECRET not in str(record)


def test_a_failure_has_the_exceptions_type_and_not_its_message(audit: Audit) -> None:
    @spanseal.audited("invoice.approved", resource_type="bill")
    def approve(error: BaseException) -> None:
        raise error

    errors = [BoomError(SECRET), KeyboardInterrupt(), SystemExit(3), SystemExit(0)]
    for error in errors:
        with pytest.raises(type(error)) as caught:
            approve(error)
        assert caught.value is error
    records = audit.records()
    assert outcomes(records) == [
        ("failure", "tests.instrumentation.calling.BoomError"),
        ("failure", "KeyboardInterrupt"),
        ("failure", "SystemExit"),
        ("success", ""),
    ]
    assert records[0].attributes["exception.type"] == "tests.instrumentation.calling.BoomError"
    assert records[0].attributes["audit.target.type"] == "bill"
    assert SECRET not in str(records)


def test_the_resource_and_the_attributes_can_be_made_of_the_arguments(audit: Audit) -> None:
    @spanseal.audited(
        "line.changed",
        resource_id="{invoice.number}/{line}",
        attributes=lambda invoice, line, **more: {
            "more": sorted(more),
            "line": line,
            "status": invoice.status,
        },
    )
    def by_template(invoice: Invoice, line: int, **_more: object) -> None:  # noqa: ARG001 - as above
        invoice.status = "paid"

    @spanseal.audited("line.changed", resource_id=lambda *lines: lines[-1], attributes={"fixed": True})
    def by_function(*lines: int) -> int:
        return len(lines)

    @spanseal.audited("user.invited", resource_id="user", attributes=["user", "api_token", "roles", "by"])
    def named(user: str, api_token: str, roles: list[str], by: object) -> None:
        assert user != api_token
        assert roles
        assert by

    by_template(Invoice(5), line=2, why="because")
    by_function(1, 2, 3)
    named("uma", SECRET, ["a", "b"], Invoice(6))
    first, second, third = audit.records()
    assert first.attributes["audit.target.id"] == "5/2"
    assert first.attributes["more"] == ["why"]
    assert first.attributes["status"] == "open"  # as it was when the call began
    assert (second.attributes["audit.target.id"], second.attributes["fixed"]) == ("3", True)
    assert third.attributes["audit.target.id"] == third.attributes["user"] == "uma"
    assert third.attributes["api_token"] == "[redacted]"
    assert third.attributes["roles"] == '["a","b"]'
    assert third.attributes["by"] == f"<{__name__}.Invoice>"  # its repr holds a password


def test_what_a_call_changes_can_be_watched(audit: Audit) -> None:
    stored: dict[int, Invoice] = {}

    @spanseal.audited(
        "invoice.updated",
        changes=spanseal.changes_of("invoice", fields=["status", "password", "number", "lines"]),
    )
    def pay(invoice: Invoice, password: str) -> None:
        invoice.status, invoice.password = "paid", password
        invoice.lines.append("line")

    @spanseal.audited(
        "invoice.created",
        changes=spanseal.changes_of(stored.get, fields=["status"]),
    )
    def create(number: int) -> None:
        stored[number] = Invoice(number)
        raise BoomError

    pay(Invoice(1), SECRET)
    with pytest.raises(BoomError):
        create(7)
    paid, created = audit.records()
    changed = {key: value for key, value in paid.attributes.items() if key.startswith("change.")}
    assert changed == {
        "change.fields": "lines,password,status",
        "change.lines.before": "[]",
        "change.lines.after": '["line"]',
        "change.status.before": "open",
        "change.status.after": "paid",
        "change.password.before": "[redacted]",
        "change.password.after": "[redacted]",
    }
    assert created.attributes["change.status.after"] == "open"
    assert "change.status.before" not in created.attributes
    assert SECRET not in str(paid)


# --- of whom and within what -------------------------------------------------------------------------------------


def test_calls_within_a_request_share_its_id_from_threads_and_tasks_too(
    audit: Audit, app: flask.Flask
) -> None:
    @spanseal.audited("step.made")
    def step(_name: str) -> str:
        return spanseal.request_id()

    @spanseal.audited("step.awaited")
    async def awaited() -> None:
        await asyncio.to_thread(step, "to_thread")

    @app.post("/invoices")
    def invoices() -> str:
        flask.session["user_id"] = 5
        with ThreadPoolExecutor(2) as pool:
            found = [pool.submit(contextvars.copy_context().run, step, "pool") for _ in range(2)]
            assert {one.result() for one in found} == {spanseal.request_id()}
        asyncio.run(awaited())
        with spanseal.actor("robot"):
            step("block")
        return step("here")

    answer = app.test_client().post("/invoices", headers={"User-Agent": "test"})
    records = audit.records()
    assert {one.attributes["audit.request.id"] for one in records} == {answer.text}
    assert {one.attributes["user_agent.original"] for one in records} == {"test"}
    assert [one.action for one in records].count("step.made") == 5
    assert sorted(one.attributes["audit.actor.id"] for one in records) == ["5"] * 6 + ["robot"]


def test_the_actor_is_who_called_or_who_the_call_made_known(audit: Audit, app: flask.Flask) -> None:
    @spanseal.audited("user.checked")
    def sign(user: str, how: str) -> None:
        if how == "session":
            flask.session["user_id"] = user
        elif how == "out":
            flask.session.clear()
        else:
            spanseal.set_actor(user)

    @app.post("/do/<user>/<how>")
    def do(user: str, how: str) -> str:
        sign(user, how)
        return "ok"

    client = app.test_client()
    for user, how in (("5", "session"), ("5", "out"), ("6", "session"), ("7", "session"), ("8", "said")):
        client.post(f"/do/{user}/{how}")
    found = [one.attributes.get("audit.actor.id") for one in audit.records() if one.action == "user.checked"]
    # Signed in, signed out by himself, signed in, became another, said by the application.
    assert found == ["5", "5", "6", "6", "8"]


def test_an_actor_that_a_job_learns_within_a_call(audit: Audit) -> None:
    @spanseal.audited("job.run")
    def run() -> None:
        spanseal.set_actor("known")

    with spanseal.actor("cron"):
        run()
        with spanseal.actor("block"):
            run()
    assert [one.attributes["audit.actor.id"] for one in audit.records()] == ["known", "block"]


# --- all kinds of functions --------------------------------------------------------------------------------------


class Service:
    name = "service"

    @spanseal.audited("service.called", resource_id="{self.name}/{x}")
    def method(self, x: int) -> int:
        return x

    @classmethod
    @spanseal.audited("service.called", resource_id="{cls.name}/{x}")
    def inner_class(cls, x: int) -> int:
        return x

    @spanseal.audited("service.called", resource_id="{cls.name}/{x}")
    @classmethod
    def outer_class(cls, x: int) -> int:
        return x

    @staticmethod
    @spanseal.audited("service.called", resource_id="x")
    def inner_static(x: int) -> int:
        return x

    @spanseal.audited("service.called", resource_id="x")
    @staticmethod
    def outer_static(x: int) -> int:
        return x

    @property
    @spanseal.audited("service.called", resource_id="{self.name}")
    def value(self) -> int:
        return 6


def test_methods_of_all_kinds(audit: Audit) -> None:
    service = Service()
    assert [
        service.method(1),
        Service.inner_class(2),
        service.outer_class(3),
        Service.inner_static(4),
        service.outer_static(5),
        service.value,
    ] == [1, 2, 3, 4, 5, 6]
    found = [one.attributes["audit.target.id"] for one in audit.records()]
    assert found == ["service/1", "service/2", "service/3", "4", "5", "service"]


def test_what_is_decorated_stays_what_it_is() -> None:
    def plain(a: int, *, b: str = "x") -> int:
        """Say."""
        return a + len(b)

    async def awaited() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def stream() -> AsyncIterator[int]:
        yield 1

    decorate = spanseal.audited("it.done")
    made = decorate(plain)
    assert (made.__name__, made.__doc__, inspect.signature(made)) == (
        "plain",
        "Say.",
        inspect.signature(plain),
    )
    assert inspect.iscoroutinefunction(decorate(awaited))
    assert inspect.isgeneratorfunction(decorate(generator))
    assert inspect.isasyncgenfunction(decorate(stream))


def test_coroutines(audit: Audit) -> None:
    @spanseal.audited("job.run", resource_id="how")
    async def run(how: str) -> str:
        if how == "raises":
            raise BoomError
        if how == "waits":
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
        return how

    async def main() -> None:
        assert await run("returns") == "returns"
        with pytest.raises(BoomError):
            await run("raises")
        task = asyncio.create_task(run("waits"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        run("never").close()  # its body never ran

    asyncio.run(main())
    half = run("waits")

    async def begin() -> None:
        half.send(None)

    asyncio.run(begin())
    half.close()
    assert outcomes(audit.records()) == [
        ("success", ""),
        ("failure", "tests.instrumentation.calling.BoomError"),
        ("failure", "asyncio.exceptions.CancelledError"),
        ("unknown", ""),
    ]


def test_generators(audit: Audit) -> None:
    @spanseal.audited("row.exported", resource_id="how")
    def rows(how: str) -> Generator[Any, Any, str]:
        (row, *_) = [one for one in audit.own_rows() if one.attributes["audit.target.id"] == how]
        assert row.state == "open"
        try:
            got = yield 1
            if how == "raises":
                raise BoomError
            yield got
        except KeyError:
            yield "caught"
        return "result"

    unused = rows("unused")
    assert audit.own_rows() == []
    assert list(rows("whole")) == [1, None]
    talked = rows("talked")
    assert (next(talked), talked.send("hello")) == (1, "hello")
    with pytest.raises(StopIteration) as stopped:
        next(talked)
    assert stopped.value.value == "result"
    thrown = rows("thrown")
    next(thrown)
    assert thrown.throw(KeyError()) == "caught"
    assert list(thrown) == []
    with pytest.raises(BoomError):
        list(rows("raises"))
    closed = rows("closed")
    next(closed)
    closed.close()
    left = rows("left")
    next(left)
    del left, unused
    gc.collect()
    by_id = {one.attributes["audit.target.id"]: one for one in audit.records()}
    assert {name: one.attributes["audit.outcome"] for name, one in by_id.items()} == {
        "whole": "success",
        "talked": "success",
        "thrown": "success",
        "raises": "failure",
        "closed": "unknown",
        "left": "unknown",
    }
    assert by_id["closed"].attributes["spanseal.call.incomplete"] is True
    assert "spanseal.call.incomplete" not in by_id["whole"].attributes


def test_asynchronous_generators(audit: Audit) -> None:
    cleaned: list[str] = []

    @spanseal.audited("row.streamed", resource_id="how")
    async def rows(how: str) -> AsyncIterator[Any]:
        try:
            got = yield 1
            await asyncio.sleep(0)
            if how == "raises":
                raise BoomError
            yield got
        except KeyError:
            yield "caught"
        finally:
            await asyncio.sleep(0)
            cleaned.append(how)

    async def main() -> None:
        assert [one async for one in rows("whole")] == [1, None]
        talked: Any = rows("talked")
        assert (await anext(talked), await talked.asend("hello")) == (1, "hello")
        assert [one async for one in talked] == []
        thrown: Any = rows("thrown")
        await anext(thrown)
        assert await thrown.athrow(KeyError()) == "caught"
        assert [one async for one in thrown] == []
        with pytest.raises(BoomError):
            [one async for one in rows("raises")]
        closed: Any = rows("closed")
        await anext(closed)
        await closed.aclose()
        assert cleaned[-1] == "closed"  # now, not when somebody collects it
        async for _ in rows("left"):
            break
        gc.collect()
        async with asyncio.timeout(20):
            while "left" not in cleaned:  # noqa: ASYNC110 - the loop closes it in a task of its own
                await asyncio.sleep(0)

    asyncio.run(main())
    assert sorted(cleaned) == ["closed", "left", "raises", "talked", "thrown", "whole"]
    by_id = {one.attributes["audit.target.id"]: one.attributes["audit.outcome"] for one in audit.records()}
    assert by_id == {
        "whole": "success",
        "talked": "success",
        "thrown": "success",
        "raises": "failure",
        "closed": "unknown",
        "left": "unknown",
    }


# --- what cannot be -----------------------------------------------------------------------------------------------


def test_what_cannot_be_recorded_is_refused_where_the_function_is_defined() -> None:
    def function(a: int, b: int) -> int:
        return a + b

    for arguments in (
        {"action": "approve"},
        {"action": "producer.gap"},
        {"resource_type": "t" * 70_000},
        {"resource_id": "c"},
        {"resource_id": "{c}"},
        {"resource_id": "{}"},
        {"resource_id": "{a"},
        {"attributes": ["c"]},
        {"attributes": "a"},
        {"attributes": {"audit.record.id": "x"}},
        {"attributes": {"k": object()}},
        {"changes": spanseal.changes_of("c", fields=["x"])},
        {"on": "middle"},
    ):
        with pytest.raises(InvalidRecord) as caught:
            spanseal.audited(**{"action": "it.done"} | arguments)(function)
        assert len(str(caught.value)) < 600
    for wrong in (Service, 5, property(lambda _self: 1)):
        with pytest.raises(TypeError):
            spanseal.audited("it.done")(wrong)  # type: ignore[type-var]


def test_what_goes_wrong_in_the_applications_own_functions_is_said_and_stops_nothing(
    audit: Audit, log: pytest.LogCaptureFixture
) -> None:
    class Broken:
        @property
        def number(self) -> int:
            raise BoomError

    @spanseal.audited("it.done", resource_id="{thing.number}", attributes=lambda thing: {"k": thing})
    def function(thing: Broken) -> str:
        assert isinstance(thing, Broken)
        return "ran"

    assert function(Broken()) == "ran"
    with pytest.raises(TypeError):
        function()  # type: ignore[call-arg]
    assert outcomes(audit.records()) == [("success", ""), ("failure", "TypeError")]
    assert "lack what it would say" in log.text
    assert function.__qualname__ in log.text
    audit.set(SPANSEAL_ON_ERROR="closed")
    with pytest.raises(NotAudited):
        function(Broken())


def broken_spool(audit: Audit, name: str) -> None:
    def fail(*_arguments: object) -> Any:
        raise SpoolUnavailable("no space left")

    audit.monkeypatch.setattr(spool.Spool, name, fail)


@pytest.mark.parametrize("kind", ["plain", "coroutine", "generator", "stream"])
def test_closed_does_not_run_what_cannot_be_recorded(audit: Audit, kind: str) -> None:
    ran: list[str] = []

    @spanseal.audited("it.done")
    def plain() -> None:
        ran.append("plain")

    @spanseal.audited("it.done")
    async def coroutine() -> None:
        ran.append("coroutine")

    @spanseal.audited("it.done")
    def generator() -> Iterator[int]:
        ran.append("generator")
        yield 1

    @spanseal.audited("it.done")
    async def stream() -> AsyncIterator[int]:
        ran.append("stream")
        yield 1

    async def read() -> list[int]:
        return [one async for one in stream()]

    calls: dict[str, Callable[[], object]] = {
        "plain": plain,
        "coroutine": lambda: asyncio.run(coroutine()),
        "generator": lambda: list(generator()),
        "stream": lambda: asyncio.run(read()),
    }
    call = calls[kind]
    broken_spool(audit, "begin")
    call()
    assert ran == [kind]  # open: it goes on
    assert outcomes(audit.records()) == [("success", "")]  # and is recorded at its end
    audit.restart()
    audit.set(SPANSEAL_ON_ERROR="closed")
    with pytest.raises(NotAudited):
        call()
    assert ran == [kind]


def test_closed_keeps_the_result_back_where_the_end_cannot_be_recorded(audit: Audit) -> None:
    @spanseal.audited("it.done")
    def function(how: str) -> str:
        if how == "raises":
            raise BoomError
        return how

    audit.set(SPANSEAL_ON_ERROR="closed")
    broken_spool(audit, "answer")
    with pytest.raises(NotAudited):
        function("returns")
    with pytest.raises(BoomError):  # worth more than ours
        function("raises")
    # The end is in the final record all the same: that one is stored later, and could be.
    assert outcomes(audit.records()) == [
        ("success", ""),
        ("failure", "tests.instrumentation.calling.BoomError"),
    ]


def test_at_the_end_costs_one_commit_and_leaves_nothing_before(audit: Audit) -> None:
    @spanseal.audited("it.read", on="end")
    def read(*, fails: bool = False) -> int:
        if fails:
            raise BoomError
        return len(audit.own_rows())

    assert read() == 0
    with pytest.raises(BoomError):
        read(fails=True)
    assert outcomes(audit.records()) == [
        ("success", ""),
        ("failure", "tests.instrumentation.calling.BoomError"),
    ]


PROGRAM = """
import sys, threading
import spanseal

@spanseal.audited("invoice.approved", resource_id="iid")
def approve(iid):
    if iid == 2:
        print("there", flush=True)
        threading.Event().wait()

with spanseal.actor("cron", type="system"):
    print(spanseal.request_id(), flush=True)
    approve(1)
    approve(2)
"""


def test_a_process_that_is_killed_in_the_middle_leaves_an_unknown_outcome(audit: Audit) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        job = process.stdout.readline().strip()
        assert process.stdout.readline() == "there\n"
        os.kill(process.pid, signal.SIGKILL)
    spanseal.record("test.began")  # this process takes over what that one left
    until(lambda: sum(one.action == "invoice.approved" for one in audit.receiver.taken) == 2)
    found = [one for one in audit.records() if one.action == "invoice.approved"]
    assert {one.attributes["audit.target.id"]: one.attributes["audit.outcome"] for one in found} == {
        "1": "success",
        "2": "unknown",
    }
    assert {one.attributes["audit.request.id"] for one in found} == {job}
    assert {one.attributes["audit.actor.type"] for one in found} == {"system"}
