"""Values of an application, as a record can hold them: bounded, and never the text of an object nobody knows."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import re
import uuid
from collections.abc import Collection, Mapping
from itertools import islice

from spanseal.meaning.mapping import is_credential
from spanseal.wire import INT64

__all__ = ["REDACTED", "is_secret", "plain"]

REDACTED = "[redacted]"
MAX_CHARACTERS = 1000
"""Of one value."""
_MAX_ITEMS = 100
_MAX_DEPTH = 4

_PERSONAL_NUMBER = re.compile(
    r"(^|_)(ssn|social_security(_number)?|tax_id|national_id|passport(_number)?|iban|bic|cvv|cvc|pan"
    r"|credit_card|card_number|account_number|routing_number|date_of_birth|dob)(_|$)"
)

Plain = str | int | float | bool | None


def is_secret(name: str) -> bool:
    """Say whether a field's value should not be seen, by its name: a credential, a number of a person's papers."""
    spelled = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
    return is_credential(spelled) or _PERSONAL_NUMBER.search(spelled) is not None


def plain(value: object) -> Plain:
    """Make text, a number, a bool or None of any value; never raises.

    Lists and mappings become JSON text, in which what has a secret's name is redacted. Of an object that is none of
    the well-known kinds its type is told and nothing else: its own text may hold anything.
    """
    try:
        found = _any(value, 0)
    except Exception:  # noqa: BLE001 - an application's own container
        found = _kind(value)
    if isinstance(found, dict | list):
        return _cut(json.dumps(found, ensure_ascii=False, separators=(",", ":"), sort_keys=True))
    return found


def _any(value: object, depth: int) -> Plain | dict[str, object] | list[object]:
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return _mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return _items(value, depth)
    return _scalar(value)


def _scalar(value: object) -> Plain:  # noqa: PLR0911 - one for each kind
    match value:
        case enum.Enum():
            return _scalar(value.value)
        case None | bool() | float():
            return value
        case str():
            return _cut(str(value))
        case int():
            return int(value) if value in INT64 else _cut(hex(value))
        case bytes() | bytearray() | memoryview():
            return f"[{len(value)} bytes]"
        case dt.date() | dt.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID() | dt.timedelta():
            return str(value)
        case _:
            return _kind(value)


def _items(value: Collection[object], depth: int) -> list[object]:
    items: list[object] = [_any(item, depth + 1) for item in islice(value, _MAX_ITEMS)]
    if isinstance(value, set | frozenset):
        items.sort(key=repr)
    if len(value) > _MAX_ITEMS:
        items.append(f"[{len(value)} items]")
    return items


def _mapping(value: Mapping[object, object], depth: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, item in islice(value.items(), _MAX_ITEMS):
        name = str(_scalar(key))
        found[name] = REDACTED if is_secret(name) else _any(item, depth + 1)
    if len(value) > _MAX_ITEMS:
        found["…"] = f"[{len(value)} items]"
    return found


def _kind(value: object) -> str:
    kind = type(value)
    return f"<{kind.__module__}.{kind.__qualname__}>"


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}… [{len(text)} characters]"
