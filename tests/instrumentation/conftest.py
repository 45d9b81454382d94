"""A runtime of its own for every test, with a spool in its own directory and a receiver that takes everything."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

import spanseal
from spanseal import runtime
from spanseal.runtime import Runtime
from tests.instrumentation.fake_receiver import FakeReceiver, Received, plain, receiving

STATES = {0: "open", 1: "answered", 2: "final"}


@dataclass
class Row:
    """A row of a spool file, read from outside."""

    state: str
    number: int | None
    action: str
    attributes: dict[str, Any]


def spool_rows(directory: Path) -> list[Row]:
    """Read what is committed in all spool files of a directory."""
    rows = []
    for path in sorted(directory.glob("*.db")):
        with closing(sqlite3.connect(path)) as connection:
            for state, number, body in connection.execute("SELECT state, seq, body FROM record ORDER BY id"):
                log = LogRecord.FromString(body)
                attributes = {item.key: plain(item.value) for item in log.attributes}
                rows.append(Row(STATES[state], number, log.event_name, attributes))
    return rows


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return as soon as a condition holds that nobody tells of; fail where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never came"
        threading.Event().wait(0.002)


@dataclass
class Audit:
    """What a test sees of the audit."""

    directory: Path
    receiver: FakeReceiver
    monkeypatch: pytest.MonkeyPatch

    @property
    def runtime(self) -> Runtime:
        return runtime._runtime

    def set(self, **variables: str) -> None:
        """Set environment variables, before the first record."""
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    def restart(self) -> None:
        """Begin as a new process would; what the old one has not stopped is as if it had died."""
        self.monkeypatch.setattr(runtime, "_runtime", Runtime())

    def rows(self) -> list[Row]:
        return spool_rows(self.directory)

    def own_rows(self) -> list[Row]:
        """The rows without those of the producer itself."""
        return [row for row in self.rows() if not row.action.startswith("producer.")]

    def everything(self) -> list[Received]:
        """Stop; return all that was received."""
        self.runtime.stop()
        return self.receiver.taken

    def records(self) -> list[Received]:
        """The same without the producer's own records."""
        return [record for record in self.everything() if not record.action.startswith("producer.")]

    def record(self) -> Received:
        """The one record there is."""
        (only,) = self.records()
        return only

    def bytes(self) -> bytes:
        """Everything that stands in the spool's directory."""
        return b"".join(path.read_bytes() for path in sorted(self.directory.iterdir()) if path.is_file())


@pytest.fixture
def receiver() -> Iterator[FakeReceiver]:
    with receiving() as fake:
        yield fake


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: FakeReceiver) -> Iterator[Audit]:
    for name in ("SPANSEAL_ON_ERROR", "SPANSEAL_TENANT", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "spool"
    monkeypatch.setenv("SPANSEAL_SPOOL_DIR", str(directory))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "clinic")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=desk-1")
    monkeypatch.setattr(runtime, "_runtime", Runtime())
    seen = Audit(directory, receiver, monkeypatch)
    yield seen
    seen.runtime.stop()


class Client(FlaskClient):
    """Reads and closes answers at once, as servers do; Flask's own leaves that to the test."""

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> Any:
        return super().open(*args, buffered=buffered, **kwargs)


@pytest.fixture
def app(audit: Audit) -> flask.Flask:
    """An audited application without routes. The audit's variables can still be set."""
    assert audit.runtime.keeper.spool is None
    made = flask.Flask("clinic")
    made.secret_key = "a made-up key"
    made.test_client_class = Client
    spanseal.instrument_app(made)
    return made


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What Spanseal says."""
    caplog.set_level(logging.DEBUG, logger="spanseal")
    return caplog
