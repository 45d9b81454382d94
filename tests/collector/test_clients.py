"""Exporters that others wrote, against a collector that runs as a process."""

from __future__ import annotations

import subprocess
import uuid
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from examples.demo.processes import Collector
from spanseal.delivery import endpoint
from spanseal.delivery.exporter import Verdict, open_exporter
from spanseal_collector.intake import MAX_REQUEST_BYTES
from tests.collector.client_tools import javascript, telemetrygen
from tests.collector.http import rows
from tests.collector.wire import record, request


def stored(collector: Collector, tenant: str) -> dict[str, Any]:
    ((service, action, event_time, metadata, types),) = rows(
        collector.data,
        "SELECT service, action, toUnixTimestamp64Nano(event_time), metadata, metadata_types "
        f"FROM audit.records WHERE tenant = '{tenant}'",
    )
    typed = {
        key: (text, letter) for (key, text), letter in zip(sorted(dict(metadata).items()), types, strict=True)
    }
    return {"service": service, "action": action, "event_time": event_time} | typed


@pytest.mark.parametrize("kind", ["http", "http-gzip", "grpc", "grpc-gzip"])
def test_the_python_sdk(common: Collector, kind: str) -> None:
    packed = kind.endswith("gzip")
    exporter = (
        GrpcExporter(
            endpoint=f"http://127.0.0.1:{common.grpc_port}",
            insecure=True,
            compression=grpc.Compression.Gzip if packed else grpc.Compression.NoCompression,
        )
        if kind.startswith("grpc")
        else HttpExporter(
            endpoint=common.url + "/v1/logs",
            compression=Compression.Gzip if packed else Compression.NoCompression,
        )
    )
    provider = LoggerProvider(resource=Resource({"service.name": "printer", "host.name": "p-1"}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("test", "1.0").emit(
        event_name="report.printed",
        timestamp=1_700_000_000_123_456_789,
        body="printed",
        attributes={
            "audit.tenant": f"python-{kind}",
            "pages": 3,
            "ratio": 0.1,
            "ok": True,
            "raw": b"\x00\xff",
            "tags": ["a", 1],
            "map": {"k": [None]},
        },
    )
    provider.shutdown()
    found = stored(common, f"python-{kind}")
    expected = {
        "service": "printer",
        "action": "report.printed",
        "event_time": 1_700_000_000_123_456_789,
        "pages": ("3", "i"),
        "ratio": ("0.1", "d"),
        "ok": ("true", "b"),
        "raw": ("AP8=", "x"),
        "tags": ('[{"stringValue":"a"},{"intValue":"1"}]', "a"),
        "map": ('[{"key":"k","value":{"arrayValue":{"values":[{}]}}}]', "k"),
        "log.body": ("printed", "s"),
        "resource.host.name": ("p-1", "s"),
        "scope.name": ("test", "s"),
        "scope.version": ("1.0", "s"),
    }
    assert expected.items() <= found.items()


@pytest.mark.timeout(600)  # it installs the SDK the first time
@pytest.mark.parametrize("kind", ["json", "protobuf", "grpc"])
def test_the_javascript_sdk(common: Collector, kind: str) -> None:
    url = f"http://127.0.0.1:{common.grpc_port}" if kind == "grpc" else common.url + "/v1/logs"
    done = subprocess.run(
        [*javascript(), kind, url], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = stored(common, f"javascript-{kind}")
    del found["log.observed_time_unix_nano"]
    assert found == {
        "service": "shop",
        "action": "order.placed",
        "event_time": 1_700_000_000_123_456_789,
        "audit.record_id": ("collector", "s"),
        "text": ('Zoë \N{GRINNING FACE} \x00"\\', "s"),
        "yes": ("true", "b"),
        "small": ("-7", "i"),
        "large": ("9007199254740991", "i"),
        "tiny": ("5e-324", "d"),
        "bytes": ("AAH+/w==", "x"),
        "list": (
            '[{"stringValue":"a"},{"intValue":"1"},{"boolValue":false},{"doubleValue":0.5}]',
            "a",
        ),
        "empty": ("[]", "a"),
        "map": (
            (
                '[{"key":"b","value":{"kvlistValue":{"values":[{"key":"c","value":{"stringValue":"d"}}]}}},'
                '{"key":"a","value":{"intValue":"1"}}]'
            ),
            "k",
        ),
        "log.body": (
            '[{"key":"a b","value":{"arrayValue":{"values":[{"stringValue":"é"},{},{"doubleValue":2.5}]}}}]',
            "k",
        ),
        "log.severity_number": ("9", "i"),
        "log.severity_text": ("INFO", "s"),
        "resource.number": ("1.5", "d"),
        "scope.name": ("library", "s"),
        "scope.version": ("1.2", "s"),
    }


@pytest.mark.timeout(600)  # likewise, and compiles it
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_telemetrygen(common: Collector, kind: str) -> None:
    """It sends no event name, so each of its records is set aside; what is asked for here is that none is lost."""
    port = common.grpc_port if kind == "grpc" else common.port
    command = [telemetrygen(), "logs", "--otlp-insecure", "--otlp-endpoint", f"127.0.0.1:{port}"]
    if kind == "http":
        command.append("--otlp-http")
    command += ["--logs", "25", "--workers", "4", "--batch=false", "--rate", "0", "--body", f"by {kind}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ((count,),) = rows(
        common.data, f"SELECT count() FROM audit.quarantine WHERE position(raw, 'by {kind}') > 0"
    )
    assert count == 100


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_instrumentations_own_exporter(common: Collector, protocol: str) -> None:
    url = f"http://127.0.0.1:{common.grpc_port}" if protocol == "grpc" else common.url
    exporter = open_exporter(
        endpoint.export(
            {
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            }
        )
    )
    try:
        record_id = str(uuid.uuid4())
        body = request(record(audit__record__id=record_id)).SerializeToString()
        assert exporter.send(body, 20).verdict is Verdict.STORED
        assert rows(common.data, f"SELECT count() FROM audit.events WHERE record_id = '{record_id}'") == [
            (1,)
        ]
        # What is refused is halved by the sender, and so it must be told apart from what is to be sent again.
        assert exporter.send(b"garbage", 20).verdict is Verdict.REFUSED
        assert exporter.send(bytes(MAX_REQUEST_BYTES + 1), 20).verdict is Verdict.REFUSED
        assert exporter.send(b"\x0a\x00" * 200_000, 20).verdict is Verdict.REFUSED
        resource = {"service.name": "clinic", "large": "x" * 60_000}
        many = request(*(record() for _ in range(5_000)), resource=resource).SerializeToString()
        assert exporter.send(many, 60).verdict is Verdict.REFUSED
    finally:
        exporter.close()
