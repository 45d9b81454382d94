"""Through the real collector: greenlets, kills on both sides, and rows that are there once."""

from __future__ import annotations

import random
from pathlib import Path

from tests.end_to_end.system import System
from tests.instrumentation import served
from tests.instrumentation.live import Server, Visitors, gunicorn
from tests.instrumentation.test_server_kills import go_through


def test_gevent_and_kills_on_both_sides(tmp_path: Path) -> None:
    system = System(tmp_path)
    server = Server(
        tmp_path / "app",
        gunicorn("--worker-class", "gevent"),
        endpoint=system.collector.url,
        source=Path(served.__file__),
    )
    visitors = Visitors(server.port)

    def kill_everything(rng: random.Random) -> None:
        server.kill()
        system.kill_collector(rng)
        server.start()

    with system.collector:
        with server:
            go_through(
                [server.kill_worker, system.kill_collector, server.end_worker, kill_everything], visitors
            )
            ids = {visit.request_id for visit in visitors.answered.values()}
            assert len(ids) == len(visitors.answered)
            found = system.wait_for(ids)
        assert visitors.wrong == []
        assert {found[request_id] for request_id in ids} == {1}
        posted = {visit.request_id for visit in visitors.answered.values() if visit.method == "POST"}
        checked = system.rows(
            "SELECT request_id, count() FROM audit.events WHERE action = 'patient.checked' GROUP BY 1"
        )
        assert {request_id: count for request_id, count in checked if request_id in posted} == dict.fromkeys(
            posted, 1
        )
        lost = system.rows("SELECT count() FROM audit.events WHERE action = 'producer.gap'")
        assert lost == [(0,)]
