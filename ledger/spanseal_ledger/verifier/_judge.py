"""Rule 3: whether a row is what it was when the rest of the chain was built on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spanseal_ledger.record import FORMAT
from spanseal_ledger.verifier._model import StoredRow
from spanseal_ledger.verifier._rows import Following, recompute

__all__ = ["Judgement", "judge", "judge_link"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found of a row's hash."""

    entry: bytes
    """The hash to go on with: the one that the chain was built on, as far as it can be known."""
    trusted: bool
    """Whether the row's columns are those that the chain was built on."""
    found: tuple[tuple[str, int, str], ...] = ()
    """Kind, seq and message of what was found."""


def judge(
    row: StoredRow, link: bytes | None, following: Following | None, fits_root: Callable[[bytes], bool]
) -> Judgement:
    """Judge a row between its neighbours.

    Args:
        row: the row.
        link: the hash of the row before it, None where that is not known.
        following: the row after it, None where there is none.
        fits_root: tells whether a hash leads to the root that the row's own checkpoint states.

    """
    seq, stored = row.record.seq, row.hash
    own = recompute(row)
    if own != stored and link is not None and recompute(row, link) == stored:
        own = stored  # only its prev_hash is wrong, which was said when it was compared with the row before
    if own == stored:
        return judge_link(seq, stored, following) or Judgement(stored, trusted=True)
    claimed = following.prev_hash if following is not None else None
    if own is not None and (claimed == own or (claimed is None and fits_root(own))):
        message = "the stored hash was changed: the row itself fits what was built on it"
        return Judgement(own, trusted=True, found=(("hash_changed", seq, message),))
    entry = stored
    if following is not None and following.prev_hash != stored and following.keeps():
        entry = following.prev_hash
    if row.format != FORMAT:
        message = f"the format is {row.format[:32]!a}, not {FORMAT}: its hash cannot be recomputed"
        return Judgement(entry, trusted=False, found=(("format_unknown", seq, message),))
    message = "the columns do not give the stored hash: the row was changed after it was sealed"
    return Judgement(entry, trusted=False, found=(("record_changed", seq, message),))


def judge_link(seq: int, stored: bytes, following: Following | None) -> Judgement | None:
    """Judge the link from a row whose own hash is right to the one after it; None where it holds."""
    if following is None or following.prev_hash == stored:
        return None
    if following.keeps():
        message = (
            f"the row was replaced together with its hash: the next row was chained to "
            f"{following.prev_hash.hex()}, which this one does not have"
        )
        return Judgement(following.prev_hash, trusted=False, found=(("hash_changed", seq, message),))
    if following.fits(stored):
        message = "the stored prev_hash was changed: with the hash of the row before, the row fits"
    else:
        message = "the row is not chained to the row before it"
    return Judgement(stored, trusted=True, found=(("link_broken", seq + 1, message),))
