"""Everything that is configured by environment variables, read once per process.

`SPANSEAL_*` variables are this package's own. Where records go, and as which service, is said by the
standard `OTEL_*` variables only: there is one way to say each thing.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from urllib.parse import unquote, urlsplit

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from .errors import ConfigurationError

DEFAULT_MAX_BYTES = 1 << 30
DEFAULT_TIMEOUT = 10.0

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")

# Facts about the process that say nothing about the audited service, or that may hold a secret
# (a password given on the command line).
_UNWANTED_RESOURCE_KEYS = ("telemetry.", "process.command", "process.executable")

ResourceValue = str | bool | int | float | tuple[str | bool | int | float, ...]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of this process."""

    on_error: Literal["open", "closed"]
    """What happens to a request that cannot be audited: it goes on, or is refused with 503."""
    durability: Literal["process", "disk"]
    """What a committed record survives: the death of the process, or a power cut as well."""
    spool_dir: Path
    max_bytes: int
    """Bound of the whole spool directory."""
    tenant: str
    """Empty: the collector decides."""
    trusted_proxies: int
    """How many proxies in front of this server may be believed about the client's address."""
    trust_request_id: bool
    """Whether an incoming X-Request-Id becomes the request's own id."""
    actor_resolver: str
    """`module:function`, or empty."""
    shutdown_timeout: float
    """Seconds that the end of the process may wait for the last records to be sent."""
    adopt_interval: float
    """Seconds between two looks for what dead processes left."""
    instance: str
    """Names this instance of the service in its streams."""
    resource: Mapping[str, ResourceValue]
    export: Export


def refuses(environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether what cannot be audited must not be done.

    A value that is neither `open` nor `closed` counts as `closed`: whoever wrote it wanted something other than
    the default.
    """
    return environ.get("SPANSEAL_ON_ERROR", "").strip().lower() not in ("", "open")


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings.

    Raises:
        ConfigurationError: A variable has a value that cannot be used.
    """
    resource, instance = _resource()
    return Settings(
        on_error=cast("Literal['open', 'closed']", _choice(environ, "SPANSEAL_ON_ERROR", ("open", "closed"))),
        durability=cast(
            "Literal['process', 'disk']", _choice(environ, "SPANSEAL_DURABILITY", ("process", "disk"))
        ),
        spool_dir=spool_dir(environ),
        max_bytes=_number(environ, "SPANSEAL_SPOOL_MAX_BYTES", DEFAULT_MAX_BYTES, least=1 << 16),
        tenant=_tenant(environ),
        trusted_proxies=_number(environ, "SPANSEAL_TRUSTED_PROXIES", 0),
        trust_request_id=_choice(environ, "SPANSEAL_TRUST_REQUEST_ID", ("false", "true")) == "true",
        actor_resolver=environ.get("SPANSEAL_ACTOR_RESOLVER", "").strip(),
        shutdown_timeout=_seconds(environ, "SPANSEAL_SHUTDOWN_TIMEOUT", 3.0),
        adopt_interval=_seconds(environ, "SPANSEAL_ADOPT_INTERVAL", 5.0),
        instance=instance,
        resource=resource,
        export=export(environ),
    )


def spool_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Find the directory of the spool: `SPANSEAL_SPOOL_DIR`, or the user's state directory."""
    if given := environ.get("SPANSEAL_SPOOL_DIR", "").strip():
        # The process may change its working directory before the spool is made.
        return Path(given).absolute()
    if state := environ.get("XDG_STATE_HOME", "").strip():
        return Path(state) / "spanseal" / "spool"
    try:
        return Path.home() / ".local" / "state" / "spanseal" / "spool"
    except RuntimeError:
        raise ConfigurationError(
            "no home directory is known, so there is no default place for the audit spool: "
            "set SPANSEAL_SPOOL_DIR to a directory on a disk that outlives the process"
        ) from None


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


def _resource() -> tuple[dict[str, ResourceValue], str]:
    """Describe the service, through the SDK, and name this instance of it."""
    attributes: dict[str, ResourceValue] = {}
    for key, value in Resource.create().attributes.items():
        if key.startswith(_UNWANTED_RESOURCE_KEYS):
            continue
        if isinstance(value, str | bool | int | float):
            attributes[key] = value
        elif isinstance(value, list | tuple):
            attributes[key] = tuple(item for item in value if isinstance(item, str | bool | int | float))
    # The SDK makes up an instance id of its own in every process. A stream has a UUID already; what is
    # wanted here is the name that stays the same over restarts.
    given = OTELResourceDetector().detect().attributes.get("service.instance.id")
    if given is None:
        attributes.pop("service.instance.id", None)
    instance = str(given) if given else socket.gethostname()
    return attributes, instance.replace("/", "_")[:200] or "unknown"


def _tenant(environ: Mapping[str, str]) -> str:
    tenant = environ.get("SPANSEAL_TENANT", "").strip()
    if tenant == "_collector":
        raise ConfigurationError("SPANSEAL_TENANT is '_collector', which is the collector's own: use another")
    return tenant


def _choice(environ: Mapping[str, str], name: str, allowed: tuple[str, str]) -> str:
    value = environ.get(name, "").strip().lower() or allowed[0]
    if value not in allowed:
        raise ConfigurationError(f"{name} is {value!r}: use {allowed[0]} or {allowed[1]}")
    return value


def _number(environ: Mapping[str, str], name: str, default: int, least: int = 0) -> int:
    text = environ.get(name, "").strip()
    try:
        value = int(text) if text else default
    except ValueError:
        value = -1
    if value < least:
        raise ConfigurationError(f"{name} is {text!r}: write a whole number, {least} or more")
    return value


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value < 3600:
        raise ConfigurationError(f"{name} is {text!r}: write a number of seconds below 3600")
    return value
