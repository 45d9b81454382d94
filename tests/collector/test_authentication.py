"""Tokens at a collector that runs as a process, over all that it speaks, with clients as they are."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from click.testing import CliRunner
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

from examples.demo.processes import Collector, run_spanseal
from spanseal_collector.token_commands import tokens as tokens_command
from spanseal_collector.tokens import Scope, TokenFile, new_token
from spanseal_storage.directory import DataDirectory, write_private
from tests.collector import otlp_json
from tests.collector.grpc_client import EXPORT, channel, export
from tests.collector.http import head, health, post, rows, status, verdict
from tests.collector.wire import record, request

DAY = 86_400


@dataclass
class Guarded:
    """A collector with a token of each kind."""

    collector: Collector
    file: TokenFile
    tokens: dict[str, str]

    def bearer(self, name: str) -> str:
        return f"Bearer {self.tokens[name]}"


def make(data: Path) -> tuple[TokenFile, dict[str, str]]:
    file = TokenFile(DataDirectory(data))
    made = {}
    now = int(time.time())
    for name, scope, tenant, age, lifetime in (
        ("free", Scope.INGEST, "", 0, None),
        ("acme", Scope.INGEST, "acme", 0, DAY),
        ("admin", Scope.ADMIN, "", 0, None),
        ("reader", Scope.READ, "", 0, None),
        ("acme reader", Scope.READ, "acme", 0, None),
        ("expired", Scope.INGEST, "", 3 * DAY, DAY),
        ("forgotten", Scope.INGEST, "", 30 * DAY, DAY),
        ("revoked", Scope.INGEST, "", 0, None),
    ):
        made[name], token = new_token(scope, tenant=tenant, lifetime=lifetime, now=now - age)
        file.add(token)
        if name == "revoked":
            file.revoke(token.id, now)
    return file, made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    data = folder / "data"
    file, tokens = make(data)
    collector = Collector(data, folder / "collector.log")
    with collector:
        yield Guarded(collector, file, tokens)
        failed = health(collector)["auth_failed"]
    assert verdict(data)["verdict"] == "clean"
    sealed = rows(
        data,
        "SELECT metadata, outcome, actor_ip FROM audit.events WHERE action = 'audit_log.auth_failed'",
    )
    # What was only counted is sealed at the end, so that all are there.
    assert sum(int(metadata["audit.auth.attempts"]) for metadata, *_ in sealed) == failed
    assert {(outcome, address) for _, outcome, address in sealed} <= {("failure", "")}
    # Nowhere is what it takes to send.
    everything = str(rows(data, "SELECT toString(tuple(*)) FROM audit.records"))
    everything += str(rows(data, "SELECT * FROM audit.quarantine")) + collector.log.read_text()
    everything += file.path.read_text()
    assert tokens["free"][4:16] in everything  # its id
    assert [name for name, token in tokens.items() if token[-43:] in everything] == []


def send(exporter: Any, tenant: str | None, service: str) -> None:
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    attributes = {"sender": service} | ({"audit.tenant": tenant} if tenant else {})
    provider.get_logger("test").emit(event_name="report.printed", body="printed", attributes=attributes)
    provider.shutdown()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_the_python_sdk_sends_into_the_tenant_of_its_token(guarded: Guarded, kind: str) -> None:
    def exporter(name: str) -> Any:
        # Header names of gRPC are lower case; of HTTP, any.
        headers = {"authorization": guarded.bearer(name)}
        if kind == "http":
            return HttpExporter(endpoint=guarded.collector.url + "/v1/logs", headers=headers)
        endpoint = f"http://127.0.0.1:{guarded.collector.grpc_port}"
        return GrpcExporter(endpoint=endpoint, headers=headers, insecure=True)

    sent = [
        ("free", None),
        ("free", "north"),
        ("acme", None),
        ("acme", "acme"),
        ("acme", "north"),
        ("admin", "x"),
    ]
    for token, tenant in sent:
        send(exporter(token), tenant, f"{kind} {token} {tenant}")
    found = dict(
        rows(
            guarded.collector.data,
            f"SELECT metadata['sender'], tenant FROM audit.events WHERE metadata['sender'] LIKE '{kind} %'",
        )
    )
    assert found == {
        f"{kind} free None": "default",
        f"{kind} free north": "north",
        f"{kind} acme None": "acme",
        f"{kind} acme acme": "acme",
        f"{kind} admin x": "x",
    }
    left = rows(
        guarded.collector.data,
        f"SELECT reason FROM audit.quarantine WHERE position(raw, '{kind} acme north') > 0",
    )
    assert left == [("the record names another tenant than 'acme', to which its token is bound",)]


def test_each_token_is_answered_as_it_deserves(guarded: Guarded) -> None:
    answers = {
        None: (401, grpc.StatusCode.UNAUTHENTICATED, None),
        "Bearer sst_nonsense": (401, grpc.StatusCode.UNAUTHENTICATED, None),
        guarded.bearer("forgotten"): (401, grpc.StatusCode.UNAUTHENTICATED, None),
        guarded.bearer("reader"): (403, grpc.StatusCode.PERMISSION_DENIED, None),
        guarded.bearer("expired"): (503, grpc.StatusCode.UNAVAILABLE, 60.0),
        guarded.bearer("revoked"): (503, grpc.StatusCode.UNAVAILABLE, 60.0),
        guarded.bearer("free"): (200, grpc.StatusCode.OK, None),
    }
    body = request(record())
    for header, (code, grpc_code, retry) in answers.items():
        given = {} if header is None else {"Authorization": header}
        answer = post(guarded.collector.url, body.SerializeToString(), **given)
        as_json = requests.post(
            guarded.collector.url + "/v1/logs",
            data=json.dumps(otlp_json.request(body)),
            headers={"Content-Type": "application/json"} | given,
            timeout=30,
        )
        metadata = () if header is None else (("authorization", header),)
        called = export(guarded.collector.grpc_port, body.SerializeToString(), metadata=metadata)
        assert (answer.status_code, as_json.status_code, called.code) == (code, code, grpc_code), header
        if code == 200:
            continue
        assert ("WWW-Authenticate" in answer.headers) == (code == 401)
        if code == 401:
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        for heard in (answer, as_json):
            assert heard.headers.get("Retry-After") == (None if retry is None else f"{retry:.0f}")
        assert called.retry_seconds() == retry
        assert status(answer).message == as_json.json()["message"] == called.details
        assert called.status == status(answer)
        assert (header or "?")[-43:] not in called.details
    # The first of each reason was sealed at once, so before what was stored last.
    sealed = rows(
        guarded.collector.data,
        "SELECT metadata['audit.auth.reason'] FROM audit.events WHERE action = 'audit_log.auth_failed'",
    )
    assert {reason for (reason,) in sealed} >= {"missing", "unknown", "expired", "revoked", "scope"}


def test_who_may_not_send_is_read_no_further(guarded: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", guarded.collector.port), timeout=30) as connection:
        connection.sendall(head(20 << 20))
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")
    broken = {"Content-Encoding": "gzip", "Content-Type": "text/html"}
    assert post(guarded.collector.url, b"no gzip", **broken).status_code == 401
    free = {"Authorization": guarded.bearer("free")}
    assert post(guarded.collector.url, b"no gzip", **{"Content-Encoding": "gzip"}, **free).status_code == 400

    held = threading.Event()

    def messages() -> Iterator[bytes]:
        held.wait(60)
        yield b""

    try:
        with channel(guarded.collector.grpc_port) as opened, pytest.raises(grpc.RpcError) as told:
            opened.stream_unary(EXPORT)(messages(), timeout=30)
        assert told.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert not held.is_set()
    finally:
        held.set()


def test_it_follows_the_file_while_it_runs(guarded: Guarded) -> None:
    body = request(record()).SerializeToString()

    def sent(header: str) -> tuple[int, grpc.StatusCode]:
        called = export(guarded.collector.grpc_port, body, metadata=(("authorization", header),))
        return post(guarded.collector.url, body, Authorization=header).status_code, called.code

    made = run_tokens("create", "--scope", "ingest", "--data", str(guarded.collector.data))
    header = f"Bearer {made}"
    assert sent(header) == (200, grpc.StatusCode.OK)
    whole = guarded.file.path.read_text()
    for broken in (whole[:-9], None):
        if broken is None:
            guarded.file.path.unlink()
        else:
            write_private(guarded.file.path, broken)
        for some in (header, guarded.bearer("forgotten"), "Bearer nonsense"):
            assert sent(some) == (503, grpc.StatusCode.UNAVAILABLE)
        answer = post(guarded.collector.url, body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    write_private(guarded.file.path, whole)
    assert sent(header) == (200, grpc.StatusCode.OK)
    run_tokens("revoke", made[4:16], "--data", str(guarded.collector.data))
    assert sent(header) == (503, grpc.StatusCode.UNAVAILABLE)


def run_tokens(*arguments: str) -> str:
    done = CliRunner().invoke(tokens_command, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def test_a_token_that_may_read_opens_the_whole_log(guarded: Guarded) -> None:
    runtime = DataDirectory(guarded.collector.data).runtime()
    assert runtime is not None
    url = f"http://127.0.0.1:{runtime.port}/"
    assert f"{url[:-1]} " in guarded.collector.log.read_text()
    asked = {"reader": 200, "admin": 200, "free": 401, "acme": 401, "acme reader": 401, "revoked": 401}
    for name, code in asked.items():
        answer = requests.post(url, "SELECT 1", headers={"Authorization": guarded.bearer(name)}, timeout=30)
        assert (answer.status_code, name) == (code, name)
    basic = base64.b64encode(f"any:{guarded.tokens['reader']}".encode()).decode()
    answer = requests.post(url, "SELECT 1", headers={"Authorization": f"Basic {basic}"}, timeout=30)
    assert answer.text == "1\n"


def test_a_flood_is_told_to_wait_while_good_tokens_pass(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _, tokens = make(data)
    body = request(record()).SerializeToString()
    with Collector(data, tmp_path / "collector.log") as collector, requests.Session() as session:
        answers = [session.post(collector.url + "/v1/logs", data=b"", timeout=30) for _ in range(40)]
        assert [answer.status_code for answer in answers] == [401] * 30 + [429] * 10
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        called = export(collector.grpc_port, b"")
        assert called.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert called.retry_seconds()
        assert post(collector.url, body, Authorization=f"Bearer {tokens['free']}").status_code == 200
        # Sealed at once, and before it ends.
        sealed = (
            "SELECT metadata['audit.auth.attempts'] FROM audit.events WHERE action = 'audit_log.auth_failed'"
        )
        assert rows(data, sealed) == [("1",)]
    assert rows(data, sealed + " ORDER BY seq") == [("1",), ("40",)]
    assert collector.log.read_text().count("was refused: missing") == 1


def test_without_a_token_it_does_not_start_where_one_is_needed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    # A name that is nobody's: if it were not refused before, it could not be listened at either.
    for options, said in (
        (("--host", "192.0.2.1"), "--insecure-no-auth"),
        (("--require-tokens",), "tokens create"),
        (("--require-tokens", "--insecure-no-auth"), "exclude"),
        (("--host", "192.0.2.1", "--insecure-no-auth"), "cannot listen"),
    ):
        done = run_spanseal("collector", "--data", str(data), "--port", "0", "--grpc-port", "0", *options)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert data.exists() == ("cannot listen" in said)
    file, _ = make(data)
    write_private(file.path, "{}")
    done = run_spanseal("collector", "--data", str(data), "--port", "0", "--grpc-port", "0")
    assert done.returncode == 2
    assert "tokens.json" in done.stderr


def test_on_the_loopback_interface_it_says_that_anybody_may_send_until_there_is_a_token(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    body = ExportLogsServiceRequest().SerializeToString()
    with Collector(data, tmp_path / "collector.log") as collector:
        assert "need no token: whoever is on this machine can send" in collector.log.read_text()
        assert post(collector.url, body).status_code == 200
        assert post(collector.url, body, Authorization="Bearer of news").status_code == 200
        run_tokens("create", "--scope", "read", "--data", str(data))
        assert post(collector.url, body).status_code == 200
        token = run_tokens("create", "--scope", "ingest", "--data", str(data))
        assert post(collector.url, body).status_code == 401
        assert export(collector.grpc_port, body).code is grpc.StatusCode.UNAUTHENTICATED
        assert post(collector.url, body, Authorization=f"Bearer {token}").status_code == 200
    with collector:
        assert "need a token (spanseal tokens)" in collector.log.read_text()
        assert post(collector.url, body).status_code == 401
    assert verdict(data)["verdict"] == "clean"
