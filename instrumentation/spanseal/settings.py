"""Everything that is configured by environment variables, read once per process.

`SPANSEAL_*` variables are this package's own: each is one field of `Settings`. Where records go, and as which
service, is said by the standard `OTEL_*` variables only: there is one way to say each thing.
"""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from .actors.proxy_header import Network, ProxyHeader, header_name, networks, proxy_header
from .actors.sources import DEFAULT, Source, sources
from .delivery.endpoint import Export, export
from .errors import ConfigurationError
from .variables import choice, number, seconds, text, variable, variables_of, yes_or_no

__all__ = ["Settings", "load", "refuses", "spool_dir", "unknown"]

# Facts about the process that say nothing about the audited service, or that may hold a secret
# (a password given on the command line).
_UNWANTED_RESOURCE_KEYS = ("telemetry.", "process.command", "process.executable")

_OF_THE_LOG = ("SPANSEAL_DATA", "SPANSEAL_SIGNING_KEY", "SPANSEAL_SIGNING_KEY_COMMAND")
"""Read by the commands of the machine that keeps the log; they may stand in the same environment."""

ResourceValue = str | bool | int | float | tuple[str | bool | int | float, ...]


def _default_spool_dir(environ: Mapping[str, str]) -> Path:
    if state := environ.get("XDG_STATE_HOME", "").strip():
        return Path(state) / "spanseal" / "spool"
    try:
        return Path.home() / ".local" / "state" / "spanseal" / "spool"
    except RuntimeError:
        raise ConfigurationError(
            "no home directory is known, so there is no default place for the audit spool: "
            "set SPANSEAL_SPOOL_DIR to a directory on a disk that outlives the process"
        ) from None


def _path(given: str) -> Path:
    # The process may change its working directory before the file is opened.
    return Path(given).absolute()


def _tenant(given: str) -> str:
    if given == "_collector":
        raise ValueError("that is the collector's own, use another")
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of this process. The variables' lines are those of the README's table."""

    on_error: Literal["open", "closed"] = variable(
        "SPANSEAL_ON_ERROR",
        "open",
        "what happens to a request that cannot be audited: `open`, it goes on; `closed`, it gets 503",
        choice("open", "closed"),
    )
    durability: Literal["process", "disk"] = variable(
        "SPANSEAL_DURABILITY",
        "process",
        "what a committed record survives: the death of the process, or with `disk` a power cut",
        choice("process", "disk"),
    )
    spool_dir: Path = variable(
        "SPANSEAL_SPOOL_DIR",
        "~/.local/state/spanseal/spool",
        "where records wait for the collector; must outlive the process",
        _path,
        otherwise=_default_spool_dir,
    )
    max_bytes: int = variable(
        "SPANSEAL_SPOOL_MAX_BYTES", str(1 << 30), "bound of that directory", number(least=1 << 16)
    )
    rules: Path | None = variable(
        "SPANSEAL_RULES",
        "",
        "rules file: what the routes mean, and what is privileged",
        lambda given: _path(given) if given else None,
    )
    actor_resolver: str = variable(
        "SPANSEAL_ACTOR_RESOLVER",
        "",
        "`module:function` that returns the actor of the current request",
        text,
    )
    actor_sources: tuple[Source, ...] = variable(
        "SPANSEAL_ACTOR_SOURCES",
        DEFAULT,
        "where the actor is looked for, in this order; `g.<name>` for an attribute of `flask.g`",
        sources,
    )
    actor_header: str = variable(
        "SPANSEAL_ACTOR_HEADER",
        "",
        "header in which an authenticating proxy names the user, such as `X-Forwarded-User`",
        header_name,
    )
    actor_role_header: str = variable(
        "SPANSEAL_ACTOR_ROLE_HEADER", "", "header in which it names the roles", header_name
    )
    actor_header_from: tuple[str | Network, ...] = variable(
        "SPANSEAL_ACTOR_HEADER_FROM",
        "",
        "addresses and networks of the proxies that are believed, separated by commas; `unix` for a Unix socket",
        networks,
    )
    spans: bool = variable(
        "SPANSEAL_SPANS",
        "true",
        "whether requests of other frameworks than Flask are audited, by their server spans",
        yes_or_no,
    )
    tenant: str = variable("SPANSEAL_TENANT", "", "tenant of this service's records", _tenant)
    trusted_proxies: int = variable(
        "SPANSEAL_TRUSTED_PROXIES",
        "0",
        "how many proxies in front may be believed about the client's address",
        number(),
    )
    trust_request_id: bool = variable(
        "SPANSEAL_TRUST_REQUEST_ID",
        "false",
        "whether an incoming `X-Request-Id` becomes the request's id",
        yes_or_no,
    )
    span_attribute: bool = variable(
        "SPANSEAL_SPAN_ATTRIBUTE",
        "false",
        "whether the request's span gets the request's id as attribute `audit.request.id`",
        yes_or_no,
    )
    baggage: bool = variable(
        "SPANSEAL_BAGGAGE",
        "false",
        "whether W3C baggage carries the request's id to other services, and is believed when it comes from them",
        yes_or_no,
    )
    shutdown_timeout: float = variable(
        "SPANSEAL_SHUTDOWN_TIMEOUT",
        "3",
        "seconds that the end of the process may wait for the last records to be sent",
        seconds,
    )
    adopt_interval: float = variable(
        "SPANSEAL_ADOPT_INTERVAL", "5", "seconds between two looks for what dead processes left", seconds
    )

    instance: str
    """Names this instance of the service in its streams."""
    resource: Mapping[str, ResourceValue]
    export: Export
    proxy_header: ProxyHeader | None


_VARIABLES = variables_of(Settings)


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings.

    Raises:
        ConfigurationError: Variables have values that cannot be used; all of them are named.
    """
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for field, one in _VARIABLES.items():
        try:
            values[field] = one.read(environ)
        except ConfigurationError as error:
            wrong.append(str(error))
    try:
        values["export"] = export(environ)
    except ConfigurationError as error:
        wrong.append(str(error))
    try:
        values["proxy_header"] = proxy_header(
            *(values[name] for name in ("actor_header", "actor_role_header", "actor_header_from"))
        )
    except KeyError:  # of one that was named above
        pass
    except ConfigurationError as error:
        wrong.append(str(error))
    if wrong:
        raise ConfigurationError("; ".join(wrong))
    values["resource"], values["instance"] = _resource()
    return Settings(**values)


def spool_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Find the directory of the spool: `SPANSEAL_SPOOL_DIR`, or the user's state directory.

    Raises:
        ConfigurationError: Nothing is set and no home directory is known.
    """
    found: Path = _VARIABLES["spool_dir"].read(environ)
    return found


def refuses(environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether what cannot be audited must not be done.

    A value that is neither `open` nor `closed` counts as `closed`: whoever wrote it wanted something other than
    the default.
    """
    return environ.get("SPANSEAL_ON_ERROR", "").strip().lower() not in ("", "open")


def unknown(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Name the `SPANSEAL_*` variables that nothing reads, each in a sentence with the name that was meant, if any."""
    known = [one.name for one in _VARIABLES.values()]
    sentences = []
    for name in sorted(environ):
        if name.startswith("SPANSEAL_") and name not in known and name not in _OF_THE_LOG:
            meant = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            sentences.append(f"{name} is not a setting" + (f": did you mean {meant[0]}?" if meant else ""))
    return sentences


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
