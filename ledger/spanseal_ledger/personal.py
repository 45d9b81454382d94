"""Personal data: what is committed to, so that it can be erased, and pseudonyms for personal identifiers."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

from spanseal_ledger.errors import InvalidValue
from spanseal_ledger.record import ZERO32, encode_map, encode_text

__all__ = ["SALT_BYTES", "commitment", "pseudonym"]

SALT_BYTES = 16
_TAG = b"SSP1"
_EMPTY_MAP = bytes(4)
_EMPTY_TEXT = bytes(4)


def commitment(salt: bytes, actor_email: str, actor_ip: str, personal: Mapping[str, str]) -> bytes:
    """Return the commitment to a record's personal data (docs/format.md, "Personal data").

    Args:
        salt: 16 random bytes; empty where all three values are empty.
        actor_email: the actor's e-mail address, or empty.
        actor_ip: the actor's address, or empty.
        personal: further personal data.

    Returns:
        32 bytes; zeros where there is no personal data.

    Raises:
        InvalidValue: the salt is not 16 bytes, or there is one where there is nothing to commit to.
        UnicodeEncodeError: a text holds a lone surrogate.

    """
    if not (actor_email or actor_ip or personal):
        if salt:
            raise InvalidValue("personal_salt", "must be empty where there is no personal data")
        return ZERO32
    if len(salt) != SALT_BYTES:
        raise InvalidValue("personal_salt", f"must be {SALT_BYTES} bytes where there is personal data")
    return hashlib.sha256(
        b"".join(
            (
                _TAG,
                salt,
                encode_text(actor_email) if actor_email else _EMPTY_TEXT,
                encode_text(actor_ip) if actor_ip else _EMPTY_TEXT,
                encode_map(personal) if personal else _EMPTY_MAP,
            )
        )
    ).digest()


def pseudonym(key: bytes, value: str) -> str:
    """Return what stands in a hashed column for an identifier that is itself personal.

    Args:
        key: the tenant's pseudonym key.
        value: the identifier.

    Returns:
        ``p:`` and 26 characters of lower-case unpadded base32 (the first 16 bytes of HMAC-SHA256).

    """
    digest = hmac.digest(key, value.encode(), "sha256")
    return "p:" + base64.b32encode(digest[:16]).decode().rstrip("=").lower()
