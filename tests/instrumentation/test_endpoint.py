"""Where records go, over which protocol: the OTLP exporter variables."""

from __future__ import annotations

import pytest

from spanseal.delivery import endpoint
from spanseal.errors import ConfigurationError

GRPC = {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}


@pytest.mark.parametrize(
    ("variables", "destination"),
    [
        ({}, "http://localhost:4318/v1/logs"),
        # Set by the distribution for everybody.
        ({"PROTOCOL": "grpc"}, "http://localhost:4318/v1/logs"),
        ({"PROTOCOL": "http/json"}, "http://localhost:4318/v1/logs"),
        ({"LOGS_PROTOCOL": " HTTP/protobuf "}, "http://localhost:4318/v1/logs"),
        ({"LOGS_PROTOCOL": "grpc"}, "grpc+http://localhost:4317"),
        ({"LOGS_PROTOCOL": "grpc", "ENDPOINT": "http://a:1"}, "grpc+http://a:1"),
        ({"LOGS_PROTOCOL": "grpc", "ENDPOINT": "https://a:1/"}, "grpc+https://a:1"),
        ({"LOGS_PROTOCOL": "grpc", "ENDPOINT": "https://a"}, "grpc+https://a:443"),
        ({"LOGS_PROTOCOL": "grpc", "ENDPOINT": "http://a"}, "grpc+http://a:80"),
        ({"LOGS_PROTOCOL": "grpc", "ENDPOINT": "http://[::1]:5"}, "grpc+http://[::1]:5"),
        (
            {"LOGS_PROTOCOL": "grpc", "ENDPOINT": "http://a:1", "LOGS_ENDPOINT": "http://b:2"},
            "grpc+http://b:2",
        ),
        # Without a scheme, INSECURE says whether it is TLS; with one it says nothing.
        ({"LOGS_PROTOCOL": "grpc", "ENDPOINT": "a:1"}, "grpc+https://a:1"),
        ({"LOGS_PROTOCOL": "grpc", "ENDPOINT": "a:1", "INSECURE": "True"}, "grpc+http://a:1"),
        (
            {"LOGS_PROTOCOL": "grpc", "ENDPOINT": "a:1", "INSECURE": "true", "LOGS_INSECURE": "false"},
            "grpc+https://a:1",
        ),
        ({"LOGS_PROTOCOL": "grpc", "ENDPOINT": "https://a:1", "INSECURE": "true"}, "grpc+https://a:1"),
    ],
)
def test_protocol_and_endpoint(variables: dict[str, str], destination: str) -> None:
    found = endpoint.export({f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()})
    assert found.destination == destination
    assert (found.protocol == "grpc") is destination.startswith("grpc+")


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("LOGS_PROTOCOL", "http/json", "write http/protobuf .* or grpc"),
        ("LOGS_PROTOCOL", "gprc", "write http/protobuf .* or grpc"),
        ("ENDPOINT", "http://a:4318/v1/logs", "no path"),
        ("ENDPOINT", "http://a:4318?token=s3cret", "no path"),
        ("ENDPOINT", "ftp://a:4318", "write a URL"),
        ("ENDPOINT", "", "no error"),
        ("INSECURE", "yes", "true or false"),
        ("HEADERS", "authorization=%e4s3cret", "number 1"),
        ("HEADERS", "a=1,key-bin=s3cret", "number 2"),
        ("HEADERS", "grpc-timeout=s3cret", "number 1"),
        ("HEADERS", "a|b=s3cret", "number 1"),
    ],
)
def test_what_grpc_cannot_use_is_named(name: str, value: str, advice: str) -> None:
    variables = {**GRPC, f"OTEL_EXPORTER_OTLP_{name}": value}
    if advice == "no error":
        assert endpoint.export(variables).protocol == "grpc"
        return
    with pytest.raises(ConfigurationError, match=advice) as caught:
        endpoint.export(variables)
    assert name.removeprefix("LOGS_") in str(caught.value)
    assert "s3cret" not in str(caught.value)


CREDENTIALS = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "https://a:4318",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=s3cret",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/own.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/own.key",
}


@pytest.mark.parametrize(
    ("to", "destination"),
    [
        ("https://a:4318/v1/logs", "https://a:4318/v1/logs"),
        ("https://a:4318", "https://a:4318/v1/logs"),
        ("http://b:1/", "http://b:1/v1/logs"),
        ("http://b:1/base/v1/logs?x=1", "http://b:1/base/v1/logs?x=1"),
        ("http://b:1?x=1", "http://b:1/v1/logs?x=1"),
        ("grpc+http://b:1", "grpc+http://b:1"),
        ("grpc+https://b", "grpc+https://b:443"),
    ],
)
def test_another_destination_gets_no_credentials_unless_it_is_trusted(to: str, destination: str) -> None:
    configured = endpoint.export(CREDENTIALS)
    own = destination == configured.destination
    found = configured.towards(to)
    assert found.destination == destination
    assert found.certificate == "/ca.pem"
    assert bool(found.headers) is bool(found.client_certificate) is bool(found.client_key) is own
    trusted = configured.towards(to, trusted=True)
    assert (trusted.destination, trusted.headers) == (destination, configured.headers)
    assert (trusted.client_certificate, trusted.client_key) == ("/own.pem", "/own.key")
    assert found.towards(found.destination) is found


@pytest.mark.parametrize(
    "to", ["", "b:1", "ftp://b", "grpc+http://b:1/path", "grpc+ftp://b", "http://u:s3cret@b"]
)
def test_what_is_no_destination_is_refused(to: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        endpoint.export(CREDENTIALS).towards(to)
    assert "s3cret" not in str(caught.value)
