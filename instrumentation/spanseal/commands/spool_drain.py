"""Sending what dead processes left, without starting the application: also from a copy of a spool.

It is done as a living process does it, by an `Adopter` and a `Shipper` with a spool file of their own in the same
directory, in which they name what is refused or damaged. So it may be killed at any moment and run again, and runs
beside living processes and other drains: each file is held by one of them.
"""

from __future__ import annotations

import logging
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from spanseal import settings as settings_module
from spanseal.delivery.adoption import Adopter
from spanseal.delivery.shipper import Shipper
from spanseal.delivery.spool import Spool
from spanseal.delivery.spool_file import Access
from spanseal.errors import ConfigurationError, SpansealError, SpoolError
from spanseal.settings import Settings
from spanseal.wire import encode_resource

from .spool_report import FileReport, look

__all__ = ["CannotBegin", "Drained", "drain", "to_drain"]

logger = logging.getLogger("spanseal")

_LAST_TRY = 3.0
"""Seconds for the end of the drain's own stream, after its time is over."""


class CannotBegin(SpansealError):
    """Nothing can be sent from there. The message says why and what to do."""


@dataclass(slots=True)
class Drained:
    """What came of it."""

    sent: int = 0
    """Records that the collector has stored, with the beginnings and ends of their streams."""
    refused: int = 0
    """Records that the collector refused: set aside."""
    left: int = 0
    """Records that still wait."""
    files_left: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Files that cannot be read, kept beside the others."""
    reasons: list[str] = field(default_factory=list)
    """Why something is left."""
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether everything is in the log."""
        return not (self.refused or self.files_left or self.damaged)


def to_drain(path: Path) -> list[FileReport]:
    """Find what dead processes left in a directory, or in one file.

    Raises:
        CannotBegin: It is not there, or not a place to write to.
    """
    try:
        directory = path.parent if path.is_file() else path
        mode = directory.stat().st_mode
        if path.is_file() and path.suffix != ".db":
            raise CannotBegin(f"{path} is no spool file: its name must end in .db")
        found = look(path)
    except OSError as error:
        raise CannotBegin(f"{path} cannot be read: {error.strerror or error}") from error
    files = [file for file in found.files if file.left]
    if files and mode & stat.S_IWOTH:
        raise CannotBegin(
            f"everybody can write into {directory}: copy the files into a directory of your own (mode 700) and name that"
        )
    return files


def drain(
    path: Path,
    to: str = "",
    timeout: float = 60.0,
    progress: Callable[[int], None] = lambda _count: None,
) -> Drained:
    """Send what dead processes left.

    Args:
        path: The spool's directory, or one of its `.db` files.
        to: Where to send it; empty for where each file's process would have sent it. As `Export.towards` takes it.
        timeout: Seconds for all of it.
        progress: Told how many records have left the spool.

    Raises:
        CannotBegin: Nothing can be sent from there.
        ConfigurationError: A variable, or `to`, cannot be used.
    """
    end = time.monotonic() + timeout
    files = to_drain(path)
    base = settings_module.load()
    only = path if path.is_file() else None
    directory = path.parent if path.is_file() else path
    result = Drained()
    if to:
        destinations = [to] if files else []
    else:
        # Of a file that cannot be read nothing is known: whoever comes first finds out.
        destinations = sorted({file.route for file in files if file.route}) or [""] * bool(files)
    for destination in destinations:
        try:
            export = base.export.towards(destination, trusted=bool(to)) if destination else base.export
        except ConfigurationError as error:
            if to:
                raise
            result.reasons.append(f"files for {destination.partition('?')[0]!r}: {error}")
            continue
        own = replace(base, spool_dir=directory, adopt_interval=0.0, export=export, resource=_resource(base))
        _Pass(own, result, moved=bool(to), only=only, progress=progress).run(end)
        if result.interrupted:
            break
        if result.reasons and base.export.headers and not export.headers:
            result.reasons.append(
                f"OTEL_EXPORTER_OTLP_HEADERS are for {base.export.shown} and were not sent to {export.shown}: name it "
                "with --to if it is to have them"
            )
    rest = to_drain(path) if path.exists() else []
    result.reasons += [file.unreadable for file in rest if file.unreadable]
    result.left = sum(file.waiting for file in rest)
    result.files_left = [file.name for file in rest]
    return result


def _resource(settings: Settings) -> dict[str, settings_module.ResourceValue]:
    found = dict(settings.resource)
    if str(found.get("service.name", "")).startswith("unknown_service"):
        found["service.name"] = "spanseal-spool-drain"
    return found


class _Pass:
    """All files of one destination."""

    def __init__(
        self,
        settings: Settings,
        result: Drained,
        *,
        moved: bool,
        only: Path | None,
        progress: Callable[[int], None],
    ) -> None:
        self._result = result
        self._timeout = settings.shutdown_timeout or _LAST_TRY
        access = Access()
        resource = encode_resource(settings.resource)
        try:
            self._spool = Spool(settings, resource, access)
        except SpoolError as error:
            raise CannotBegin(str(error)) from error
        self._adopter = Adopter(settings, access, self._spool.lock.path, moved=moved, orphans=True, only=only)
        self._shipper = Shipper(
            settings, self._spool, resource, access, adopter=self._adopter, progress=progress
        )

    def run(self, end: float) -> None:
        """Send until nothing is left, or the time is over."""
        shipper = self._shipper
        shipper.limit(end)
        try:
            while not shipper.round() and time.monotonic() < end:
                threading.Event().wait(min(shipper.retry_in, max(end - time.monotonic(), 0.0)))
        except SpoolError as error:
            self._result.reasons.append(str(error))
        except KeyboardInterrupt:
            self._result.interrupted = True
        if shipper.trouble:
            self._result.reasons.append(shipper.trouble)
        self._finish()

    def _finish(self) -> None:
        shipper, tally = self._shipper, self._spool.tally
        shipper.limit(time.monotonic() + min(self._timeout, _LAST_TRY))
        try:
            if not shipper.begun and tally.final == 1:
                shipper.leave()
                self._spool.discard()
            else:
                shipper.end()
        except (SpoolError, OSError) as error:
            self._result.reasons.append(f"the drain's own spool is left to be taken over: {error}")
        self._result.sent += tally.sent - tally.forgotten
        self._result.refused += tally.refused
        self._result.damaged += self._adopter.spoiled
