"""Typed text of OTLP attribute values: how a value of any type becomes a text and a letter.

Numbers and strings inside arrays and kvlists are written as RFC 8785 (JSON Canonicalization Scheme) says,
the structure around them as OTLP/JSON says, without spaces, in received order.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import TypeAlias, Union

from spanseal_ledger.errors import InvalidText, InvalidValue

__all__ = ["MAX_DEPTH", "KvList", "Value", "encode_number", "encode_string", "typed_text"]

MAX_DEPTH = 128
"""Arrays and kvlists nested deeper than this are refused: no honest source makes them."""


@dataclass(frozen=True, slots=True)
class KvList:
    """An OTLP kvlist: pairs in received order, duplicate keys kept."""

    pairs: tuple[tuple[str, Value], ...] = ()


# typing.Union: the alias names itself and KvList as texts, which `|` does not take at run time.
Value: TypeAlias = Union[str, bool, int, float, bytes, list["Value"], KvList, None]  # noqa: UP007 - see above


def encode_number(x: float) -> str:
    """Write a double as RFC 8785 does (ECMAScript's Number::toString).

    What JSON has no number for gets a name of its own: ``NaN``, ``Infinity``, ``-Infinity``; and ``-0`` keeps
    its sign.
    """
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"
    if x == 0:
        return "-0" if math.copysign(1.0, x) < 0 else "0"
    sign = "-" if x < 0 else ""
    # repr gives the shortest digits that read back as the same double, as ECMAScript does; only the layout
    # differs.
    mantissa, _, exponent = repr(abs(x)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"


def encode_string(s: str) -> str:
    r"""Write a text as an RFC 8785 JSON string, with its quotes.

    Escaped are the quote, the backslash and the controls below U+0020 (``\b \t \n \f \r``, else ``\u00xx``);
    everything else stands as it is.

    Raises:
        InvalidText: the text holds a lone surrogate.

    """
    if not s.isascii():
        try:
            s.encode()
        except UnicodeEncodeError as error:
            raise InvalidText("a string", error.start) from None
    return encode_basestring(s)


def typed_text(value: Value) -> tuple[str, str]:  # noqa: PLR0911 - one for each type
    """Return a metadata value's text and its letter of `metadata_types`.

    Raises:
        InvalidText: a nested text holds a lone surrogate.
        InvalidValue: an int is not of 64 bits, or the nesting is deeper than `MAX_DEPTH`.
        TypeError: the value is of no type that OTLP has.

    """
    if isinstance(value, str):
        return value, "s"
    if isinstance(value, bool):
        return ("true" if value else "false"), "b"
    if isinstance(value, int):
        return _decimal(value), "i"
    if isinstance(value, float):
        return encode_number(value), "d"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode(), "x"
    if value is None:
        return "", "n"
    if isinstance(value, KvList):
        return _pairs(value, 1), "k"
    if isinstance(value, list):
        return _items(value, 1), "a"
    raise TypeError(f"a metadata value cannot be a {type(value).__name__}")


def _items(values: list[Value], depth: int) -> str:
    return f"[{','.join([_any_value(value, depth) for value in values])}]"


def _pairs(value: KvList, depth: int) -> str:
    pairs = [f'{{"key":{encode_string(key)},"value":{_any_value(item, depth)}}}' for key, item in value.pairs]
    return f"[{','.join(pairs)}]"


def _any_value(value: Value, depth: int) -> str:  # noqa: PLR0911 - one for each type
    if depth > MAX_DEPTH:
        raise InvalidValue("a metadata value", f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        return f'{{"stringValue":{encode_string(value)}}}'
    if isinstance(value, list):
        return f'{{"arrayValue":{{"values":{_items(value, depth + 1)}}}}}'
    if isinstance(value, KvList):
        return f'{{"kvlistValue":{{"values":{_pairs(value, depth + 1)}}}}}'
    text, letter = typed_text(value)
    if letter == "n":
        return "{}"
    if letter == "d":
        # proto3's JSON mapping: what JSON has no number for is a string.
        return f'{{"doubleValue":{text}}}' if math.isfinite(float(text)) else f'{{"doubleValue":"{text}"}}'
    if letter == "b":
        return f'{{"boolValue":{text}}}'
    if letter == "i":
        return f'{{"intValue":"{text}"}}'
    return f'{{"bytesValue":"{text}"}}'


def _decimal(value: int) -> str:
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidValue("an int", "does not fit into 64 bits")
    return str(value)
