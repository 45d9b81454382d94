"""From OTLP attributes to plain values: strictly decoded text, typed values, no repair.

What cannot be decoded raises `InadmissibleError`: the record is quarantined, its neighbours are not touched.
"""

from __future__ import annotations

from typing import Any

from spanseal_collector.errors import InadmissibleError
from spanseal_ledger.metadata import KvList, Value
from spanseal_ledger.record import MAX_MAP_PAIRS, MAX_STRING_BYTES

__all__ = ["any_value", "read_attributes", "short", "text"]

_MAX_DEPTH = 32
_MAX_ATTRIBUTES = 2 * MAX_MAP_PAIRS + 64
"""More cannot be admitted: two maps' worth, and one for each column."""
_MAX_NODES = MAX_STRING_BYTES // 3
"""Values in an array or a kvlist: each is at least `{},` in the text that is stored."""


def text(raw: bytes, where: str) -> str:
    """Decode UTF-8 strictly.

    Raises:
        InadmissibleError: the bytes are not well-formed UTF-8.

    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InadmissibleError(f"{where} is not UTF-8 (byte {error.start})") from None


def any_value(value: Any, where: str) -> Value:
    """Turn an OTLP AnyValue into a plain value.

    Returns:
        str, bool, int, float, bytes, None (no value), a list (array) or a `KvList`.

    Raises:
        InadmissibleError: a string in it is not UTF-8, or it is nested too deeply, or has too many parts.

    """
    return _Tree(where).read(value, 0)


class _Tree:
    """One value of any depth."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._nodes = 0

    def read(self, value: Any, depth: int) -> Value:
        kind = value.WhichOneof("value")
        if kind == "string_value":
            return text(value.string_value, self._where)
        if kind in ("bool_value", "int_value", "double_value", "bytes_value"):
            plain: Value = getattr(value, kind)
            return plain
        if kind is None:
            return None
        if depth == _MAX_DEPTH:
            raise InadmissibleError(f"{self._where} is nested deeper than {_MAX_DEPTH} levels")
        if kind == "array_value":
            items = value.array_value.values
            self._count(items)
            return [self.read(item, depth + 1) for item in items]
        if kind == "kvlist_value":
            pairs = value.kvlist_value.values
            self._count(pairs)
            where = f"a key in {self._where}"
            return KvList(tuple((text(pair.key, where), self.read(pair.value, depth + 1)) for pair in pairs))
        raise InadmissibleError(f"{self._where} has a value of the unknown kind {kind}")

    def _count(self, parts: Any) -> None:
        self._nodes += len(parts)
        if self._nodes > _MAX_NODES:
            raise InadmissibleError(f"{self._where} has more parts than fit into {MAX_STRING_BYTES} bytes")


def read_attributes(pairs: Any, what: str) -> dict[str, Value]:
    """Read a list of KeyValue.

    Args:
        pairs: repeated KeyValue.
        what: whose attributes these are, for the reason.

    Raises:
        InadmissibleError: a key is given twice, there are more than can be stored, or a string is not UTF-8.

    """
    if len(pairs) > _MAX_ATTRIBUTES:
        raise InadmissibleError(f"{what}: {len(pairs)} are more than metadata holds ({MAX_MAP_PAIRS})")
    found: dict[str, Value] = {}
    whose = f"a key of the {what}"
    for pair in pairs:
        key = text(pair.key, whose)
        if key in found:
            raise InadmissibleError(f"{what}: the key {short(key)} is given twice")
        value = pair.value
        if value.WhichOneof("value") == "string_value":
            # Nearly all are: making the name for an error that does not come would cost most here.
            try:
                found[key] = value.string_value.decode("utf-8")
            except UnicodeDecodeError:
                text(value.string_value, f"{what} {short(key)}")
        else:
            found[key] = any_value(value, f"{what} {short(key)}")
    return found


def short(key: str) -> str:
    """Return a key for a message: quoted, in ASCII, cut to 64 characters."""
    return ascii(key if len(key) <= 64 else key[:64] + "…")
