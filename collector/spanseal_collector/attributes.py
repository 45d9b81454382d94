"""From OTLP attributes to plain values: strictly decoded text, typed values, no repair.

What cannot be decoded raises `InadmissibleError`: the record is quarantined, its neighbours are not touched.
"""

from __future__ import annotations

from typing import Any

from spanseal_collector.errors import InadmissibleError
from spanseal_ledger.metadata import KvList, Value

__all__ = ["any_value", "read_attributes", "text"]

_MAX_DEPTH = 32


def text(raw: bytes, where: str) -> str:
    """Decode UTF-8 strictly.

    Raises:
        InadmissibleError: the bytes are not well-formed UTF-8.

    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InadmissibleError(f"{where} is not UTF-8 (byte {error.start})") from None


def any_value(value: Any, where: str, depth: int = 0) -> Value:
    """Turn an OTLP AnyValue into a plain value.

    Returns:
        str, bool, int, float, bytes, None (no value), a list (array) or a `KvList`.

    Raises:
        InadmissibleError: a string in it is not UTF-8, or it is nested too deeply.

    """
    if depth > _MAX_DEPTH:
        raise InadmissibleError(f"{where} is nested deeper than {_MAX_DEPTH} levels")
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return text(value.string_value, where)
    if kind in ("bool_value", "int_value", "double_value", "bytes_value"):
        plain: Value = getattr(value, kind)
        return plain
    if kind == "array_value":
        return [any_value(item, where, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return KvList(
            tuple(
                (text(pair.key, f"a key in {where}"), any_value(pair.value, where, depth + 1))
                for pair in value.kvlist_value.values
            )
        )
    if kind is None:
        return None
    raise InadmissibleError(f"{where} has a value of the unknown kind {kind}")


def read_attributes(pairs: Any, what: str) -> dict[str, Value]:
    """Read a list of KeyValue.

    Args:
        pairs: repeated KeyValue.
        what: whose attributes these are, for the reason.

    Raises:
        InadmissibleError: a key is given twice or empty, or a string is not UTF-8.

    """
    found: dict[str, Value] = {}
    for pair in pairs:
        key = text(pair.key, f"a key of the {what}")
        if key in found:
            raise InadmissibleError(f"{what}: the key {_short(key)} is given twice")
        found[key] = any_value(pair.value, f"{what} {_short(key)}")
    return found


def _short(key: str) -> str:
    return ascii(key if len(key) <= 64 else key[:64] + "…")
