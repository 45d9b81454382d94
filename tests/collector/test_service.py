"""The collector as a real process: what it stores, how it starts again, and whom it refuses."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from examples.demo.processes import Collector, run_spanseal
from spanseal_collector.service import CollectorConfig, serve
from spanseal_storage.directory import DataDirectory
from tests.collector.http import health, post, rows, verdict
from tests.collector.wire import record, request


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    folder = tmp_path_factory.mktemp("service")
    with Collector(folder / "data", folder / "collector.log") as running:
        yield running


def test_records_are_stored_chained_and_verified_while_it_runs_and_after(tmp_path: Path) -> None:
    with Collector(tmp_path / "data", tmp_path / "collector.log") as collector:
        answer = post(collector.url, request(record(), record()).SerializeToString())
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-protobuf"
        assert not ExportLogsServiceResponse.FromString(answer.content).HasField("partial_success")
        packed = gzip.compress(request(record()).SerializeToString())
        assert post(collector.url, packed, Content_Encoding="gzip").status_code == 200
        running = verdict(collector.data)
        assert (running["verdict"], running["records"]) == ("clean", 4)
        assert collector.stop() == 0
        stopped = verdict(collector.data)
        assert (stopped["verdict"], stopped["records"]) == ("clean", 6)


def test_a_bad_record_is_quarantined_and_its_99_neighbours_are_stored(collector: Collector) -> None:
    before = health(collector)
    body = bytearray(request(*(record("neighbour.sent", n=n) for n in range(100))).SerializeToString())
    at = body.index(b"u-17", len(body) // 2)
    body[at : at + 4] = b"\xff\xfe\xfd\xfc"
    assert post(collector.url, bytes(body)).status_code == 200
    assert health(collector)["quarantined"] - before["quarantined"] == 1
    stored = rows(collector.data, "SELECT metadata['n'] FROM audit.events WHERE action = 'neighbour.sent'")
    assert len({row[0] for row in stored}) == 99
    ((named,),) = rows(
        collector.data,
        "SELECT metadata['audit.quarantine.reason'] FROM audit.events WHERE action = 'audit_log.quarantined'",
    )
    assert "UTF-8" in named
    assert verdict(collector.data)["verdict"] == "clean"


def test_the_sdks_own_exporter_is_understood(collector: Collector) -> None:
    exporter = OTLPLogExporter(endpoint=collector.url + "/v1/logs")
    provider = LoggerProvider(resource=Resource({"service.name": "printer", "host.name": "p-1"}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("test", "1.0")
    logger.emit(event_name="report.printed", attributes={"pages": 3, "tags": ["a", "b"]}, body="printed")
    logger.emit(body="no event name")
    provider.shutdown()
    ((service, body, record_id, metadata),) = rows(
        collector.data,
        "SELECT service, metadata['log.body'], toString(record_id), metadata FROM audit.events "
        "WHERE action = 'report.printed'",
    )
    assert (service, body, len(record_id)) == ("printer", "printed", 36)
    expected = {
        "pages": "3",
        "tags": '[{"stringValue":"a"},{"stringValue":"b"}]',
        "resource.host.name": "p-1",
        "scope.name": "test",
        "scope.version": "1.0",
        "audit.record_id": "collector",
    }
    assert expected.items() <= dict(metadata).items()
    reasons = rows(
        collector.data,
        "SELECT metadata['audit.quarantine.reason'] FROM audit.events WHERE action = 'audit_log.quarantined'",
    )
    assert any("no event_name" in reason for (reason,) in reasons)


def test_who_cannot_have_the_directory_or_the_port_is_told_and_changes_nothing(
    collector: Collector, tmp_path: Path
) -> None:
    done = run_spanseal("collector", "--data", str(collector.data), "--port", "0", "--grpc-port", "0")
    assert done.returncode == 2
    assert f"pid {collector.pid}" in done.stderr
    assert "Traceback" not in done.stderr
    for option, port in (("--port", collector.port), ("--grpc-port", collector.grpc_port)):
        ports = ("--port", "0", "--grpc-port", "0", option, str(port))
        done = run_spanseal("collector", "--data", str(tmp_path / "other"), *ports)
        assert done.returncode == 2
        assert f":{port}: " in done.stderr
        assert f"another {option}," in done.stderr
        assert "Traceback" not in done.stderr
    assert post(collector.url, request(record()).SerializeToString()).status_code == 200
    assert verdict(collector.data)["chains"] == 1


def test_a_damaged_pseudonym_key_is_told_and_never_replaced(tmp_path: Path) -> None:
    data = tmp_path / "data"
    DataDirectory(data).create()
    key = data / "keys" / "pseudonym.key"
    for text in ("nonsense", "00" * 31):
        key.write_text(text)
        done = run_spanseal("collector", "--data", str(data), "--port", "0", "--grpc-port", "0")
        assert done.returncode == 2
        assert "pseudonym.key" in done.stderr
        assert "Traceback" not in done.stderr
        assert text not in done.stderr
        assert key.read_text() == text


def test_started_again_it_names_what_was_before_and_knows_what_it_has(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "data" / "checkpoints.jsonl"
    body = request(record(), record()).SerializeToString()
    collector = Collector(data, tmp_path / "collector.log")
    collector.start()
    assert post(collector.url, body).status_code == 200
    os.kill(collector.pid, signal.SIGKILL)
    collector.stop()
    # Killed before the last line was whole: the next start enters it again.
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    for _ in range(2):
        with collector:
            assert post(collector.url, body).status_code == 200
            assert health(collector)["duplicates"] == 2
    notes = [json.loads(line)["note"] for line in log.read_bytes().splitlines()]
    assert json.loads(lines[-1])["note"] in notes
    result = verdict(data)
    assert (result["verdict"], result["chains"]) == ("clean", 3)
    assert rows(data, "SELECT count() FROM audit.events WHERE tenant = 'default'") == [(2,)]
    named = rows(
        data,
        "SELECT metadata['audit.chain.predecessors'] FROM audit.events "
        "WHERE action = 'audit_log.started' ORDER BY received_at",
    )
    assert [len(json.loads(chains)) for (chains,) in named] == [0, 1, 1]


def test_a_collector_that_cannot_commit_any_more_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("put in: a bug")

    monkeypatch.setattr("spanseal_collector.pipeline.Pipeline._loop", broken)
    told: list[str] = []
    config = CollectorConfig(data=tmp_path / "data", port=0, grpc_port=0)
    assert not serve(config, lambda ready: told.append(ready.url), lambda: told.append("stop"))
    assert len(told) == 2
    assert told[1] == "stop"
    assert verdict(tmp_path / "data")["verdict"] == "clean"
