"""UUIDs of version 7 (RFC 9562, section 5.7), which the standard library has from Python 3.14 on."""

from __future__ import annotations

import os
import time
import uuid

__all__ = ["uuid7"]


def uuid7() -> str:
    """Make a UUID of version 7: 48 bits of Unix milliseconds, then random bits.

    Returns:
        36 characters, lower case.

    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
