"""Decompression of requests, with an end: a small body cannot fill the memory, nor keep a thread for hours."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any

from spanseal_collector.errors import DecodeError, TooLargeError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["ENCODINGS", "gunzip", "unzstd"]

_MAX_MEMBERS = 64


def gunzip(body: bytes, limit: int) -> bytes:
    """Decompress a gzip body, stopping at a limit.

    Args:
        body: one or more gzip members.
        limit: bytes that the result may have.

    Raises:
        DecodeError: the body is not gzip, is cut short, or has more members than any client makes.
        TooLargeError: the result would be larger than the limit.

    """
    return _members(body, limit, "gzip", lambda: zlib.decompressobj(wbits=31), zlib.error)


def unzstd(body: bytes, limit: int) -> bytes:
    """Decompress a zstd body, stopping at a limit.

    Args:
        body: one or more zstd frames, whose windows are no larger than the 128 MiB that zstd itself allows.
        limit: bytes that the result may have.

    Raises:
        DecodeError: the body is not zstd, is cut short, or has more frames than any client makes.
        TooLargeError: the result would be larger than the limit.

    """
    return _members(body, limit, "zstd", zstd.ZstdDecompressor, zstd.ZstdError)


ENCODINGS: dict[str, Callable[[bytes, int], bytes] | None] = {
    "identity": None,
    "": None,
    "gzip": gunzip,
    "x-gzip": gunzip,
    "zstd": unzstd,
}
"""By their names in Content-Encoding; None where there is nothing to be done."""


def _members(
    body: bytes, limit: int, name: str, decompressor: Callable[[], Any], broken: type[Exception]
) -> bytes:
    parts: list[bytes] = []
    room = limit
    rest = body
    count = 0
    while rest:
        if count == _MAX_MEMBERS:
            # Each member costs a copy of what follows it: many tiny ones would take hours.
            raise DecodeError(f"the {name} body has more than {_MAX_MEMBERS} members")
        count += 1
        member = decompressor()
        try:
            data = member.decompress(rest, room + 1)
        except broken as error:
            raise DecodeError(f"the body is not {name}: {error}") from error
        if len(data) > room:
            raise TooLargeError(f"the request is too large: more than {limit} bytes after decompression")
        if not member.eof:
            raise DecodeError(f"the {name} body is cut short")
        parts.append(data)
        room -= len(data)
        rest = member.unused_data
    return b"".join(parts)
