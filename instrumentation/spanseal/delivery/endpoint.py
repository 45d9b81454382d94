"""Where records are sent and how: the standard OTLP exporter variables, and nothing of Spanseal's own."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote, urlsplit

from spanseal.errors import ConfigurationError

__all__ = ["Export", "Protocol", "export"]

DEFAULT_TIMEOUT = 10.0

Protocol = Literal["http/protobuf", "grpc"]

_GRPC = "grpc+"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
# Of gRPC's metadata: names that end in -bin hold bytes, those that begin with grpc- are its own.
_METADATA_NAME = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Where records are sent and how: the standard OTLP exporter variables."""

    protocol: Protocol = "http/protobuf"
    endpoint: str
    """The whole URL: over HTTP with its path, over gRPC scheme, host and port."""
    headers: Mapping[str, str]
    """Sent with every request; names in lower case. May hold a credential: never logged."""
    certificate: str | None
    """A file of CA certificates to trust, or the system's."""
    client_certificate: str | None
    client_key: str | None
    gzip: bool
    timeout: float
    """Seconds for one request."""

    @property
    def shown(self) -> str:
        """The endpoint for people: without its query, which may hold a credential."""
        return self.endpoint.partition("?")[0]

    @property
    def destination(self) -> str:
        """Endpoint and protocol in one text, as a spool file names where its records go; see `towards`."""
        return (_GRPC if self.protocol == "grpc" else "") + self.endpoint

    def towards(self, destination: str, *, trusted: bool = False) -> Export:
        """Return the same with another destination.

        Args:
            destination: A URL for HTTP, to which /v1/logs is added where it has no path; `grpc+http://host:port` or
                `grpc+https://host:port` for gRPC.
            trusted: Whether it may have the headers and the client's certificate. They are credentials for the
                configured endpoint: where a file says that its records go is no reason to show them there.

        Raises:
            ConfigurationError: It is none of these. The message shows no query.
        """
        if destination == self.destination:
            return self
        over_grpc = destination.startswith(_GRPC)
        endpoint = destination.removeprefix(_GRPC)
        if over_grpc:
            endpoint = _grpc_endpoint(endpoint, insecure=False)
            _check_metadata(self.headers)
        else:
            _check_endpoint(endpoint)
            parts = urlsplit(endpoint)
            endpoint = parts._replace(path=parts.path if parts.path.strip("/") else "/v1/logs").geturl()
        found = replace(self, protocol="grpc" if over_grpc else "http/protobuf", endpoint=endpoint)
        if trusted or found.destination == self.destination:
            return found
        return replace(found, headers={}, client_certificate=None, client_key=None)


def export(environ: Mapping[str, str] = os.environ) -> Export:
    """Read the OTLP exporter variables as the SDK's own log exporter does (seconds, not milliseconds).

    Of the protocol's variables only the one for logs is read: the distribution sets
    `OTEL_EXPORTER_OTLP_PROTOCOL=grpc` for everybody.

    Raises:
        ConfigurationError: A variable has a value that cannot be used.
    """

    def either(name: str) -> str:
        own = environ.get(f"OTEL_EXPORTER_OTLP_LOGS_{name}", "").strip()
        return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    protocol = _protocol(environ.get("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", ""))
    headers = _headers(either("HEADERS"))
    endpoint = environ.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "").strip()
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if protocol == "grpc":
        insecure = either("INSECURE").lower()
        if insecure not in ("", "true", "false"):
            raise ConfigurationError(f"OTEL_EXPORTER_OTLP_[LOGS_]INSECURE is {insecure!r}: use true or false")
        endpoint = _grpc_endpoint(endpoint or base or "http://localhost:4317", insecure=insecure == "true")
        _check_metadata(headers)
    elif not endpoint:
        base = base or "http://localhost:4318"
        _check_endpoint(base)
        endpoint = base.removesuffix("/") + "/v1/logs"
    _check_endpoint(endpoint)
    compression = either("COMPRESSION").lower() or "none"
    if compression not in ("none", "gzip"):
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_[LOGS_]COMPRESSION is {compression!r}: use gzip or none"
        )
    return Export(
        protocol=protocol,
        endpoint=endpoint,
        headers=headers,
        certificate=either("CERTIFICATE") or None,
        client_certificate=either("CLIENT_CERTIFICATE") or None,
        client_key=either("CLIENT_KEY") or None,
        gzip=compression == "gzip",
        timeout=_timeout(either("TIMEOUT")),
    )


def _timeout(given: str) -> float:
    try:
        seconds = float(given) if given else DEFAULT_TIMEOUT
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_[LOGS_]TIMEOUT is {given!r}: write a number of seconds")
    return seconds if seconds > 0 else DEFAULT_TIMEOUT


def _protocol(given: str) -> Protocol:
    match given.strip().lower():
        case "" | "http/protobuf":
            return "http/protobuf"
        case "grpc":
            return "grpc"
        case other:
            raise ConfigurationError(
                f"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL is {other!r}: write http/protobuf (the default) or grpc; "
                "audit records are sent in no other way"
            )


def _headers(text: str) -> dict[str, str]:
    """Read `name=value,name=value`, the values URL-encoded."""
    # Not with the SDK's own function: it logs what it cannot read, credentials too.
    headers: dict[str, str] = {}
    for position, pair in enumerate(filter(str.strip, text.split(",")), start=1):
        name, equals, value = pair.partition("=")
        value = unquote(value.strip(" \t"))
        if not equals or not _HEADER_NAME.fullmatch(name.strip()) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(
                f"OTEL_EXPORTER_OTLP_[LOGS_]HEADERS: number {position} is not name=value; "
                "write commas and other special characters of a value as in a URL (%2C)"
            )
        headers[name.strip().lower()] = value
    return headers


def _check_endpoint(endpoint: str) -> None:
    # What cannot be read is not shown either: it may hold a password.
    if "@" in endpoint.partition("?")[0]:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_[LOGS_]ENDPOINT holds a user's name: write credentials into "
            "OTEL_EXPORTER_OTLP_[LOGS_]HEADERS, such as Authorization=Basic%20..."
        )
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_[LOGS_]ENDPOINT is {endpoint.partition('?')[0]!r}: "
            "write a URL such as https://audit.example.org:4318/v1/logs"
        )


def _grpc_endpoint(endpoint: str, *, insecure: bool) -> str:
    """Complete an endpoint of gRPC to `scheme://host:port`."""
    if "://" not in endpoint:
        endpoint = f"{'http' if insecure else 'https'}://{endpoint}"
    _check_endpoint(endpoint)
    parts = urlsplit(endpoint)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_[LOGS_]ENDPOINT is {endpoint.partition('?')[0]!r}, but over gRPC there is no path: "
            "write a URL such as https://audit.example.org:4317"
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _check_metadata(headers: Mapping[str, str]) -> None:
    for position, (name, value) in enumerate(headers.items(), start=1):
        if not _METADATA_NAME.fullmatch(name) or not _METADATA_VALUE.fullmatch(value):
            raise ConfigurationError(
                f"OTEL_EXPORTER_OTLP_[LOGS_]HEADERS: number {position} cannot be sent over gRPC; names have letters, "
                "digits, `_`, `.` and `-`, do not begin with grpc- nor end in -bin, and values are printable ASCII"
            )
