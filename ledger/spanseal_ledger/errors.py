"""What can go wrong in the ledger, as a shallow tree of exceptions."""

from __future__ import annotations

__all__ = [
    "BadSignature",
    "CheckpointError",
    "InvalidText",
    "InvalidValue",
    "KeyFormatError",
    "LedgerError",
    "LimitExceeded",
    "MalformedNote",
    "NoTrustedSignature",
    "NoteError",
    "ProofError",
    "RecordError",
    "RunNotTaken",
]


class LedgerError(Exception):
    """Base of all errors of this package."""


class RecordError(LedgerError):
    """A record cannot be admitted."""


class LimitExceeded(RecordError):
    """A value is larger than the format allows."""

    def __init__(self, field: str, limit: int, actual: int) -> None:
        """Name the field, the limit and the size found (bytes, or pairs of a map)."""
        super().__init__(f"{field} is {actual} long, the limit is {limit}; shorten it at its source")
        self.field = field
        self.limit = limit
        self.actual = actual


class InvalidText(RecordError):
    """A text has no UTF-8 form (it holds a lone surrogate)."""

    def __init__(self, field: str, position: int) -> None:
        """Name the field and the index of the first character that cannot be encoded."""
        super().__init__(f"{field} is not well-formed text: a lone surrogate at character {position}")
        self.field = field
        self.position = position


class InvalidValue(RecordError):
    """A value is not one of those its field may have."""

    def __init__(self, field: str, reason: str) -> None:
        """Name the field and what its values must be."""
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


class ProofError(LedgerError):
    """An inclusion or consistency proof does not prove what it should, or cannot be made."""


class NoteError(LedgerError):
    """A signed note cannot be believed."""


class MalformedNote(NoteError):
    """It is not a signed note."""


class NoTrustedSignature(NoteError):
    """It is a signed note, but no trusted key signed it."""


class BadSignature(NoteError):
    """A signature claims to be a trusted key's and is not."""


class KeyFormatError(NoteError):
    """A key's text or name is malformed."""


class CheckpointError(LedgerError):
    """A text is not a checkpoint of this format."""


class RunNotTaken(LedgerError):
    """A run of checked rows cannot be taken as a whole: feed its rows one by one."""
