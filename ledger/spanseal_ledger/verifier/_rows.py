"""What one row says by itself, and against its neighbours (rules 2 to 4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from spanseal_ledger.errors import InvalidValue
from spanseal_ledger.personal import commitment
from spanseal_ledger.record import FORMAT, ZERO32, canonical, record_hash
from spanseal_ledger.verifier._model import StoredRow

__all__ = ["Copies", "Following", "is_blank", "personal_changed", "recompute"]

_MAX_COPIES = 64


def recompute(row: StoredRow, prev_hash: bytes | None = None) -> bytes | None:
    """Return a row's hash from its columns, None where they have no canonical form.

    Args:
        row: the row.
        prev_hash: what it is chained to; the stored prev_hash where not given.

    """
    if row.format != FORMAT or len(row.record.personal_commitment) != 32:
        return None
    try:
        raw = canonical(row.record)
    except (UnicodeEncodeError, struct.error):
        return None
    return record_hash(raw, row.prev_hash if prev_hash is None else prev_hash)


def personal_changed(row: StoredRow) -> str:
    """Return what is wrong with a row's personal data, empty where nothing is (rule 4)."""
    record = row.record
    if not record.personal_salt:
        if record.actor_email or record.actor_ip or record.personal:
            return "there is personal data without the salt that would prove it"
        return ""
    try:
        recomputed = commitment(record.personal_salt, record.actor_email, record.actor_ip, record.personal)
    except (InvalidValue, UnicodeEncodeError):
        return "personal data and salt are not what was committed to: one of them was blanked or damaged"
    if recomputed != record.personal_commitment:
        return "the personal data is not what was committed to"
    return ""


def is_blank(row: StoredRow) -> bool:
    """Tell whether a row is committed to personal data that is not there."""
    record = row.record
    return record.personal_commitment != ZERO32 and not (
        record.personal_salt or record.actor_email or record.actor_ip or record.personal
    )


class Following:
    """What comes after a row: another row, or a run whose first prev_hash is all that is known of it."""

    __slots__ = ("_row", "prev_hash")

    def __init__(self, prev_hash: bytes, row: StoredRow | None) -> None:
        self.prev_hash = prev_hash
        self._row = row

    def keeps(self) -> bool:
        """Tell whether it was hashed with the prev_hash that it stores (a checked run was)."""
        return self._row is None or recompute(self._row) == self._row.hash

    def fits(self, link: bytes) -> bool:
        """Tell whether it was hashed with another hash before it."""
        return self._row is not None and recompute(self._row, link) == self._row.hash


class Copies:
    """The rows of one seq."""

    __slots__ = ("_more", "rows", "seq")

    def __init__(self, row: StoredRow) -> None:
        self.seq = row.record.seq
        self.rows = [row]
        self._more = 0

    def add(self, row: StoredRow) -> None:
        """Add another row with this seq."""
        if row in self.rows or len(self.rows) >= _MAX_COPIES:
            self._more += 1
        else:
            self.rows.append(row)

    def best(self, link: bytes | None, following: Following | None) -> StoredRow:
        """Return the copy to go on with: the genuine one where that can be said."""
        rows = self.rows
        return rows[0] if len(rows) == 1 else (self._genuine(link, following) or rows)[0]

    def likely(self, links: Sequence[bytes]) -> StoredRow:
        """Return the copy to look at from the row before, whose hash is one of `links`."""
        if len(self.rows) == 1:
            return self.rows[0]
        whole = [row for row in self.rows if recompute(row) == row.hash]
        return next((row for row in whole if row.prev_hash in links), (whole or self.rows)[0])

    def verdict(self, link: bytes | None, following: Following | None) -> tuple[str, str] | None:
        """Return kind and message of what is to be said of the copies, None where there is one row."""
        count = len(self.rows) + self._more
        if count == 1:
            return None
        if len(self.rows) == 1:
            return "repeated_row", f"the row is stored {count} times, all copies are equal"
        genuine = self._genuine(link, following)
        if len(genuine) == 1:
            said = f"the copy with the hash {genuine[0].hash.hex()} fits both neighbours: it is genuine"
        elif genuine:
            said = "several fit both neighbours: they differ in columns that are not hashed"
        else:
            said = "none of them fits both neighbours"
        return "conflicting_row", f"{count} different rows have this place; {said}"

    def _genuine(self, link: bytes | None, following: Following | None) -> list[StoredRow]:
        fitting = [
            row
            for row in self.rows
            if (link is None or row.prev_hash == link)
            and recompute(row) == row.hash
            and (following is None or row.hash == following.prev_hash)
        ]
        return sorted(
            fitting, key=lambda row: (bool(personal_changed(row)), is_blank(row), not row.checkpoint)
        )
