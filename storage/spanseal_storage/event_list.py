r"""Events for people, and for programs that need no exactness: newest first, in a few columns or in all.

Here text that is not UTF-8, which only a tampered row has, shows those bytes as `\xff`, and a key that stands
in a map twice has its later values marked. `records_export` is the exact way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from spanseal_storage.event_filter import EventFilter
from spanseal_storage.paging import newest_first
from spanseal_storage.rendering import iso_nanoseconds
from spanseal_storage.schema import COLUMNS

__all__ = ["FULL_NAMES", "SHORT_NAMES", "full_rows", "short_rows"]

SHORT_NAMES = ("time", "actor", "role", "action", "resource", "outcome", "request")
"""Columns for people."""

_FOR_VERIFIERS = {
    "metadata_types",
    "personal_salt",
    "personal_commitment",
    "format",
    "prev_hash",
    "hash",
    "checkpoint",
}
_SHOWN = tuple(column for column in COLUMNS if column.name not in _FOR_VERIFIERS)

FULL_NAMES = (*(column.name for column in _SHOWN), "hash")
"""Columns of the view `events`."""


def short_rows(client: Any, wanted: EventFilter, limit: int) -> Iterator[Sequence[str]]:
    """Yield rows of `SHORT_NAMES`.

    An identifier that was replaced by a pseudonym shows as it was, as long as the personal data is there.

    Args:
        client: a clickhouse-connect client.
        wanted: which events.
        limit: how many; 0 for all.

    Raises:
        EngineError: the engine did not answer.

    """
    expressions = (
        "toUnixTimestamp64Nano(event_time)",
        "actor_type",
        _as_it_was("actor_id", "audit.actor.id"),
        "actor_role",
        "action",
        "resource_type",
        _as_it_was("resource_id", "audit.target.id"),
        "outcome",
        "failure_reason",
        "request_id",
        "personal['user.name']",
        "metadata['audit.subject.type']",
        _as_it_was("metadata['audit.subject.id']", "audit.subject.id"),
    )
    where, parameters = wanted.condition()
    for page in newest_first(client, expressions, where, parameters, limit=limit):
        for time, *texts in page:
            kind, actor, role, action, resource, its_id, outcome, reason, request, name, *of = map(
                _text, texts
            )
            whole = f"{resource}/{its_id}" if its_id else resource
            yield (
                iso_nanoseconds(time, 3),
                f"{actor or kind} ({name})" if name else actor or kind,
                role,
                action,
                f"{whole} of {'/'.join(of)}" if all(of) else whole,
                f"{outcome}: {reason}" if reason else outcome,
                request,
            )


def full_rows(client: Any, wanted: EventFilter, limit: int) -> Iterator[Sequence[Any]]:
    """Yield rows of `FULL_NAMES`: numbers as int, times as ISO 8601 with nanoseconds, maps as dict, the rest as str.

    Args:
        client: a clickhouse-connect client.
        wanted: which events.
        limit: how many; 0 for all.

    Raises:
        EngineError: the engine did not answer.

    """
    expressions, makers = zip(*(_column(column.name, column.type) for column in _SHOWN), strict=True)
    where, parameters = wanted.condition()
    for page in newest_first(client, (*expressions, "hash"), where, parameters, limit=limit):
        for row in page:
            yield [make(value) for make, value in zip((*makers, _text), row, strict=True)]


def _as_it_was(column: str, personal: str) -> str:
    return (
        f"if(startsWith({column}, 'p:') AND personal['{personal}'] != '', personal['{personal}'], {column})"
    )


def _column(name: str, kind: str) -> tuple[str, Callable[[Any], Any]]:
    if kind.startswith("DateTime64"):
        return f"toUnixTimestamp64Nano({name})", iso_nanoseconds
    if kind.startswith("Map"):
        return f"arrayZip(mapKeys({name}), mapValues({name}))", _map
    if kind.startswith("UInt"):
        return name, int
    return (name, str) if kind == "UUID" else (name, _text)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _map(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in pairs:
        name = _text(key)
        while name in found:
            name += " (given twice)"
        found[name] = _text(value)
    return found
