"""The real writer and the real checkpoint log, with faults put in; and requests for a pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from spanseal_collector.admission import Admitter, Draft, Rejected
from spanseal_collector.otlp import decode_logs
from spanseal_collector.pipeline import Pipeline
from spanseal_ledger.checkpoint_log import Line
from spanseal_storage.checkpoint_file import CheckpointFile
from spanseal_storage.errors import CheckpointLogError, EngineError
from spanseal_storage.writer import Batch, Writer
from tests.collector.conftest import Log
from tests.collector.wire import record, request

ADMITTER = Admitter(bytes(32))
STREAM = "web-1/0192f000-0000-7000-8000-0000000000aa"


def items(*records: LogRecord) -> list[Draft | Rejected]:
    return list(ADMITTER.admit(decode_logs(request(*records).SerializeToString())))


def drafts(*records: LogRecord) -> list[Draft]:
    found = [item for item in items(*records) if isinstance(item, Draft)]
    assert len(found) == len(records)
    return found


def numbered(number: int, **more: Any) -> LogRecord:
    return record(audit__stream_id=STREAM, audit__sequence__number=number, **more)


def send(pipeline: Pipeline, *records: LogRecord) -> Future[None]:
    return pipeline.submit(items(*records), 1000)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class FailingWriter(Writer):
    """Fails before or after the rows are stored, as told for each attempt; or every time, while `broken`."""

    def __init__(self, log: Log, faults: Sequence[str] = ()) -> None:
        super().__init__(log.client)
        self.faults = list(faults)
        self.broken = False
        self.blind = False
        """Whether nothing can be read back."""
        self.sent: list[Batch] = []

    def write(self, batch: Batch) -> None:
        self.sent.append(batch)
        fault = self.faults.pop(0) if self.faults else ""
        if self.broken or fault == "before":
            raise EngineError("put in: disk full")
        super().write(batch)
        if fault == "after":
            raise EngineError("put in: the answer was lost")

    def stored(self, batch: Batch) -> bool:
        if self.blind:
            raise EngineError("put in: nothing can be read")
        return super().stored(batch)


class HalfWriter(Writer):
    """Fails at one table, before or after its rows are stored, as often as told."""

    def __init__(self, log: Log, table: str, moment: str, times: int) -> None:
        super().__init__(log.client)
        self.table, self.moment, self.times = table, moment, times

    def _insert(
        self,
        table: str,
        columns: Mapping[str, Sequence[Any]],
        names: Sequence[str],
        types: Sequence[str],
        token: str,
    ) -> None:
        fault = self.moment if table == self.table and self.times else ""
        self.times -= bool(fault)
        if fault == "before":
            raise EngineError("put in: disk full")
        super()._insert(table, columns, names, types, token)
        if fault == "after":
            raise EngineError("put in: the answer was lost")


class GatedWriter(Writer):
    """Waits before it writes, once the gate was closed."""

    def __init__(self, log: Log) -> None:
        super().__init__(log.client)
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def write(self, batch: Batch) -> None:
        if not self.gate.is_set():
            self.reached.set()
            self.gate.wait(20)
        super().write(batch)


class FailingLog:
    """A checkpoint log that cannot be written for a while."""

    def __init__(self, real: CheckpointFile, failures: int) -> None:
        self.real, self.failures = real, failures

    def append(self, line: Line) -> None:
        if self.failures:
            self.failures -= 1
            raise CheckpointLogError("put in: no space left on device")
        self.real.append(line)
