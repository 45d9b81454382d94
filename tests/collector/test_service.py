"""The collector as a real process, asked over real HTTP."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

from examples.demo.processes import Collector, run_spanseal
from spanseal_collector.receiver import MAX_REQUEST_BYTES
from tests.collector.wire import record, request

PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(tmp_path / "data", tmp_path / "collector.log") as running:
        yield running


def post(collector: Collector, body: bytes, **headers: str) -> requests.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return requests.post(collector.url + "/v1/logs", data=body, headers=PROTOBUF | named, timeout=30)


def status(answer: requests.Response) -> status_pb2.Status:
    assert answer.headers["content-type"] == "application/x-protobuf"
    return status_pb2.Status.FromString(answer.content)


def verdict(data: Path, *options: str) -> dict[str, object]:
    done = run_spanseal("verify", "--data", str(data), "--json", *options)
    result: dict[str, object] = json.loads(done.stdout)
    assert done.returncode == (0 if result["verdict"] == "clean" else 1), done.stderr
    return result


def test_records_are_stored_chained_and_verified_while_it_runs_and_after(collector: Collector) -> None:
    answer = post(collector, request(record(), record()).SerializeToString())
    assert answer.status_code == 200
    assert not ExportLogsServiceResponse.FromString(answer.content).HasField("partial_success")
    packed = gzip.compress(request(record()).SerializeToString())
    assert post(collector, packed, Content_Encoding="gzip").status_code == 200
    running = verdict(collector.data)
    assert (running["verdict"], running["records"]) == ("clean", 4)
    assert collector.stop() == 0
    stopped = verdict(collector.data)
    assert (stopped["verdict"], stopped["records"]) == ("clean", 6)


def test_bytes_that_are_not_otlp_are_400_with_a_status(collector: Collector) -> None:
    for body in (b"garbage", b"{}"):
        answer = post(collector, body)
        assert answer.status_code == 400
        assert status(answer).code == 3
        assert "OTLP" in status(answer).message
    answer = post(collector, b"not gzip", Content_Encoding="gzip")
    assert answer.status_code == 400


def test_too_large_and_unsupported_are_told(collector: Collector) -> None:
    bomb = gzip.compress(bytes(MAX_REQUEST_BYTES + 1))
    assert post(collector, bomb, Content_Encoding="gzip").status_code == 413
    assert post(collector, bytes(MAX_REQUEST_BYTES + 1)).status_code == 413
    assert post(collector, b"", Content_Type="text/plain").status_code == 415
    assert post(collector, b"", Content_Encoding="br").status_code == 415
    assert requests.post(collector.url + "/v1/traces", timeout=10).status_code == 404
    assert requests.get(collector.url + "/v1/logs", timeout=10).status_code == 405


def test_a_bad_record_is_quarantined_and_its_99_neighbours_are_stored(collector: Collector) -> None:
    body = bytearray(request(*(record(n=n) for n in range(100))).SerializeToString())
    at = body.index(b"u-17", len(body) // 2)
    body[at : at + 4] = b"\xff\xfe\xfd\xfc"
    assert post(collector, bytes(body)).status_code == 200
    sql = "SELECT tenant, action, count() AS n FROM events GROUP BY tenant, action ORDER BY action"
    done = run_spanseal("query", "--data", str(collector.data), "--json", sql)
    counts = {row["action"]: row["n"] for row in map(json.loads, done.stdout.splitlines())}
    assert counts == {"audit_log.quarantined": 1, "audit_log.started": 1, "patient.viewed": 99}
    assert verdict(collector.data)["verdict"] == "clean"


def test_hostile_records_do_not_crash_it_nor_split_the_chain(collector: Collector) -> None:
    hostile = [
        record(nul="a\x00b", **{"\x00": "\x00"}),
        record(big="x" * 5_000_000),
        record(**{f"k{n}": n for n in range(10_000)}),
        record(audit__actor__id="\u202e\x1b[31m<script>"),
        record("audit_log.stopped"),
    ]
    for log in hostile:
        assert post(collector, request(record(), log).SerializeToString()).status_code == 200
    twice = record()
    twice.attributes.append(twice.attributes[0])
    assert post(collector, request(twice).SerializeToString()).status_code == 200
    assert post(collector, request(record()).SerializeToString()).status_code == 200
    result = verdict(collector.data)
    assert (result["verdict"], result["chains"]) == ("clean", 1)
    health = requests.get(collector.url + "/health", timeout=10).json()
    assert health["quarantined"] == 4


def test_a_client_cannot_write_the_collectors_own_actions(collector: Collector) -> None:
    for action in ("audit_log.stopped", "audit_log.erased", "audit_log.purged"):
        assert post(collector, request(record(action)).SerializeToString()).status_code == 200
    sql = "SELECT DISTINCT action FROM events ORDER BY action"
    done = run_spanseal("query", "--data", str(collector.data), "--csv", sql)
    assert done.stdout.split() == ["action", "audit_log.quarantined", "audit_log.started"]


def test_the_sdks_own_exporter_is_understood(collector: Collector) -> None:
    exporter = OTLPLogExporter(endpoint=collector.url + "/v1/logs")
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("test").emit(event_name="report.printed", attributes={"pages": 3}, body="printed")
    provider.shutdown()
    done = run_spanseal("events", "--data", str(collector.data), "--action", "report.printed", "--json")
    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert event["metadata"]["pages"] == "3"
    assert event["metadata"]["log.body"] == "printed"


def test_a_second_collector_on_the_directory_is_refused_with_the_holders_pid(collector: Collector) -> None:
    done = run_spanseal("collector", "--data", str(collector.data), "--port", "0")
    assert done.returncode == 2
    assert f"pid {collector.pid}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told(collector: Collector, tmp_path: Path) -> None:
    done = run_spanseal("collector", "--data", str(tmp_path / "other"), "--port", str(collector.port))
    assert done.returncode == 2
    assert str(collector.port) in done.stderr
    assert "Traceback" not in done.stderr


def test_each_start_names_the_chains_before_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(3):
        collector = Collector(data, tmp_path / "collector.log").start()
        assert post(collector, request(record()).SerializeToString()).status_code == 200
        if number == 1:
            os.kill(collector.pid, signal.SIGKILL)
        collector.stop()
    result = verdict(data)
    assert (result["verdict"], result["chains"]) == ("clean", 3)
    sql = "SELECT metadata['audit.chain.predecessors'] AS p FROM events WHERE action='audit_log.started' ORDER BY received_at"
    done = run_spanseal("query", "--data", str(data), "--json", sql)
    named = [json.loads(json.loads(line)["p"]) for line in done.stdout.splitlines()]
    assert [len(chains) for chains in named] == [0, 1, 1]


def test_a_retry_after_a_restart_is_known(tmp_path: Path) -> None:
    data = tmp_path / "data"
    body = request(record(), record()).SerializeToString()
    for _ in range(2):
        with Collector(data, tmp_path / "collector.log") as collector:
            assert post(collector, body).status_code == 200
    sql = "SELECT count() AS n FROM events WHERE tenant = 'default'"
    done = run_spanseal("query", "--data", str(data), "--json", sql)
    assert json.loads(done.stdout)["n"] == 2


def test_a_stored_checkpoint_that_the_log_lacks_is_entered_at_the_next_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Collector(data, tmp_path / "collector.log") as collector:
        assert post(collector, request(record()).SerializeToString()).status_code == 200
    log = data / "checkpoints.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    with Collector(data, tmp_path / "collector.log"):
        pass
    notes = [json.loads(line)["note"] for line in log.read_bytes().splitlines()]
    assert json.loads(lines[-1])["note"] in notes
    assert verdict(data)["verdict"] == "clean"


def test_unavailable_carries_retry_info() -> None:
    from spanseal_collector.errors import UnavailableError
    from spanseal_collector.receiver import _refusal

    answer = _refusal(UnavailableError("later", 1.5))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    found = status_pb2.Status.FromString(bytes(answer.body))
    info = error_details_pb2.RetryInfo()
    assert found.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 1500
