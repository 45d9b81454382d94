"""The other way to start an app: `opentelemetry-instrument flask run`, with nothing but variables set."""

from __future__ import annotations

import sys
from pathlib import Path

import requests

from examples.demo.processes import Collector, Service, free_port
from tests.end_to_end.system import CHEAP_HASH, System

_BIN = Path(sys.executable).parent
_APP = """
import flask

app = flask.Flask(__name__)


@app.get("/healthz")
def health() -> str:
    return "ok"


@app.delete("/api/v1/users/<uid>/sessions/<sid>")
def end_session(uid: str, sid: str) -> str:
    return uid + sid
"""


class FlaskRun(Service):
    """A small app under Flask's own server."""

    def __init__(self, folder: Path, collector: Collector) -> None:
        port = free_port()
        (folder / "small.py").write_text(_APP)
        command = [str(_BIN / name) for name in ("opentelemetry-instrument", "flask")]
        command += ["--app", "small", "run", "--port", str(port)]
        super().__init__(
            "flask run", command, port=port, ready_path="/healthz", log=folder / "flask.txt", cwd=folder
        )
        self.env = {
            **CHEAP_HASH,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_SERVICE_NAME": "small",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "SPANSEAL_SPOOL_DIR": str(folder / "spool"),
        }


def test_flask_run_is_audited_and_what_it_leaves_is_sent_by_the_next_start(tmp_path: Path) -> None:
    system = System(tmp_path)
    with system.collector:
        app = FlaskRun(tmp_path, system.collector)
        url = f"{app.url}/api/v1/users/u-7/sessions/s-9?token=not-recorded"
        with app:
            first = requests.delete(url, timeout=10)
            # SIGTERM ends Flask's server at once, without any of Python's own endings.
            app.stop()
        with app:
            second = requests.delete(url, timeout=10, headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"})
            ids = {answer.headers["X-Request-Id"] for answer in (first, second)}
            assert system.wait_for(ids).keys() >= ids
        rows = system.rows(
            "SELECT request_id, action, outcome, resource_type, resource_id, service, trace_id FROM audit.events "
            "WHERE action LIKE 'session.%' ORDER BY event_time"
        )
        assert [row[:6] for row in rows] == [
            (answer.headers["X-Request-Id"], "session.revoked", "success", "session", "s-9", "small")
            for answer in (first, second)
        ]
        # The client asked for no trace; that is none of the audit's business.
        assert rows[1][6] == "a" * 32
