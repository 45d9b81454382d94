"""Who acts, in blocks within requests and in jobs outside of them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import re
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
from opentelemetry.sdk.trace import TracerProvider

import spanseal
from spanseal import Actor, InvalidRecord
from tests.instrumentation.conftest import Audit
from tests.instrumentation.fake_receiver import Received

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def actors(records: list[Received]) -> list[tuple[str, str]]:
    return [(record.action, record.attributes.get("audit.actor.id", "")) for record in records]


def ids(records: list[Received]) -> list[str]:
    return [record.attributes.get("audit.request.id", "") for record in records]


def test_in_a_request_the_innermost_block_wins_and_the_request_keeps_its_own_actor(
    audit: Audit, app: flask.Flask
) -> None:
    @app.post("/invoices")
    def invoices() -> str:
        flask.session["user_id"] = 5
        spanseal.record("step.one")
        with spanseal.actor("importer", type="service", role="batch"):
            spanseal.record("step.two")
            with spanseal.actor(Actor("inner")) as inner:
                assert inner.id == "inner"
                spanseal.record("step.three")
            spanseal.record("step.four", actor="named")
            spanseal.record("step.five")
            assert spanseal.request_id() == flask.request.environ["spanseal.request"].request_id
        spanseal.record("step.six")
        return "ok"

    app.test_client().post("/invoices")
    records = audit.records()
    assert actors(records) == [
        ("step.one", "5"),
        ("step.two", "importer"),
        ("step.three", "inner"),
        ("step.four", "named"),
        ("step.five", "importer"),
        ("step.six", "5"),
        ("invoice.created", "5"),
    ]
    assert len(set(ids(records))) == 1
    assert records[1].attributes["audit.actor.type"] == "service"
    assert records[1].attributes["audit.actor.role"] == "batch"


def test_set_actor_within_a_block_is_the_requests(audit: Audit, app: flask.Flask) -> None:
    @app.post("/invoices")
    def invoices() -> str:
        with spanseal.actor("block"):
            spanseal.set_actor("request's")
            spanseal.record("step.one")
        spanseal.record("step.two")
        return "ok"

    app.test_client().post("/invoices")
    assert [who for _, who in actors(audit.records())] == ["block", "request's", "request's"]


def test_outside_the_outermost_block_is_a_job_with_an_id(audit: Audit) -> None:
    tracer = TracerProvider().get_tracer("job")
    with tracer.start_as_current_span("nightly") as span, spanseal.actor("cron", type="system"):
        job = spanseal.request_id()
        spanseal.record("step.one")
        with spanseal.actor("user-5"):
            assert spanseal.request_id() == job
            spanseal.record("step.two")
            spanseal.set_actor("changed")  # the job's, not the block's
            spanseal.record("step.three")
        spanseal.record("step.four")
    assert spanseal.request_id() == ""
    with pytest.raises(InvalidRecord, match="outside of a request"):
        spanseal.set_actor("nobody")
    with spanseal.actor("cron"):
        assert spanseal.request_id() not in ("", job)
    spanseal.record("step.five")
    records = audit.records()
    assert actors(records) == [
        ("step.one", "cron"),
        ("step.two", "user-5"),
        ("step.three", "user-5"),
        ("step.four", "changed"),
        ("step.five", ""),
    ]
    assert UUID7.fullmatch(job)
    assert ids(records) == [job, job, job, job, ""]
    context = span.get_span_context()
    assert {(one.trace_id, one.span_id) for one in records[:4]} == {
        (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    }
    assert records[4].trace_id == ""


def test_a_request_within_a_job_is_its_own(audit: Audit, app: flask.Flask) -> None:
    @app.get("/patients")
    def patients() -> str:
        spanseal.record("patient.found")
        with spanseal.actor("inner"):
            spanseal.record("patient.seen")
        return spanseal.request_id()

    with spanseal.actor("cron"):
        job = spanseal.request_id()
        answer = app.test_client().get("/patients")
        spanseal.record("job.ended")
    assert answer.text == answer.headers["X-Request-Id"] != job
    records = {record.action: record for record in audit.records()}
    assert dict(actors(list(records.values()))) == {
        "patient.found": "",
        "patient.seen": "inner",
        "job.ended": "cron",
        "patient.listed": "",
    }
    assert ids([records["job.ended"]]) == [job]
    assert ids([records["patient.seen"]]) == [answer.text]


def test_threads_with_a_copied_context_belong_to_the_job_also_when_it_has_ended(audit: Audit) -> None:
    with ThreadPoolExecutor(1) as pool:
        with spanseal.actor("cron"):
            job = spanseal.request_id()
            context = contextvars.copy_context()
            later = contextvars.copy_context()
            pool.submit(context.run, spanseal.record, "step.inside").result()
            pool.submit(spanseal.record, "step.foreign").result()
        pool.submit(later.run, spanseal.record, "step.later").result()
    spanseal.record("step.outside")
    records = audit.records()
    assert actors(records) == [
        ("step.inside", "cron"),
        ("step.foreign", ""),
        ("step.later", "cron"),
        ("step.outside", ""),
    ]
    assert ids(records) == [job, "", job, ""]


def test_one_object_can_be_entered_by_several_threads_and_twice_by_one(audit: Audit) -> None:
    cron = spanseal.actor("cron")
    met = threading.Barrier(2, timeout=20)
    seen: list[str] = []

    def work() -> None:
        with cron:
            met.wait()
            first = spanseal.request_id()
            with cron:
                assert spanseal.request_id() == first
            spanseal.record("step.made")
            seen.append(first)
            met.wait()
        assert spanseal.request_id() == ""

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 2
    assert set(ids(audit.records())) == set(seen)


def test_tasks_are_apart_from_each_other(audit: Audit) -> None:
    async def work(name: str) -> None:
        async with asyncio.timeout(20):
            with spanseal.actor(name):
                await asyncio.sleep(0)
                spanseal.record("step.one")
                await asyncio.to_thread(spanseal.record, "step.two")
                await asyncio.create_task(asyncio.to_thread(spanseal.record, "step.three"))
                await asyncio.sleep(0)
                spanseal.record("step.four")
        assert spanseal.request_id() == ""

    async def main() -> None:
        await asyncio.gather(*(work(f"u-{n}") for n in range(5)))

    asyncio.run(main())
    records = audit.records()
    by_actor: dict[str, set[str]] = {}
    for (_, who), job in zip(actors(records), ids(records), strict=True):
        by_actor.setdefault(who, set()).add(job)
    assert {len(found) for found in by_actor.values()} == {1}
    assert len(set.union(*by_actor.values())) == 5
    assert len(records) == 20


# --- generators: they run in the context of whoever asks for the next value ----------------------------------------


def test_a_decorated_generator_acts_only_while_it_runs(audit: Audit) -> None:
    @spanseal.actor("generator")
    def rows() -> Iterator[str]:
        spanseal.record("row.first")
        yield spanseal.request_id()
        with spanseal.actor("within"):
            spanseal.record("row.second")
            yield spanseal.request_id()
            spanseal.record("row.third")
        spanseal.record("row.fourth")

    with spanseal.actor("caller"):
        job = spanseal.request_id()
        found = rows()
        first = next(found)
        spanseal.record("caller.one")
        with spanseal.actor("other"):
            second = next(found)
            spanseal.record("caller.two")
            assert next(found, None) is None
            spanseal.record("caller.three")
        spanseal.record("caller.four")
    assert first == second == job
    assert actors(audit.records()) == [
        ("row.first", "generator"),
        ("caller.one", "caller"),
        ("row.second", "within"),
        ("caller.two", "other"),
        ("row.third", "within"),
        ("row.fourth", "generator"),
        ("caller.three", "other"),
        ("caller.four", "caller"),
    ]


def test_decorated_functions_of_all_kinds(audit: Audit) -> None:
    @spanseal.actor("plain")
    def plain(word: str) -> str:
        spanseal.record("it.ran")
        return word + spanseal.request_id()

    @spanseal.actor("awaited")
    async def awaited() -> str:
        spanseal.record("it.ran")
        await asyncio.sleep(0)
        spanseal.record("it.ran")
        return spanseal.request_id()

    @spanseal.actor("streamed")
    async def streamed() -> AsyncIterator[str]:
        spanseal.record("it.ran")
        got = yield spanseal.request_id()
        assert got is None
        await asyncio.sleep(0)
        spanseal.record("it.ran")
        yield spanseal.request_id()

    async def main() -> list[str]:
        found = [await awaited()]
        async for one in streamed():
            assert spanseal.request_id() == ""
            found.append(one)
        return found

    first = plain("x")
    assert first != plain("x")  # each call is a job of its own
    awaited_id, *streamed_ids = asyncio.run(main())
    assert len(set(streamed_ids)) == 1
    records = audit.records()
    assert [who for _, who in actors(records)] == [
        "plain",
        "plain",
        "awaited",
        "awaited",
        "streamed",
        "streamed",
    ]
    assert ids(records)[2:] == [awaited_id, awaited_id, *streamed_ids]
    with pytest.raises(TypeError):
        spanseal.actor("x")(5)  # type: ignore[type-var]


def test_blocks_in_generators_that_end_in_another_order_leave_nothing_behind(audit: Audit) -> None:
    def rows(who: str) -> Iterator[None]:
        with spanseal.actor(who):
            yield
            yield

    one, other = rows("one"), rows("other")
    next(one)
    next(other)
    one.close()  # type: ignore[attr-defined]
    spanseal.record("step.within")
    other.close()  # type: ignore[attr-defined]
    assert spanseal.request_id() == ""
    spanseal.record("step.after")
    assert actors(audit.records()) == [("step.within", "other"), ("step.after", "")]


def test_a_block_in_a_thrown_away_asynchronous_generator_is_over(audit: Audit) -> None:
    async def rows() -> AsyncIterator[None]:
        with spanseal.actor("rows"):
            yield
            yield

    async def main() -> None:
        async for _ in rows():
            break
        gc.collect()
        for _ in range(5):  # the loop closes it in a task of its own, that is, in another context
            await asyncio.sleep(0)
        assert spanseal.request_id() == ""
        spanseal.record("step.after")

    asyncio.run(main())
    assert actors(audit.records()) == [("step.after", "")]


def test_an_actor_is_checked_at_once() -> None:
    for wrong in (5, None):
        with pytest.raises(InvalidRecord):
            spanseal.actor(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord):
        spanseal.actor("x", type="robot")
    with pytest.raises(InvalidRecord, match="by the Actor itself"):
        spanseal.actor(Actor("x"), role="admin")
