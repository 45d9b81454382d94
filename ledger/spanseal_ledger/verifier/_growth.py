"""A chain's tree, its tenants' counters and its heartbeats while rows are taken in."""

from __future__ import annotations

from collections.abc import Sequence

from spanseal_ledger.tree import Frontier

__all__ = ["HEARTBEAT_NS", "Heartbeats", "Tenants", "Tree"]

HEARTBEAT_NS = 3600 * 10**9
"""At least so often a collector says that it is there."""
_ALLOWED = 2
"""Heartbeats that may be missing."""


class Tree:
    """The tree over the rows so far; broken for good once rows are missing whose hashes nobody knows."""

    def __init__(self) -> None:
        self.broken_at: int | None = None
        self._frontier = Frontier()

    def append(self, entry: bytes) -> None:
        """Take in a record hash."""
        if self.broken_at is None:
            self._frontier.append(entry)

    def append_nodes(self, nodes: Sequence[tuple[int, bytes]], count: int) -> None:
        """Take in aligned subtrees, all of them or none.

        Raises:
            ValueError: they do not cover `count` rows, or are not aligned.

        """
        if sum(1 << level for level, _ in nodes) != count:
            raise ValueError(f"the nodes of a run of {count} rows do not cover it")
        if self.broken_at is None:
            grown = self._frontier.copy()
            for level, root in nodes:
                grown.append_subtree(level, root)
            self._frontier = grown

    def lose(self, size: int) -> bool:
        """Take note that rows from `size` on are missing; tell whether this is news."""
        news = self.broken_at is None
        if news:
            self.broken_at = size
        return news

    def root(self) -> bytes | None:
        """Return the root over all rows so far, None if rows are missing."""
        return None if self.broken_at is not None else self._frontier.root()

    def root_with(self, entry: bytes) -> bytes | None:
        """Return the root that there would be with one more entry."""
        if self.broken_at is not None:
            return None
        grown = self._frontier.copy()
        grown.append(entry)
        return grown.root()


class Tenants:
    """tenant_seq is contiguous per tenant (rule 9)."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """The next tenant_seq of each tenant."""
        self.unknown = 0
        """Rows whose tenant is not known, because they are missing or were changed: each excuses one gap of one."""

    def take(self, tenant: str, first: int, count: int) -> str:
        """Take in rows of a tenant; return what is wrong, empty where nothing is."""
        expected = self.counts.get(tenant, 0)
        self.counts[tenant] = first + count
        lacking = first - expected
        if 0 <= lacking <= self.unknown:
            self.unknown -= lacking
            return ""
        return f"tenant {tenant[:64]!a} goes on with tenant_seq {first} where {expected} is due"


class Heartbeats:
    """A collector says at least hourly that it is there (rule 12)."""

    def __init__(self) -> None:
        self._last: int | None = None

    def take(self, received_at: int) -> str:
        """Take in a record that counts as a heartbeat; return what is to be told, empty where nothing is."""
        last, self._last = self._last, received_at
        missing = (received_at - last) // HEARTBEAT_NS - 1 if last is not None else 0
        if missing <= _ALLOWED:
            return ""
        return f"{missing} heartbeats are missing before it: the collector was frozen or kept silent"
