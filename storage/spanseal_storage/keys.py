"""Signing and verification keys as files beside the data, from the environment or from a command.

The signing key is one line in the form that Go's `note` package made common,
``PRIVATE+KEY+<name>+<key id in hex>+<base64(0x01 || seed)>``; the verification key is a C2SP vkey.
"""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from spanseal_ledger.errors import LedgerError
from spanseal_ledger.note import SigningKey, VerificationKey
from spanseal_storage.directory import DataDirectory, write_private
from spanseal_storage.errors import KeyFileError

__all__ = [
    "SIGNING_KEY_COMMAND_VARIABLE",
    "SIGNING_KEY_VARIABLE",
    "load_signing_key",
    "parse_signing_key",
    "read_verification_keys",
    "signing_key_text",
    "trusted_keys",
]

SIGNING_KEY_VARIABLE = "SPANSEAL_SIGNING_KEY"
SIGNING_KEY_COMMAND_VARIABLE = "SPANSEAL_SIGNING_KEY_COMMAND"

_PREFIX = "PRIVATE+KEY+"
_ALGORITHM = b"\x01"
_COMMAND_SECONDS = 30


def signing_key_text(name: str, seed: bytes) -> str:
    """Write a signing key as one line.

    Args:
        name: the key's name.
        seed: 32 bytes, the Ed25519 private key of RFC 8032.

    """
    key_id = SigningKey.from_seed(name, seed).key_id.hex()
    return f"{_PREFIX}{name}+{key_id}+{base64.b64encode(_ALGORITHM + seed).decode()}"


def parse_signing_key(text: str, source: str) -> SigningKey:
    """Read a signing key's line.

    Args:
        text: the line.
        source: where it came from, for the error's message. The key itself is never in a message.

    Raises:
        KeyFileError: it is malformed, or its key id is not its own.

    """
    try:
        if not text.startswith(_PREFIX):
            raise KeyFileError(f"{source} is not a signing key: it does not begin with {_PREFIX}")
        name, key_id, encoded = text.strip()[len(_PREFIX) :].split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        if len(raw) != 33 or raw[:1] != _ALGORITHM:
            raise KeyFileError(f"{source} is not an Ed25519 signing key")
        key = SigningKey.from_seed(name, raw[1:])
    except (ValueError, binascii.Error, LedgerError):
        # The cause would show parts of the key in a traceback.
        raise KeyFileError(f"{source} is not a well-formed signing key") from None
    if key.key_id.hex() != key_id:
        raise KeyFileError(f"{source}: the key id {key_id} is not that of its name and key; it was damaged")
    return key


def load_signing_key(directory: DataDirectory) -> SigningKey:
    """Load the collector's signing key, or make it at the first start.

    In this order: the environment variable SPANSEAL_SIGNING_KEY, what SPANSEAL_SIGNING_KEY_COMMAND prints,
    the file `keys/signing.key` (made with mode 0600 where there is none).

    Raises:
        KeyFileError: it cannot be read, is not this collector's, or others may read the file.

    """
    name = directory.identity().key_name
    path = directory.keys / "signing.key"
    if text := os.environ.get(SIGNING_KEY_VARIABLE):
        key, source = parse_signing_key(text, SIGNING_KEY_VARIABLE), SIGNING_KEY_VARIABLE
    elif command := os.environ.get(SIGNING_KEY_COMMAND_VARIABLE):
        key, source = (
            parse_signing_key(_run(command), SIGNING_KEY_COMMAND_VARIABLE),
            SIGNING_KEY_COMMAND_VARIABLE,
        )
    else:
        if not path.exists():
            write_private(path, signing_key_text(name, os.urandom(32)) + "\n")
        key, source = parse_signing_key(_read_private(path), str(path)), str(path)
    if key.name != name:
        raise KeyFileError(
            f"the signing key from {source} is named {key.name!r}, but this collector's key is {name!r}"
        )
    _publish(directory, key.vkey)
    return key


def read_verification_keys(lines: Iterable[str], source: str) -> list[VerificationKey]:
    """Read vkeys, one a line; empty lines and lines that begin with `#` are passed over.

    Raises:
        KeyFileError: a line is not a vkey.

    """
    keys = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            keys.append(VerificationKey.parse(text))
        except LedgerError as error:
            raise KeyFileError(f"{source}, line {number}: not a verification key: {error}") from error
    return keys


def trusted_keys(directory: DataDirectory) -> list[VerificationKey]:
    """Read the verification keys kept beside the data, outside the database (`keys/*.vkey`).

    Raises:
        KeyFileError: a file cannot be read or is malformed.

    """
    found: list[VerificationKey] = []
    for path in sorted(directory.keys.glob("*.vkey")):
        try:
            found += read_verification_keys(path.read_text("utf-8").splitlines(), str(path))
        except OSError as error:
            raise KeyFileError(f"cannot read {path}: {error}") from error
    return found


def _publish(directory: DataDirectory, vkey: VerificationKey) -> None:
    if vkey not in trusted_keys(directory):
        write_private(directory.keys / f"{vkey.key_id.hex()}.vkey", f"{vkey}\n", mode=0o644)


def _read_private(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise KeyFileError(
                f"{path} may be read by others (mode {mode:04o}); run `chmod 600 {path}`, and if others could "
                "really read it, begin a new log with a new key"
            )
        return path.read_text("utf-8")
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error}") from error


def _run(command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command, split and run without a shell
            shlex.split(command), check=True, capture_output=True, text=True, timeout=_COMMAND_SECONDS
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # Not the error's own text: a failed command's output may hold parts of the key.
        raise KeyFileError(f"{SIGNING_KEY_COMMAND_VARIABLE} failed ({type(error).__name__})") from None
    return done.stdout
