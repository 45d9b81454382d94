"""Where records are sent and how: the standard OTLP exporter variables, and nothing of Spanseal's own."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from .errors import ConfigurationError

__all__ = ["Export", "export"]

DEFAULT_TIMEOUT = 10.0

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Where records are sent and how: the standard OTLP exporter variables, HTTP/protobuf."""

    endpoint: str
    """The whole URL, path included."""
    shown: str
    """The same for people: without its query, which may hold a credential."""
    headers: Mapping[str, str]
    """Sent with every request; names in lower case. May hold a credential: never logged."""
    certificate: str | None
    """A file of CA certificates to trust, or the system's."""
    client_certificate: str | None
    client_key: str | None
    gzip: bool
    timeout: float
    """Seconds for one request."""


def export(environ: Mapping[str, str] = os.environ) -> Export:
    """Read the OTLP exporter variables as the SDK's own log exporter does (seconds, not milliseconds).

    The protocol variables are not read: the distribution sets `grpc` for everybody, and this exporter
    speaks HTTP/protobuf only.
    """

    def either(name: str) -> str:
        own = environ.get(f"OTEL_EXPORTER_OTLP_LOGS_{name}", "").strip()
        return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    endpoint = environ.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "").strip()
    if not endpoint:
        base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or "http://localhost:4318"
        _check_endpoint(base)
        endpoint = base.removesuffix("/") + "/v1/logs"
    _check_endpoint(endpoint)
    compression = either("COMPRESSION").lower() or "none"
    if compression not in ("none", "gzip"):
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_[LOGS_]COMPRESSION is {compression!r}: use gzip or none"
        )
    timeout = either("TIMEOUT")
    try:
        seconds = float(timeout) if timeout else DEFAULT_TIMEOUT
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_[LOGS_]TIMEOUT is {timeout!r}: write a number of seconds"
        )
    return Export(
        endpoint=endpoint,
        shown=endpoint.partition("?")[0],
        headers=_headers(either("HEADERS")),
        certificate=either("CERTIFICATE") or None,
        client_certificate=either("CLIENT_CERTIFICATE") or None,
        client_key=either("CLIENT_KEY") or None,
        gzip=compression == "gzip",
        timeout=seconds if seconds > 0 else DEFAULT_TIMEOUT,
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
