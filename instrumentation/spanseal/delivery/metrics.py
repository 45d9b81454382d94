"""What Spanseal tells of itself, through OpenTelemetry's metrics API.

The instruments go where the application's MeterProvider sends them; without one they do nothing. Requests only add
to plain numbers (`tally`): those are read when a reader asks. The instruments are made once, at the first record, and
ask for the numbers of the process they are in, so that a child made by `fork` tells of itself.

| name | kind | unit | attribute | meaning |
|---|---|---|---|---|
| `spanseal.records` | counter | {record} | `spanseal.record.stage`: `begun`, `answered`, `final` | records that became durable: before their view ran, when their answer began, with their number |
| `spanseal.records.sent` | counter | {record} | | records that the collector has stored |
| `spanseal.records.refused` | counter | {record} | | records that the collector refused and that were set aside |
| `spanseal.records.dropped` | counter | {record} | | records that could not be stored; a `producer.gap` names their numbers |
| `spanseal.spool.records` | up-down counter | {record} | `spanseal.record.state`: `unfinished`, `final`, `adopted` | records that wait: of requests that run, to be sent, of dead processes |
| `spanseal.spool.size` | up-down counter | By | | size of this process's spool file with its WAL |
| `spanseal.export.duration` | histogram | s | `spanseal.verdict`: `stored`, `refused`, `later`; `server.address`, `server.port` | time of one request to the collector |
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry import metrics as api
from opentelemetry.metrics import CallbackOptions, Histogram, Observation

from spanseal.__about__ import __version__

if TYPE_CHECKING:
    from .endpoint import Export
    from .exporter import Verdict
    from .tally import Tally

__all__ = ["exported", "install"]

logger = logging.getLogger("spanseal")

_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class State:
    """What is to be told of a process."""

    tally: Tally | None = None
    """None before its first record is stored."""
    path: Path | None = None
    """Its spool file."""
    adopted: int = 0
    """Records of dead processes that it is sending."""
    lost: int = 0
    """Records that were lost before there was a spool."""


def _state() -> State:
    """Look at this process's runtime."""
    from spanseal.runtime import current  # noqa: PLC0415 - which imports what imports this

    runtime = current()
    keeper = runtime.keeper
    spool, shipper, lost = keeper.spool, keeper.shipper, keeper.lost
    if spool is None:
        return State(lost=lost)
    return State(spool.tally, spool.file.path, shipper.adopted if shipper is not None else 0, lost)


_installing = threading.Lock()
_duration: Histogram | None = None
_installed = False


def install() -> None:
    """Make the instruments, if they are not made yet. Never raises."""
    global _duration, _installed  # noqa: PLW0603 - once for a process and its children
    with _installing:
        if _installed:
            return
        _installed = True
    try:
        _duration = _instruments()
    except Exception:
        logger.exception("Spanseal's metrics cannot be made")


def _instruments() -> Histogram:
    meter = api.get_meter("spanseal", __version__)

    def told(
        read: Callable[[State], list[Observation]],
    ) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
        callback: Callable[[CallbackOptions], Iterable[Observation]] = partial(_told, read)
        return [callback]

    meter.create_observable_counter(
        "spanseal.records", told(_records), "{record}", "Audit records that became durable."
    )
    for name, read, meaning in (
        ("sent", _sent, "Audit records that the collector has stored."),
        ("refused", _refused, "Audit records that the collector refused and that were set aside."),
        ("dropped", _dropped, "Audit records that could not be stored."),
    ):
        meter.create_observable_counter(f"spanseal.records.{name}", told(read), "{record}", meaning)
    meter.create_observable_up_down_counter(
        "spanseal.spool.records", told(_waiting), "{record}", "Audit records that wait to be sent."
    )
    meter.create_observable_up_down_counter(
        "spanseal.spool.size", told(_size), "By", "Size of the process's spool file with its WAL."
    )
    return meter.create_histogram(
        "spanseal.export.duration",
        "s",
        "Time of one request to the collector.",
        explicit_bucket_boundaries_advisory=_BOUNDARIES,
    )


def exported(export: Export, verdict: Verdict, seconds: float) -> None:
    """Take notice of one request to the collector. Never raises."""
    if _duration is None:
        return
    try:
        parts = urlsplit(export.endpoint)
        attributes: dict[str, str | int] = {"spanseal.verdict": verdict.value}
        if parts.hostname:
            attributes["server.address"] = parts.hostname
        attributes["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
        _duration.record(seconds, attributes)
    except Exception:
        logger.debug("a metric cannot be recorded", exc_info=True)


def _told(read: Callable[[State], list[Observation]], _options: CallbackOptions) -> Iterable[Observation]:
    try:
        return read(_state())
    except Exception:
        # A reader that is given an exception would log it at every reading.
        logger.debug("a metric cannot be read", exc_info=True)
        return []


def _records(state: State) -> list[Observation]:
    tally = state.tally
    if tally is None:
        return []
    counts = {"begun": tally.begun, "answered": tally.answered, "final": tally.final}
    return [Observation(count, {"spanseal.record.stage": stage}) for stage, count in counts.items()]


def _sent(state: State) -> list[Observation]:
    return [Observation(state.tally.sent)] if state.tally is not None else []


def _refused(state: State) -> list[Observation]:
    return [Observation(state.tally.refused)] if state.tally is not None else []


def _dropped(state: State) -> list[Observation]:
    return [Observation(state.lost + (state.tally.dropped if state.tally is not None else 0))]


def _waiting(state: State) -> list[Observation]:
    tally = state.tally
    if tally is None:
        return []
    counts = {
        "unfinished": tally.entered - tally.settled,
        "final": tally.final - tally.forgotten,
        "adopted": state.adopted,
    }
    return [Observation(count, {"spanseal.record.state": name}) for name, count in counts.items()]


def _size(state: State) -> list[Observation]:
    if state.path is None:
        return []
    total = 0
    for suffix in ("", "-wal"):
        try:
            total += Path(f"{state.path}{suffix}").stat().st_size
        except FileNotFoundError:
            continue
    return [Observation(total)]
