"""What happens on the way over days: servers that ask for patience, clocks that jump, endpoints that are away."""

from __future__ import annotations

import email.utils
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import grpc
import pytest

import spanseal
from spanseal.delivery.shipper import Shipper
from tests.instrumentation.conftest import Audit, until
from tests.instrumentation.fake_receiver import FakeReceiver, Recorder, Reply, receiving
from tests.instrumentation.grpc_receiver import GrpcReply, grpc_receiving, retry_info
from tests.instrumentation.test_adoption import check_streams

HTTP = {
    "seconds": lambda: Reply(503, {"Retry-After": "200"}),
    "date": lambda: Reply(429, {"Retry-After": email.utils.formatdate(time.time() + 200, usegmt=True)}),
}
GRPC = {
    "grpc": GrpcReply(grpc.StatusCode.UNAVAILABLE, trailing=retry_info(200)),
    "grpc exhausted": GrpcReply(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", trailing=retry_info(200)),
}


@dataclass
class Busy:
    """A server that asks for 200 seconds of patience until it is free."""

    server: Recorder
    free: threading.Event


@pytest.fixture(params=["seconds", "date", "grpc", "grpc exhausted"])
def busy(request: pytest.FixtureRequest, audit: Audit) -> Iterator[Busy]:
    free = threading.Event()
    with ExitStack() as stack:
        if request.param in GRPC:
            remote = stack.enter_context(grpc_receiving())
            remote.answer = lambda _records: GrpcReply() if free.is_set() else GRPC[request.param]
            url, protocol, server = remote.url, "grpc", cast("Recorder", remote)
        else:
            receiver = stack.enter_context(receiving())
            receiver.answer = lambda _records: Reply() if free.is_set() else HTTP[request.param]()
            url, protocol, server = receiver.url, "http/protobuf", receiver
        audit.set(OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=protocol, OTEL_EXPORTER_OTLP_ENDPOINT=url)
        yield Busy(server, free)


def test_a_server_that_asks_for_patience_gets_it(
    audit: Audit, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = busy.server
    rounds: list[int] = []
    settle = Shipper._settle

    def counted(self: Shipper) -> None:
        rounds.append(1)
        settle(self)

    monkeypatch.setattr(Shipper, "_settle", counted)
    spanseal.record("test.done")
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    until(lambda: ship._failures)
    assert ship.retry_in > 100
    begun = len(rounds)

    def went_round() -> bool:
        ship.wake()
        return len(rounds) > begun + 3

    until(went_round)
    assert len(server.requests) == 1
    busy.free.set()
    ship._not_before = 0.0  # the 200 seconds are over
    ship.wake()
    server.wait_for("test.done")
    audit.runtime.stop()
    check_streams(server)


DAY = 86_400


@pytest.mark.parametrize("jump", [-DAY, 3650 * DAY], ids=["back", "forward"])
def test_a_clock_that_jumps_stops_nothing_and_changes_no_number(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    """Waiting is measured by the clock that cannot be set; times in records are what the wall clock says."""
    offset = 0
    wall, wall_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: wall() + offset)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + offset * 1_000_000_000)
    audit.set(SPANSEAL_ADOPT_INTERVAL="0.01")
    spanseal.record("test.done", resource_id=0)
    audit.receiver.wait_for("test.done")
    # It waits for its next attempt when the clock is set.
    audit.receiver.answer = lambda _records: Reply(503)
    spanseal.record("test.done", resource_id=1)
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    until(lambda: ship._failures)
    offset = jump
    spanseal.record("test.done", resource_id=2)
    audit.receiver.answer = lambda _records: Reply()
    audit.receiver.wait_for("test.done", 3)
    offset = 0
    spanseal.record("test.done", resource_id=3)
    audit.receiver.wait_for("test.done", 4)
    audit.everything()
    (records,) = check_streams(audit.receiver).values()
    done = sorted((r for r in records if r.action == "test.done"), key=lambda r: r.number)
    assert [record.attributes["audit.target.id"] for record in done] == ["0", "1", "2", "3"]
    assert [round((record.time - done[0].time) / 1e9 / DAY) for record in done] == [
        0,
        0,
        round(jump / DAY),
        0,
    ]


def test_an_endpoint_that_was_away_for_long_gets_everything_in_order(audit: Audit) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        audit.set(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
        for number in range(30):
            spanseal.record("test.done", resource_id=number)
        ship = audit.runtime.keeper.shipper
        assert ship is not None

        def failed_often() -> bool:
            ship._not_before = 0.0
            ship.wake()
            return ship._failures >= 12

        until(failed_often, 60)
        assert len(audit.own_rows()) == 30
    back = FakeReceiver(port=port)
    back.start()
    try:
        ship._not_before = 0.0
        ship.wake()
        back.wait_for("test.done", 30)
        audit.runtime.stop()
        check_streams(back)
    finally:
        back.stop()
    sent = [record.attributes["audit.target.id"] for record in back.taken if record.action == "test.done"]
    assert sent == [str(number) for number in range(30)]
    assert not list(audit.directory.glob("*.db"))
