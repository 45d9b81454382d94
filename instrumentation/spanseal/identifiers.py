"""Identifiers: UUID version 7 and the name of a stream."""

from __future__ import annotations

import os
import time


def uuid7(time_ns: int | None = None) -> str:
    """Make a UUID version 7 (RFC 9562 section 5.7).

    48 bits of Unix time in milliseconds, then 74 random bits from the system's source, so that two
    processes forked from one parent can never make the same one. (`uuid.uuid7` came with Python 3.14.)

    Args:
        time_ns: Nanoseconds since the Unix epoch; now, if not given.

    Returns:
        36 characters, lower case.
    """
    milliseconds = (time.time_ns() if time_ns is None else time_ns) // 1_000_000
    value = ((milliseconds & ((1 << 48) - 1)) << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (7 << 76)  # version
    value = (value & ~(0b11 << 62)) | (0b10 << 62)  # variant
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def stream_id(instance: str) -> str:
    """Name a new stream of records: `<instance>/<UUID>`."""
    return f"{instance}/{uuid7()}"
