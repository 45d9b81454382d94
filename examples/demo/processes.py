"""Real processes for the demonstration and for the end-to-end tests: a collector, and the clinic under gunicorn."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Clinic", "Collector", "Service", "ServiceError", "free_port", "run_spanseal"]

_BIN = Path(sys.executable).parent
_CLINIC = Path(__file__).resolve().parents[1] / "clinic"
_READY_SECONDS = 40.0


class ServiceError(RuntimeError):
    """A process did not come up, or not go down; the message holds the end of its log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens at, and that nobody else is given for a minute.

    A connection over it is closed from its side first. The kernel then gives the port to nobody who asks for any, while
    servers, which name it, may have it at once.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = probe.accept()
            accepted.close()
            client.recv(1)
        return port


def run_spanseal(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command `spanseal` and return what it printed and its exit code."""
    return subprocess.run(  # noqa: S603 - our own command
        [str(_BIN / "spanseal"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **(env or {})},
    )


class Service:
    """A process that serves HTTP at 127.0.0.1, with its output in a file."""

    def __init__(
        self, name: str, command: list[str], *, port: int, ready_path: str, log: Path, cwd: Path | None = None
    ) -> None:
        self.name = name
        self.port = port
        self.log = log
        self.env: dict[str, str] = {}
        self._command = command
        self._ready_path = ready_path
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            ServiceError: it does not run.

        """
        if self._process is None:
            raise ServiceError(f"{self.name} was not started")
        return self._process.pid

    def start(self) -> Self:
        """Start it and return when it answers.

        Raises:
            ServiceError: it ended, or does not answer in time.

        """
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.env},
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None:
                raise ServiceError(f"{self.name} ended with code {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceError(f"{self.name} does not answer at {self.url}:\n{self.tail()}")
            time.sleep(0.05)
        return self

    def kill(self) -> None:
        """End it and its children with SIGKILL, at once."""
        self._signal_group(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self, timeout: float = 40.0) -> int:
        """End it with SIGTERM; returns its exit code.

        Raises:
            ServiceError: it does not end in time.

        """
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServiceError(f"{self.name} did not end within {timeout} s:\n{self.tail()}") from None

    def children(self) -> list[int]:
        """Return the ids of its child processes, such as gunicorn's workers."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def tail(self, lines: int = 30) -> str:
        """Return the end of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])
        return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self._ready_path, timeout=2) as answer:  # noqa: S310 - own URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _signal_group(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class Collector(Service):
    """`spanseal collector` on a data directory."""

    def __init__(
        self, data: Path, log: Path, *, port: int | None = None, options: tuple[str, ...] = ()
    ) -> None:
        self.data = data
        self.grpc_port = free_port()
        chosen = port or free_port()
        command = [str(_BIN / "spanseal"), "collector", "--data", str(data), "--port", str(chosen)]
        command += ["--grpc-port", str(self.grpc_port), *options]
        super().__init__("collector", command, port=chosen, ready_path="/health", log=log)


class Clinic(Service):
    """The clinic under gunicorn and `opentelemetry-instrument`; its source knows nothing of Spanseal."""

    def __init__(
        self,
        folder: Path,
        *,
        collector_url: str,
        log: Path,
        workers: int = 2,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        port = free_port()
        folder = folder.resolve()  # it runs in a directory of its own
        command = [
            str(_BIN / "opentelemetry-instrument"),
            str(_BIN / "gunicorn"),
            "--no-control-socket",  # it would be in the home directory
            "--workers",
            str(workers),
            "--bind",
            f"127.0.0.1:{port}",
            "--log-level",
            "warning",
            *options,
            "clinic.wsgi:app",
        ]
        super().__init__("clinic", command, port=port, ready_path="/healthz", log=log, cwd=_CLINIC)
        self.spool = folder / "spool"
        self.env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector_url,
            "OTEL_SERVICE_NAME": "clinic",
            # The collector takes audit records; traces and metrics would go to a company's own backend.
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "SPANSEAL_SPOOL_DIR": str(self.spool),
            "CLINIC_DATABASE": str(folder / "clinic.sqlite"),
            "CLINIC_SECRET_KEY": "only-for-the-demonstration",
            **(env or {}),
        }
