"""What a record says by itself, wherever it stands (format, "Content of a record")."""

from __future__ import annotations

from spanseal_ledger.record import FIELDS, ZERO32, Record

__all__ = ["same_content"]

# Not where it stands, and not what is compared in a way of its own.
_PLACED = {"chain_id", "seq", "tenant_seq", "received_at", "event_time", "personal_commitment", "metadata"}
_CONTENT = tuple(name for name in FIELDS if name not in _PLACED)


def same_content(one: Record, other: Record, *, timed: bool = True) -> bool:
    """Tell whether two records say the same.

    Where the personal data of one was erased, only the rest is compared.

    Args:
        one: a record.
        other: another one; it may lack salt and commitment where it was not sealed yet.
        timed: whether the event's time is content; not where a collector gave it.

    """
    if any(getattr(one, name) != getattr(other, name) for name in _CONTENT):
        return False
    if timed and one.event_time != other.event_time:
        return False
    if dict(one.metadata) != dict(other.metadata):
        return False
    if _erased(one) or _erased(other):
        return True
    return (one.actor_email, one.actor_ip, dict(one.personal)) == (
        other.actor_email,
        other.actor_ip,
        dict(other.personal),
    )


def _erased(record: Record) -> bool:
    """Erasure takes the salt and leaves the commitment; a record that never had personal data has neither."""
    return not record.personal_salt and record.personal_commitment != ZERO32
