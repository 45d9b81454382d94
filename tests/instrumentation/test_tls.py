"""Certificates: real TLS servers, HTTP and gRPC, whose authority was made for the test."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import spanseal
from spanseal.delivery import endpoint
from spanseal.delivery.exporter import Answer, Verdict, open_exporter
from tests.instrumentation.conftest import Audit
from tests.instrumentation.fake_receiver import FakeReceiver, receiving
from tests.instrumentation.grpc_receiver import GrpcReceiver, grpc_receiving


class Authority:
    """A certificate authority with its own key."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._certificate(self._name, self._key, authority=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a new certificate for 127.0.0.1 and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._certificate(subject, key, authority=False)
        paths = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )


@dataclass
class Secured:
    """A receiver that asks for a certificate of its clients."""

    receiver: FakeReceiver | GrpcReceiver
    protocol: str
    authority: Authority
    client: tuple[Path, Path]
    other: Authority


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder, "authority")
    certificate, key = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], authority.path.read_bytes(), require_client_auth=True
    )
    over_grpc = request.param == "grpc"
    with grpc_receiving(credentials) if over_grpc else receiving(context) as receiver:
        yield Secured(
            receiver, request.param, authority, authority.issue("client"), Authority(folder, "other")
        )


def send(secured: Secured, **variables: str) -> Answer:
    named = {
        "ENDPOINT": secured.receiver.url,
        "LOGS_PROTOCOL": secured.protocol,
        **variables,
    }
    one = open_exporter(
        endpoint.export({f"OTEL_EXPORTER_OTLP_{name}": value for name, value in named.items()})
    )
    try:
        return one.send(b"", 20)
    finally:
        one.close()


def test_what_is_configured_is_used(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = map(str, secured.client)
    own = {"CLIENT_CERTIFICATE": certificate, "CLIENT_KEY": key}
    trusted = {"CERTIFICATE": str(secured.authority.path)}
    assert send(secured, **own, **trusted).verdict is Verdict.STORED
    # One file can hold both.
    both = secured.authority.path.with_name("both.pem")
    both.write_bytes(secured.client[0].read_bytes() + secured.client[1].read_bytes())
    assert send(secured, CLIENT_CERTIFICATE=str(both), **trusted).verdict is Verdict.STORED
    # The application's own variable for other requests does not go before ours.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secured.other.path))
    assert send(secured, **own, **trusted).verdict is Verdict.STORED


@pytest.mark.parametrize(
    ("trust", "client", "named"),
    [
        ("none", True, "SSLError|no trusted connection"),
        ("other", True, "SSLError|no trusted connection"),
        ("missing", True, "OSError|FileNotFoundError"),
        ("authority", False, "Error|with this certificate or without"),
    ],
)
def test_nothing_is_sent_to_whom_is_not_trusted_nor_by_whom_is_not(
    secured: Secured, trust: str, named: str, *, client: bool
) -> None:
    variables = {}
    if client:
        variables = {"CLIENT_CERTIFICATE": str(secured.client[0]), "CLIENT_KEY": str(secured.client[1])}
    if trust != "none":
        variables["CERTIFICATE"] = str(secured.authority.path.with_name(f"{trust}.pem"))
    before = len(secured.receiver.requests)
    found = send(secured, **variables)
    assert found.verdict is Verdict.LATER
    assert re.search(named, found.reason)
    assert len(secured.receiver.requests) == before


def test_records_arrive(audit: Audit, secured: Secured) -> None:
    audit.set(
        OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=secured.protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=secured.receiver.url,
        OTEL_EXPORTER_OTLP_CERTIFICATE=str(secured.authority.path),
        OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=str(secured.client[0]),
        OTEL_EXPORTER_OTLP_CLIENT_KEY=str(secured.client[1]),
    )
    spanseal.record("test.done")
    secured.receiver.wait_for("test.done")
    audit.runtime.stop()
    assert secured.receiver.taken[-1].action == "producer.stopped"


def test_a_certificate_that_is_replaced_is_used_without_a_restart(secured: Secured, tmp_path: Path) -> None:
    """Short-lived certificates are renewed in place; the connection with the old one ends some day."""
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    wrong = secured.other.issue("stranger")
    variables = {
        "ENDPOINT": secured.receiver.url,
        "LOGS_PROTOCOL": secured.protocol,
        "CERTIFICATE": str(secured.authority.path),
        "CLIENT_CERTIFICATE": str(certificate),
        "CLIENT_KEY": str(key),
    }
    one = open_exporter(
        endpoint.export({f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()})
    )
    try:
        for pair, verdict in ((wrong, Verdict.LATER), (secured.client, Verdict.STORED)):
            certificate.write_bytes(pair[0].read_bytes())
            key.write_bytes(pair[1].read_bytes())
            assert one.send(b"", 20).verdict is verdict
    finally:
        one.close()
