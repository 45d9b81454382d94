"""Frameworks in processes of their own, started as their users start them; and what a client sees of them."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from examples.demo.processes import Service, free_port
from tests.instrumentation.fake_receiver import FakeReceiver, Received, Reply

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
HERE = "tests.instrumentation.frameworks"

DJANGO_SETTINGS = f"{HERE}.django_settings"
DJANGO_WSGI = (
    "gunicorn", "--no-control-socket", "--log-level", "warning", "--threads", "4", "--bind", "127.0.0.1:{port}",
    "django.core.wsgi:get_wsgi_application()",
)  # fmt: skip
DJANGO_ASGI = ("uvicorn", "--log-level", "warning", "--port", "{port}", "--lifespan", "off", "--factory",
               "django.core.asgi:get_asgi_application")  # fmt: skip
DJANGO_RUNSERVER = ("django-admin", "runserver", "--noreload", "127.0.0.1:{port}")
FASTAPI = ("uvicorn", "--log-level", "warning", "--port", "{port}", f"{HERE}.fastapi_app:app")


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")


@dataclass
class Server:
    """One server, with what was asked of it."""

    folder: Path
    command: tuple[str, ...]
    endpoint: str
    env: Mapping[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.spool = self.folder / "spool"
        port = free_port()
        words = [str(BIN / "opentelemetry-instrument"), str(BIN / self.command[0])]
        words += [word.format(port=port) for word in self.command[1:]]
        self.service = Service(
            self.command[0], words, port=port, ready_path="/healthz", log=self.folder / "log.txt", cwd=ROOT
        )
        self.service.env = {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'instrumentation'}",
            "DJANGO_SETTINGS_MODULE": DJANGO_SETTINGS,
            "SITE_DATABASE": str(self.folder / "site.sqlite"),
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_SERVICE_NAME": "framework",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "SPANSEAL_SPOOL_DIR": str(self.spool),
            "SPANSEAL_ADOPT_INTERVAL": "0.2",
            **self.env,
        }

    def ask(
        self,
        method: str,
        path: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, with the cookies that came before."""
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=20)
        sent = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            **(headers or {}),
        }
        body = None
        if form is not None:
            body = urlencode(form)
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, {name: value for name, value in sent.items() if value})
        answer = connection.getresponse()
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                cookie, _, rest = value.partition(";")[0].partition("=")
                self.cookies[cookie] = rest
        try:
            text = answer.read().decode()
        except http.client.IncompleteRead as error:
            text = error.partial.decode()
        connection.close()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)

    def connect(self, method: str, path: str) -> socket.socket:
        """Send a request and wait for nothing."""
        connection = socket.create_connection(("127.0.0.1", self.service.port), timeout=20)
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        return connection

    def log(self) -> str:
        return self.service.log.read_text("utf-8", "replace")


@contextmanager
def holding(receiver: FakeReceiver) -> Iterator[None]:
    """Let what is sent stay in the spool for the time being, where it can be seen."""
    end = threading.Event()
    receiver.answer = lambda _records: Reply(wait=end)
    try:
        yield
    finally:
        receiver.answer = lambda _records: Reply()
        end.set()


def make_users(folder: Path) -> None:
    """Make the Django site's database, with two users."""
    folder.mkdir(parents=True, exist_ok=True)
    program = (
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0)\n"
        "from django.contrib.auth.models import User\n"
        "User.objects.create_user('ada', 'ada@example.org', 'pw')\n"
        "User.objects.create_superuser('root', 'root@example.org', 'pw')\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=ROOT,
        env={
            "PATH": "",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'instrumentation'}",
            "DJANGO_SETTINGS_MODULE": DJANGO_SETTINGS,
            "SITE_DATABASE": str(folder / "site.sqlite"),
        },
    )


def requests_of(records: list[Received]) -> dict[str, Received]:
    """Return the requests' own records by the requests' ids; each must be there once."""
    own = [record for record in records if record.attributes.get("audit.capture") in ("span", "wsgi")]
    # A batch that was taken by a process that died before it knew comes again, and the collector knows its records.
    known = {record.id: record for record in own}
    counted = Counter(str(record.attributes["audit.request.id"]) for record in known.values())
    assert set(counted.values()) <= {1}, [identifier for identifier, count in counted.items() if count > 1]
    return {str(record.attributes["audit.request.id"]): record for record in known.values()}
