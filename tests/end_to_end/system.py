"""The whole way of a record as real processes: the clinic under gunicorn, a collector, and what is stored."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from examples.demo.processes import Clinic, Collector
from spanseal_storage.access import open_reader
from spanseal_storage.directory import DataDirectory
from spanseal_storage.rows import query

CHEAP_HASH = {"CLINIC_PASSWORD_METHOD": "pbkdf2:sha256:1000"}
WAIT_SECONDS = 60.0


class System:
    """A collector and a clinic in a folder of their own."""

    def __init__(self, folder: Path, *, workers: int = 2, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "log"
        self.collector = Collector(self.data, folder / "collector.txt")
        self.clinic = Clinic(
            folder,
            collector_url=self.collector.url,
            log=folder / "clinic.txt",
            workers=workers,
            env={**CHEAP_HASH, "SPANSEAL_ADOPT_INTERVAL": "0.5", **(env or {})},
        )

    def __enter__(self) -> Self:
        try:
            self.collector.start()
            self.clinic.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def stop(self) -> None:
        """End both gracefully, the clinic first."""
        self.clinic.stop()
        self.collector.stop()

    def kill(self) -> None:
        """End both at once."""
        self.clinic.kill()
        self.collector.kill()

    # --- what kills are made of ------------------------------------------------------------------------

    def kill_worker(self, rng: random.Random) -> None:
        """SIGKILL one of gunicorn's workers; gunicorn starts another."""
        workers = self.clinic.children()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)

    def kill_collector(self, _: random.Random) -> None:
        """SIGKILL the collector and start it again."""
        self.collector.kill()
        self.collector.start()

    def kill_both(self, rng: random.Random) -> None:
        """SIGKILL a worker and the collector, and start the collector again."""
        self.kill_worker(rng)
        self.kill_collector(rng)

    def kill_clinic(self, _: random.Random) -> None:
        """SIGKILL gunicorn and its workers and start it again."""
        self.clinic.kill()
        self.clinic.start()

    # --- what is stored --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reader(self) -> Iterator[Any]:
        """Open a client that reads the log, whether the collector runs or not."""
        with open_reader(DataDirectory(self.data), "test") as client:
            yield client

    def rows(self, sql: str, **parameters: object) -> list[Any]:
        """Run one query."""
        with self.reader() as client:
            return query(client, sql, parameters)

    def request_records(self) -> Counter[str]:
        """Count the request records of each request id."""
        rows = self.rows(
            "SELECT request_id, count() FROM audit.events WHERE metadata['audit.capture'] = 'wsgi' GROUP BY request_id"
        )
        return Counter({str(request_id): int(count) for request_id, count in rows})

    def wait_for(self, request_ids: set[str]) -> Counter[str]:
        """Wait until each of these requests has a record, or the time is up; returns what is there then."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found = self.request_records()
            if request_ids <= found.keys() or time.monotonic() > deadline:
                return found
            time.sleep(0.2)
