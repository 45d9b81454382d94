"""What there is to tell of a log's keys, without the private one."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from spanseal_ledger.errors import LedgerError
from spanseal_ledger.note import VerificationKey, open_note
from spanseal_storage.checkpoint_file import read_checkpoint_file
from spanseal_storage.directory import DataDirectory
from spanseal_storage.errors import CheckpointLogError, KeyFileError
from spanseal_storage.keys import (
    SIGNING_KEY_COMMAND_VARIABLE,
    SIGNING_KEY_VARIABLE,
    parse_signing_key,
    trusted_keys,
)

__all__ = ["KeyReport", "report_keys"]


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The keys of a data directory."""

    log_name: str
    collector_name: str
    source: str
    """Where a collector started here would take its signing key from: `environment`, `command`, `file` or
    `none`."""
    where: str
    """The variable's name, or the file's path; never what is in it."""
    warning: str
    """What is wrong with the source; empty where nothing is."""
    keys: tuple[VerificationKey, ...]
    """The public keys beside the data, and the current one."""
    current: VerificationKey | None
    """The signing key's public half. Where it cannot be known without running the command or reading a file
    that may not be read, it is the key that signed the newest line of the checkpoint log."""


def report_keys(directory: DataDirectory) -> KeyReport:
    """Look at a directory's keys. Nothing is made, nothing is run.

    Raises:
        NotADataDirectoryError: it is not a data directory.
        IdentityError: its names cannot be read.
        KeyFileError: a key is malformed.

    """
    identity = directory.identity()
    keys = trusted_keys(directory)
    current, warning = None, ""
    path = directory.keys / "signing.key"
    if text := os.environ.get(SIGNING_KEY_VARIABLE):
        source, where = "environment", SIGNING_KEY_VARIABLE
        current = parse_signing_key(text, SIGNING_KEY_VARIABLE).vkey
    elif os.environ.get(SIGNING_KEY_COMMAND_VARIABLE):
        source, where = "command", SIGNING_KEY_COMMAND_VARIABLE
    elif path.exists():
        source, where = "file", str(path)
        current, warning = _of_file(path)
    else:
        source, where = "none", str(path)
    if current is not None and current.name != identity.key_name:
        raise KeyFileError(
            f"the signing key from {where} is named {current.name!r}, but this collector's key is "
            f"{identity.key_name!r}"
        )
    if current is None:
        current = _newest_signer(directory, keys)
    if current is not None and current not in keys:
        keys = [*keys, current]
    return KeyReport(identity.log_name, identity.collector_name, source, where, warning, tuple(keys), current)


def _of_file(path: Path) -> tuple[VerificationKey | None, str]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key = parse_signing_key(path.read_text("utf-8"), str(path)).vkey
    except PermissionError:
        return None, "it may not be read by this user, which is as it should be for any but the collector's"
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"cannot read {path}: {type(error).__name__}") from None
    if mode & 0o077:
        return key, f"it may be read by others (mode {mode:04o}), and no collector will take it as it is"
    return key, ""


def _newest_signer(directory: DataDirectory, keys: list[VerificationKey]) -> VerificationKey | None:
    try:
        lines, _ = read_checkpoint_file(directory.checkpoint_log)
    except CheckpointLogError:
        return None
    for line in reversed(lines):
        try:
            return open_note(line.note, keys)[1][-1]
        except LedgerError:
            continue
    return None
