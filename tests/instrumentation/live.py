"""Real servers over real sockets: how each is started, who visits it, and what is on record of the visits."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from examples.demo.processes import Service, free_port
from tests.instrumentation.fake_receiver import Received

BIN = Path(sys.executable).parent
QUIET = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
GUNICORN = ("gunicorn", "--no-control-socket", "--log-level", "warning", "--bind", "127.0.0.1:{port}")
FLASK_RUN = ("flask", "--app", "{module}", "run", "--debug", "--port", "{port}")

_MOST_SECONDS = 40.0


def gunicorn(*options: str, workers: int = 2) -> tuple[str, ...]:
    """Write gunicorn's command line."""
    return (*GUNICORN, "--workers", str(workers), *options, "{module}:app")


class Server(Service):
    """A program that serves a module's `app`, started by `opentelemetry-instrument` unless told otherwise."""

    def __init__(
        self,
        folder: Path,
        command: Iterable[str],
        *,
        endpoint: str,
        source: Path | None = None,
        env: Mapping[str, str] | None = None,
        instrument: bool = True,
        ready_path: str = "/healthz",
        ready_status: int = 200,
        bin_folder: Path = BIN,
        module: str = "served",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.source = folder / f"{module}.py"
        if source is not None:
            shutil.copy(source, self.source)
        port = free_port()
        program, *arguments = (part.format(port=port, module=module) for part in command)
        words = [program if "/" in program else str(bin_folder / program), *arguments]
        if instrument:
            words.insert(0, str(bin_folder / "opentelemetry-instrument"))
        super().__init__(
            program, words, port=port, ready_path=ready_path, log=folder / "server.txt", cwd=folder
        )
        self._ready = (ready_path, ready_status)
        self.spool = folder / "spool"
        self.env = {
            **QUIET,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_SERVICE_NAME": "served",
            "SPANSEAL_SPOOL_DIR": str(self.spool),
            "SPANSEAL_ADOPT_INTERVAL": "0.2",
            "SPANSEAL_SHUTDOWN_TIMEOUT": "20",  # a machine may be busy
            **(env or {}),
        }

    def start(self) -> Self:
        """Start it, unless it runs; what does not come up does not stay."""
        if self._process is not None and self._process.poll() is None:
            return self  # a second one would be left behind when the first is stopped
        try:
            return super().start()
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        # One that refuses everything is there, too.
        path, status = self._ready
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def signal_worker(self, number: int, rng: random.Random) -> None:
        """Send a signal to one of its workers."""
        with suppress(ProcessLookupError):
            if workers := self.children():
                os.kill(rng.choice(workers), number)

    def end_worker(self, rng: random.Random) -> None:
        self.signal_worker(signal.SIGTERM, rng)

    def kill_worker(self, rng: random.Random) -> None:
        self.signal_worker(signal.SIGKILL, rng)

    def restart(self, _: random.Random) -> None:
        self.stop()
        self.start()

    def kill_and_start(self, _: random.Random) -> None:
        self.kill()
        self.start()

    def text(self) -> str:
        """Everything it has said."""
        return self.log.read_text("utf-8", "replace")


@dataclass(frozen=True)
class Visit:
    """A request that was answered."""

    method: str
    patient: str
    status: int
    request_id: str


class Visitors:
    """Threads that send requests until told to stop, each under a name of its own in X-Request-Id."""

    def __init__(self, port: int, threads: int = 4) -> None:
        self.sent: set[str] = set()
        self.answered: dict[str, Visit] = {}
        self.wrong: list[str] = []
        self._port = port
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._gate = [threading.Lock() for _ in range(threads)]
        """Each held by its thread while it visits."""
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        """Return when that many more requests were answered."""
        with self._changed:
            enough = len(self.answered) + count
            come = self._changed.wait_for(lambda: len(self.answered) >= enough, _MOST_SECONDS)
        assert come, f"no more than {len(self.answered)} requests were answered"

    def _run(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            name = f"visit-{thread}-{number}"
            try:
                with self._gate[thread]:
                    self._visit(name, "POST" if number % 2 else "GET", f"p{thread}-{number}")
            except (OSError, http.client.HTTPException):
                self._stop.wait(0.02)  # it is down: not all of the processor for knocking at it

    def _visit(self, name: str, method: str, patient: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            self.sent.add(name)
            connection.request(method, f"/patients/{patient}", headers={"X-Request-Id": name})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        request_id = answer.headers.get("X-Request-Id", "")
        if answer.status == 200:
            told = set(json.loads(content).values()) if method == "POST" else {request_id}
            if told != {request_id} or (method == "GET" and content != patient.encode()):
                self.wrong.append(f"{name} {request_id}: {content!r}")
        with self._changed:
            self.answered[name] = Visit(method, patient, answer.status, request_id)
            self._changed.notify_all()


def name_of(record: Received) -> str:
    """The name that the visitor gave its request, or empty."""
    return "".join(record.attributes.get("http.request.header.x-request-id", ()))


def missing(visitors: Visitors, taken: Iterable[Received]) -> set[str]:
    """Names of answered visits of which nothing has come yet."""
    return visitors.answered.keys() - {name_of(record) for record in taken}


def check_visits(visitors: Visitors, taken: Iterable[Received]) -> int:
    """See that each answered visit is on record once, as what it was; return how many that were not are, too."""
    requests: dict[str, dict[str, Received]] = defaultdict(dict)
    checks: dict[str, dict[str, Received]] = defaultdict(dict)
    for record in taken:
        if name := name_of(record):
            requests[name][record.id] = record
        if record.action == "patient.checked":
            checks[record.attributes["audit.request.id"]][record.id] = record
    assert visitors.wrong == []
    for name, visit in visitors.answered.items():
        (record,) = requests[name].values()
        found = record.attributes
        assert found["audit.request.id"] == visit.request_id
        assert (found["http.request.method"], found["http.response.status_code"]) == (
            visit.method,
            visit.status,
        )
        assert found["audit.target.id"] == visit.patient
        assert (found["audit.outcome"] == "success") == (visit.status < 400)
        if visit.method == "POST" and visit.status == 200:
            (check,) = checks[visit.request_id].values()
            assert check.attributes["audit.target.id"] == visit.patient
    assert requests.keys() <= visitors.sent
    # What nobody was answered is on record once at most.
    assert all(len(records) == 1 for records in requests.values())
    return len(requests) - len(visitors.answered)
