"""Environment variables."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from spanseal import settings
from spanseal.delivery import endpoint
from spanseal.errors import ConfigurationError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


def test_defaults() -> None:
    found = settings.load({"HOME": "/nowhere", "XDG_STATE_HOME": "/state"})
    assert found.on_error == "open"
    assert found.durability == "process"
    assert found.spool_dir == Path("/state/spanseal/spool")
    assert found.max_bytes == 1 << 30
    assert (found.tenant, found.trusted_proxies, found.trust_request_id) == ("", 0, False)
    assert (found.shutdown_timeout, found.adopt_interval) == (3.0, 5.0)
    assert found.instance == socket.gethostname()
    assert found.export.endpoint == "http://localhost:4318/v1/logs"
    assert (found.export.gzip, found.export.timeout, found.export.headers) == (False, 10.0, {})
    assert found.export.certificate is found.export.client_certificate is found.export.client_key is None


def test_the_spool_stands_in_the_home_directory_if_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/nobody")
    assert settings.spool_dir({}) == Path("/home/nobody/.local/state/spanseal/spool")


def test_without_a_home_the_spool_has_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match="SPANSEAL_SPOOL_DIR"):
        settings.spool_dir({})


def test_a_relative_directory_is_of_where_the_process_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings.spool_dir({"SPANSEAL_SPOOL_DIR": "spool"}) == tmp_path / "spool"


def test_all_that_can_be_said() -> None:
    found = settings.load(
        {
            "SPANSEAL_ON_ERROR": " Closed ",
            "SPANSEAL_DURABILITY": "disk",
            "SPANSEAL_SPOOL_DIR": "/spool",
            "SPANSEAL_SPOOL_MAX_BYTES": "1000000",
            "SPANSEAL_TENANT": "ward-3",
            "SPANSEAL_TRUSTED_PROXIES": "2",
            "SPANSEAL_TRUST_REQUEST_ID": "true",
            "SPANSEAL_ACTOR_RESOLVER": "app:who",
            "SPANSEAL_SHUTDOWN_TIMEOUT": "0",
            "SPANSEAL_ADOPT_INTERVAL": "0.5",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318/base/",
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20a%2Cb, x-two = 2 ",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/cert.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/key.pem",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
        }
    )
    assert (found.on_error, found.durability, found.spool_dir) == ("closed", "disk", Path("/spool"))
    assert (found.max_bytes, found.tenant, found.trusted_proxies) == (1_000_000, "ward-3", 2)
    assert (found.trust_request_id, found.actor_resolver) == (True, "app:who")
    assert (found.shutdown_timeout, found.adopt_interval) == (0.0, 0.5)
    assert found.export.endpoint == "https://collector:4318/base/v1/logs"
    assert found.export.headers == {"authorization": "Bearer a,b", "x-two": "2"}
    assert (found.export.certificate, found.export.client_certificate, found.export.client_key) == (
        "/ca.pem",
        "/cert.pem",
        "/key.pem",
    )
    assert (found.export.gzip, found.export.timeout) == (True, 2.5)


def test_what_is_said_for_logs_goes_before_what_is_said_for_all() -> None:
    found = endpoint.export(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:1",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:2/exact",
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "a=2",
            "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        }
    )
    assert (found.endpoint, found.headers, found.gzip) == ("http://logs:2/exact", {"a": "2"}, True)


def test_the_resource_says_which_service_and_no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "clinic")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod/1,deployment.environment=test")
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "otel,process")
    found = settings.load({"SPANSEAL_SPOOL_DIR": "/spool"})
    assert found.resource["service.name"] == "clinic"
    assert found.resource["deployment.environment"] == "test"
    assert found.instance == "pod_1"
    assert not [key for key in found.resource if key.startswith(("telemetry.", "process.command"))]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPANSEAL_ON_ERROR", "clsoed"),
        ("SPANSEAL_DURABILITY", "full"),
        ("SPANSEAL_SPOOL_MAX_BYTES", "1"),
        ("SPANSEAL_SPOOL_MAX_BYTES", "1 GB"),
        ("SPANSEAL_TENANT", "_collector"),
        ("SPANSEAL_TRUSTED_PROXIES", "-1"),
        ("SPANSEAL_TRUSTED_PROXIES", "one"),
        ("SPANSEAL_TRUST_REQUEST_ID", "maybe"),
        ("SPANSEAL_SHUTDOWN_TIMEOUT", "nan"),
        ("SPANSEAL_SHUTDOWN_TIMEOUT", "soon"),
        ("SPANSEAL_ADOPT_INTERVAL", "-1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://host:port"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "inf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "nonsense"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0d%0ab"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load({"SPANSEAL_SPOOL_DIR": "/spool", name: value})
    wanted = name.replace("OTLP_", "OTLP_[LOGS_]")
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:s3cret@collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "user:s3cret@collector"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "ftp://collector/?token=s3cret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer s3cret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,Bearer s3cret"),
    ],
)
def test_no_secret_is_shown(name: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigurationError) as caught:
        endpoint.export({name: value})
    assert "s3cret" not in str(caught.value) + caplog.text


def test_a_credential_in_the_query_is_sent_but_not_shown() -> None:
    found = endpoint.export({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://collector/v1/logs?token=s3cret"})
    assert found.endpoint.endswith("?token=s3cret")
    assert found.shown == "https://collector/v1/logs"


def test_only_open_is_open() -> None:
    assert [
        text
        for text in ("", "open", " OPEN ", "closed", "clsoed", "no")
        if settings.refuses({"SPANSEAL_ON_ERROR": text})
    ] == ["closed", "clsoed", "no"]


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load(
            {
                "SPANSEAL_SPOOL_DIR": "/spool",
                "SPANSEAL_DURABILITY": "moon",
                "SPANSEAL_TRUSTED_PROXIES": "-1",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
            }
        )
    for name in ("SPANSEAL_DURABILITY", "SPANSEAL_TRUSTED_PROXIES", "OTEL_EXPORTER_OTLP_[LOGS_]TIMEOUT"):
        assert name in str(caught.value)


def test_a_variable_that_nothing_reads_is_named_with_the_one_that_was_meant() -> None:
    assert settings.unknown({"SPANSEAL_ON_EROR": "closed", "SPANSEAL_DATA": "x", "SPANSEAL_TENANT": "a"}) == [
        "SPANSEAL_ON_EROR is not a setting: did you mean SPANSEAL_ON_ERROR?"
    ]
    assert settings.unknown({"SPANSEAL_XYZZY": "1", "PATH": "/bin"}) == ["SPANSEAL_XYZZY is not a setting"]
