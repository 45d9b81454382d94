"""Checkpoints: a chain's size and tree root, as C2SP tlog-checkpoint text in a signed note."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Self

from spanseal_ledger.errors import CheckpointError, KeyFormatError
from spanseal_ledger.note import SigningKey, check_name, decode_base64

__all__ = ["Checkpoint", "check_log_name", "origin", "parse", "sign_checkpoint"]

_ORIGIN = re.compile(
    r"(?P<log>\S+)/chain/(?P<chain>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.DOTALL
).fullmatch
_SIZE = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed for a chain at one size."""

    origin: str
    """``<log name>/chain/<chain_id>``."""
    size: int
    """Number of records (u64)."""
    root: bytes
    """Root of the tree over them, 32 bytes."""

    def text(self) -> str:
        """Return the note's text: three lines, each with its newline."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a checkpoint from a note's text.

        Raises:
            CheckpointError: it is not three lines of origin, decimal size without leading zeros, and base64
                of 32 bytes. Extension lines are refused: this format has none.

        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise CheckpointError("a checkpoint has exactly three lines: origin, size, root")
        name, size, root = lines[:3]
        if not name:
            raise CheckpointError("a checkpoint's origin must not be empty")
        if not _SIZE(size) or int(size) >= 1 << 64:
            raise CheckpointError(f"a checkpoint's size is a decimal u64, not {size[:40]!a}")
        try:
            raw = decode_base64(root)
        except ValueError:
            raw = b""
        if len(raw) != 32:
            raise CheckpointError(f"a checkpoint's root is base64 of 32 bytes, not {root[:60]!a}")
        return cls(name, int(size), raw)

    @property
    def chain_id(self) -> str:
        """The chain that the origin names.

        Raises:
            CheckpointError: the origin is not of the form ``<log name>/chain/<chain_id>``.

        """
        return self._part("chain")

    @property
    def log_name(self) -> str:
        """The log that the origin names.

        Raises:
            CheckpointError: the origin is not of the form ``<log name>/chain/<chain_id>``.

        """
        return self._part("log")

    def _part(self, name: str) -> str:
        found = _ORIGIN(self.origin)
        if found is None:
            raise CheckpointError(f"{self.origin[:120]!a} is not the origin of a chain")
        return found[name]


parse = Checkpoint.parse


def check_log_name(log_name: str) -> None:
    """Check a log's name: a schema-less URL without spaces and plus signs.

    Raises:
        CheckpointError: it is something else.

    """
    try:
        check_name(log_name)
    except KeyFormatError:
        raise CheckpointError(f"{log_name[:120]!a} cannot be a log's name: no spaces, no +") from None
    if "://" in log_name or log_name.startswith("/") or log_name.endswith("/"):
        raise CheckpointError(f"{log_name[:120]!a} cannot be a log's name: a URL without scheme is expected")


def origin(log_name: str, chain_id: str) -> str:
    """Return the origin line of a chain."""
    return f"{log_name}/chain/{chain_id}"


def sign_checkpoint(key: SigningKey, log_name: str, chain_id: str, size: int, root: bytes) -> str:
    """Sign a chain's size and root.

    Returns:
        The whole signed note.

    Raises:
        MalformedNote: the names hold a control character.

    """
    return key.sign(Checkpoint(origin(log_name, chain_id), size, root).text())
