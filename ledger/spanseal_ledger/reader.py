"""Reading canonical bytes back. Only the one spelling that `canonical` writes is accepted."""

from __future__ import annotations

import struct
from typing import Any

from spanseal_ledger.errors import ProofError
from spanseal_ledger.record import FIELDS, FORMAT

__all__ = ["Reader", "read_canonical"]

_TEXT_FIELDS = FIELDS[6 : FIELDS.index("personal_commitment")]


class Reader:
    """Takes values of the format from bytes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Take raw bytes.

        Raises:
            ProofError: there are not as many.

        """
        end = self._at + count
        if end > len(self._data):
            raise ProofError(
                f"the data ends at byte {len(self._data)}, where {count} from {self._at} are due"
            )
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def u32(self) -> int:
        """Take a u32.

        Raises:
            ProofError: the data ends.

        """
        number: int = struct.unpack("<I", self.take(4))[0]
        return number

    def text(self) -> str:
        """Take a str.

        Raises:
            ProofError: the data ends, or it is not UTF-8.

        """
        raw = self.take(self.u32())
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ProofError(f"the text that ends at byte {self._at} is not UTF-8") from None

    def map(self) -> dict[str, str]:
        """Take a map.

        Raises:
            ProofError: the data ends, or the keys are not in ascending order.

        """
        found: dict[str, str] = {}
        last: str | None = None
        for _ in range(self.u32()):
            key = self.text()
            if last is not None and key <= last:
                raise ProofError(f"the keys of the map that goes on at byte {self._at} are not ascending")
            found[key] = self.text()
            last = key
        return found

    def at_end(self) -> bool:
        """Tell whether everything was taken."""
        return self._at == len(self._data)


def read_canonical(raw: bytes) -> dict[str, Any]:
    """Read a record's canonical bytes.

    Returns:
        The hashed fields by name, as `Record` takes them.

    Raises:
        ProofError: they are not canonical bytes of this format.

    """
    reader = Reader(raw)
    tag = reader.take(4)
    if tag != FORMAT.encode():
        raise ProofError(f"a record of the unknown format {tag!r}")
    fields: dict[str, Any] = {"chain_id": reader.text()}
    numbers = struct.unpack("<QQqqQ", reader.take(40))
    fields |= dict(zip(FIELDS[1:6], numbers, strict=True))
    for name in _TEXT_FIELDS:
        fields[name] = reader.text()
    fields["personal_commitment"] = reader.take(32)
    fields["metadata"] = reader.map()
    fields["metadata_types"] = reader.text()
    if not reader.at_end():
        raise ProofError("the canonical record goes on after its last field")
    return fields
