"""What is told through OpenTelemetry's metrics API: the application's own reader asks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

import spanseal
from spanseal.delivery import metrics
from spanseal.delivery.spool import Spool
from spanseal.errors import SpoolUnavailable
from tests.instrumentation.calling import call, environ
from tests.instrumentation.conftest import Audit, until
from tests.instrumentation.fake_receiver import Received, Reply
from tests.instrumentation.test_adoption import die, unavailable
from tests.instrumentation.test_fork import PRELUDE

ROOT = Path(__file__).resolve().parents[2]


def read(reader: InMemoryMetricReader) -> dict[str, Any]:
    """All points: `name` or `name{value}` of the first attribute, and its number; of a histogram, how many."""
    found: dict[str, Any] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            assert scope.scope.name == "spanseal"
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    values = [
                        str(value)
                        for key, value in (point.attributes or {}).items()
                        if key.startswith("spanseal.")
                    ]
                    name = metric.name + (f"{{{values[0]}}}" if values else "")
                    found[name] = point.value if isinstance(point, NumberDataPoint) else point.count
    return found


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """The application's reader; the instruments are made anew for it."""
    one = InMemoryMetricReader()
    provider = MeterProvider([one])
    monkeypatch.setattr(metrics, "_installed", False)
    monkeypatch.setattr(metrics, "_duration", None)
    monkeypatch.setattr("spanseal.delivery.metrics.api.get_meter", provider.get_meter)
    yield one
    provider.shutdown()


def test_what_is_made_waits_and_is_sent(audit: Audit, app: flask.Flask, reader: InMemoryMetricReader) -> None:
    app.post("/patients/<pid>")(lambda pid: pid)
    app.get("/patients/<pid>", endpoint="view")(lambda pid: pid)
    assert read(reader) == {}
    audit.receiver.answer = unavailable
    body, _ = call(app, environ(app, "/patients/1", method="POST"))
    list(body)
    found = read(reader)
    stages = [found[f"spanseal.records{{{stage}}}"] for stage in ("begun", "answered", "final")]
    assert stages == [1, 1, 1]  # the stream's beginning is final
    assert (found["spanseal.spool.records{unfinished}"], found["spanseal.spool.records{final}"]) == (1, 1)
    body.close()
    app.test_client().get("/patients/1")
    spanseal.record("test.done")
    until(lambda: read(reader)["spanseal.spool.records{final}"] == 4)
    found = read(reader)
    stages = [found[f"spanseal.records{{{stage}}}"] for stage in ("begun", "answered", "final")]
    assert stages == [1, 2, 4]
    assert found["spanseal.spool.records{unfinished}"] == 0
    assert (found["spanseal.records.sent"], found["spanseal.records.refused"]) == (0, 0)
    assert found["spanseal.spool.size"] >= 4 * 4096
    until(lambda: read(reader).get("spanseal.export.duration{later}", 0) >= 1)
    # Counted as what the spool itself says.
    spool = audit.runtime.keeper.spool
    assert spool is not None
    assert spool.file.count() == 4

    def reply(records: list[Received]) -> Reply:
        return Reply(400 if any(record.action == "test.done" for record in records) else 200)

    audit.receiver.answer = reply
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    ship._not_before = 0.0
    ship.wake()
    until(lambda: read(reader)["spanseal.spool.records{final}"] == 0)
    found = read(reader)
    # Three of the four, and the gap that names the fourth.
    assert (found["spanseal.records.sent"], found["spanseal.records.refused"]) == (4, 1)
    assert found["spanseal.export.duration{refused}"] >= 1
    assert found["spanseal.export.duration{stored}"] >= 1
    audit.runtime.stop()
    found = read(reader)
    assert found["spanseal.records.sent"] == len(audit.receiver.taken) == 5
    # The documentation names them all, and no others.
    told = (ROOT / "docs" / "delivery.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(spanseal\.[a-z.]+)`", told, re.MULTILINE)) == {
        name.partition("{")[0] for name in found
    }


def test_what_dead_processes_left_and_what_is_lost(
    audit: Audit, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def fail(*_arguments: object) -> None:
            raise SpoolUnavailable("no")

        broken.setattr(Spool, "_start", fail)
        spanseal.record("test.lost")
        # Told although there is no spool at all.
        assert read(reader) == {"spanseal.records.dropped": 1}
    audit.restart()
    die("final")
    audit.receiver.answer = unavailable
    spanseal.record("test.begun")
    # The dead process's three, and the beginning and the end of the stream that closes it out.
    until(lambda: read(reader)["spanseal.spool.records{adopted}"] == 5)
    audit.receiver.answer = lambda _records: Reply()
    ship = audit.runtime.keeper.shipper
    assert ship is not None
    ship._not_before = 0.0
    ship.wake()
    audit.receiver.wait_for("test.begun")
    until(lambda: read(reader)["spanseal.spool.records{adopted}"] == 0)
    audit.runtime.stop()
    assert read(reader)["spanseal.records.sent"] == len(audit.receiver.taken)


def test_nothing_of_it_reaches_the_application(
    audit: Audit, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenMeter:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    monkeypatch.setattr("spanseal.delivery.metrics.api.get_meter", lambda *_arguments: BrokenMeter())
    spanseal.record("test.done")
    audit.receiver.wait_for("test.done")
    # And of a spool file that is gone, a reader is told nothing rather than an error.
    monkeypatch.setattr(metrics, "_state", lambda: 1 / 0)
    assert read(reader) == {}


FORK = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.instrumentation.test_metrics import read
import json

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))  # after the first record: as an application may
spanseal.record("parent.done")
child = os.fork()
if child == 0:
    before = read(reader)
    spanseal.record("child.done")
    runtime.current().stop()
    tell(json.dumps([before, read(reader)]))
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
runtime.current().stop()
tell(json.dumps(read(reader)))
"""


def test_a_child_tells_of_itself_and_a_provider_may_come_late(audit: Audit) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + FORK],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (before, child), parent = map(json.loads, done.stdout.splitlines())
    assert "spanseal.records.sent" not in before
    # producer.started, the record, producer.stopped; the parent has made two.
    assert (child["spanseal.records{final}"], child["spanseal.records.sent"]) == (3, 3)
    assert (parent["spanseal.records{final}"], parent["spanseal.records.sent"]) == (4, 4)
    assert len(audit.receiver.taken) == 7
