"""Which request of another service caused this one: what W3C baggage says of it."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

__all__ = ["BAGGAGE_KEY", "PARENT", "parent_in", "parent_of"]

BAGGAGE_KEY = "spanseal.request_id"
PARENT = "spanseal.parent.request_id"
"""An attribute of a request's record: the id of the request that caused it, as its sender says."""

_ID = re.compile(r"[\x21-\x7e]{1,128}")


def parent_of(header: str) -> str:
    """Return the id of the request that caused this one, as far as a baggage header says so.

    Whoever sends the request can write anything there.

    Args:
        header: Of W3C Baggage: `key=value;property,...`, values percent-encoded.

    Returns:
        1 to 128 visible ASCII characters; empty where there is none or nothing of that form.
    """
    for member in header.split(","):
        key, _, value = member.partition(";")[0].partition("=")
        if key.strip() == BAGGAGE_KEY:
            found = unquote_plus(value.strip())
            return found if _ID.fullmatch(found) else ""
    return ""


def parent_in(value: object) -> str:
    """Return the same from the value that OpenTelemetry's baggage holds; empty where it is nothing of that form."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else ""
