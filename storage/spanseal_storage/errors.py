"""What can go wrong with storage, as a shallow tree."""

from __future__ import annotations

__all__ = [
    "BadFilterError",
    "CheckpointLogError",
    "DirectoryBusyError",
    "EngineError",
    "IdentityError",
    "KeyFileError",
    "NoProofError",
    "NotADataDirectoryError",
    "SchemaError",
    "StatementRefusedError",
    "StorageError",
    "first_line",
]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type's name where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


class StorageError(Exception):
    """Base of all errors of this package."""


class NotADataDirectoryError(StorageError):
    """The path is not a Spanseal data directory, or cannot be used as one."""


class DirectoryBusyError(StorageError):
    """Another process holds the data directory."""

    def __init__(self, path: str, holder: str, pid: int | None) -> None:
        self.path = path
        self.holder = holder
        self.pid = pid
        who = f"{holder} (pid {pid})" if pid else "another process"
        super().__init__(
            f"the data directory {path} is held by {who}; stop it first, or give another directory with --data"
        )


class IdentityError(StorageError):
    """The log's or the collector's name is missing, malformed, or not the one the directory was made with."""


class KeyFileError(StorageError):
    """A signing or verification key cannot be read, or must not be used as it is."""


class SchemaError(StorageError):
    """The database's schema is older or newer than this version can work with."""


class EngineError(StorageError):
    """The ClickHouse engine could not be opened or did not answer."""


class CheckpointLogError(StorageError):
    """The checkpoint log cannot be read or appended to."""


class StatementRefusedError(StorageError):
    """A statement is not one read-only statement over the audit views."""


class BadFilterError(StorageError):
    """A filter's value cannot be understood."""


class NoProofError(StorageError):
    """There is no such record or checkpoint, or what is stored proves nothing."""
