"""An id that stands in the answer: of a thing that was just created, only the answer says which one it is.

Looked at only where a rule names the place, only in JSON, and only as far as `MAX_BYTES`. The answer's bytes are
copied until then and given up right after; nothing of them is kept but the named values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

__all__ = ["MAX_BYTES", "JsonAnswer", "value_at"]

MAX_BYTES = 64 << 10
"""Of an answer that is looked into; in a longer one nothing is found."""

_MAX_VALUE = 2048


class JsonAnswer:
    """What passes of one answer."""

    __slots__ = ("_parts", "_pointers", "_size")

    def __init__(self, pointers: Iterable[str]) -> None:
        """Begin to look.

        Args:
            pointers: JSON pointers (RFC 6901) of the values that are wanted.
        """
        self._pointers = tuple(pointers)
        self._parts: list[bytes] = []
        self._size = 0

    @classmethod
    def expected(cls, pointers: Iterable[str], headers: Iterable[tuple[str, str]]) -> JsonAnswer | None:
        """Begin to look, if the answer's headers say that it is JSON which can be read as it passes."""
        values = {str(name).lower(): str(value).strip().lower() for name, value in headers}
        media_type = values.get("content-type", "").partition(";")[0].strip()
        if media_type != "application/json" and not (
            media_type.startswith("application/") and media_type.endswith("+json")
        ):
            return None
        if values.get("content-encoding", "identity") != "identity":
            return None
        length = values.get("content-length", "")
        if length.isdecimal() and (len(length) > 9 or int(length) > MAX_BYTES):
            return None
        return cls(pointers)

    def take(self, data: bytes) -> None:
        """Look at a part of the answer that passes. Never raises."""
        if self._size > MAX_BYTES or not isinstance(data, bytes):
            return
        self._size += len(data)
        if self._size > MAX_BYTES:
            self._parts.clear()
        else:
            self._parts.append(data)

    def values(self) -> dict[str, str]:
        """Return the texts and whole numbers that were found, by their pointers, and give up the rest. Never raises."""
        data = b"".join(self._parts)
        self._parts.clear()
        if not data:
            return {}
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return {}
        found = ((pointer, value_at(document, pointer)) for pointer in self._pointers)
        return {pointer: value for pointer, value in found if value}


def value_at(document: Any, pointer: str) -> str:
    """Return the text or whole number at a JSON pointer, as text; empty where there is none, or it is very long."""
    value = document
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and _is_index(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        text = str(value)
    except ValueError:  # an integer of very many digits
        return ""
    return text if len(text) <= _MAX_VALUE else ""


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and (text == "0" or text[0] != "0")
