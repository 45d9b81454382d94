"""Where approvals are kept, as an interface; `sqlite_store` is the default.

A store decides what may follow what, each step atomically and against everybody else who uses it:

    pending -> granted -> used          each once
    pending -> denied
    pending, granted -> expired         when their time is over; found when somebody looks

and calls the given `Note` before a change takes effect, so that nothing happens that is not on record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .approval import Approval, Note, Person, State

__all__ = ["Claim", "Store", "Verdict"]


class Verdict(StrEnum):
    """What came of a claim."""

    USED = "used"
    """There was an approval, and it is used up now: go on."""
    REQUESTED = "requested"
    """There was none: it is asked for now."""
    RENEWED = "renewed"
    """The last one has expired: it is asked for anew."""
    WAITING = "waiting"
    """It was asked for before, and nobody has decided."""
    DENIED = "denied"
    """Somebody said no; a new one can be asked for when the old one's time is over."""
    FROM_THE_FUTURE = "from the future"
    """There is one of a later time than now: a clock was changed, so it is not used."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim."""

    verdict: Verdict
    approval: Approval


class Store(ABC):
    """Keeps approvals. Safe to use from any thread and from several processes.

    Each method may raise `StoreUnavailable`; and what a `Note` raises, after which nothing has changed.
    """

    @abstractmethod
    def claim(self, wanted: Approval, now: int, used_by: str, note: Note) -> Claim:
        """Use the approval that there is for exactly `wanted.binding`, or ask for one.

        Args:
            wanted: The request to make where there is none.
            now: Nanoseconds since the Unix epoch.
            used_by: The id of the request that is about to use it.
            note: Is told of what is requested, used or has expired.

        Raises:
            TooManyRequests: The requester has too many that wait.
        """

    @abstractmethod
    def decide(
        self, identifier: str, *, grant: bool, by: Person, reason: str, now: int, note: Note
    ) -> Approval:
        """Grant or deny a pending request.

        Raises:
            UnknownApproval: There is none of that id.
            NotPending: It is decided, used or expired.
            OwnApproval: Whoever decides is whoever asked.
        """

    @abstractmethod
    def expire(self, tenant: str, now: int, note: Note) -> list[Approval]:
        """Find a tenant's approvals whose time is over."""

    @abstractmethod
    def find(self, identifier: str) -> Approval:
        """Return one.

        Raises:
            UnknownApproval: There is none of that id.
        """

    @abstractmethod
    def list(self, tenant: str, states: Collection[State], limit: int) -> Sequence[Approval]:
        """Return a tenant's approvals in some states, the newest first."""
