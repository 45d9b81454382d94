"""Checks of a set-up: is the hook active, can records be stored, sent, named; each with what to do about it.

Nothing here starts auditing: the spool's directory gets a file of its own that is removed again, and the collector a
request without records.
"""

from __future__ import annotations

import email.utils
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import requests

from spanseal import settings as settings_module
from spanseal.actors.sources import load_resolver
from spanseal.delivery.exporter import Verdict, open_exporter
from spanseal.delivery.spool_file import Access, SpoolFile
from spanseal.errors import ConfigurationError, SpansealError
from spanseal.gate.errors import GateUnavailable
from spanseal.gate.setup import load_policy
from spanseal.meaning.rules import load_rules
from spanseal.settings import Settings
from spanseal.wire import encode_resource, export_request

__all__ = ["CHECKS", "Finding", "examine"]

_MOST_SKEW = 5.0
"""Seconds between this clock and the collector's that are no cause for concern."""
_WITHOUT_LOCKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs"})
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_PROBE = """
import flask
from spanseal import flask_app
print("audited" if flask_app._every else "refused" if "refus" in flask.Flask.__call__.__name__ else "plain")
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    level: Literal["ok", "warning", "problem"]
    found: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def examine() -> Iterator[Finding]:
    """Run all checks in order; each finding comes as soon as it is known. Raises nothing."""
    settings: Settings | None = None
    try:
        settings = settings_module.load()
    except ConfigurationError as error:
        for sentence in str(error).split("; "):
            yield Finding("settings", "problem", sentence, "mend the variable; until then nothing is audited")
    for sentence in settings_module.unknown():
        yield Finding("settings", "warning", sentence, "remove or rename it")
    if settings is None:
        return
    name = str(settings.resource.get("service.name", ""))
    if not name or name.startswith("unknown_service"):
        yield Finding(
            "settings", "warning", "the service has no name", "set OTEL_SERVICE_NAME: records bear it"
        )
    else:
        yield Finding("settings", "ok", f"service {name}, instance {settings.instance}")
    for title, check in CHECKS.items():
        try:
            yield from check(settings)
        except Exception as error:  # noqa: BLE001 - one check that fails is a finding, not the end of the others
            yield Finding(title, "problem", f"the check failed: {type(error).__name__}: {error}")


def _hook(_: Settings) -> Iterator[Finding]:
    """Start Python as the application is started, and look whether Flask is audited in it."""
    try:
        flask = version("flask")
    except PackageNotFoundError:
        yield Finding(
            "hook",
            "warning",
            "Flask is not installed in this environment",
            "run this command in the application's own environment",
        )
        return
    beside = Path(sys.executable).with_name("opentelemetry-instrument")
    command = str(beside) if beside.exists() else shutil.which("opentelemetry-instrument")
    if command is None:
        yield Finding(
            "hook",
            "problem",
            "opentelemetry-instrument is not on the PATH",
            "pip install opentelemetry-distro into the application's environment, and start it with that command",
        )
        return
    quiet = {f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS", "LOGS")}
    done = subprocess.run(  # noqa: S603 - the application's own environment
        [command, sys.executable, "-c", _PROBE],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **quiet},
    )
    state = done.stdout.strip().rpartition("\n")[2]
    if state == "audited":
        yield Finding("hook", "ok", f"opentelemetry-instrument audits Flask {flask}")
        return
    if "switched off" in done.stderr:
        yield Finding(
            "hook",
            "problem",
            "auditing is switched off by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
            "remove spanseal from that list",
        )
        return
    last = done.stderr.strip().rpartition("\n")[2] or "no reason was given"
    yield Finding(
        "hook",
        "problem",
        f"opentelemetry-instrument does not audit Flask: {last}",
        "is spanseal installed in the same environment? The application's log says more at its start",
    )


def _spool(settings: Settings) -> Iterator[Finding]:
    """Make a spool file as the application would, as the user who runs this."""
    directory = settings.spool_dir
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=directory) as scratch:
            file = SpoolFile.create(
                Path(scratch) / "probe.db", Access(), durability="disk", max_bytes=1 << 20, meta={}
            )
            file.close()
    except (OSError, SpansealError) as error:
        yield Finding(
            "spool",
            "problem",
            f"{directory} cannot be written: {error}",
            "give the application's user a directory of its own, and name it in SPANSEAL_SPOOL_DIR",
        )
        return
    kind = _filesystem(directory)
    if kind in _WITHOUT_LOCKS:
        yield Finding(
            "spool",
            "problem",
            f"{directory} is on {kind}, where SQLite's WAL does not work",
            "name a directory of a local disk in SPANSEAL_SPOOL_DIR",
        )
    elif kind in _IN_MEMORY:
        yield Finding(
            "spool",
            "warning",
            f"{directory} is on {kind}: what waits there is gone when the machine or container ends",
            "name a directory that outlives them in SPANSEAL_SPOOL_DIR",
        )
    else:
        yield Finding("spool", "ok", f"{directory} can be written")
    mode = directory.stat().st_mode & 0o777
    if mode & 0o077:
        yield Finding(
            "spool", "warning", f"{directory} has mode {mode:o}: others can read it", f"chmod 700 {directory}"
        )
    free = shutil.disk_usage(directory).free
    if free < settings.max_bytes:
        yield Finding(
            "spool",
            "warning",
            f"{free >> 20} MiB are free, the spool may take {settings.max_bytes >> 20} MiB",
            "make room, or lower SPANSEAL_SPOOL_MAX_BYTES",
        )
    damaged = sorted(path.name for path in directory.glob("*.damaged"))
    if damaged:
        yield Finding(
            "spool",
            "problem",
            f"{len(damaged)} damaged files: {', '.join(damaged[:3])}",
            "keep them: records may be missing; producer.gap records name them",
        )


def _filesystem(directory: Path) -> str:
    """Name the type of the filesystem that a directory is on, as /proc/mounts has it; empty where that is unknown."""
    best, found = "", ""
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text("utf-8", "replace").splitlines():
            _, point, kind, *_ = line.split(" ")
            point = point.encode().decode("unicode_escape")
            if directory.is_relative_to(point) and len(point) >= len(best):
                best, found = point, kind
    return found


def _collector(settings: Settings) -> Iterator[Finding]:
    """Send a request without records, as the application would."""
    exporter = open_exporter(settings.export)
    try:
        answer = exporter.send(
            export_request(encode_resource(settings.resource), ()), settings.export.timeout
        )
    finally:
        exporter.close()
    if answer.verdict is Verdict.STORED:
        yield Finding("collector", "ok", f"{settings.export.shown} takes records")
    else:
        yield Finding(
            "collector",
            "problem",
            answer.reason,
            "start spanseal collector there, or name its address in OTEL_EXPORTER_OTLP_ENDPOINT; "
            "records wait in the spool until then",
        )
    if settings.export.endpoint.startswith("http:") and not _is_local(settings.export.endpoint):
        yield Finding(
            "collector",
            "warning",
            f"{settings.export.shown} is not encrypted: records and headers can be read on the way",
            "use https and OTEL_EXPORTER_OTLP_CERTIFICATE",
        )


def _is_local(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _clock(settings: Settings) -> Iterator[Finding]:
    """Compare this clock with the one that the collector's machine shows in its answers."""
    if settings.export.protocol == "grpc":
        yield Finding(
            "clock",
            "ok",
            "not compared: gRPC's answers bear no time; look at both clocks yourself: timedatectl",
        )
        return
    now = time.time()
    try:
        response = requests.head(
            settings.export.endpoint,
            timeout=settings.export.timeout,
            allow_redirects=False,
            verify=settings.export.certificate or True,
        )
        theirs = email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (requests.RequestException, KeyError, ValueError, OSError):
        yield Finding(
            "clock",
            "warning",
            "the collector's clock cannot be read",
            "look at both clocks yourself: timedatectl",
        )
        return
    skew = (now + time.time()) / 2 - theirs - 0.5  # a Date has whole seconds
    if abs(skew) > _MOST_SKEW:
        way = "ahead of" if skew > 0 else "behind"
        yield Finding(
            "clock",
            "problem",
            f"this clock is {abs(skew):.0f} s {way} the collector's",
            "let both machines keep time with NTP: records bear this clock's time",
        )
    else:
        yield Finding("clock", "ok", "this clock agrees with the collector's")


