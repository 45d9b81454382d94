"""What waits in a spool's directory, and what of it is wrong. Only looked at: living processes do not notice."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spanseal.delivery.adoption import ASIDE_SUFFIX, DAMAGED_SUFFIX
from spanseal.delivery.locks import Seen, look_at
from spanseal.delivery.spool_file import ANSWERED, FINAL, OPEN
from spanseal.errors import SpoolDamaged, SpoolError

from .spool_reader import reading

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FileReport", "Report", "Stream", "look"]

Owner = Literal["alive", "dead", "unlocked", "damaged", "aside"]

_TIME = b"\x09"  # with this a spooled record begins: its time follows, in eight bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of a file."""

    stream_id: str
    last: int
    """The highest number drawn, -1 for none."""
    ended: bool


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file of the spool."""

    name: str
    owner: Owner
    """Whose it is: a living process's, a dead one's, that of one whose lock file is missing; or why it was put aside."""
    bytes: int
    """With its WAL."""
    pid: int | None = None
    """Of the process that holds it or held it last, as that knew itself."""
    open: int = 0
    """Records of requests that are running, or were when the process died."""
    answered: int = 0
    """Records of requests whose answer has begun."""
    final: int = 0
    """Records that have their number and may be sent."""
    aside: int = 0
    """Records that the collector refused."""
    oldest: float | None = None
    """Seconds since the Unix epoch: the time of the first record that waits."""
    destination: str = ""
    """Without its query, which may hold a credential."""
    service: str = ""
    instance: str = ""
    tenant: str = ""
    dropped: int = 0
    """Records that could not be stored and that no `producer.gap` names yet."""
    streams: tuple[Stream, ...] = ()
    unreadable: str = ""
    """Why nothing more is known."""
    spoiled: bool = False
    """Whether that is since its bytes are not what was written."""
    route: str = field(default="", repr=False)
    """The destination in full."""

    @property
    def waiting(self) -> int:
        """How many records wait."""
        return self.open + self.answered + self.final

    @property
    def left(self) -> bool:
        """Whether a process that lives no more left something to be sent."""
        return self.owner in ("dead", "unlocked") and bool(self.waiting or self.dropped or self.unreadable)


@dataclass(frozen=True, slots=True)
class Report:
    """All files of a directory."""

    directory: Path
    files: tuple[FileReport, ...]
    at: float
    """When it was looked at: seconds since the Unix epoch."""

    @property
    def unreadable(self) -> list[str]:
        """Why files cannot be read that may be good."""
        return [file.unreadable for file in self.files if file.unreadable and not file.spoiled]

    @property
    def problems(self) -> list[str]:
        """What needs somebody, each with what to do."""
        sent_to = {file.route for file in self.files if file.owner == "alive"}
        found = []
        for file in self.files:
            if file.owner == "damaged":
                found.append(
                    f"{file.name} is damaged: a producer.gap in the log names it; keep it for whoever looks into the "
                    "loss, then delete it"
                )
            elif file.owner == "aside":
                found.append(
                    f"{file.name} holds {file.aside} records that the collector refused: see their reasons in its table "
                    "`aside`, then delete it"
                )
            elif file.owner == "alive" and file.aside:
                found.append(f"{file.name} holds {file.aside} records that the collector refused")
            elif file.spoiled:
                found.append(
                    f"{file.unreadable}; who takes it over keeps it beside the others and names it in the log"
                )
            elif file.unreadable:
                continue
            elif file.owner == "unlocked":
                found.append(
                    f"{file.name} has lost its lock file, so no process takes it over: run `spanseal spool drain`"
                )
            elif file.left and file.route not in sent_to:
                found.append(
                    f"{file.name} of a dead process holds {file.waiting} records for {file.destination}, where no living "
                    "process of this directory sends: start the application, or run `spanseal spool drain`, with --to "
                    "if the endpoint has moved"
                )
        return found


def look(path: Path) -> Report:
    """Look at a spool's directory, or at one file.

    Args:
        path: The directory, or a `.db` file.

    Raises:
        OSError: It is not there or cannot be read.
    """
    one = path.is_file()
    directory = path.parent if one else path
    found = []
    for entry in [path] if one else sorted(directory.iterdir()):
        report = None
        if entry.suffix == ".db":
            report = _file(entry)
        elif entry.suffix == ASIDE_SUFFIX:
            report = _read(FileReport(entry.name, "aside", _size(entry)), entry, None)
        elif entry.suffix == DAMAGED_SUFFIX:
            report = FileReport(entry.name, "damaged", _size(entry))
        if report is not None:
            found.append(report)
    return Report(directory, tuple(found), time.time())


def _file(path: Path) -> FileReport | None:
    """Look at a spool file; None if it has just been sent and deleted."""
    seen: Seen | None = None
    unreadable = ""
    try:
        seen = look_at(path.with_suffix(".lock"))
    except FileNotFoundError:
        if not path.exists():
            return None
    except OSError as error:
        unreadable = f"the lock of {path} cannot be looked at: {error.strerror}"
    owner: Owner = "unlocked" if seen is None and not unreadable else "alive"
    if seen is not None and not seen.held:
        owner = "dead"
    report = FileReport(path.name, owner, _size(path), pid=seen.pid if seen else None, unreadable=unreadable)
    return report if unreadable else _read(report, path, seen)


def _read(report: FileReport, path: Path, seen: Seen | None) -> FileReport | None:
    try:
        with reading(path) as connection:
            return report if connection is None else _filled(report, connection, seen)
    except FileNotFoundError:
        return None
    except SpoolDamaged as error:
        return replace(report, unreadable=str(error), spoiled=True)
    except (SpoolError, OSError) as error:
        return replace(report, unreadable=str(error))


def _filled(report: FileReport, connection: sqlite3.Connection, seen: Seen | None) -> FileReport:
    counts = dict(connection.execute("SELECT state, count(*) FROM record GROUP BY state"))
    meta: dict[str, Any] = dict(connection.execute("SELECT key, value FROM meta"))
    first = connection.execute("SELECT substr(body, 1, 9) FROM record ORDER BY id LIMIT 1").fetchone()
    streams = connection.execute("SELECT stream_id, next, ended FROM stream ORDER BY stream_id").fetchall()
    ((aside,),) = connection.execute("SELECT count(*) FROM aside")
    named = meta.get("drops_named", 0)
    route = str(meta.get("destination", ""))
    return replace(
        report,
        open=counts.get(OPEN, 0),
        answered=counts.get(ANSWERED, 0),
        final=counts.get(FINAL, 0),
        aside=aside,
        oldest=_time(first[0]) if first else None,
        destination=route.partition("?")[0],
        route=route,
        service=str(meta.get("service", "")),
        instance=str(meta.get("instance", "")),
        tenant=str(meta.get("tenant", "")),
        dropped=max((seen.dropped if seen else 0) - (named if isinstance(named, int) else 0), 0),
        streams=tuple(
            Stream(str(name), _number(following) - 1, bool(ended)) for name, following, ended in streams
        ),
    )


def _time(start: object) -> float | None:
    if not isinstance(start, bytes) or len(start) < 9 or start[:1] != _TIME:
        return None
    return int.from_bytes(start[1:9], "little") / 1e9


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _size(path: Path) -> int:
    total = 0
    for suffix in ("", "-wal", "-shm"):
        try:
            total += Path(f"{path}{suffix}").stat().st_size
        except OSError:
            continue
    return total
