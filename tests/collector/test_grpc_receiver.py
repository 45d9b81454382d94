"""The gRPC receiver in this process, with its patience cut short and its storage held up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from spanseal_collector.admission import Admitter
from spanseal_collector.grpc_receiver import GrpcReceiver
from spanseal_collector.intake import Intake
from spanseal_collector.pipeline import Limits, Pipeline
from tests.collector.conftest import Log
from tests.collector.faults import GatedWriter, until
from tests.collector.grpc_client import EXPORT, Answer, call, channel, export
from tests.collector.http2 import Connection, data, headers
from tests.collector.wire import record, request

OK, UNAVAILABLE, EXHAUSTED = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@dataclass
class Served:
    port: int
    intake: Intake
    stop: Callable[[float], None]


@contextlib.contextmanager
def served(pipeline: Pipeline) -> Iterator[Served]:
    """Serve in a loop of its own, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    async def start() -> tuple[GrpcReceiver, int]:
        receiver = GrpcReceiver(intake)
        return receiver, await receiver.start("127.0.0.1", 0)

    intake = Intake(Admitter(bytes(32)), pipeline)
    receiver, port = run(start())

    def stop(seconds: float) -> None:
        run(receiver.stop(seconds))

    try:
        yield Served(port, intake, stop)
    finally:
        stop(0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def temporary(answer: Answer, code: grpc.StatusCode) -> bool:
    """Tell whether a client would send the same again."""
    assert answer.status is not None, answer
    assert answer.status.code == answer.code.value[0]
    assert answer.status.message == answer.details
    return answer.code == code and (answer.retry_seconds() or 0) > 0


def test_what_is_temporary_says_when_to_come_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = GatedWriter(log)
    pipeline = log.pipeline(records=writer, limits=Limits(answer_seconds=0.1, pending_bytes=50_000))
    pipeline.start()
    body = request(record()).SerializeToString()
    with served(pipeline) as there:
        until(lambda: export(there.port, body).code == OK)
        assert len(log.rows("1", "tenant = 'default'")) == 1

        # The storage takes too long: the same again is a duplicate.
        writer.gate.clear()
        late = request(record()).SerializeToString()
        assert temporary(export(there.port, late), UNAVAILABLE)
        writer.reached.wait(20)
        large = request(record(text="x" * 15_000)).SerializeToString()
        assert temporary(export(there.port, large), UNAVAILABLE)
        assert temporary(export(there.port, large), EXHAUSTED)
        writer.gate.set()
        until(lambda: export(there.port, late).code == OK)
        until(lambda: export(there.port, large).code == OK)
        assert len(log.rows("1", "tenant = 'default'")) == 3

        # There is no memory for what is sent.
        room, there.intake.room = there.intake.room, len(body) - 1
        assert temporary(export(there.port, body), EXHAUSTED)
        there.intake.room = room
        until(lambda: export(there.port, body).code == OK)
        assert there.intake.room == room

        # A bug of ours is no reason to drop anything, and is told to nobody.
        with monkeypatch.context() as patch:
            patch.setattr(there.intake, "store", None)
            answer = export(there.port, body)
            assert temporary(answer, UNAVAILABLE)
            assert "NoneType" not in answer.details
        assert pipeline.stop()
        assert temporary(export(there.port, body), UNAVAILABLE)


def test_a_call_that_never_sends_its_message_is_let_go(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanseal_collector.grpc_receiver._MESSAGE_SECONDS", 0.3)
    monkeypatch.setattr("spanseal_collector.grpc_receiver._READERS", 2)
    pipeline = log.pipeline()
    pipeline.start()
    body = request(record()).SerializeToString()
    silence = threading.Event()

    def nothing() -> Iterator[bytes]:
        silence.wait(20)
        yield from ()

    with served(pipeline) as there, channel(there.port) as opened:
        silent = [opened.stream_unary(EXPORT).future(nothing(), timeout=30) for _ in range(5)]
        told = {(one.exception(30).code(), one.exception(30).details()) for one in silent}
        # Two were read at a time; the last found no room even to be waited for, or was read later.
        assert {code for code, _ in told} <= {UNAVAILABLE, EXHAUSTED}
        assert (UNAVAILABLE, "the request's message did not arrive within 0 s") in told
        assert export(there.port, body).code == OK
        left = opened.stream_unary(EXPORT).future(nothing(), timeout=30)
        left.cancel()
        silence.set()
        empty = opened.stream_unary(EXPORT).future(iter(()), timeout=30)
        assert empty.exception(30).code() == grpc.StatusCode.INVALID_ARGUMENT
        assert export(there.port, body).code == OK
        # Nobody's connection keeps it from stopping, not even one that answers nothing.
        with Connection(there.port) as deaf:
            assert deaf.status(headers(1) + data(1, body)) == 0
            there.stop(60)
        until(lambda: there.intake.room == Intake(Admitter(bytes(32)), pipeline).room)
    assert pipeline.stop()


def test_calls_that_outlast_the_stop_are_unavailable_and_none_is_taken_after(log: Log) -> None:
    writer = GatedWriter(log)
    pipeline = log.pipeline(records=writer)
    pipeline.start()
    bodies = [request(record()).SerializeToString() for _ in range(2)]
    with served(pipeline) as there, channel(there.port) as opened, ThreadPoolExecutor(2) as clients:
        assert call(opened, bodies[0]).code == OK
        writer.gate.clear()
        waiting = clients.submit(call, opened, bodies[1])
        writer.reached.wait(20)
        stopping = clients.submit(there.stop, 0.3)
        answer = waiting.result(30)
        assert temporary(answer, UNAVAILABLE)
        assert "stopping" in answer.details
        stopping.result(30)
        assert export(there.port, bodies[1]).code == UNAVAILABLE
        writer.gate.set()
    assert pipeline.stop()