def _actor(settings: Settings) -> Iterator[Finding]:
    if not settings.actor_resolver:
        yield Finding("actor", "ok", "found by Spanseal itself; SPANSEAL_ACTOR_RESOLVER is not set")
        return
    try:
        load_resolver(settings.actor_resolver)
    except ConfigurationError as error:
        yield Finding(
            "actor",
            "problem",
            str(error),
            "run this command where the application is started, or mend the name",
        )
        return
    yield Finding("actor", "ok", f"{settings.actor_resolver} can be imported")


def _rules(settings: Settings) -> Iterator[Finding]:
    if settings.rules is None:
        yield Finding("rules", "ok", "none: requests are named by the defaults (spanseal routes shows them)")
        return
    try:
        load_rules(settings.rules)
        policy = load_policy(settings.rules)
    except (ConfigurationError, GateUnavailable) as error:
        yield Finding(
            "rules", "problem", str(error), "spanseal routes --rules FILE module:app checks it again"
        )
        return
    gated = f"; {len(policy.actions)} actions are privileged" if policy is not None else ""
    yield Finding("rules", "ok", f"{settings.rules} can be read{gated}")


CHECKS: dict[str, Check] = {
    "hook": _hook,
    "spool": _spool,
    "collector": _collector,
    "clock": _clock,
    "actor": _actor,
    "rules": _rules,
}
