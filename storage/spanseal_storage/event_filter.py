"""Which events: the filters of `spanseal events`, read from text and made into SQL with bound parameters."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any, Self

from spanseal_storage.errors import BadFilterError

__all__ = ["EventFilter", "parse_time"]

OWN_ACTIONS = "audit_log."
OWN_TENANT = "_collector"
OWN_RESOURCE = "audit_log"
OUTCOMES = ("success", "failure", "unknown")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RELATIVE = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_ABSOLUTE = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<clock>\d\d:\d\d(?::\d\d)?)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>[Zz]|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Years that both a 64-bit count of nanoseconds and ClickHouse's DateTime64(9) can hold.
_EARLIEST, _LATEST = 1900, 2261


def parse_time(text: str, option: str, now: int) -> int:
    """Read a time.

    Args:
        text: ISO 8601 (`2026-01-31`, `2026-01-31T12:00:00.5+01:00`; without zone it is UTC), or how long ago:
            a number and one of s, m, h, d, w.
        option: the option's name, for the message.
        now: what a relative time is counted from, ns since the Unix epoch.

    Returns:
        ns since the Unix epoch.

    Raises:
        BadFilterError: it is neither, or not a time that the table can hold.

    """
    if found := _RELATIVE.fullmatch(text.strip()):
        nanoseconds = now - int(found[1]) * _SECONDS[found[2]] * 1_000_000_000
    else:
        nanoseconds = _absolute(text, option)
    first = _nanoseconds(dt.datetime(_EARLIEST, 1, 1, tzinfo=dt.UTC))
    last = _nanoseconds(dt.datetime(_LATEST + 1, 1, 1, tzinfo=dt.UTC)) - 1
    if not first <= nanoseconds <= last:
        raise BadFilterError(f"{option} {text!r} is outside of the years {_EARLIEST} to {_LATEST}")
    return nanoseconds


def _absolute(text: str, option: str) -> int:
    found = _ABSOLUTE.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        zone = (found["zone"] or "Z").upper()
        moment = dt.datetime.fromisoformat(f"{found['date']}T{found['clock'] or '00:00'}{zone}")
    except ValueError:
        raise BadFilterError(
            f"{option} {text!r} is not a time: give ISO 8601 such as 2026-01-31T12:00:00Z, "
            "or how long ago, such as 15m, 2h or 7d"
        ) from None
    return _nanoseconds(moment) + int((found["fraction"] or "").ljust(9, "0"))


def _nanoseconds(moment: dt.datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """What a record must be to be shown; None lets everything pass."""

    actor: str | None = None
    """The actor's id, or an e-mail address that stands in the personal data."""
    action: str | None = None
    """The action; `*` stands for any characters, `?` for one."""
    resource_type: str | None = None
    resource_id: str | None = None
    outcome: str | None = None
    request_id: str | None = None
    service: str | None = None
    tenant: str | None = None
    since: int | None = None
    """ns since the Unix epoch, included; the time is the source's (`event_time`)."""
    until: int | None = None
    """ns since the Unix epoch, not included."""
    own: bool = True
    """Whether the collector's own records (`audit_log.*`) pass too."""

    @classmethod
    def read(
        cls,
        *,
        now: int,
        everything: bool,
        resource: str | None = None,
        since: str | None = None,
        until: str | None = None,
        **texts: str | None,
    ) -> Self:
        """Read the command's options.

        Args:
            now: ns since the Unix epoch, for relative times.
            everything: let the collector's own records pass in any case.
            resource: `TYPE` or `TYPE/ID`; an id may hold slashes.
            since: a time, see `parse_time`.
            until: likewise.
            texts: the other fields by name.

        Raises:
            BadFilterError: a value cannot be understood.

        """
        for name, text in {**texts, "resource": resource}.items():
            _check_text(name, text)
        if (outcome := texts.get("outcome")) is not None and outcome not in OUTCOMES:
            raise BadFilterError(f"--outcome {outcome!r} is not one of {', '.join(OUTCOMES)}")
        resource_type, slash, resource_id = (resource or "").partition("/")
        if resource is not None and (not resource_type or (slash and not resource_id)):
            raise BadFilterError(
                f"--resource {resource!r} is not TYPE or TYPE/ID, such as patient or patient/17"
            )
        first = None if since is None else parse_time(since, "--since", now)
        last = None if until is None else parse_time(until, "--until", now)
        if first is not None and last is not None and first >= last:
            raise BadFilterError(
                f"--since {since!r} is not before --until {until!r}: nothing can lie between"
            )
        named = (
            (texts.get("action") or "").startswith(OWN_ACTIONS)
            or texts.get("tenant") == OWN_TENANT
            or resource_type == OWN_RESOURCE
        )
        return cls(
            **texts,
            resource_type=resource_type or None,
            resource_id=resource_id or None,
            since=first,
            until=last,
            own=everything or named,
        )

    def condition(self) -> tuple[str, dict[str, Any]]:
        """Return a condition over `events` or `records`, and the values of its parameters."""
        parts: list[str] = []
        values: dict[str, Any] = {}
        for column in ("resource_type", "outcome", "request_id", "service", "tenant"):
            if (text := getattr(self, column)) is not None:
                parts.append(f"{column} = {{{column}:String}}")
                values[column] = text
        for column, personal, text in (
            ("actor_id", "audit.actor.id", self.actor),
            ("resource_id", "audit.target.id", self.resource_id),
        ):
            if text is not None:
                parts.append(_identifier(column, personal, text))
                values[column] = text
        if self.action is not None:
            if "*" in self.action or "?" in self.action:
                parts.append("action LIKE {action:String}")
                values["action"] = _like(self.action)
            else:
                parts.append("action = {action:String}")
                values["action"] = self.action
        if not self.own:
            parts.append(f"NOT startsWith(action, '{OWN_ACTIONS}')")
        for name, sign, moment in (("since", ">=", self.since), ("until", "<", self.until)):
            if moment is not None:
                parts.append(f"event_time {sign} fromUnixTimestamp64Nano({{{name}:Int64}}, 'UTC')")
                values[name] = moment
        return " AND ".join(parts) or "1", values


def _check_text(name: str, text: str | None) -> None:
    option = f"--{name.replace('_', '-')}"
    if text == "":
        # An unset variable in a script would otherwise pass for a question.
        raise BadFilterError(f"{option} is empty; leave it out to see everything")
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise BadFilterError(f"{option} is not UTF-8") from None
    if text is not None and "\x00" in text:
        raise BadFilterError(f"{option} holds a NUL character")


def _identifier(column: str, personal: str, text: str) -> str:
    """Look for an identifier where it stands; one with `@` was replaced by a pseudonym when it was admitted."""
    if "@" not in text:
        return f"{column} = {{{column}:String}}"
    places = [f"{column} = {{{column}:String}}", f"personal['{personal}'] = {{{column}:String}}"]
    if column == "actor_id":
        places.append("actor_email = {actor_id:String}")
    return f"({' OR '.join(places)})"


def _like(glob: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", glob)
    return escaped.replace("*", "%").replace("?", "_")
